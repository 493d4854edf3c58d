//! Whose turn it is among those who wait for budgets, and the rhythm in which turns come.

use std::collections::BTreeMap;
use std::time::Duration;

/// Longest time that a job is held for its token, or its slot. Who would wait longer waits in the store, where it holds up
/// nobody.
pub const HELD_MAX: Duration = Duration::from_millis(500);
/// Time between two rounds while somebody waits.
pub const ROUND: Duration = Duration::from_millis(200);
/// Jobs are released so much before their tokens: they are on their way for a while, and are held no longer than this.
pub const AHEAD: Duration = HELD_MAX.saturating_sub(Duration::from_millis(100));
/// Most jobs of a lane whose turn has come and that are not claimed yet.
pub const RELEASE_MAX: u32 = 500;
/// Most endpoints and tenants that are looked at in one round.
pub const GATES_MAX: usize = 1_000;
/// Jobs owned or being claimed, per concurrency slot: one set is called while the next is claimed.
pub const OWNED_PER_SLOT: usize = 2;

/// Somebody's jobs that wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// What each of them takes, and how much of it: tokens of windows, slots. Empty = nothing any more.
    pub needs: Vec<(&'a str, u32)>,
    /// Share in each round.
    pub weight: u32,
    /// How many of its jobs are on their way already.
    pub on_their_way: u32,
    /// How many may go now, whatever there is: a probe goes alone.
    pub most: u32,
}

/// Whose turn it is: how many of each may go now, round by round, each as many as its weight, as long as there is enough
/// `left` of everything it needs. At most `most` in all. The first round begins with the one at `start`.
pub fn turns<'a>(waiting: &[Waiting<'a>], mut left: BTreeMap<&'a str, u32>, most: u32, start: usize) -> Vec<u32> {
    for one in waiting {
        take(&mut left, one, one.on_their_way);
    }
    let mut turns = vec![0; waiting.len()];
    let (mut total, mut gave) = (0, true);
    while gave && total < most {
        gave = false;
        for step in 0..waiting.len() {
            let at = (start + step) % waiting.len();
            let one = &waiting[at];
            for _ in 0..one.weight.max(1) {
                let fits = one.needs.iter().all(|(key, much)| left.get(key).is_some_and(|left| left >= much));
                if !fits || total == most || turns[at] + one.on_their_way >= one.most {
                    break;
                }
                take(&mut left, one, 1);
                turns[at] += 1;
                total += 1;
                gave = true;
            }
        }
    }
    turns
}

fn take<'a>(left: &mut BTreeMap<&'a str, u32>, one: &Waiting<'a>, jobs: u32) {
    for (key, much) in &one.needs {
        left.entry(key).and_modify(|left| *left = left.saturating_sub(much.saturating_mul(jobs)));
    }
}

/// How many calls will find a slot within `ahead`, where `in_use` of `max` are taken and a call takes `took`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and it is not negative")]
pub fn slots_soon(max: u32, in_use: u32, took: Duration, ahead: Duration) -> u32 {
    let ending = f64::from(max) * ahead.as_secs_f64() / took.as_secs_f64().max(1e-3);
    max.saturating_sub(in_use).saturating_add(ending as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting<'a>(needs: &[&'a str], weight: u32) -> Waiting<'a> {
        let needs = needs.iter().map(|key| (*key, 1)).collect();
        Waiting { needs, weight, on_their_way: 0, most: u32::MAX }
    }

    #[test]
    fn turns_go_round_by_weight() {
        let left = BTreeMap::from([("crm", 7), ("acme", 1)]);
        let all = [waiting(&["crm"], 1), waiting(&["crm"], 2), waiting(&["crm", "acme"], 1)];
        assert_eq!(turns(&all, left.clone(), 100, 0), [2, 4, 1]);
        assert_eq!(turns(&all, left.clone(), 2, 1), [0, 2, 0], "who was last begins next time");
        assert_eq!(turns(&all[..1], left.clone(), 100, 0), [7], "a lone one gets everything");
        assert_eq!(turns(&[], left.clone(), 100, 0), Vec::<u32>::new());
    }

    #[test]
    fn who_is_on_the_way_has_had_its_turn() {
        let left = BTreeMap::from([("crm", 3)]);
        let all = [Waiting { on_their_way: 2, ..waiting(&["crm"], 1) }];
        assert_eq!(turns(&all, left.clone(), 100, 0), [1]);
        let free = [Waiting { on_their_way: 2, ..waiting(&[], 1) }];
        assert_eq!(turns(&free, left.clone(), 5, 0), [5], "whose limit was taken away waits for nothing");
    }

    #[test]
    fn dear_calls_take_more_and_a_probe_goes_alone() {
        let left = BTreeMap::from([("crm", 11)]);
        let dear = Waiting { needs: vec![("crm", 5)], ..waiting(&[], 1) };
        assert_eq!(turns(std::slice::from_ref(&dear), left.clone(), 100, 0), [2]);
        let on_the_way = Waiting { on_their_way: 1, ..dear };
        assert_eq!(turns(&[on_the_way], left.clone(), 100, 0), [1]);
        let probe = |on_their_way| Waiting { most: 1, on_their_way, ..waiting(&["crm"], 1) };
        assert_eq!(turns(&[probe(0), probe(1)], left, 100, 0), [1, 0]);
    }

    #[test]
    fn short_calls_make_room_for_more() {
        let soon = |in_use, millis| slots_soon(4, in_use, Duration::from_millis(millis), Duration::from_millis(400));
        assert_eq!((soon(4, 10_000), soon(1, 10_000), soon(4, 100), soon(4, 0)), (0, 3, 16, 1_600));
    }
}
