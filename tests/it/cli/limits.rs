//! `lanes limits`, and why jobs wait, as an operator sees it: a worker that is held back by a limit of an hour.

use serde_json::Value;

use super::{Desk, PATIENCE, endpoint};

/// A desk whose endpoint may be called once an hour.
pub fn limited() -> Desk {
    let desk = Desk::new(&endpoint());
    let text = std::fs::read_to_string(desk.path("lanes.toml")).expect("the configuration");
    let limit = "[[endpoints.crm.limits]]\nrequests = 1\nper = \"1h\"\nheadroom = 1.0\n[tenants.globex]\nlimits = { crm = [] }\n";
    desk.write("lanes.toml", &format!("{text}{limit}"));
    desk
}

fn publish(desk: &Desk, id: &str) {
    desk.lanes(&["publish", "bulk", "--endpoint", "crm", "--tenant", "acme", "--id", id]).ends(0);
}

/// Looks until something is seen; each starts a process, so they take some tenths of a minute.
const LOOKS_MAX: usize = 2_000;

/// Runs a command until what it shows as JSON satisfies `holds`.
pub fn until(desk: &Desk, args: &[&str], what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..LOOKS_MAX {
        let ran = desk.lanes(args);
        if ran.code == 0 || ran.code == 3 {
            let json = ran.json();
            if holds(&json) {
                return json;
            }
        }
    }
    panic!("no {what}: {:#}", desk.lanes(args).json());
}

#[test]
fn a_job_that_is_held_back_says_why_and_until_when_and_an_operator_lets_it_go() {
    let desk = limited();
    let _worker = desk.worker();
    let first =
        ["publish", "bulk", "--endpoint", "crm", "--tenant", "acme", "--id", "a", "--wait", "--wait-timeout", PATIENCE];
    desk.lanes(&first).ends(0);
    for id in ["b", "c"] {
        publish(&desk, id);
    }
    let show = ["jobs", "show", "b", "--json"];
    let job = until(&desk, &show, "job that waits for its turn", |job| job["hold"]["reason"] == "budget");
    assert!(job["hold"]["until"].is_string() && job["held_since"].is_string(), "{job:#}");
    assert!(job["hold"]["why"].as_str().expect("a sentence").contains("crm is called 1/h at most"), "{job:#}");
    desk.lanes(&["jobs", "show", "b"]).ends(0).shows("waits (budget), goes on about in 5").shows("held back since");
    let status = until(&desk, &["status", "--json"], "two that wait", |status| status["held"][0]["jobs"] == 2);
    assert_eq!((&status["held"][0]["tenant"], &status["held"][0]["reason"]), (&"acme".into(), &"budget".into()));
    desk.lanes(&["status"]).ends(0).shows("crm is called 1/h at most");
    desk.lanes(&["limits", "list"]).ends(0).shows("1/1h").shows("configured");

    let refused = desk.lanes(&["limits", "set", "crm", "600/1s", "--tenant", "acme"]).ends(2);
    refused.says("would set limits of crm for acme").says("--yes");
    let set = ["limits", "set", "crm", "600/1s", "--tenant", "acme", "--for", "1h", "--author", "ada", "--yes"];
    desk.lanes(&set).ends(0).shows("limits of crm for acme set, ends in");
    for id in ["b", "c"] {
        until(&desk, &["jobs", "show", id, "--json"], "job that was let go", |job| job["state"] == "done");
    }
    let list = ["limits", "list", "--endpoint", "crm", "--tenant", "acme", "--json"];
    let account = desk.lanes(&list).ends(0).json()[0].clone();
    assert_eq!((&account["source"], &account["set_by"]["author"]), (&"live".into(), &"ada".into()), "{account:#}");
    assert!(account["set_by"]["expires_at"].is_string(), "{account:#}");
    desk.lanes(&["limits", "reset", "crm", "--tenant", "acme", "--yes"]).ends(0).shows("reset");
    let left = desk.lanes(&list).ends(0).json();
    assert!(left.as_array().expect("a list").iter().all(|account| account["source"] == "configured"), "{left:#}");
}

#[test]
fn what_cannot_be_set_is_refused_with_advice() {
    let desk = limited();
    desk.lanes(&["limits", "set", "crm", "fast", "--yes"]).ends(2).says("100/1m");
    desk.lanes(&["limits", "set", "crm", "1/1s", "2/1s", "--yes"]).ends(2).says("two limits per 1s");
    desk.lanes(&["limits", "set", "crm", "none", "1/1s", "--yes"]).ends(2).says("stands alone");
    desk.lanes(&["limits", "set", "crm", "1/1s", "--headroom", "7", "--yes"]).ends(2).says("is not a share");
    desk.lanes(&["limits", "set", "crm", "1/1s", "--for", "9999d", "--yes"]).ends(2).says("366 days");
    desk.lanes(&["limits", "set", "hubspot", "1/1s", "--yes"]).ends(5).says("configured are: crm");
    desk.lanes(&["limits", "set", "crm", "1/1s", "--yes"]).ends(0).says("keep them: globex");
    desk.lanes(&["limits", "reset", "crm", "--yes"]).ends(0);
    desk.lanes(&["limits", "reset", "crm", "--yes"]).ends(0).says("nothing was set or learnt of crm");
}

#[test]
fn a_tenant_is_slowed_down_for_a_while() {
    let desk = limited();
    desk.lanes(&["migrate"]).ends(0);
    desk.lanes(&["limits", "set", "crm", "100/1m", "4000/1d", "--yes"]).ends(0);
    let slow =
        ["limits", "slow", "crm", "--tenant", "acme", "--percent", "25", "--for", "1h", "--note", "too many 429s"];
    desk.lanes(&slow).ends(0).shows("limits of crm for acme set, ends in");
    let list = ["limits", "list", "--endpoint", "crm", "--tenant", "acme"];
    desk.lanes(&list).ends(0).shows("25/1m, 1000/1d");
    desk.lanes(&["audit", "--limit", "1"])
        .ends(0)
        .shows("set_limits")
        .shows("25/60s, 1000/86400s")
        .shows("too many 429s");
    desk.lanes(&["limits", "slow", "crm"]).ends(0);
    desk.lanes(&["limits", "list", "--endpoint", "crm"]).ends(0).shows("50/1m, 2000/1d");
    desk.lanes(&["limits", "slow", "crm", "--tenant", "globex"]).ends(2).says("nothing limits tenant globex at crm");
    desk.lanes(&["limits", "set", "crm", "10/1s", "--shared", "--yes"]).ends(0);
    desk.lanes(&["limits", "slow", "crm", "--tenant", "initech"]).ends(2).says("all tenants share the limits of crm");
    desk.lanes(&["limits", "slow", "hubspot"]).ends(5).says("configured are: crm");
}
