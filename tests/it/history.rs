//! Judges a run by what was published, what the API was called with, who was killed when, and how everything ended.

use std::collections::{HashMap, HashSet};

use lanes::clock::Timestamp;
use lanes::store::{JobRow, Letter, State};
use uuid::Uuid;

/// A publish that the broker confirmed.
#[derive(Debug, Clone)]
pub struct Publish {
    pub instance: Uuid,
    pub id: String,
}

/// One call as the API saw it.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: Timestamp,
    pub id: String,
    /// `Idempotency-Key`.
    pub key: String,
    pub attempt: u32,
    pub status: u16,
}

/// Everything that is known of a run.
#[derive(Debug, Default)]
pub struct History {
    pub publishes: Vec<Publish>,
    pub calls: Vec<Call>,
    /// When something was killed.
    pub kills: Vec<Timestamp>,
    pub rows: Vec<JobRow>,
    pub letters: Vec<Letter>,
}

/// What the checker counted, and everything that is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub lost: Vec<String>,
    pub unfinished: Vec<String>,
    pub over_the_limit: Vec<String>,
    pub unexplained_repeats: Vec<String>,
    pub made_up: Vec<String>,
    /// Repeats that a kill explains: allowed, and told.
    pub explained_repeats: usize,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        let Self { lost, unfinished, over_the_limit, unexplained_repeats, made_up, .. } = self;
        [lost, unfinished, over_the_limit, unexplained_repeats, made_up].iter().all(|list| list.is_empty())
    }
}

/// Checks P1 (nothing lost), P2 (no call without need), P3 (duplicates once), P5 (attempts bounded).
pub fn check(history: &History, max_attempts: u32) -> Findings {
    let mut findings = Findings::default();
    let succeeded: HashSet<&str> = history.calls.iter().filter(|c| is_success(c)).map(|c| c.key.as_str()).collect();
    let ended_well: HashSet<&str> = history
        .publishes
        .iter()
        .filter(|publish| succeeded.contains(publish.instance.to_string().as_str()))
        .map(|publish| publish.id.as_str())
        .collect();
    let letters: HashSet<Uuid> = history.letters.iter().map(|letter| letter.instance).collect();
    for publish in &history.publishes {
        // a success of another instance of the id is the fate of a duplicate
        if !ended_well.contains(publish.id.as_str()) && !letters.contains(&publish.instance) {
            findings.lost.push(format!("{} of id {:?}", publish.instance, publish.id));
        }
    }
    let alive = history.rows.iter().filter(|row| matches!(row.state, State::Run | State::Waiting | State::Queued));
    findings.unfinished = alive.map(|row| format!("{row:?}")).collect();
    check_calls(history, max_attempts, &mut findings);
    findings
}

fn is_success(call: &Call) -> bool {
    (200..300).contains(&call.status)
}

fn check_calls(history: &History, max_attempts: u32, findings: &mut Findings) {
    let known: HashSet<&str> = history.publishes.iter().map(|publish| publish.id.as_str()).collect();
    let mut by_id: HashMap<&str, Vec<&Call>> = HashMap::new();
    let mut attempts: HashSet<(&str, u32)> = HashSet::new();
    for call in &history.calls {
        if !known.contains(call.id.as_str()) {
            findings.made_up.push(format!("{call:?}"));
        }
        // the claim counts the attempt before the call, so even a killed worker's attempt is never made twice
        if call.attempt > max_attempts || !attempts.insert((&call.key, call.attempt)) {
            findings.over_the_limit.push(format!("{call:?}"));
        }
        by_id.entry(&call.id).or_default().push(call);
    }
    for calls in by_id.values_mut() {
        calls.sort_by_key(|call| call.at);
        for pair in calls.windows(2) {
            if !is_success(pair[0]) {
                continue;
            }
            let killed = |kill: &Timestamp| (pair[0].at..=pair[1].at).contains(kill);
            if pair[0].key == pair[1].key && history.kills.iter().any(killed) {
                findings.explained_repeats += 1;
            } else {
                findings.unexplained_repeats.push(format!("{:?} then {:?}", pair[0], pair[1]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(at: i64, instance: u128, attempt: u32, status: u16) -> Call {
        let key = Uuid::from_u128(instance).to_string();
        Call { at: Timestamp::from_secs(at), id: "a".to_owned(), key, attempt, status }
    }

    fn history(instances: &[u128], calls: Vec<Call>, kills: &[i64]) -> History {
        let publish = |instance: &u128| Publish { instance: Uuid::from_u128(*instance), id: "a".to_owned() };
        History {
            publishes: instances.iter().map(publish).collect(),
            calls,
            kills: kills.iter().map(|at| Timestamp::from_secs(*at)).collect(),
            ..History::default()
        }
    }

    #[test]
    fn the_checker_can_fail() {
        let clean = check(&history(&[1, 2], vec![call(1, 1, 1, 429), call(2, 1, 2, 200)], &[]), 5);
        assert!(clean.is_clean(), "{clean:#?}");
        assert_eq!(check(&history(&[1], vec![call(1, 1, 1, 429)], &[]), 5).lost.len(), 1);
        let repeat = || vec![call(1, 1, 1, 200), call(9, 1, 2, 200)];
        assert_eq!(check(&history(&[1], repeat(), &[]), 5).unexplained_repeats.len(), 1);
        assert_eq!(check(&history(&[1], repeat(), &[5]), 5).explained_repeats, 1);
        let two_instances = vec![call(1, 1, 1, 200), call(9, 2, 1, 200)];
        assert_eq!(check(&history(&[1, 2], two_instances, &[5]), 5).unexplained_repeats.len(), 1);
        assert_eq!(check(&history(&[1], vec![call(1, 1, 6, 200)], &[]), 5).over_the_limit.len(), 1);
        assert_eq!(check(&history(&[1], vec![call(1, 1, 1, 503), call(2, 1, 1, 200)], &[]), 5).over_the_limit.len(), 1);
        let stranger = Call { id: "b".to_owned(), ..call(1, 1, 1, 200) };
        assert_eq!(check(&history(&[1], vec![stranger], &[]), 5).made_up.len(), 1);
    }
}
