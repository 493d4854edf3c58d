//! The arithmetic of budgets, pure: what a store does with the numbers it keeps, one per window.
//!
//! The number is the window's theoretical arrival time: when the token after the last one would be due at an even pace.

use crate::clock::Timestamp;
use crate::job::budget::{Take, Taken, Window};

/// When the next token of a window may be used. `due`: its theoretical arrival time, `None` for a window without history.
/// An unused past is worth nothing: a window that rested has its tolerance and no more. A future that this pace cannot have
/// taken is what a slower one left behind: it is forgotten, but for the time up to `until` (tokens up to then are asked for),
/// so that two workers who know different paces for a moment do not give the same time away again and again.
pub fn first(window: &Window, due: Option<Timestamp>, now: Timestamp, until: Timestamp) -> Timestamp {
    match due {
        Some(due) if due > until.plus(window.reach) => until,
        due => due.unwrap_or(now).max(now).minus(window.tolerance),
    }
}

/// How many tokens of a window may be used by `until`, when its next one may be used at `first`.
pub fn tokens_by(window: &Window, first: Timestamp, until: Timestamp) -> u32 {
    if first > until {
        return 0;
    }
    let more = until.since(first).as_micros() / window.interval.as_micros().max(1);
    u32::try_from(more.saturating_add(1)).unwrap_or(u32::MAX)
}

/// Decides about a wish; `due` in the order of its windows. With it the new theoretical arrival times.
pub fn take(wish: &Take, due: &[Option<Timestamp>]) -> (Taken, Vec<Timestamp>) {
    let first: Vec<Timestamp> =
        wish.windows.iter().zip(due).map(|(window, due)| self::first(window, *due, wish.now, wish.until)).collect();
    let most = wish.windows.iter().zip(&first).map(|(window, first)| tokens_by(window, *first, wish.until));
    let granted = most.min().unwrap_or(wish.tokens).min(wish.tokens);
    let after = wish.windows.iter().zip(&first);
    let after = after.map(|(window, first)| first.plus(window.tolerance).plus(window.interval * granted)).collect();
    (Taken { granted, first }, after)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn window(interval_ms: u64, burst: u32) -> Window {
        let interval = Duration::from_millis(interval_ms);
        Window::new(format!("{interval_ms}/{burst}"), interval, interval * (burst - 1))
    }

    fn wish(windows: &[Window], tokens: u32, now_ms: i64, ahead_ms: u64) -> Take {
        let now = Timestamp::from_millis(now_ms);
        Take { windows: windows.to_vec(), tokens, now, until: now.plus(Duration::from_millis(ahead_ms)) }
    }

    #[test]
    fn a_rested_window_gives_its_burst_at_once_and_then_its_pace() {
        let windows = [window(100, 3)];
        let (taken, due) = take(&wish(&windows, 10, 1_000, 250), &[None]);
        let slots: Vec<i64> = taken.slots(&windows).map(|at| at.as_micros() / 1_000).collect();
        assert_eq!(slots, [800, 900, 1_000, 1_100, 1_200]);
        assert_eq!(due, [Timestamp::from_millis(1_500)]);
        let (taken, _) = take(&wish(&windows, 10, 1_000, 250), &[Some(due[0])]);
        assert_eq!((taken.granted, taken.opens_at(&windows)), (0, Timestamp::from_millis(1_300)));
    }

    #[test]
    fn all_windows_or_none() {
        let windows = [window(10, 5), window(60_000, 2)];
        let (taken, due) = take(&wish(&windows, 10, 0, 100), &[None, None]);
        assert_eq!(taken.granted, 2);
        assert_eq!(due, [Timestamp::from_millis(20), Timestamp::from_millis(120_000)]);
        let (taken, after) = take(&wish(&windows, 10, 100, 100), &[Some(due[0]), Some(due[1])]);
        assert_eq!(taken.granted, 0);
        assert_eq!(after[1], due[1], "nothing is taken of the one when the other gives nothing");
    }

    #[test]
    fn a_slower_pace_that_no_longer_counts_is_forgotten() {
        let slow = [window(3_600_000, 1)];
        let (_, due) = take(&wish(&slow, 1, 0, 0), &[None]);
        let fast = [window(36_000, 1)];
        let (taken, _) = take(&wish(&fast, 1, 1_000, 500), &[Some(due[0])]);
        assert_eq!((taken.granted, taken.opens_at(&fast)), (1, Timestamp::from_millis(1_500 + 36_000)));
    }

    #[test]
    fn dear_calls_and_cheap_ones_count_in_the_same_window() {
        let cheap = [window(100, 10).reaching(5)];
        let dear = [cheap[0].clone().costing(5)];
        let (taken, due) = take(&wish(&dear, 9, 0, 0), &[None]);
        assert_eq!((taken.granted, due[0]), (2, Timestamp::from_secs(1)), "ten tokens are two calls");
        let (taken, due) = take(&wish(&cheap, 9, 300, 0), &[Some(due[0])]);
        assert_eq!((taken.granted, due[0]), (3, Timestamp::from_millis(1_300)));
        assert_eq!(take(&wish(&dear, 9, 700, 0), &[Some(due[0])]).0.granted, 0);
    }

    proptest! {
        /// Lessons only ever slow a pace down: however many are learnt in between, no time holds more than the limit allows.
        #[test]
        fn lessons_never_let_more_pass(
            interval in 1_u64..500,
            burst in 1_u32..20,
            mut asks in prop::collection::vec((0_u64..400, 1_u32..40, 0_u64..500, 1_u32..64), 1..120),
            span in 1_u64..5_000,
        ) {
            let base = window(interval, burst);
            let mut slower: Vec<u32> = asks.iter().map(|ask| ask.3).collect();
            slower.sort_unstable();
            asks.iter_mut().zip(slower).for_each(|(ask, slower)| ask.3 = slower);
            let (mut clock, mut due, mut used) = (0_u64, None, Vec::new());
            for (later, tokens, ahead, slower) in asks {
                clock += later;
                let learnt = Window { interval: base.interval * slower, reach: base.reach * slower, ..base.clone() };
                let now_ms = i64::try_from(clock).expect("small");
                let ask = wish(std::slice::from_ref(&learnt), tokens, now_ms, ahead);
                let (taken, after) = take(&ask, &[due]);
                used.extend(taken.slots(&ask.windows).map(|slot| slot.max(ask.now)));
                if taken.granted > 0 {
                    due = Some(after[0]);
                }
            }
            used.sort_unstable();
            let most = u64::from(burst) + span / interval + 1;
            for first in &used {
                let last = first.plus(Duration::from_millis(span));
                let within = used.iter().filter(|at| **at >= *first && **at < last).count() as u64;
                prop_assert!(within <= most, "{within} in {span} ms, at most {most}");
            }
        }

        /// For any asks of any number of workers, however far their clocks and their foresight differ from each other:
        /// granted slots in any time <= burst + time / interval.
        #[test]
        fn no_time_ever_holds_more_than_pace_and_burst(
            interval in 1_u64..500,
            burst in 1_u32..20,
            asks in prop::collection::vec((0_u64..400, 1_u32..40, 0_u64..600, 0_u64..50), 1..120),
            span in 1_u64..5_000,
        ) {
            let windows = [window(interval, burst)];
            let (mut clock, mut due, mut used) = (0_u64, None, Vec::new());
            for (later, tokens, ahead, skew) in asks {
                clock += later;
                let now = i64::try_from(clock.saturating_sub(skew)).expect("small");
                let ask = wish(&windows, tokens, now, ahead);
                let (taken, after) = take(&ask, &[due]);
                prop_assert!(taken.slots(&windows).all(|slot| slot <= ask.until));
                // a token whose time has come is used at once
                used.extend(taken.slots(&windows).map(|slot| slot.max(ask.now)));
                if taken.granted > 0 {
                    due = Some(after[0]);
                }
            }
            used.sort_unstable();
            let span = Duration::from_millis(span);
            for (nth, first) in used.iter().enumerate() {
                let within = used[nth..].iter().take_while(|at| at.since(*first) < span).count();
                let most = u64::from(burst) + u64::try_from(span.as_millis()).expect("small") / interval + 1;
                prop_assert!(within as u64 <= most, "{within} of {most} in {span:?}");
            }
        }
    }
}
