//! Incidents: the next step of each is a command that there is.

use std::process::Command;
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::{EndpointName, LaneName, Tenant};
use lanes::policy::health::{Blocked, EndpointReading, Kind, LaneReading, Mean, Reading, SilentWorker, incidents};

/// Everything that can be wrong with a lane that has workers, or none.
fn lane(name: &str, workers: u64) -> LaneReading {
    let mean = |seconds| Mean { count: 100, mean: Duration::from_secs(seconds) };
    LaneReading {
        name: LaneName::new(name).expect("a lane"),
        configured: true,
        realtime: name == "realtime",
        workers,
        work: 1,
        ready: 1,
        paused_at: (name == "realtime").then_some(Timestamp::EPOCH),
        looks: (180, 180),
        calls: 0,
        taken_over: 4,
        oldest: Some((Duration::from_hours(2), 1.0)),
        held_by: None,
        ended: 100,
        exhausted: 50,
        exhausted_lately: (0.5, 0.5),
        exhausted_most: Some((EndpointName::new("crm").expect("an endpoint"), 50)),
        wait_p95: Some(Duration::from_secs(30)),
        letters: 1_000,
        letters_new: 100,
        duration: mean(9),
        duration_yesterday: mean(9),
        duration_before: mean(1),
    }
}

fn endpoint(lanes: Vec<(LaneName, f64)>) -> EndpointReading {
    let mean = |seconds| Mean { count: 9, mean: Duration::from_secs(seconds) };
    EndpointReading {
        name: EndpointName::new("crm").expect("an endpoint"),
        calls: 1_000,
        limited: 900,
        calls_long: 3_000,
        limited_long: 2_700,
        limited_usual: 0.0,
        limited_most: Some((Tenant::new("acme").expect("a tenant"), 0.9)),
        lanes,
        backoff: mean(600),
        backoff_before: mean(60),
        is_same_hour: true,
        blocked: Some(Blocked { tenant: Tenant::new("acme").ok(), since: Timestamp::EPOCH, why: String::new() }),
        late: 0.5,
    }
}

#[test]
fn the_next_step_is_a_command() {
    let now = Timestamp::from_secs(1_000_000);
    let silent = vec![SilentWorker { name: "host:1".to_owned(), heard_at: Timestamp::EPOCH, over_at: now }];
    let bulk = LaneName::new("bulk").expect("a lane");
    let held = LaneReading { held_by: Some("crm fails".to_owned()), ..lane("realtime", 1) };
    let reading = |lanes, endpoints| Reading { now, lanes, endpoints, silent: silent.clone(), ..Reading::default() };
    let unreachable = || Some("refused".to_owned());
    let all = [
        reading(vec![lane("realtime", 1), lane("bulk", 0)], vec![endpoint(vec![(bulk, 0.9)])]),
        reading(vec![held], vec![endpoint(Vec::new())]),
        reading(vec![LaneReading { paused_at: None, ..lane("realtime", 1) }], Vec::new()),
        Reading { store_errors: (1, 1), ..Reading::default() },
        Reading { broker: unreachable(), store: unreachable(), ..Reading::default() },
    ];
    let mut kinds = std::collections::BTreeSet::new();
    for incident in all.iter().flat_map(incidents) {
        kinds.insert(incident.kind);
        for step in incident.also.iter().chain([&incident.step]).map(ToString::to_string) {
            let mut words = step.split(' ');
            assert_eq!(words.next(), Some("lanes"), "{incident:?}");
            // arguments that there are not are refused before the help is shown
            let output = Command::new(env!("CARGO_BIN_EXE_lanes")).args(words).arg("--help").output().expect("it runs");
            assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::ALL, "every kind");
}
