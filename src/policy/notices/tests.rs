//! Nobody is woken twice, by what flaps, or without hearing of its end.

use proptest::prelude::*;

use super::*;
use crate::job::LaneName;
use crate::policy::health::Step;

const LOOK: Duration = Duration::from_secs(30);

const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + seconds)
}

fn incident(lane: &str, severity: Severity, message: &str) -> Incident {
    Incident {
        kind: Kind::LaneStuck,
        severity,
        lane: LaneName::new(lane).ok(),
        endpoint: None,
        tenant: None,
        message: message.to_owned(),
        step: Step::Status,
        also: Vec::new(),
    }
}

fn stuck(lane: &str) -> Incident {
    incident(lane, Severity::Warning, "it is stuck")
}

fn sink(name: &str) -> Sink {
    Sink { name: name.to_owned(), least: Severity::Info, kinds: Vec::new(), repeat: None }
}

/// A round in which every sink takes everything.
fn round(state: &mut Notices, incidents: &[Incident], sinks: &[Sink], now: Timestamp) -> Vec<(String, Status)> {
    state.see(incidents, sinks, now);
    let due = state.due(sinks, now);
    for notice in &due {
        state.heard(notice, Heard::Yes, now);
    }
    due.into_iter().map(|notice| (notice.sink, notice.status)).collect()
}

#[test]
fn what_lasts_is_told_once_and_its_end_once() {
    let (sinks, mut state) = ([sink("a"), sink("b")], Notices::default());
    let found = [stuck("bulk")];
    assert_eq!(round(&mut state, &found, &sinks, at(0)), [], "it may flap");
    assert_eq!(round(&mut state, &found, &sinks, at(29)), []);
    let both = |status| [("a".to_owned(), status), ("b".to_owned(), status)];
    assert_eq!(round(&mut state, &found, &sinks, at(30)), both(Status::Opened));
    let other = [incident("bulk", Severity::Warning, "it is still stuck")];
    assert_eq!(round(&mut state, &other, &sinks, at(600)), [], "other words are no news");
    assert_eq!(round(&mut state, &[], &sinks, at(630)), [], "it may come again");
    assert_eq!(round(&mut state, &[], &sinks, at(690)), both(Status::Closed));
    assert_eq!(round(&mut state, &[], &sinks, at(720)), []);
    assert_eq!(state, Notices::default(), "nothing is left to remember");
}

#[test]
fn what_flaps_wakes_nobody_and_is_no_new_trouble() {
    let (sinks, mut state) = ([sink("a")], Notices::default());
    for turn in 0..20 {
        assert_eq!(round(&mut state, &[stuck("bulk")], &sinks, at(60 * turn)), []);
        assert_eq!(round(&mut state, &[], &sinks, at(60 * turn + 20)), []);
    }
    round(&mut state, &[stuck("bulk")], &sinks, at(2_000));
    assert_eq!(round(&mut state, &[stuck("bulk")], &sinks, at(2_030)).len(), 1);
    for turn in 0..20 {
        assert_eq!(round(&mut state, &[], &sinks, at(2_060 + 60 * turn)), []);
        assert_eq!(round(&mut state, &[stuck("bulk")], &sinks, at(2_090 + 60 * turn)), []);
    }
}

#[test]
fn a_sink_is_told_what_it_wants_and_reminded_when_it_wants() {
    let critical = Sink { least: Severity::Critical, ..sink("critical") };
    let other = Sink { kinds: vec![Kind::WorkerDied], ..sink("other") };
    let patient = Sink { repeat: Some(Duration::from_hours(4)), ..sink("patient") };
    let (sinks, mut state) = ([critical, other, patient], Notices::default());
    round(&mut state, &[stuck("bulk")], &sinks, at(0));
    let told = |name: &str, status| (name.to_owned(), status);
    assert_eq!(round(&mut state, &[stuck("bulk")], &sinks, at(30)), [told("patient", Status::Opened)]);
    assert_eq!(round(&mut state, &[stuck("bulk")], &sinks, at(4 * 3_600)), []);
    assert_eq!(round(&mut state, &[stuck("bulk")], &sinks, at(4 * 3_600 + 30)), [told("patient", Status::Reminder)]);
    assert_eq!(round(&mut state, &[stuck("bulk")], &sinks, at(4 * 3_600 + 60)), []);
    let worse = [incident("bulk", Severity::Critical, "everything is lost")];
    let expected = [told("critical", Status::Opened), told("patient", Status::Reminder)];
    assert_eq!(round(&mut state, &worse, &sinks, at(5 * 3_600)), expected, "it has become worse");
    for turn in 0..4 {
        let severity = if turn % 2 == 0 { Severity::Warning } else { Severity::Critical };
        let found = [incident("bulk", severity, "up and down")];
        assert_eq!(round(&mut state, &found, &sinks, at(5 * 3_600 + 30 + 30 * turn)), [], "and is known to be");
    }
    round(&mut state, &[], &sinks, at(6 * 3_600));
    let expected = [told("critical", Status::Closed), told("patient", Status::Closed)];
    assert_eq!(round(&mut state, &[], &sinks, at(6 * 3_600 + 60)), expected);
}

#[test]
fn a_sink_that_fails_is_tried_again_later_and_later_with_the_same_name() {
    let (sinks, mut state) = ([sink("a")], Notices::default());
    state.see(&[stuck("bulk")], &sinks, at(0));
    state.see(&[stuck("bulk")], &sinks, at(30));
    let (mut now, mut tried, mut names) = (at(30), Vec::new(), std::collections::BTreeSet::new());
    for _ in 0..200 {
        for notice in state.due(&sinks, now) {
            names.insert(notice.id);
            tried.push(now.since(at(30)).as_secs());
            state.heard(&notice, Heard::No { retry_after: None }, now);
        }
        now = now.plus(LOOK);
        state.see(&[stuck("bulk")], &sinks, now);
    }
    assert_eq!(tried[..8], [0, 30, 90, 210, 450, 930, 1_830, 2_730]);
    assert_eq!(names.len(), 1, "whoever took it in after all can tell");
    let notice = state.due(&sinks, at(100_000)).remove(0);
    state.heard(&notice, Heard::No { retry_after: Some(Duration::from_mins(20)) }, at(100_000));
    assert!(state.due(&sinks, at(100_000 + 1_199)).is_empty());
    assert_eq!(state.due(&sinks, at(100_000 + 1_200)).len(), 1);
}

#[test]
fn what_may_have_been_heard_is_closed_and_what_was_not_is_dropped() {
    let (sinks, mut state) = ([sink("a")], Notices::default());
    state.see(&[stuck("bulk"), stuck("other")], &sinks, at(0));
    state.see(&[stuck("bulk"), stuck("other")], &sinks, at(30));
    let due = state.due(&sinks, at(30));
    assert_eq!(due.len(), 2, "both are tried; then this process dies");
    let mut state: Notices = serde_json::from_str(&serde_json::to_string(&state).expect("JSON")).expect("the same");
    assert_eq!(state.due(&sinks, at(90)), due, "whoever goes on sends the same");
    state.see(&[], &sinks, at(100));
    assert_eq!(state.due(&sinks, at(100)), [], "too late, and too early");
    state.see(&[], &sinks, at(160));
    let closing = state.due(&sinks, at(160));
    assert_eq!(closing.iter().map(|notice| notice.status).collect::<Vec<_>>(), [Status::Closed; 2]);
    assert_eq!(closing[0].closed_at, Some(at(100)));
}

#[test]
fn what_nobody_takes_for_a_day_is_given_up() {
    let (sinks, mut state) = ([sink("a")], Notices::default());
    state.see(&[stuck("bulk")], &sinks, at(0));
    state.see(&[stuck("bulk")], &sinks, at(30));
    assert_eq!(state.due(&sinks, at(30)).len(), 1);
    assert!(state.give_up(&sinks, at(30 + 86_399)).is_empty());
    assert_eq!(state.give_up(&sinks, at(30 + 86_400)), ["a"]);
    assert_eq!(state.due(&sinks, at(30 + 86_400)), []);
    state.see(&[], &sinks, at(90_000));
    state.see(&[], &sinks, at(90_060));
    assert_eq!(state.due(&sinks, at(90_060)).len(), 1, "the end is news again");
    assert_eq!(state.give_up(&sinks, at(90_000 + 86_400)), ["a"]);
    state.see(&[], &sinks, at(180_000));
    assert_eq!(state.entries, []);
}

#[test]
fn of_many_the_worst_are_known_and_few_are_told_at_a_time() {
    let (sinks, mut state) = ([sink("a")], Notices::default());
    let mut many: Vec<Incident> = (0..INCIDENTS_MAX).map(|n| stuck(&format!("lane-{n}"))).collect();
    many.push(incident("worst", Severity::Critical, "everything is lost"));
    assert_eq!(state.see(&many, &sinks, at(0)), 1);
    assert_eq!(state.entries.len(), INCIDENTS_MAX);
    state.see(&many, &sinks, at(30));
    let due = state.due(&sinks, at(30));
    assert_eq!((due.len(), due[0].about.lane.as_deref()), (ROUND_MAX, Some("worst")));
}

#[test]
fn one_looks_until_it_is_silent() {
    let (me, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut state = Notices::default();
    assert!(state.may_look(me, at(0)));
    state.looker = Some((me, at(90)));
    assert!(state.may_look(me, at(0)) && !state.may_look(other, at(89)) && state.may_look(other, at(90)));
}

/// What a round does with what is due.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is taken.
    Taken,
    /// It is not, or nobody knows.
    Failed,
    /// It is taken, and the sender dies before it can write that down.
    Died,
}

proptest! {
    #[test]
    fn everybody_hears_of_every_end_in_order(
        steps in prop::collection::vec((any::<bool>(), 0..6_u8, 1..5_u32), 1..120),
    ) {
        let sinks = [sink("a"), Sink { repeat: Some(Duration::from_mins(10)), ..sink("b") }];
        let (mut state, mut now) = (Notices::default(), at(0));
        let mut taken: Vec<(Notice, Timestamp)> = Vec::new();
        let quiet = (0..100).map(|_| (false, 0, 4));
        let mut died = false;
        for (is_wrong, fate, pause) in steps.into_iter().chain(quiet) {
            let fate = match fate { 0..=3 => Fate::Taken, 4 => Fate::Failed, _ => Fate::Died };
            let found = if is_wrong { vec![stuck("bulk")] } else { Vec::new() };
            state.see(&found, &sinks, now);
            for notice in state.due(&sinks, now) {
                prop_assert!(now.since(notice.opened_at) >= OPEN_HOLD);
                match fate {
                    Fate::Taken => state.heard(&notice, Heard::Yes, now),
                    Fate::Failed => state.heard(&notice, Heard::No { retry_after: None }, now),
                    Fate::Died => died = true,
                }
                if !matches!(fate, Fate::Failed) {
                    taken.push((notice, now));
                }
            }
            now = now.plus(LOOK * pause);
        }
        prop_assert!(state.entries.is_empty(), "everything ends: {:?}", state.entries);
        let mut stories: BTreeMap<(Uuid, &str), Vec<(&Notice, Timestamp)>> = BTreeMap::new();
        for (notice, at) in &taken {
            let story = stories.entry((notice.incident, notice.sink.as_str())).or_default();
            // a notice that was sent again has the same name: its receiver takes it once
            if !story.iter().any(|(known, _)| known.id == notice.id) {
                story.push((notice, *at));
            }
        }
        for story in stories.values() {
            let count = |status| story.iter().filter(|(notice, _)| notice.status == status).count();
            prop_assert_eq!(count(Status::Closed), 1, "{:?}", story);
            prop_assert_eq!(story.last().map(|(notice, _)| notice.status), Some(Status::Closed));
            prop_assert!(count(Status::Opened) <= 1, "{:?}", story);
            if !died {
                for pair in story.windows(2).filter(|pair| pair[1].0.status == Status::Reminder) {
                    prop_assert!(pair[1].1.since(pair[0].1) >= Duration::from_mins(10));
                }
            }
        }
    }
}
