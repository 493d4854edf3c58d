//! `lanes lane set|reset` and `lanes jobs retry` as an operator sees them.

use super::limits::{limited, until};
use super::{Desk, endpoint};

fn publish(desk: &Desk, id: &str) {
    desk.lanes(&["publish", "bulk", "-e", "crm", "--tenant", "acme", "--id", id, "--delay", "2h"]).ends(0);
}

/// A column of the audit log, the newest first.
fn told(desk: &Desk, name: &str) -> Vec<String> {
    let lines = desk.lanes(&["audit", "--json"]).ends(0).json();
    lines.as_array().expect("a list").iter().map(|line| line[name].as_str().expect("text").to_owned()).collect()
}

#[test]
fn a_lane_makes_another_number_of_calls_for_a_while_and_as_configured_again() {
    let desk = Desk::idle();
    desk.lanes(&["migrate"]).ends(0);
    let bulk = || {
        let lanes = desk.lanes(&["lane", "list", "--json"]).ends(0).json();
        let found = lanes.as_array().expect("a list").iter().find(|lane| lane["name"] == "bulk");
        found.expect("the lane").clone()
    };
    let configured = bulk()["concurrency"]["configured"].clone();
    assert!(configured.as_u64().is_some_and(|calls| calls != 77), "{configured}");
    assert_eq!(bulk()["concurrency"]["now"], configured);
    let set = ["lane", "set", "bulk", "--concurrency", "77", "--for", "1h", "--note", "quarter end", "--author", "ada"];
    desk.lanes(&set)
        .ends(0)
        .shows(&format!("lane bulk makes 77 calls at a time in each worker (configured: {configured}), ends in 1h"))
        .shows("lanes lane reset bulk");
    let now = bulk()["concurrency"].clone();
    assert_eq!((&now["configured"], &now["now"]), (&configured, &77.into()), "{now:#}");
    assert_eq!((&now["set"]["author"], &now["set"]["note"]), (&"ada".into(), &"quarter end".into()), "{now:#}");
    assert!(now["set"]["until"].is_string(), "{now:#}");
    desk.lanes(&["lane", "list"]).ends(0).shows("77").shows("by ada, ends in").shows(": quarter end");
    let status = desk.lanes(&["status", "--json"]).json();
    let lanes = status["lanes"].as_array().expect("a list");
    let of_status = lanes.iter().find(|lane| lane["name"] == "bulk").expect("the lane");
    assert_eq!(of_status["concurrency"]["now"], 77, "{of_status:#}");
    let again = desk.lanes(&["lane", "set", "bulk", "--concurrency", "1", "--author", "ada", "--json"]).ends(0).json();
    assert_eq!((&again["now"], &again["before"]["calls"]), (&1.into(), &77.into()), "{again:#}");
    desk.lanes(&["lane", "reset", "bulk"]).ends(0).shows("as many calls at a time as is configured");
    assert_eq!(bulk()["concurrency"]["set"], serde_json::Value::Null);
    desk.lanes(&["lane", "reset", "bulk"]).ends(5).says("makes as many calls at a time as is configured");
    assert_eq!(told(&desk, "action"), ["reset_concurrency", "set_concurrency", "set_concurrency"]);
    let (before, after) = (told(&desk, "before"), told(&desk, "after"));
    assert_eq!(
        (before[2].as_str(), after[1].as_str(), after[0].as_str()),
        ("as configured", "1 call at a time", "as configured")
    );
    assert!(after[2].starts_with("77 calls at a time until 2") && before[1] == after[2], "{after:?}");
}

#[test]
fn a_number_of_calls_that_makes_no_sense_is_refused_with_advice() {
    let desk = Desk::idle();
    desk.lanes(&["migrate"]).ends(0);
    desk.lanes(&["lane", "set", "bluk", "--concurrency", "3"]).ends(5).says("did you mean \"bulk\"?");
    desk.lanes(&["lane", "reset", "bluk"]).ends(5).says("configured lanes: ");
    for calls in ["0", "10001", "-1", "many"] {
        desk.lanes(&["lane", "set", "bulk", "--concurrency", calls]).ends(2);
    }
    desk.lanes(&["lane", "set", "bulk"]).ends(2).says("--concurrency");
    desk.lanes(&["lane", "set", "bulk", "--concurrency", "3", "--for", "0s"]).ends(2).says("up to 366 days");
    assert_eq!(told(&desk, "action"), [""; 0]);
}

#[test]
fn jobs_that_wait_are_retried_now_one_by_one_and_by_filter() {
    let desk = Desk::new(&endpoint());
    let _worker = desk.worker();
    for id in ["a", "b", "c"] {
        publish(&desk, id);
        until(&desk, &["jobs", "show", id, "--json"], "job that waits", |job| job["reason"] == "not_before");
    }
    desk.lanes(&["jobs", "retry"]).ends(2).says("say which jobs to retry").says("lanes dead retry");
    desk.lanes(&["jobs", "retry", "a"]).ends(2).says("--yes");
    desk.lanes(&["jobs", "retry", "a", "--dry-run"]).ends(0).shows("a would be due at once");
    desk.lanes(&["jobs", "retry", "a", "--yes", "--author", "ada"]).ends(0).shows("a is due at once");
    let is_done = |job: &serde_json::Value| job["state"] == "done" && job["attempt"] == 1;
    until(&desk, &["jobs", "show", "a", "--json"], "job that was called", is_done);
    let filter = ["jobs", "retry", "--lane", "bulk", "--tenant", "acme", "--reason", "not_before"];
    let asked = desk.lanes(&filter).ends(2);
    asked.says("to retry now: 2 jobs").says("due at once").says("--yes");
    let planned = desk.lanes(&[&filter[..], &["--dry-run", "--json"]].concat()).ends(0).json();
    assert_eq!((&planned["planned"], &planned["done"]), (&2.into(), &0.into()), "{planned:#}");
    desk.lanes(&["jobs", "retry", "--lane", "realtime", "--yes"]).ends(0).shows("due at once: 0");
    let ran =
        desk.lanes(&[&filter[..], &["--yes", "--json", "--author", "ada", "--note", "now"]].concat()).ends(0).json();
    assert_eq!((&ran["planned"], &ran["done"], &ran["error"]), (&2.into(), &2.into(), &serde_json::Value::Null));
    for id in ["b", "c"] {
        until(&desk, &["jobs", "show", id, "--json"], "job that was called", is_done);
    }
    assert_eq!(told(&desk, "action"), ["retry_now"; 2]);
    assert_eq!(told(&desk, "after"), ["due at once: 2 jobs", "due at once"]);
    let (target, before) = (told(&desk, "target"), told(&desk, "before"));
    assert_eq!(target[0], "jobs of lane bulk, tenant acme, reason not_before");
    assert!(target[1].starts_with("job ") && before[1].starts_with("waits (not_before) until 2"), "{before:?}");
}

#[test]
fn a_job_in_its_turn_stays_and_it_is_said_why_and_until_when() {
    let desk = limited();
    let _worker = desk.worker();
    let publish = |id: &str| {
        desk.lanes(&["publish", "bulk", "-e", "crm", "--tenant", "acme", "--id", id]).ends(0);
    };
    publish("a");
    until(&desk, &["jobs", "show", "a", "--json"], "first call", |job| job["state"] == "done");
    publish("b");
    until(&desk, &["jobs", "show", "b", "--json"], "job in its turn", |job| job["hold"]["reason"] == "budget");
    let refused = desk.lanes(&["jobs", "retry", "b", "--yes"]).ends(1);
    refused.shows("b stays: it waits for its turn").shows("crm is called 1/h at most").shows("goes on about in 5");
    let answer = desk.lanes(&["jobs", "retry", "b", "--yes", "--json"]).ends(1).json();
    let job = &answer["jobs"][0];
    assert_eq!((&job["result"], &job["reason"], &answer["done"]), (&"in_turn".into(), &"budget".into(), &0.into()));
    assert!(job["until"].is_string() && job["why"].is_string(), "{job:#}");
    let plan = desk.lanes(&["jobs", "retry", "--lane", "bulk", "--yes", "--json"]).ends(0).json();
    assert_eq!((&plan["planned"], &plan["stayed"]["in_turn"]), (&0.into(), &1.into()), "{plan:#}");
    assert_eq!(told(&desk, "action"), [""; 0], "nothing was changed");
}

#[test]
fn a_job_is_published_anew_with_another_body() {
    let desk = Desk::new(&endpoint());
    let _worker = desk.worker();
    publish(&desk, "a");
    let waits = |job: &serde_json::Value| job["reason"] == "not_before";
    let old = until(&desk, &["jobs", "show", "a", "--json"], "job that waits", waits);
    desk.lanes(&["jobs", "edit", "nobody", "{}"]).ends(5).says("no job that waits or is dead").says("lanes publish");
    desk.lanes(&["jobs", "edit", "a", "{}"]).ends(2).says("2 bytes instead of 0 bytes").says("--yes");
    desk.write("body.json", "{\"email\":\"ada@example.com\"}");
    let edit = ["jobs", "edit", "a", "@body.json", "--yes", "--author", "ada", "--note", "typo", "--json"];
    let answer = desk.lanes(&edit).ends(0).json();
    assert_eq!((&answer["job"], &answer["replaced"]), (&old["handle"], &true.into()), "{answer:#}");
    let new = answer["handle"].as_str().expect("a handle");
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("a-edit-")), "{answer:#}");
    until(&desk, &["jobs", "show", new, "--json"], "new job that waits as the old one did", waits);
    until(&desk, &["jobs", "show", "a", "--json"], "old job that is gone", |job| job["state"] == "cancelled");
    desk.lanes(&["jobs", "edit", new, "{", "--yes"]).ends(2).says("not JSON as the old one is");
    let same = desk.lanes(&["jobs", "edit", new, "@body.json", "--yes"]).ends(2);
    same.says("the body is as it was: retry the job instead");
    assert_eq!((told(&desk, "action"), told(&desk, "note")), (vec!["edit".into(); 2], vec!["typo".into(); 2]));
}
