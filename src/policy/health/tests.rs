//! Each incident at its threshold: just there, and just not.

use std::time::Duration;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn name<T>(text: &str, new: impl Fn(&str) -> Option<T>) -> T {
    new(text).expect("a legal name")
}

fn lane(text: &str) -> LaneReading {
    LaneReading {
        name: name(text, |text| LaneName::new(text).ok()),
        configured: true,
        realtime: text == "realtime",
        workers: 1,
        work: 0,
        ready: 0,
        paused_at: None,
        looks: (180, 0),
        calls: 10,
        taken_over: 0,
        oldest: None,
        held_by: None,
        ended: 0,
        exhausted: 0,
        exhausted_lately: (0.0, 0.0),
        exhausted_most: None,
        wait_p95: None,
        letters: 0,
        letters_new: 0,
        duration: Mean::default(),
        duration_yesterday: Mean::default(),
        duration_before: Mean::default(),
    }
}

fn crm() -> EndpointReading {
    EndpointReading {
        name: name("crm", |text| EndpointName::new(text).ok()),
        calls: 0,
        limited: 0,
        calls_long: 0,
        limited_long: 0,
        limited_usual: 0.0,
        limited_most: None,
        lanes: Vec::new(),
        backoff: Mean::default(),
        backoff_before: Mean::default(),
        is_same_hour: true,
        blocked: None,
        late: 0.0,
    }
}

fn of_lanes(lanes: Vec<LaneReading>) -> Vec<Incident> {
    incidents(&Reading { now: NOW, lanes, ..Reading::default() })
}

fn of_endpoints(endpoints: Vec<EndpointReading>) -> Vec<Incident> {
    incidents(&Reading { now: NOW, endpoints, ..Reading::default() })
}

/// The only incident there is.
fn only(incidents: &[Incident]) -> (Kind, &str, String) {
    let [one] = incidents else { panic!("one incident, not {incidents:#?}") };
    (one.kind, &one.message, one.step.to_string())
}

fn mean(count: u64, seconds: u64) -> Mean {
    Mean { count, mean: Duration::from_secs(seconds) }
}

#[test]
fn nothing_is_wrong_with_a_quiet_installation() {
    let reading = Reading { now: NOW, lanes: vec![lane("realtime"), lane("bulk")], ..Reading::default() };
    assert_eq!(incidents(&Reading { endpoints: vec![crm()], ..reading }), []);
}

#[test]
fn a_lane_with_work_needs_a_worker() {
    let alone = LaneReading { workers: 0, work: 1, ..lane("bulk") };
    let found = of_lanes(vec![alone.clone()]);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::NoWorker);
    assert_eq!(message, "lane bulk has 1 job and no live worker; start one: lanes worker --lane bulk");
    assert_eq!(step, "lanes worker --lane bulk");
    let unknown = of_lanes(vec![LaneReading { configured: false, work: 1_204, ..alone.clone() }]);
    assert_eq!(only(&unknown).1, "lane bulk has 1,204 jobs and no live worker; the lane is not configured here");
    assert_eq!(of_lanes(vec![LaneReading { work: 0, ..alone }]), []);
}

#[test]
fn real_time_that_waits_names_who_holds_it_up() {
    let waits = |seconds| LaneReading { wait_p95: Some(Duration::from_secs(seconds)), ..lane("realtime") };
    assert_eq!(of_lanes(vec![waits(5)]), [], "the goal is missed, but nobody has to get up for it");
    let bulk = LaneReading { work: 35_000, wait_p95: Some(Duration::from_secs(900)), ..lane("bulk") };
    let lanes = vec![(bulk.name.clone(), 0.94), (waits(1).name, 0.06)];
    let hubspot = EndpointReading { lanes, ..crm() };
    let reading = Reading { now: NOW, lanes: vec![waits(12), bulk], endpoints: vec![hubspot], ..Reading::default() };
    let found = incidents(&reading);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::RealtimeWaits);
    assert_eq!(
        message,
        "realtime waits 12 s (p95, goal 2.0 s). bulk makes 94 % of the calls of crm (35,000 jobs wait)."
    );
    assert_eq!(step, "lanes lane pause bulk --for 15m");
    let held = LaneReading { held_by: Some("crm is called 2/s at most".to_owned()), ..waits(12) };
    let found = of_lanes(vec![held]);
    assert!(only(&found).1.ends_with("Its jobs wait because crm is called 2/s at most."));
}

#[test]
fn a_lane_that_moves_nothing_is_stuck() {
    let stuck = LaneReading { ready: 1_204, work: 1_204, calls: 0, looks: (180, 180), ..lane("bulk") };
    let held = LaneReading { held_by: Some("crm limits its callers: 429".to_owned()), ..stuck.clone() };
    let found = of_lanes(vec![held]);
    let (kind, message, _) = only(&found);
    assert_eq!(kind, Kind::LaneStuck);
    assert_eq!(message, "bulk has called nothing for 15 min (1,204 could run): crm limits its callers: 429.");
    for moves in [
        LaneReading { calls: 1, ..stuck.clone() },
        LaneReading { paused_at: Some(NOW), ..stuck.clone() },
        LaneReading { ready: 0, ..stuck.clone() },
        LaneReading { looks: (180, 179), ..stuck.clone() },
        LaneReading { looks: (100, 100), ..stuck },
    ] {
        assert_eq!(of_lanes(vec![moves.clone()]), [], "{moves:?}");
    }
}

#[test]
fn more_than_one_percent_exhausted_is_too_much() {
    let lately =
        |exhausted, ended, exhausted_lately| LaneReading { ended, exhausted, exhausted_lately, ..lane("bulk") };
    let at = |exhausted, ended| lately(exhausted, ended, (0.02, 0.02));
    assert_eq!(of_lanes(vec![at(4, 4)]), [], "four are no trend");
    assert_eq!(of_lanes(vec![at(12, 1_200)]), [], "one percent is allowed");
    assert_eq!(of_lanes(vec![lately(41, 1_204, (0.01, 0.5))]), [], "it is over");
    let most = Some((crm().name, 38));
    let found = of_lanes(vec![LaneReading { exhausted_most: most, ..at(41, 1_204) }]);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::Exhaustion);
    assert_eq!(
        message,
        "bulk: 3.4 % of jobs ran out of retries in the last hour (41 of 1,204). Most of them at crm (38)."
    );
    assert_eq!(step, "lanes dead list --lane bulk");
    let severity = |exhausted, lately_too| of_lanes(vec![lately(exhausted, 1_000, lately_too)])[0].severity;
    assert_eq!(severity(144, (0.5, 0.5)), Severity::Warning);
    assert_eq!(severity(145, (0.5, 0.144)), Severity::Warning);
    assert_eq!(severity(145, (0.5, 0.145)), Severity::Critical);
}

#[test]
fn dead_letters_that_pile_up_are_told() {
    let at = |letters, letters_new| LaneReading { letters, letters_new, ..lane("bulk") };
    assert_eq!(of_lanes(vec![at(100, 58)]), []);
    assert_eq!(of_lanes(vec![at(127, 20)]), []);
    let found = of_lanes(vec![at(127, 58)]);
    assert_eq!(only(&found).1, "bulk: 127 dead letters, +58 in the last hour.");
}

#[test]
fn a_spike_of_429s_is_three_times_the_usual() {
    let at = |limited, calls, limited_usual| EndpointReading { calls, limited, limited_usual, ..crm() };
    assert_eq!(of_endpoints(vec![at(60, 1_000, 0.0)]), [], "12 a minute");
    assert_eq!(of_endpoints(vec![at(1_070, 60_000, 0.0)]), [], "less than 2 % of the calls");
    assert_eq!(of_endpoints(vec![at(1_070, 2_000, 80.0)]), [], "less than three times the usual");
    let most = Some((name("acme", |text| Tenant::new(text).ok()), 0.91));
    let found = of_endpoints(vec![EndpointReading { limited_most: most, ..at(1_070, 2_000, 23.8) }]);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::RateLimitSpike);
    assert_eq!(message, "crm: 214 429s/min, 9x its daily average. 91 % from tenant acme.");
    assert_eq!(step, "lanes limits list --endpoint crm --tenant acme");
    let first = of_endpoints(vec![at(1_070, 2_000, 0.0)]);
    assert_eq!(only(&first).1, "crm: 214 429s/min, it had none for a day.");
}

#[test]
fn backoff_that_doubled_since_yesterday_is_told() {
    let at = |now, before| EndpointReading { backoff: now, backoff_before: before, late: 0.6, ..crm() };
    assert_eq!(of_endpoints(vec![at(mean(9, 240), Mean::default())]), [], "nothing is known of yesterday");
    assert_eq!(of_endpoints(vec![at(mean(9, 240), mean(9, 120))]), []);
    assert_eq!(of_endpoints(vec![at(mean(9, 60), mean(9, 10))]), []);
    let found = of_endpoints(vec![at(mean(9, 240), mean(9, 60))]);
    assert_eq!(
        only(&found).1,
        "Average backoff at crm is 4 min, 60 s yesterday at this hour. 60 % of retries are attempt 4 or later."
    );
    let of_day = EndpointReading { is_same_hour: false, ..at(mean(9, 240), mean(9, 60)) };
    assert!(only(&of_endpoints(vec![of_day])).1.contains("is 4 min, 60 s the day before."));
}

#[test]
fn jobs_that_take_longer_than_three_days_ago_are_told() {
    let at = |duration, duration_before| LaneReading {
        duration,
        duration_yesterday: mean(9, 50),
        duration_before,
        ..lane("bulk")
    };
    assert_eq!(of_lanes(vec![at(mean(100, 50), mean(19, 31))]), []);
    assert_eq!(of_lanes(vec![at(mean(100, 49), mean(100, 31))]), [], "better than yesterday");
    let unknown = LaneReading { duration_yesterday: Mean::default(), ..at(mean(100, 50), mean(100, 31)) };
    assert_eq!(of_lanes(vec![unknown]), [], "nothing is known of yesterday");
    assert_eq!(of_lanes(vec![at(mean(100, 46), mean(100, 31))]), []);
    let found = of_lanes(vec![at(mean(100, 50), mean(100, 31))]);
    assert_eq!(only(&found).1, "bulk takes 1.6x as long as three days ago (mean 31 s -> 50 s).");
}

#[test]
fn a_silent_worker_is_named_and_when_its_jobs_return() {
    let at = |over_at| {
        let worker = SilentWorker { name: "b:812".to_owned(), heard_at: NOW.minus(Duration::from_secs(95)), over_at };
        incidents(&Reading { now: NOW, silent: vec![worker], ..Reading::default() })
    };
    let soon = NOW.plus(Duration::from_secs(5));
    assert_eq!(only(&at(soon)).1, format!("worker b:812 is silent for 95 s; its jobs return at {soon}."));
    assert!(only(&at(NOW)).1.ends_with("as soon as another worker looks."));
}

#[test]
fn what_cannot_be_reached_hides_what_is_not_known() {
    let lanes = vec![LaneReading { workers: 0, work: 1, ..lane("bulk") }];
    let why = |text: &str| Some(text.to_owned());
    let reading =
        Reading { now: NOW, broker: why("amqp://h: refused"), store: why("h: refused"), lanes, ..Reading::default() };
    let kinds: Vec<Kind> = incidents(&reading).iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [Kind::BrokerUnreachable, Kind::StoreUnreachable]);
}

#[test]
fn the_worst_comes_first() {
    let bulk = LaneReading {
        letters: 127,
        letters_new: 58,
        duration: mean(99, 9),
        duration_yesterday: mean(99, 9),
        duration_before: mean(99, 1),
        ..lane("bulk")
    };
    let alone = LaneReading { workers: 0, work: 1, ..lane("later") };
    let found = of_lanes(vec![bulk, alone]);
    let kinds: Vec<Kind> = found.iter().map(|incident| incident.kind).collect();
    assert_eq!(kinds, [Kind::NoWorker, Kind::DeadLetters, Kind::DurationRising]);
}

#[test]
fn an_endpoint_that_refuses_many_calls_for_long_is_saturated() {
    let at = |(limited, calls), (limited_long, calls_long)| {
        let usual = 1_000.0; // no spike
        of_endpoints(vec![EndpointReading { calls, limited, calls_long, limited_long, limited_usual: usual, ..crm() }])
    };
    assert_eq!(at((20, 100), (4, 20)), [], "four say nothing");
    assert_eq!(at((10, 100), (60, 300)), [], "a tenth is no more, and it gets better");
    assert_eq!(at((20, 100), (30, 300)), [], "it has just begun");
    let found = at((20, 100), (60, 300));
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::RateLimitSaturated);
    assert_eq!(message, "crm: 20 % of its calls get a 429, for 15 min: its pace is above what it allows.");
    assert_eq!(step, "lanes limits list --endpoint crm");
}

#[test]
fn an_account_that_is_shut_for_long_is_named() {
    let at = |seconds, tenant: Option<&str>| {
        let tenant = tenant.map(|name| Tenant::new(name).expect("a tenant"));
        let since = NOW.minus(Duration::from_secs(seconds));
        of_endpoints(vec![EndpointReading { blocked: Some(Blocked { tenant, since, why: "503".to_owned() }), ..crm() }])
    };
    assert_eq!(at(900, None), []);
    let found = at(1_320, None);
    let (kind, message, step) = only(&found);
    assert_eq!(kind, Kind::CircuitOpen);
    assert_eq!(message, "crm has not been called freely for 22 min: 503. Its jobs wait and lose no attempt.");
    assert_eq!(step, "lanes limits list --endpoint crm");
    let found = at(1_320, Some("acme"));
    let (_, message, step) = only(&found);
    assert!(message.starts_with("tenant acme at crm has not been called freely"), "{message}");
    assert_eq!(step, "lanes limits list --endpoint crm --tenant acme");
}

#[test]
fn a_backlog_that_gets_older_is_told() {
    let at = |minutes: u64, ageing| {
        let oldest = Some((Duration::from_mins(minutes), ageing));
        of_lanes(vec![LaneReading { oldest, held_by: Some("crm is called 2/s at most".to_owned()), ..lane("bulk") }])
    };
    assert_eq!(at(60, 1.0), []);
    assert_eq!(at(180, 0.5), [], "it catches up");
    let found = at(180, 0.6);
    let (kind, message, _) = only(&found);
    assert_eq!(kind, Kind::BacklogAges);
    assert_eq!(
        message,
        "bulk: its oldest job is 3 h old and gets older. Most of them wait because crm is called 2/s at most."
    );
}

#[test]
fn a_pause_that_lasts_is_perhaps_forgotten() {
    let at = |seconds| {
        let paused_at = Some(NOW.minus(Duration::from_secs(seconds)));
        of_lanes(vec![LaneReading { paused_at, ..lane("bulk") }])
    };
    assert_eq!(at(3_600), []);
    let found = at(7_000);
    let (kind, message, step) = only(&found);
    assert_eq!((kind, message), (Kind::LanePausedLong, "bulk has been paused for 117 min: forgotten?"));
    assert_eq!(step, "lanes lane resume bulk");
}

#[test]
fn a_worker_that_died_is_told_for_a_while() {
    let found = of_lanes(vec![LaneReading { taken_over: 4, ..lane("bulk") }]);
    let (kind, message, _) = only(&found);
    assert_eq!(kind, Kind::WorkerDied);
    assert_eq!(message, "bulk: a worker died with 4 jobs in its hands; others have taken over.");
}

#[test]
fn a_store_fails_when_it_does_so_again_and_again() {
    let at = |store_errors| incidents(&Reading { now: NOW, store_errors, ..Reading::default() });
    assert_eq!(at((9, 0)), [], "it may be over in a moment");
    assert_eq!(at((0, 9)), [], "it is over");
    let found = at((3, 1));
    assert_eq!(only(&found).0, Kind::StoreErrors);
    assert_eq!(found[0].severity, Severity::Critical);
}

#[test]
fn every_kind_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words.len(), Kind::ALL.len());
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_value(kind).expect("a word"), kind.as_str());
    }
}
