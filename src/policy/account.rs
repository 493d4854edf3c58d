//! Everything that is known of one account beyond the configuration: what answers taught, whether it is blocked, what an
//! operator has set. Workers share it through the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::circuit::{Circuit, CircuitRules, Door, Shown};
use super::headers::RateReading;
use super::learn::{self, Lead, Lesson};
use super::limit::Limit;
use crate::clock::Timestamp;
use crate::job::verdict::Class;

/// How long it takes until a pace that was lowered after 429s is the old one again.
const RECOVERY: Duration = Duration::from_mins(1);
/// The slowest that 429s make a pace which is configured, as a share of it.
const SLOWED_MIN: f64 = 1.0 / 8.0;
/// Weight of one answer in the share of 429s, and the share from which on they are no coincidence: four of ten or so. An API
/// that refuses single jobs with a 429 is not slowed down by that.
const ONE: f64 = 0.1;
const MANY: f64 = 0.3;
/// 429s further apart have nothing to do with each other.
const TOGETHER: Duration = Duration::from_secs(10);

/// What is known of an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Knowledge {
    /// What its answers told, by budget.
    #[serde(default)]
    pub lessons: Vec<Lesson>,
    /// Whether it may be called.
    #[serde(default)]
    pub circuit: Circuit,
    /// The pace was lowered after a 429 that did not say what is allowed.
    #[serde(default)]
    pub slowed: Option<Slowed>,
    /// Limits that an operator has set.
    #[serde(default)]
    pub live: Option<LiveLimits>,
    /// What was known at that time is forgotten, because an operator said so.
    #[serde(default)]
    pub forgotten_at: Timestamp,
}

/// A pace that was lowered, and rises again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slowed {
    /// Share of the pace at that time.
    pub to: f64,
    /// When.
    pub at: Timestamp,
    /// They asked us to wait: said of an account that nothing is known of, too.
    #[serde(default)]
    pub asked: bool,
}

/// Limits that an operator has set while workers run; they replace the configured ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveLimits {
    /// The limits; none = not limited.
    pub limits: Vec<Limit>,
    /// Who set them.
    pub author: String,
    /// When.
    pub set_at: Timestamp,
    /// When the configured ones count again; `None` = when they are reset.
    pub expires_at: Option<Timestamp>,
}

/// How an account is observed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observing {
    /// When it counts as failing.
    pub circuit: CircuitRules,
    /// Learn limits from rate headers.
    pub learns: bool,
    /// Share of a learnt limit that is used.
    pub headroom: f64,
}

/// What changed in an account's knowledge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Something to remember.
    pub any: bool,
    /// Something that everybody has to know at once.
    pub urgent: bool,
}

/// The last calls of one account, as this process saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Streak {
    /// How many failed one after another.
    pub failures: u32,
    /// The share of 429s in the last answers.
    pub limited: f64,
    /// When the last of them came that was looked at: most successes are not.
    pub at: Timestamp,
}

impl Slowed {
    fn speed(&self, now: Timestamp) -> f64 {
        let back = (1.0 - self.to) * now.since(self.at).as_secs_f64() / RECOVERY.as_secs_f64();
        (self.to + back).clamp(SLOWED_MIN, 1.0)
    }
}

impl LiveLimits {
    fn counts(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

impl Knowledge {
    /// May it be called now, and at which share of the pace?
    pub fn door(&self, now: Timestamp) -> Door {
        self.circuit.door(now)
    }

    /// The share of configured limits that is used, because 429s without a word said that they are too high.
    pub fn slowed_to(&self, now: Timestamp) -> f64 {
        self.slowed.map_or(1.0, |slowed| slowed.speed(now))
    }

    /// The same where nothing is configured: only 429s that asked us to wait say anything about that.
    pub fn blind_slowed_to(&self, now: Timestamp) -> f64 {
        self.slowed.filter(|slowed| slowed.asked).map_or(1.0, |slowed| slowed.speed(now))
    }

    /// The limits that an operator has set, while they count.
    pub fn live(&self, now: Timestamp) -> Option<&LiveLimits> {
        self.live.as_ref().filter(|live| live.counts(now))
    }

    /// Takes in what one answer showed.
    pub fn observe(&mut self, how: &Observing, streak: &mut Streak, shown: &Shown, readings: &[RateReading]) -> Change {
        streak.failures = match shown.class {
            Class::Ok | Class::Permanent => 0,
            _ => streak.failures.saturating_add(1),
        };
        let is_limited = shown.class == Class::RateLimited;
        if shown.ended_at.since(streak.at) > TOGETHER {
            streak.limited = 0.0;
        }
        streak.at = shown.ended_at;
        streak.limited += ONE * (f64::from(is_limited) - streak.limited);
        let now = shown.ended_at;
        let mut change = Change::default();
        if how.learns && !readings.is_empty() {
            change = self.learn(how, shown, readings);
        }
        if let Some(circuit) = self.circuit.after(&how.circuit, streak.failures, shown) {
            self.circuit = circuit;
            streak.failures = 0;
            change = Change { any: true, urgent: true };
        } else if self.circuit.is_over(now) {
            self.circuit = Circuit::Closed;
        }
        let tells_nothing = self.lessons.iter().all(|lesson| lesson.lead(how.headroom, now) == Lead::Free);
        if how.learns && is_limited && tells_nothing && streak.limited > MANY && self.slow_down(shown) {
            streak.limited = 0.0;
            change = Change { any: true, urgent: true };
        }
        change
    }

    fn learn(&mut self, how: &Observing, shown: &Shown, readings: &[RateReading]) -> Change {
        let before = self.lessons.clone();
        if !learn::learn(&mut self.lessons, readings, shown.started_at, shown.ended_at) {
            return Change::default();
        }
        let changed = |lesson: &Lesson| {
            let old = before.iter().find(|old| old.name == lesson.name);
            old.is_none_or(|old| lesson.differs(old, how.headroom, shown.ended_at))
        };
        Change { any: true, urgent: self.lessons.iter().any(changed) }
    }

    /// Halves the pace, once for all calls that were on their way.
    fn slow_down(&mut self, shown: &Shown) -> bool {
        if self.slowed.is_some_and(|slowed| shown.started_at < slowed.at) {
            return false;
        }
        let speed = self.slowed_to(shown.ended_at);
        self.slowed =
            Some(Slowed { to: (speed / 2.0).max(SLOWED_MIN), at: shown.ended_at, asked: shown.retry_after.is_some() });
        true
    }

    /// Takes in what another worker knows. What an operator has set is only ever known from the store.
    pub fn merge(&mut self, stored: Self) {
        for lesson in stored.lessons {
            learn::merge(&mut self.lessons, lesson);
        }
        self.circuit = std::mem::take(&mut self.circuit).later(stored.circuit);
        self.slowed = match (self.slowed, stored.slowed) {
            (Some(ours), Some(theirs)) if theirs.at <= ours.at => Some(ours),
            (ours, theirs) => theirs.or(ours),
        };
        self.live = stored.live;
        self.forget(self.forgotten_at.max(stored.forgotten_at));
    }

    /// Forgets what was known at that time, but for what an operator has set.
    pub fn forget(&mut self, known_at: Timestamp) {
        self.forgotten_at = known_at;
        self.lessons.retain(|lesson| lesson.seen_at > known_at);
        if self.circuit.at().is_some_and(|at| at <= known_at) {
            self.circuit = Circuit::Closed;
        }
        self.slowed = self.slowed.filter(|slowed| slowed.at > known_at);
    }

    /// Whether there is nothing in it that matters any more.
    pub fn is_blank(&self, now: Timestamp) -> bool {
        matches!(self.door(now), Door::Open(speed) if speed >= 1.0)
            && self.live(now).is_none()
            && self.lessons.iter().all(|lesson| lesson.is_over(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Observing = Observing { circuit: CircuitRules::NEVER, learns: true, headroom: 0.8 };

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn limited(seconds: i64) -> Shown {
        Shown {
            class: Class::RateLimited,
            retry_after: None,
            started_at: at(seconds),
            ended_at: at(seconds),
            detail: String::new(),
        }
    }

    #[test]
    fn many_429s_without_a_word_halve_the_pace_which_recovers() {
        let (mut known, mut streak) = (Knowledge::default(), Streak::default());
        let slowed = |known: &Knowledge, seconds| known.slowed_to(at(seconds));
        let few = (0..3).any(|_| known.observe(&HOW, &mut streak, &limited(100), &[]).any);
        assert!(!few, "they may be about their jobs alone");
        assert!(known.observe(&HOW, &mut streak, &limited(100), &[]).urgent);
        assert!((slowed(&known, 100) - 0.5).abs() < 1e-9);
        let late = Shown { started_at: at(99), ..limited(101) };
        let again = |known: &mut Knowledge, streak: &mut Streak, shown: &Shown| {
            (0..4).any(|_| known.observe(&HOW, streak, shown, &[]).any)
        };
        assert!(!again(&mut known, &mut streak, &late), "they were on their way");
        assert!((slowed(&known, 130) - 0.75).abs() < 1e-9 && (slowed(&known, 160) - 1.0).abs() < 1e-9);
        assert!(again(&mut known, &mut streak, &limited(130)));
        assert!((slowed(&known, 130) - 0.375).abs() < 1e-9);
    }

    #[test]
    fn who_tells_its_limit_is_believed_instead() {
        let reading = RateReading {
            limit: Some(50.0),
            remaining: Some(0.0),
            reset_at: Some(at(101)),
            window: Some(Duration::from_secs(1)),
            name: "x".to_owned(),
        };
        let (mut known, mut streak) = (Knowledge::default(), Streak::default());
        known.observe(&HOW, &mut streak, &limited(100), &[reading]);
        assert_eq!((known.slowed, known.lessons.len()), (None, 1));
    }

    #[test]
    fn knowledge_of_two_workers_becomes_one() {
        let lesson = |name: &str, seconds, limit| Lesson {
            name: name.to_owned(),
            limit: Some(limit),
            remaining: None,
            reset_at: None,
            window: Some(Duration::from_secs(1)),
            window_told: true,
            seen_at: at(seconds),
            heard_at: at(seconds),
        };
        let mut ours = Knowledge { lessons: vec![lesson("a", 2, 1.0), lesson("b", 1, 1.0)], ..Knowledge::default() };
        let live = LiveLimits { limits: vec![], author: "ada".to_owned(), set_at: at(1), expires_at: Some(at(9)) };
        let theirs = Knowledge {
            lessons: vec![lesson("a", 1, 2.0), lesson("b", 2, 2.0), lesson("c", 1, 2.0)],
            slowed: Some(Slowed { to: 0.5, at: at(1), asked: false }),
            live: Some(live),
            ..Knowledge::default()
        };
        let text = serde_json::to_string(&theirs).expect("becomes JSON");
        ours.merge(serde_json::from_str(&text).expect("is read back"));
        let limits: Vec<_> = ours.lessons.iter().map(|lesson| lesson.limit.expect("told")).collect();
        assert_eq!(limits, [1.0, 2.0, 2.0]);
        assert!(ours.live(at(8)).is_some() && ours.live(at(9)).is_none() && ours.slowed.is_some());
        let reset = Knowledge { forgotten_at: at(1), ..Knowledge::default() };
        ours.merge(reset);
        let kept: Vec<_> = ours.lessons.iter().map(|lesson| lesson.name.as_str()).collect();
        assert_eq!(
            (kept, ours.slowed, &ours.live),
            (vec!["a", "b"], None, &None),
            "what was forgotten stays forgotten"
        );
        let old: Knowledge = serde_json::from_str("{\"from\":\"a later version\"}").expect("is read");
        assert!(old.is_blank(at(0)));
    }
}
