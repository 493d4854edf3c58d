//! What answers teach about an API's limits: merged over time, and turned into a pace that keeps below them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::headers::{READINGS_MAX, RateReading};
use super::limit::{Limit, SPEED_MIN, Scope};
use crate::clock::Timestamp;

/// Windows longer than this are not kept evenly: a day's calls may be wanted in the morning. What is left of them is
/// spread once it is less than the headroom.
const EVEN_WINDOW_MAX: Duration = Duration::from_mins(10);
/// A lesson counts for so long after it was heard, or twice its window.
const KEPT: Duration = Duration::from_hours(1);
const KEPT_MAX: Duration = Duration::from_hours(24);
/// Longest time that a used-up budget is left alone which does not say when it is renewed, and which does: then a call
/// looks now and then, because what it said may have been wrong.
const RENEWAL_UNKNOWN: Duration = Duration::from_mins(1);
const RENEWAL_MAX: Duration = Duration::from_hours(1);
/// A window that seems shorter is believed to be so long.
const WINDOW_MIN: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
/// A pace that differs by less is the same.
const SAME_PACE: f64 = 0.1;
/// What binary fractions leave of a number that comes out even.
const ROUNDING: f64 = 1e-6;

/// What answers told about one budget of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// Which budget: the server's own name for it, or the family of headers.
    pub name: String,
    /// Calls allowed per window.
    pub limit: Option<f64>,
    /// Calls left, when it was heard.
    pub remaining: Option<f64>,
    /// When calls are allowed again.
    pub reset_at: Option<Timestamp>,
    /// Length of the window: as told, or as seen so far.
    pub window: Option<Duration>,
    /// The length was told.
    pub window_told: bool,
    /// When the call began whose answer told it.
    pub seen_at: Timestamp,
    /// When that answer came.
    pub heard_at: Timestamp,
}

/// What a lesson leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lead {
    /// There is enough left.
    Free,
    /// Calls at this pace, so many at once after a rest.
    Pace {
        /// Calls a second.
        per_second: f64,
        /// Calls at once.
        burst: u32,
    },
    /// Nothing is left until then.
    Shut(Timestamp),
}

impl Lesson {
    /// What it leads to when this share of a limit is used.
    pub fn lead(&self, headroom: f64, now: Timestamp) -> Lead {
        if self.is_over(now) {
            return Lead::Free;
        }
        let fresh_until = self.reset_at.filter(|reset_at| *reset_at > now);
        if self.remaining.is_some_and(|remaining| remaining < 1.0) {
            let renewed = self.window.unwrap_or_default().min(RENEWAL_UNKNOWN);
            let until = if self.reset_at.is_some() { fresh_until } else { Some(self.heard_at.plus(renewed)) };
            let until = until.map(|until| until.min(self.heard_at.plus(RENEWAL_MAX)));
            if let Some(until) = until.filter(|until| *until > now) {
                return Lead::Shut(until);
            }
        }
        let left = self.left(headroom, now);
        let room = self.limit.unwrap_or_default() * (1.0 - headroom);
        match (self.limit, self.window) {
            (Some(limit), Some(window)) if window > EVEN_WINDOW_MAX => {
                let scarce = self.remaining.is_some_and(|remaining| remaining <= room);
                let even = left.unwrap_or_else(|| limit * headroom / window.as_secs_f64());
                if scarce { Lead::Pace { per_second: even, burst: 1 } } else { Lead::Free }
            }
            (Some(limit), Some(window)) => {
                let even = limit * headroom / window.as_secs_f64();
                // at an even pace the headroom is always left: of a window that rolls at any time, of a fixed one at its
                // end. With less than half of it others call too, or the limit was lowered: brake the more, the less there
                // is, unless the window ends so soon that it lasts.
                let renewed_at = self.reset_at.unwrap_or(self.heard_at.plus(window));
                let remaining = self.remaining.filter(|_| renewed_at > now);
                let brake = |left: f64| (left / (room / 2.0).max(1.0)).clamp(SPEED_MIN, 1.0);
                let braked = remaining.map_or(even, |left| even * brake(left));
                match braked.max(left.unwrap_or_default()) {
                    per_second if per_second < even => Lead::Pace { per_second, burst: 1 },
                    _ => Lead::Pace { per_second: even, burst: Self::burst(limit, headroom) },
                }
            }
            _ => left.map_or(Lead::Free, |per_second| Lead::Pace { per_second, burst: 1 }),
        }
    }

    /// Whether it counts no more, because it was heard long ago.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.heard_at) > KEPT.max(self.window.unwrap_or_default().min(KEPT_MAX) * 2)
    }

    /// What is left, spread over the time until there is more; `None` when that is not known, or has passed.
    fn left(&self, headroom: f64, now: Timestamp) -> Option<f64> {
        let reset_at = self.reset_at.filter(|reset_at| *reset_at > now)?;
        let time = reset_at.since(self.heard_at).max(Duration::from_millis(1));
        Some(self.remaining? * headroom / time.as_secs_f64())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and it is not negative"
    )]
    fn burst(limit: f64, headroom: f64) -> u32 {
        ((limit * (1.0 - headroom) / 2.0 + ROUNDING) as u32).max(1)
    }

    /// The limit that it describes, where it tells one; for people.
    pub fn as_limit(&self, headroom: f64) -> Option<Limit> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        let requests = self.limit? as u32;
        Some(Limit { requests, per: self.window?, burst: None, scope: Scope::Tenant, headroom })
    }

    fn of(reading: &RateReading, seen_at: Timestamp, heard_at: Timestamp) -> Self {
        let seen = reading.reset_at.map(|reset_at| {
            let left = reset_at.since(heard_at).max(WINDOW_MIN);
            // an absolute time in whole seconds is rounded up by as much as one
            let is_rounded = reset_at.as_micros() % 1_000_000 == 0 && left > SECOND;
            if is_rounded { left.saturating_sub(SECOND).max(SECOND) } else { left }
        });
        Self {
            name: reading.name.clone(),
            limit: reading.limit,
            remaining: reading.remaining,
            reset_at: reading.reset_at,
            window: reading.window.or(seen),
            window_told: reading.window.is_some(),
            seen_at,
            heard_at,
        }
    }

    /// This lesson, with what `before` knew about the length of the window.
    ///
    /// An answer that does not tell it shows at least how long it is until the reset. When a window ends and the next one
    /// begins, its reset moves by a whole window, or by several when nothing was called meanwhile.
    fn after(mut self, before: &Self) -> Self {
        if self.window_told {
            return self;
        }
        if before.window_told {
            (self.window, self.window_told) = (before.window, true);
            return self;
        }
        if let (Some(seen), Some(known)) = (self.window, before.window) {
            let moved = self.reset_at.zip(before.reset_at).map_or(Duration::ZERO, |(new, old)| new.since(old));
            let moved_back = self.reset_at.zip(before.reset_at).map_or(Duration::ZERO, |(new, old)| old.since(new));
            self.window = Some(match known / 2 {
                half if moved > half => seen.max(known.min(moved)),
                // the one before was wrong, or the windows are shorter now
                half if moved_back > half => seen,
                _ => seen.max(known),
            });
        }
        self
    }

    /// Whether it leads to something else than `other`.
    pub fn differs(&self, other: &Self, headroom: f64, now: Timestamp) -> bool {
        match (self.lead(headroom, now), other.lead(headroom, now)) {
            (Lead::Free, Lead::Free) => self.limit != other.limit,
            (Lead::Pace { per_second: a, .. }, Lead::Pace { per_second: b, .. }) => {
                (a - b).abs() > SAME_PACE * a.max(b) || self.limit != other.limit
            }
            (Lead::Shut(a), Lead::Shut(b)) => a.distance(b) > Duration::from_millis(100),
            _ => true,
        }
    }
}

/// Takes in what one answer told. Answers to calls that began before the one that a lesson is from are late: the calls
/// of the others are not in what they say. False when nothing was learnt.
pub fn learn(known: &mut Vec<Lesson>, readings: &[RateReading], seen_at: Timestamp, heard_at: Timestamp) -> bool {
    let mut learnt = false;
    // no limit at all is no lesson: some gateways say 0 where there is none
    let tells = |reading: &&RateReading| reading.counts_requests() && reading.limit.is_none_or(|limit| limit >= 1.0);
    for reading in readings.iter().filter(tells) {
        let lesson = Lesson::of(reading, seen_at, heard_at);
        let before = known.iter().find(|before| before.name == lesson.name);
        let lesson = before.map_or(lesson.clone(), |before| lesson.after(before));
        learnt |= merge(known, lesson);
    }
    learnt
}

/// Takes in a lesson, as it is, unless a later one is known.
pub fn merge(known: &mut Vec<Lesson>, lesson: Lesson) -> bool {
    match known.iter().position(|before| before.name == lesson.name) {
        Some(at) if known[at].seen_at >= lesson.seen_at => return false,
        Some(at) => known[at] = lesson,
        None => {
            if known.len() >= READINGS_MAX {
                let oldest = (0..known.len()).min_by_key(|at| known[*at].heard_at).unwrap_or_default();
                known.swap_remove(oldest);
            }
            known.push(lesson);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: f64 = 0.8;

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn reading(limit: f64, remaining: f64, reset_ms: Option<i64>, window_ms: Option<u64>) -> RateReading {
        RateReading {
            limit: Some(limit),
            remaining: Some(remaining),
            reset_at: reset_ms.map(at),
            window: window_ms.map(Duration::from_millis),
            name: "x".to_owned(),
        }
    }

    fn taught(readings: &[(RateReading, i64)]) -> Lesson {
        let mut known = Vec::new();
        for (reading, millis) in readings {
            learn(&mut known, std::slice::from_ref(reading), at(*millis), at(*millis));
        }
        known.pop().expect("something was learnt")
    }

    fn pace(lesson: &Lesson, now_ms: i64) -> f64 {
        match lesson.lead(H, at(now_ms)) {
            Lead::Pace { per_second, .. } => per_second,
            lead => panic!("{lead:?}"),
        }
    }

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-6 * right.abs().max(1.0)
    }

    #[test]
    fn a_told_window_is_kept_evenly_below_its_limit() {
        let lesson = taught(&[(reading(100.0, 99.0, None, Some(60_000)), 0)]);
        assert!(near(pace(&lesson, 1), 80.0 / 60.0));
        assert!(matches!(lesson.lead(H, at(1)), Lead::Pace { burst: 10, .. }));
        assert_eq!(lesson.lead(H, at(2 * 3_600_000)), Lead::Free, "long ago");
    }

    #[test]
    fn what_is_left_brakes_when_it_is_less_than_our_own_calls_leave() {
        let even = 80.0 / 60.0;
        let left = |remaining, reset_ms| taught(&[(reading(100.0, remaining, Some(reset_ms), Some(60_000)), 0)]);
        for remaining in [99.0, 30.0, 20.0, 10.0] {
            assert!(near(pace(&left(remaining, 30_000), 1), even), "{remaining} left, as our own calls leave it");
        }
        assert!(near(pace(&left(5.0, 30_000), 1), even / 2.0), "half of half the headroom");
        assert!(near(pace(&left(5.0, 4_000), 1), 5.0 * H / 4.0), "the window ends soon");
        assert!(near(pace(&left(5.0, 30_000), 30_000), even), "the next window has begun");
        let used_up = taught(&[(reading(100.0, 0.0, Some(30_000), Some(60_000)), 0)]);
        assert_eq!(used_up.lead(H, at(29_999)), Lead::Shut(at(30_000)));
        assert!(near(pace(&used_up, 30_000), 80.0 / 60.0));
    }

    #[test]
    fn the_length_of_a_window_is_seen_from_its_resets() {
        let first = (reading(100.0, 90.0, Some(10_001), None), 0);
        assert_eq!(taught(std::slice::from_ref(&first)).window, Some(Duration::from_millis(10_001)), "at least");
        let rolled = [first.clone(), (reading(100.0, 99.0, Some(70_001), None), 10_500)];
        assert_eq!(taught(&rolled).window, Some(Duration::from_millis(59_501)));
        let steady = [rolled[1].clone(), (reading(100.0, 99.0, Some(130_001), None), 100_000)];
        assert_eq!(taught(&steady).window, Some(Duration::from_millis(59_501)), "what is known is not forgotten");
        let shorter = [rolled[1].clone(), (reading(100.0, 99.0, Some(72_001), None), 71_000)];
        assert_eq!(taught(&shorter).window, Some(Duration::from_millis(59_501)), "one window may end a little later");
        let bucket = [(reading(40.0, 39.0, Some(500), None), 0), (reading(40.0, 20.0, Some(11_001), None), 1_000)];
        assert_eq!(taught(&bucket).window, Some(Duration::from_millis(10_001)), "time until a bucket is full");
        let rounded = taught(&[(reading(10.0, 9.0, Some(2_000), None), 500)]);
        assert_eq!(rounded.window, Some(Duration::from_secs(1)), "an epoch in whole seconds is up to one late");
    }

    #[test]
    fn late_answers_teach_nothing() {
        let mut known = Vec::new();
        assert!(learn(&mut known, &[reading(100.0, 50.0, Some(9_000), None)], at(1_000), at(1_100)));
        assert!(!learn(&mut known, &[reading(100.0, 51.0, Some(9_000), None)], at(900), at(1_200)));
        assert_eq!(known[0].remaining, Some(50.0));
        let tokens = RateReading { name: "tokens".to_owned(), ..reading(9.0, 1.0, None, Some(1_000)) };
        assert!(!learn(&mut known, &[tokens], at(2_000), at(2_000)), "not of requests");
    }

    #[test]
    fn a_day_is_not_spread_before_it_gets_scarce() {
        let day = 86_400_000;
        let lesson = |remaining| taught(&[(reading(5_000.0, remaining, None, Some(day)), 0)]);
        assert_eq!(lesson(4_982.0).lead(H, at(1)), Lead::Free);
        assert!(near(pace(&lesson(900.0), 1), 4_000.0 / 86_400.0), "as much as comes back");
        assert_eq!(lesson(0.0).lead(H, at(1)), Lead::Shut(at(60_000)), "nobody says when: a look each minute");
        let with_reset = taught(&[(reading(5_000.0, 900.0, Some(3_600_000), Some(day)), 0)]);
        assert!(near(pace(&with_reset, 1), 900.0 * H / 3_600.0));
    }
}
