//! `lanes lane`, `lanes limits pause|resume` and `lanes audit` as an operator sees them, with a worker that follows.

use serde_json::Value;

use super::limits::until;
use super::{Desk, PATIENCE, endpoint};

fn publish(desk: &Desk, lane: &str, id: &str) {
    desk.lanes(&["publish", lane, "--endpoint", "crm", "--tenant", "acme", "--id", id]).ends(0);
}

/// What is paused, as `lanes status` tells it.
fn paused(desk: &Desk) -> Vec<String> {
    let status = desk.lanes(&["status", "--json"]).json();
    let all = status["paused"].as_array().expect("a list").clone();
    all.iter().map(|paused| paused["target"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_lane_is_paused_for_a_while_and_resumed() {
    let desk = Desk::new(&endpoint());
    let _worker = desk.worker();
    let pause = ["lane", "pause", "bulk", "--for", "15m", "--note", "the CRM moves", "--author", "ada"];
    desk.lanes(&pause).ends(0).shows("lane bulk paused, ends in 15m").shows("lanes lane resume bulk");
    desk.lanes(&["lane", "list"]).ends(0).shows("paused").shows("the CRM moves").shows("running");
    let lanes = desk.lanes(&["lane", "list", "--json"]).ends(0).json();
    let bulk = lanes.as_array().expect("a list").iter().find(|lane| lane["name"] == "bulk").expect("the lane").clone();
    assert_eq!((&bulk["state"], &bulk["pause"]["author"]), (&"paused".into(), &"ada".into()), "{bulk:#}");
    assert!(bulk["pause"]["until"].is_string(), "{bulk:#}");
    desk.lanes(&["status"]).shows("bulk (paused)").shows("lane bulk").shows("the CRM moves");
    assert_eq!(paused(&desk), ["lane bulk"]);
    publish(&desk, "bulk", "a");
    desk.lanes(&["lane", "resume", "bulk"]).ends(0).shows("lane bulk resumed");
    assert_eq!(paused(&desk), [""; 0]);
    let last = ["publish", "bulk", "-e", "crm", "--id", "b", "--wait", "--wait-timeout", PATIENCE];
    desk.lanes(&last).ends(0);
    until(&desk, &["jobs", "show", "a", "--json"], "job that was called", |job| job["state"] == "done");
}

#[test]
fn a_job_of_a_paused_tenant_says_so_and_goes_on() {
    let desk = Desk::new(&endpoint());
    let _worker = desk.worker();
    let paused_at = desk.lanes(&["limits", "pause", "crm", "--tenant", "acme", "--note", "asks too much", "--json"]);
    let answer = paused_at.ends(0).json();
    assert_eq!((&answer["target"], &answer["result"]), (&"tenant acme at crm".into(), &"paused".into()), "{answer:#}");
    assert!(answer["until"].is_null() && answer["before"].is_null(), "{answer:#}");
    // a worker follows within a second: a job of another lane's that went before it would say nothing
    let job = (0..).find_map(|nth| {
        let id = format!("job-{nth}");
        publish(&desk, "bulk", &id);
        let show = ["jobs", "show", &id, "--json"];
        let shown = until(&desk, &show, "job that was taken", |job| {
            job["state"] == "done" || job["hold"]["reason"] == "paused"
        });
        (shown["state"] != "done").then_some(id)
    });
    let job = job.expect("found");
    let show = ["jobs", "show", &job, "--json"];
    let shown = until(&desk, &show, "job that is held back", |job| job["hold"]["reason"] == "paused");
    assert_eq!((&shown["state"], &shown["attempt"]), (&"waiting".into(), &0.into()), "{shown:#}");
    let why = shown["hold"]["why"].as_str().expect("a sentence");
    assert!(why.contains("tenant acme at crm is paused by") && why.ends_with(": asks too much"), "{why}");
    desk.lanes(&["jobs", "show", &job]).ends(0).shows("waits (paused): tenant acme at crm is paused by");
    desk.lanes(&["limits", "list"]).ends(0).shows("paused (until resumed)").shows("tenant acme at crm is paused by");
    desk.lanes(&["limits", "resume", "crm", "--tenant", "acme"]).ends(0).shows("tenant acme at crm resumed");
    until(&desk, &show, "job that was called", |job| job["state"] == "done" && job["attempt"] == 1);
}

#[test]
fn everything_that_operators_do_is_in_the_log() {
    let desk = Desk::idle();
    desk.lanes(&["migrate"]).ends(0);
    desk.lanes(&["audit"]).ends(0).says("nobody has changed anything");
    desk.lanes(&["limits", "set", "crm", "50/1m", "--author", "ada", "--yes"]).ends(0);
    desk.lanes(&["limits", "reset", "crm", "--yes"]).ends(0);
    desk.lanes(&["limits", "reset", "crm", "--yes"]).ends(0).says("nothing was set");
    desk.lanes(&["limits", "pause", "crm", "--author", "grace", "--note", "on fire"]).ends(0);
    desk.lanes(&["limits", "pause", "crm", "--for", "2h", "--author", "grace"]).ends(0);
    desk.lanes(&["limits", "resume", "crm"]).ends(0);
    let lines = desk.lanes(&["audit", "--json"]).ends(0).json();
    let told = |name: &str| {
        let all = lines.as_array().expect("a list").iter();
        all.map(|line| line[name].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told("action"), ["resume", "pause", "pause", "reset_limits", "set_limits"], "{lines:#}");
    assert!(told("target").iter().all(|target| target == "endpoint crm") && told("source").iter().all(|s| s == "cli"));
    let (before, after) = (told("before"), told("after"));
    assert_eq!((before[4].as_str(), before[3].as_str()), ("as configured", "50/60s, 0.8 of it"), "{lines:#}");
    assert_eq!((before[2].as_str(), after[2].as_str()), ("not paused", "paused until resumed"));
    assert_eq!((before[1].as_str(), after[0].as_str()), ("paused until resumed", "not paused"));
    assert!(after[1].starts_with("paused until 2") && before[0] == after[1], "{lines:#}");
    let first = desk.lanes(&["audit", "--limit", "2", "--json"]).ends(0).json();
    let id = first[1]["id"].to_string();
    let rest = desk.lanes(&["audit", "--before", &id, "--by", "grace", "--json"]).ends(0).json();
    assert_eq!((rest.as_array().map(Vec::len), &rest[0]["note"]), (Some(1), &Value::from("on fire")), "{rest:#}");
    desk.lanes(&["audit"]).ends(0).shows("WHO").shows("grace").shows("on fire");
}

#[test]
fn what_cannot_be_paused_or_resumed_is_refused_with_advice() {
    let desk = Desk::idle();
    desk.lanes(&["migrate"]).ends(0);
    desk.lanes(&["lane", "pause", "bluk"]).ends(5).says("did you mean \"bulk\"?");
    desk.lanes(&["lane", "resume", "bluk"]).ends(5).says("configured lanes: ");
    desk.lanes(&["lane", "resume", "bulk"]).ends(5).says("lane bulk is not paused").says("nothing is paused");
    desk.lanes(&["lane", "pause", "bulk", "--for", "9999d"]).ends(2).says("up to 366 days");
    desk.lanes(&["lane", "pause", "bulk", "--for", "0s"]).ends(2).says("up to 366 days");
    desk.lanes(&["limits", "pause", "hubspot"]).ends(5).says("configured endpoints: crm");
    desk.lanes(&["limits", "pause"]).ends(2);
    desk.lanes(&["limits", "pause", "--tenant", "acme"]).ends(0).shows("lanes limits resume --tenant acme");
    desk.lanes(&["limits", "resume", "crm", "--tenant", "acme"]).ends(5).says("paused: tenant acme");
    desk.lanes(&["limits", "resume", "--tenant", "acme"]).ends(0);
}
