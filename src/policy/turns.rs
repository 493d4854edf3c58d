//! Whose turn it is among those who wait for budgets, and the rhythm in which turns come.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::hash::Hash;
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

/// What a turn of weight 1 moves its owner back by; one of weight n an n-th of it.
const STEP: u64 = 1 << 20;

/// Somebody's jobs that wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<'a, K> {
    /// Whose they are.
    pub who: K,
    /// What each of them takes, and how much of it: tokens of windows, slots. Empty = nothing any more.
    pub needs: Vec<(&'a str, u32)>,
    /// Share of the turns.
    pub weight: u32,
    /// How many of its jobs are on their way already.
    pub on_their_way: u32,
    /// How many may go now, whatever there is: a probe goes alone.
    pub most: u32,
}

impl<K> Waiting<'_, K> {
    fn step(&self) -> u64 {
        (STEP / u64::from(self.weight.max(1))).max(1)
    }
}

/// Who has had how many turns, kept from round to round: shares hold also where a round has less than a turn for each.
/// Start-time fair queueing (Goyal, Vin, Cheng 1996): the next turn is of the one with the smallest tag, which then moves on
/// by what its weight says; who comes anew begins where the last turn began.
#[derive(Debug)]
pub struct Shares<K> {
    tags: HashMap<K, u64>,
    /// Where the last turn began.
    now: u64,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self { tags: HashMap::new(), now: 0 }
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// How many of each may go now, as long as there is enough `left` of everything they need; at most `most` in all. Who
    /// could not go, because of something that only it lacks, saves up no more than one turn.
    pub fn turns<'a>(&mut self, waiting: &[Waiting<'a, K>], mut left: BTreeMap<&'a str, u32>, most: u32) -> Vec<u32> {
        for one in waiting {
            take(&mut left, one, one.on_their_way);
        }
        let tag_of = |one: &Waiting<'a, K>| self.tags.get(&one.who).copied().unwrap_or(self.now);
        let mut next: BinaryHeap<Reverse<(u64, usize)>> =
            waiting.iter().enumerate().map(|(at, one)| Reverse((tag_of(one), at))).collect();
        let (mut turns, mut total) = (vec![0; waiting.len()], 0);
        while total < most
            && let Some(Reverse((tag, at))) = next.pop()
        {
            let one = &waiting[at];
            let fits = one.needs.iter().all(|(key, much)| left.get(key).is_some_and(|left| left >= much));
            if !fits || turns[at] + one.on_their_way >= one.most {
                continue; // nor will it fit later: what is left becomes only less
            }
            take(&mut left, one, 1);
            turns[at] += 1;
            total += 1;
            self.now = self.now.max(tag);
            let tag = tag.saturating_add(one.step());
            self.tags.insert(one.who.clone(), tag);
            next.push(Reverse((tag, at)));
        }
        let now = self.now;
        for one in waiting {
            let tag = self.tags.entry(one.who.clone()).or_insert(now);
            *tag = (*tag).max(now.saturating_sub(one.step()));
        }
        let here: HashSet<&K> = waiting.iter().map(|one| &one.who).collect();
        self.tags.retain(|who, tag| *tag > now || here.contains(who));
        turns
    }
}

fn take<'a, K>(left: &mut BTreeMap<&'a str, u32>, one: &Waiting<'a, K>, jobs: u32) {
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

    fn waiting<'a>(who: u8, needs: &[&'a str], weight: u32) -> Waiting<'a, u8> {
        let needs = needs.iter().map(|key| (*key, 1)).collect();
        Waiting { who, needs, weight, on_their_way: 0, most: u32::MAX }
    }

    fn turns(all: &[Waiting<'static, u8>], left: &[(&'static str, u32)], most: u32) -> Vec<u32> {
        Shares::default().turns(all, left.iter().copied().collect(), most)
    }

    #[test]
    fn turns_go_by_weight() {
        let left = [("crm", 8), ("acme", 1)];
        let all = [waiting(0, &["crm"], 1), waiting(1, &["crm"], 2), waiting(2, &["crm", "acme"], 1)];
        assert_eq!(turns(&all, &left, 100), [3, 4, 1]);
        assert_eq!(turns(&all[..1], &left, 100), [8], "a lone one gets everything");
        assert_eq!(turns(&[], &left, 100), Vec::<u32>::new());
    }

    #[test]
    fn shares_hold_where_a_round_has_one_turn() {
        let all = [waiting(0, &["crm"], 1), waiting(1, &["crm"], 3)];
        let mut shares = Shares::default();
        let mut had = [0, 0];
        for _ in 0..400 {
            for (had, turns) in had.iter_mut().zip(shares.turns(&all, BTreeMap::from([("crm", 1)]), 100)) {
                *had += turns;
            }
        }
        assert_eq!(had, [100, 300]);
    }

    #[test]
    fn nobody_saves_up_turns_and_nobody_new_takes_them_all() {
        let mut shares = Shares::default();
        let held = waiting(0, &["crm", "acme"], 1);
        let free = waiting(1, &["crm"], 1);
        for _ in 0..50 {
            let left = BTreeMap::from([("crm", 2), ("acme", 0)]);
            assert_eq!(shares.turns(&[held.clone(), free.clone()], left, 100), [0, 2]);
        }
        let new = waiting(2, &["crm"], 1);
        let left = BTreeMap::from([("crm", 12), ("acme", 100)]);
        let had = shares.turns(&[held, free, new], left, 100);
        assert!(had.iter().all(|turns| (3..=5).contains(turns)), "{had:?}");
        assert_eq!(had.iter().sum::<u32>(), 12);
        let left = BTreeMap::from([("crm", 1)]);
        shares.turns(&[waiting(3, &["crm"], 1)], left.clone(), 1);
        for _ in 0..5 {
            shares.turns(&[waiting(3, &["crm"], 1)], left.clone(), 1);
        }
        assert_eq!(shares.tags.len(), 1, "who waits no more is forgotten");
    }

    #[test]
    fn who_is_on_the_way_has_had_its_turn() {
        let all = [Waiting { on_their_way: 2, ..waiting(0, &["crm"], 1) }];
        assert_eq!(turns(&all, &[("crm", 3)], 100), [1]);
        let free = [Waiting { on_their_way: 2, ..waiting(0, &[], 1) }];
        assert_eq!(turns(&free, &[("crm", 3)], 5), [5], "whose limit was taken away waits for nothing");
    }

    #[test]
    fn dear_calls_take_more_and_a_probe_goes_alone() {
        let left = [("crm", 11)];
        let dear = Waiting { needs: vec![("crm", 5)], ..waiting(0, &[], 1) };
        assert_eq!(turns(std::slice::from_ref(&dear), &left, 100), [2]);
        let on_the_way = Waiting { on_their_way: 1, ..dear };
        assert_eq!(turns(&[on_the_way], &left, 100), [1]);
        let probe = |who, on_their_way| Waiting { most: 1, on_their_way, ..waiting(who, &["crm"], 1) };
        assert_eq!(turns(&[probe(0, 0), probe(1, 1)], &left, 100), [1, 0]);
    }

    #[test]
    fn short_calls_make_room_for_more() {
        let soon = |in_use, millis| slots_soon(4, in_use, Duration::from_millis(millis), Duration::from_millis(400));
        assert_eq!((soon(4, 10_000), soon(1, 10_000), soon(4, 100), soon(4, 0)), (0, 3, 16, 1_600));
    }
}
