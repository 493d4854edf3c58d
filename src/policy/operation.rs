//! Operations on many: which of those that match are worth it, how many go at a time, and when the next ones go.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::operation::{Action, Group, Selection};

/// Most of them in one step: one transaction.
pub const STEP_MAX: usize = 500;
/// A paced operation makes steps of about this length, so that what it does is even.
const STEP_LENGTH: Duration = Duration::from_millis(250);
/// Fastest pace that can be asked for, in a second.
pub const PACE_MAX: f64 = 10_000.0;
/// Slowest pace that can be asked for: one in an hour.
pub const PACE_MIN: f64 = 1.0 / 3_600.0;

/// The time between two of them at a pace per second.
///
/// # Errors
/// The pace is no number between [`PACE_MIN`] and [`PACE_MAX`], as a sentence.
pub fn interval(per_second: f64) -> Result<Duration, String> {
    if !(PACE_MIN..=PACE_MAX).contains(&per_second) {
        return Err(format!("a pace is between 1 an hour and {PACE_MAX} a second, not {per_second} a second"));
    }
    // whole microseconds, as it is stored; rounded up, so that it is never faster than was asked
    Ok(Duration::from_secs_f64((1e6 / per_second).ceil() / 1e6))
}

/// How many go in one step.
pub fn step_size(interval: Duration) -> usize {
    if interval.is_zero() {
        return STEP_MAX;
    }
    let fit = STEP_LENGTH.as_nanos() / interval.as_nanos().max(1);
    usize::try_from(fit).unwrap_or(STEP_MAX).clamp(1, STEP_MAX)
}

/// When the step after one of `size` may be made, which is made `now` and was due at `due`: what was late is not caught up.
pub fn next_step_at(due: Timestamp, now: Timestamp, interval: Duration, size: usize) -> Timestamp {
    let steps = u32::try_from(size).unwrap_or(u32::MAX);
    due.max(now).plus(interval.saturating_mul(steps))
}

/// What will happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many match.
    pub matched: u64,
    /// How many of them are acted on.
    pub eligible: u64,
    /// How many are left alone, and why, as a sentence each.
    pub left: Vec<(u64, String)>,
    /// What to think of first, as a sentence each.
    pub warnings: Vec<String>,
    /// The selection without those that are left alone.
    pub selection: Selection,
}

/// Plans `action` on the `groups` that `selection` finds. `knows_lane` and `knows_endpoint` say what is configured: a job
/// of a lane that nobody consumes would wait for ever, one of an endpoint that is not there would die again at once.
pub fn plan(
    action: Action,
    selection: Selection,
    groups: &[Group],
    knows_lane: impl Fn(&str) -> bool,
    knows_endpoint: impl Fn(&str) -> bool,
) -> Plan {
    let matched = groups.iter().map(|group| group.items).sum();
    let mut plan = Plan { matched, eligible: matched, left: Vec::new(), warnings: Vec::new(), selection };
    if action != Action::Retry {
        return plan;
    }
    for group in groups {
        let (lane, endpoint) = (group.lane.as_str(), group.endpoint.as_deref());
        let endpoint = endpoint.filter(|endpoint| !knows_endpoint(endpoint));
        if !knows_lane(lane) {
            plan.leave(group.items, format!("no worker would take them: lane {lane} is not configured"));
            push_new(&mut plan.selection.not_lanes, group.lane.clone());
        } else if let Some(endpoint) = endpoint {
            plan.leave(group.items, format!("they would die again at once: endpoint {endpoint} is not configured"));
            push_new(&mut plan.selection.not_endpoints, endpoint.to_owned());
        }
    }
    let acted_on = groups.iter().filter(|group| plan.takes(group));
    let (raw, effect) = acted_on.fold((0, 0), |(raw, effect), group| (raw + group.raw, effect + group.effect_possible));
    if effect > 0 {
        plan.warnings
            .push(format!("{effect} of them may have had an effect at the API already; they are called again"));
    }
    if raw > 0 {
        plan.warnings.push(format!("{raw} of them never were jobs; their messages are published again as they came"));
    }
    plan
}

impl Plan {
    fn leave(&mut self, items: u64, why: String) {
        self.eligible = self.eligible.saturating_sub(items);
        match self.left.iter_mut().find(|(_, known)| *known == why) {
            Some((count, _)) => *count += items,
            None => self.left.push((items, why)),
        }
    }

    fn takes(&self, group: &Group) -> bool {
        let endpoint = group.endpoint.as_ref();
        !self.selection.not_lanes.contains(&group.lane)
            && endpoint.is_none_or(|endpoint| !self.selection.not_endpoints.contains(endpoint))
    }
}

fn push_new<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if !all.contains(&one) {
        all.push(one);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::LaneName;

    fn group(lane: &str, endpoint: Option<&str>, items: u64) -> Group {
        Group {
            lane: LaneName::new(lane).expect("legal"),
            endpoint: endpoint.map(str::to_owned),
            reason: "exhausted".to_owned(),
            items,
            raw: u64::from(endpoint.is_none()),
            effect_possible: items / 2,
        }
    }

    fn planned(action: Action, groups: &[Group]) -> Plan {
        plan(action, Selection::all(Timestamp::EPOCH), groups, |lane| lane == "bulk", |endpoint| endpoint == "crm")
    }

    #[test]
    fn what_could_not_succeed_is_left_alone_and_told() {
        let groups = [
            group("bulk", Some("crm"), 10),
            group("bulk", Some("gone"), 4),
            group("gone", Some("crm"), 3),
            group("gone", Some("gone"), 2),
            group("bulk", None, 1),
        ];
        let plan = planned(Action::Retry, &groups);
        assert_eq!((plan.matched, plan.eligible), (20, 11));
        assert_eq!(plan.left.iter().map(|(items, _)| *items).collect::<Vec<_>>(), [4, 5]);
        assert_eq!((plan.selection.not_lanes.len(), &plan.selection.not_endpoints[..]), (1, &["gone".to_owned()][..]));
        assert_eq!(
            plan.warnings,
            [
                "5 of them may have had an effect at the API already; they are called again",
                "1 of them never were jobs; their messages are published again as they came"
            ]
        );
        let discarded = planned(Action::Discard, &groups);
        assert_eq!((discarded.eligible, discarded.left.len(), discarded.warnings.len()), (20, 0, 0), "anything can go");
    }

    #[test]
    fn a_pace_has_bounds() {
        assert_eq!(interval(4.0), Ok(Duration::from_millis(250)));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 10_001.0] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
        assert_eq!(step_size(Duration::ZERO), STEP_MAX);
        assert_eq!(step_size(Duration::from_secs(10)), 1);
        assert_eq!(step_size(Duration::from_millis(10)), 25);
        assert_eq!(step_size(Duration::from_nanos(1)), STEP_MAX);
    }

    proptest! {
        /// However late steps are made, never are there more in a time than the pace allows, and one step.
        #[test]
        fn no_time_holds_more_than_its_pace(
            per_second in 0.1_f64..10_000.0, lates in proptest::collection::vec(0_u64..2_000_000, 1..60)
        ) {
            let interval = interval(per_second).expect("legal");
            let size = step_size(interval);
            let mut due = Timestamp::from_secs(1);
            let mut made: Vec<(Timestamp, usize)> = Vec::new();
            for late in lates {
                let now = due.plus(Duration::from_micros(late));
                made.push((now, size));
                due = next_step_at(due, now, interval, size);
            }
            for (at, (from, _)) in made.iter().enumerate() {
                for (upto, (to, _)) in made.iter().enumerate().skip(at) {
                    let count: usize = made[at..=upto].iter().map(|(_, size)| size).sum();
                    // a microsecond for the rounding of each step
                    let time = to.since(*from) + Duration::from_micros((upto - at) as u64);
                    #[expect(clippy::cast_precision_loss, reason = "small counts")]
                    let (count, size) = (count as f64, size as f64);
                    prop_assert!(count <= time.as_secs_f64() * per_second + size + 1e-6, "{count} within {time:?}");
                }
            }
        }
    }
}
