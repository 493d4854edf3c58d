//! The arithmetic of shared slots, pure: how many slots of a key one holder may have beside what the others have.
//!
//! Each holder has a row for each key that it uses or wants. Only its own renewal changes it, so a holder that has more than
//! its fair share keeps it until it asks again, and everybody else fits into what is left: never are more slots held than
//! there are. What is fair can therefore change at any time, and be seen differently by clocks that differ, without harm.

use std::collections::HashMap;
use std::time::Duration;

use super::{Holder, SlotAsk, WorkerId};
use crate::clock::Timestamp;
use crate::job::LaneName;

/// How long after the `now` of its ask a grant is good for new calls, by the holder's own clock.
pub const GRANT_GOOD_FOR: Duration = Duration::from_secs(3);
/// A holder that did not ask again for so long wants nothing more. Longer than a grant is good by as much as the clocks of
/// workers may differ.
pub const STALE: Duration = Duration::from_secs(5);
/// How often the slots that do not divide evenly change hands.
pub const ROTATE: Duration = Duration::from_secs(2);

/// A row: what one holder has of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The slot's key.
    pub key: String,
    /// Whose it is: the worker and
    pub worker: WorkerId,
    /// its lane.
    pub lane: LaneName,
    /// Slots that nobody else can have: what was granted, or is in use where that is more.
    pub held: u32,
    /// Calls in flight when it asked.
    pub in_use: u32,
    /// Slots that it asked for, those in use included.
    pub wanted: u32,
    /// When it asked.
    pub renewed_at: Timestamp,
    /// Until when calls that it started on the grant may be in flight.
    pub kept_until: Timestamp,
    /// Whether its worker is registered. The row of one that is not counts for nobody.
    pub alive: bool,
}

impl Holding {
    fn is_of(&self, holder: &Holder) -> bool {
        self.worker == holder.worker && self.lane == holder.lane
    }

    /// Slots that others cannot have. Of a holder that fell silent it is all it held until the last call of its last grant
    /// has ended: it may have started that one after it had told what it used. From then on what it did not use goes to
    /// others; the calls it told of count for as long as its worker lives.
    pub fn counts(&self, now: Timestamp) -> u32 {
        if self.lapsed(now) { self.in_use } else { self.held }
    }

    fn lapsed(&self, now: Timestamp) -> bool {
        self.kept_until < now
    }

    fn wants(&self, now: Timestamp) -> u32 {
        if now.since(self.renewed_at) > STALE { self.in_use } else { self.wanted }
    }
}

/// What a store does about the asks of a holder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The answers, in the order of the asks.
    pub granted: Vec<u32>,
    /// The holder's rows as they are to be written.
    pub kept: Vec<Holding>,
    /// Rows that go: what the holder gives back, and what workers have left that are gone.
    pub removed: Vec<Holding>,
    /// Keys of which others get what a silent holder did not use: rows whose time is over are to be cut to what is in use.
    pub lapsed: Vec<String>,
}

/// Decides about asks; `rows`: all of their keys.
pub fn plan(holder: &Holder, now: Timestamp, asks: &[SlotAsk], rows: Vec<Holding>) -> Plan {
    let mut plan = Plan::default();
    let mut of_keys: HashMap<String, Vec<Holding>> = HashMap::new();
    for row in rows {
        if row.alive {
            of_keys.entry(row.key.clone()).or_default().push(row);
        } else {
            plan.removed.push(row);
        }
    }
    for ask in asks {
        let of_key = of_keys.remove(&ask.slot.key).unwrap_or_default();
        let (mine, others): (Vec<Holding>, Vec<Holding>) = of_key.into_iter().partition(|row| row.is_of(holder));
        let granted = share(holder, now, ask, &others);
        plan.granted.push(granted);
        if ask.wanted.max(ask.in_use) > 0 {
            plan.kept.push(holding(holder, now, ask, granted));
        } else {
            plan.removed.extend(mine);
        }
        if others.iter().any(|row| row.counts(now) < row.held) {
            plan.lapsed.push(ask.slot.key.clone());
        }
    }
    plan
}

fn holding(holder: &Holder, now: Timestamp, ask: &SlotAsk, granted: u32) -> Holding {
    Holding {
        key: ask.slot.key.clone(),
        worker: holder.worker,
        lane: holder.lane.clone(),
        held: granted.max(ask.in_use),
        in_use: ask.in_use,
        wanted: ask.wanted.max(ask.in_use),
        renewed_at: now,
        kept_until: now.plus(STALE).plus(holder.longest_call),
        alive: true,
    }
}

/// How many slots the holder may use from now on: its fair share, as far as the others leave room for it.
///
/// It can be fewer than it uses. Calls in flight are never cut, but a holder that went on to fill what it has beyond its
/// share would never come down to it, and the others would wait for ever.
pub fn share(holder: &Holder, now: Timestamp, ask: &SlotAsk, others: &[Holding]) -> u32 {
    let taken = others.iter().fold(0_u32, |sum, row| sum.saturating_add(row.counts(now)));
    fair(holder, now, ask, others).min(ask.slot.max.saturating_sub(taken))
}

/// The fair share: whoever wants little gets it, the others equal parts. What does not divide goes to some of them, to the
/// next ones in each rotation, so that everybody has a turn where there are more holders than slots.
fn fair(holder: &Holder, now: Timestamp, ask: &SlotAsk, others: &[Holding]) -> u32 {
    let mine = ask.wanted.max(ask.in_use);
    let others = others.iter().map(|row| (row.worker, &row.lane, row.wants(now)));
    let mut all: Vec<(WorkerId, &LaneName, u32)> = others.chain([(holder.worker, &holder.lane, mine)]).collect();
    all.sort_unstable(); // whoever asks sees the same order
    let (part, over) = level(ask.slot.max, all.iter().map(|(_, _, wants)| *wants).collect());
    if mine <= part {
        return mine;
    }
    all.retain(|(_, _, wants)| *wants > part);
    let sharers = all.len();
    let before_me = all.iter().take_while(|(worker, lane, _)| (*worker, *lane) < (holder.worker, &holder.lane)).count();
    let turn = (before_me + sharers - first_in_turn(now, over, sharers)) % sharers;
    part + u32::from(turn < over)
}

/// The most that each may have so that all fits into `max`, and what is then over: less than one for each who wants more.
fn level(max: u32, mut wants: Vec<u32>) -> (u32, usize) {
    wants.sort_unstable();
    let mut left = max as usize;
    for (nth, want) in wants.iter().enumerate() {
        let sharers = wants.len() - nth;
        match u32::try_from(left / sharers) {
            Ok(part) if *want > part => return (part, left % sharers),
            _ => left -= *want as usize,
        }
    }
    (max, 0)
}

/// Whose turn is first for what is over: each rotation begins where the one before ended.
fn first_in_turn(now: Timestamp, over: usize, sharers: usize) -> usize {
    let rotation = now.as_micros().unsigned_abs() / u64::try_from(ROTATE.as_micros()).unwrap_or(u64::MAX);
    let (over, sharers) = (over as u64, sharers as u64);
    usize::try_from(rotation % sharers * over % sharers).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::budget::Slot;

    const ROUND: Duration = Duration::from_millis(500);
    const LONGEST_CALL: Duration = Duration::from_secs(4);

    /// A holder that keeps to the contract, by a clock of its own.
    struct Actor {
        holder: Holder,
        ahead: Duration,
        granted: u32,
        asked_at: Timestamp,
        /// When each of its calls ends at the latest.
        calls: Vec<Timestamp>,
    }

    impl Actor {
        fn in_use(&self) -> u32 {
            u32::try_from(self.calls.len()).expect("few")
        }
    }

    /// Holders of one key, and its rows as a store keeps them.
    struct World {
        now: Timestamp,
        slot: Slot,
        rows: Vec<Holding>,
        actors: Vec<Actor>,
    }

    impl World {
        fn new(max: u32, actors: usize) -> Self {
            let now = Timestamp::from_secs(1_800_000_000);
            let actor = |nth: usize| Actor {
                holder: Holder {
                    worker: WorkerId(i64::try_from(nth / 2).expect("small")), // two lanes each
                    lane: LaneName::new(if nth.is_multiple_of(2) { "bulk" } else { "realtime" }).expect("a lane"),
                    longest_call: LONGEST_CALL,
                },
                ahead: Duration::ZERO,
                granted: 0,
                asked_at: now,
                calls: Vec::new(),
            };
            let slot = Slot { key: "hot".to_owned(), max };
            Self { now, slot, rows: Vec::new(), actors: (0..actors).map(actor).collect() }
        }

        fn later(&mut self, time: Duration) {
            self.now = self.now.plus(time);
            for actor in &mut self.actors {
                actor.calls.retain(|end| *end > self.now);
            }
        }

        /// Asks for `more` slots than are in use; writes as the backends do.
        fn ask(&mut self, nth: usize, more: u32) -> u32 {
            let actor = &mut self.actors[nth];
            let now = self.now.plus(actor.ahead);
            let ask = SlotAsk {
                slot: self.slot.clone(),
                in_use: actor.in_use(),
                wanted: actor.in_use().saturating_add(more),
            };
            let plan = plan(&actor.holder, now, &[ask], self.rows.clone());
            self.rows.retain(|row| !row.is_of(&actor.holder) && !plan.removed.contains(row));
            for row in self.rows.iter_mut().filter(|row| plan.lapsed.contains(&row.key) && row.lapsed(now)) {
                row.held = row.in_use;
            }
            self.rows.extend(plan.kept);
            (actor.granted, actor.asked_at) = (plan.granted[0], now);
            actor.granted
        }

        fn ask_all(&mut self, more: &[u32]) {
            for (nth, more) in more.iter().enumerate() {
                self.ask(nth, *more);
            }
        }

        fn start_calls(&mut self, nth: usize, calls: u32, each: Duration) {
            let actor = &mut self.actors[nth];
            let good = self.now.plus(actor.ahead).since(actor.asked_at) <= GRANT_GOOD_FOR;
            let room = if good { actor.granted.saturating_sub(actor.in_use()) } else { 0 };
            actor.calls.extend((0..calls.min(room)).map(|_| self.now.plus(each)));
        }

        /// Its worker is declared dead: its calls have ended, and it registers anew.
        fn die(&mut self, nth: usize) {
            let worker = self.actors[nth].holder.worker;
            self.rows.iter_mut().filter(|row| row.worker == worker).for_each(|row| row.alive = false);
            for actor in self.actors.iter_mut().filter(|actor| actor.holder.worker == worker) {
                actor.holder.worker = WorkerId(worker.0 + 1_000);
                (actor.granted, actor.calls) = (0, Vec::new());
            }
        }

        /// Everybody in turn: asks, and fills what it has with calls.
        fn round(&mut self, more: &[u32], each: Duration) {
            for (nth, more) in more.iter().enumerate() {
                let more = more.saturating_sub(self.actors[nth].in_use());
                self.ask(nth, more);
                self.start_calls(nth, u32::MAX, each);
            }
        }

        fn held(&self) -> u32 {
            self.rows.iter().filter(|row| row.alive).map(|row| row.held).sum()
        }

        fn in_flight(&self) -> u32 {
            self.actors.iter().map(Actor::in_use).sum()
        }
    }

    fn grants(max: u32, wants: &[u32]) -> Vec<u32> {
        let mut world = World::new(max, wants.len());
        (0..2).for_each(|_| world.ask_all(wants));
        world.actors.iter().map(|actor| actor.granted).collect()
    }

    #[test]
    fn whoever_wants_little_gets_it_and_the_others_share_evenly() {
        assert_eq!(grants(10, &[4]), [4]);
        assert_eq!(grants(10, &[99]), [10], "nobody else wants any");
        assert_eq!(grants(10, &[99, 99]), [5, 5]);
        assert_eq!(grants(10, &[2, 99, 99]), [2, 4, 4]);
        assert_eq!(grants(10, &[1, 3, 4]), [1, 3, 4]);
        assert_eq!(grants(12, &[0, 1, 99, 0, 3]), [0, 1, 8, 0, 3]);
        assert_eq!(grants(u32::MAX, &[u32::MAX, 7]), [u32::MAX - 7, 7]);
        assert_eq!(grants(2, &[5, 5, 5]).iter().sum::<u32>(), 2);
    }

    #[test]
    fn a_grant_is_lower_than_what_is_in_use_so_that_others_get_their_share() {
        let mut world = World::new(10, 2);
        world.ask(0, 10);
        world.start_calls(0, 10, LONGEST_CALL);
        assert_eq!(world.ask(1, 10), 0, "all are held");
        assert_eq!(world.ask(0, 10), 5);
        assert_eq!((world.rows[1].held, world.rows[1].in_use), (10, 10), "calls in flight count, whatever was granted");
        world.actors[0].calls.truncate(7);
        assert_eq!((world.ask(0, 10), world.ask(1, 10)), (5, 3));
    }

    #[test]
    fn a_lower_maximum_is_reached_as_calls_end() {
        let mut world = World::new(10, 2);
        world.round(&[5, 5], LONGEST_CALL);
        world.slot.max = 4;
        assert_eq!((world.ask(0, 0), world.ask(1, 0), world.held()), (0, 0, 10));
        world.later(LONGEST_CALL);
        (0..2).for_each(|_| world.round(&[5, 5], LONGEST_CALL));
        assert_eq!((world.held(), world.in_flight()), (4, 4));
    }

    #[test]
    fn a_silent_holder_wants_nothing_and_then_holds_what_it_told_of() {
        let mut world = World::new(10, 3);
        world.ask(0, 8);
        world.start_calls(0, 3, LONGEST_CALL);
        world.ask(0, 5);
        world.later(STALE);
        assert_eq!(world.ask(2, 10), 2, "calls of its last grant may still be in flight");
        world.later(LONGEST_CALL);
        assert_eq!(world.ask(2, 10), 2);
        world.later(Duration::from_micros(1));
        assert_eq!((world.ask(2, 10), world.held()), (7, 10), "what it told of counts while its worker lives");
        world.die(0);
        assert_eq!((world.ask(2, 10), world.rows.len()), (10, 1), "what the dead have left is removed");
    }

    #[test]
    fn whoever_wants_nothing_has_no_row() {
        let mut world = World::new(10, 2);
        world.ask(0, 3);
        world.ask(1, 3);
        world.ask(0, 0);
        assert_eq!(world.rows.iter().map(|row| row.worker).collect::<Vec<_>>(), [world.actors[1].holder.worker]);
    }

    proptest! {
        /// Holders ask, call, fall silent for any time and die, their clocks up to two seconds apart.
        #[test]
        fn never_are_more_held_or_in_flight_than_there_are(
            max in 1_u32..12,
            ahead in prop::collection::vec(0_u64..=2_000, 5),
            steps in prop::collection::vec((0_usize..5, 0_u8..12, 0_u32..15, 0_u64..1_000), 1..200),
        ) {
            let mut world = World::new(max, ahead.len());
            for (actor, ahead) in world.actors.iter_mut().zip(ahead) {
                actor.ahead = Duration::from_millis(ahead);
            }
            for (who, what, amount, later) in steps {
                world.later(Duration::from_millis(if later > 900 { later * 8 } else { later }));
                match what {
                    0..5 => _ = world.ask(who, amount),
                    5..9 => world.start_calls(who, amount, LONGEST_CALL),
                    9..11 => {
                        let left = world.actors[who].calls.len().saturating_sub(amount as usize);
                        world.actors[who].calls.truncate(left);
                    }
                    _ => world.die(who),
                }
                prop_assert!(world.held() <= max, "{} held of {max}", world.held());
                prop_assert!(world.in_flight() <= max, "{} in flight of {max}", world.in_flight());
            }
        }

        /// However slots were held before: once everybody has told what it wants, two rounds of asking, one to give back and
        /// one to take, leave none idle that somebody wants.
        #[test]
        fn what_is_wanted_is_held(
            max in 1_u32..20,
            before in prop::collection::vec((0_usize..6, 0_u32..15, 0_u32..15), 0..30),
            more in prop::collection::vec(0_u32..15, 6),
        ) {
            let mut world = World::new(max, more.len());
            for (who, more, calls) in before {
                world.ask(who, more);
                world.start_calls(who, calls, LONGEST_CALL);
            }
            for _ in 0..3 {
                world.ask_all(&more);
            }
            let wanted: u32 = world.rows.iter().map(|row| row.wanted).sum();
            prop_assert_eq!(world.held(), max.min(wanted));
        }

        /// Holders that always use all they may come to their shares, also when others had everything before.
        #[test]
        fn busy_holders_come_to_fair_shares(
            max in 1_u32..40,
            wants in prop::collection::vec(0_u32..30, 1..8),
            greedy in 0_usize..8,
        ) {
            let mut world = World::new(max, wants.len());
            let greedy = greedy % wants.len();
            world.ask(greedy, max);
            world.start_calls(greedy, max, LONGEST_CALL);
            for _ in 0..20 {
                world.later(ROUND);
                world.round(&wants, Duration::from_millis(1_700));
            }
            let (part, _) = level(max, wants.clone());
            for (actor, want) in world.actors.iter().zip(&wants) {
                prop_assert!(actor.granted >= part.min(*want), "{} of {part} and {want}", actor.granted);
                prop_assert!(actor.granted <= part.saturating_add(1).min(*want), "{} of {part} and {want}", actor.granted);
            }
        }

        /// With more holders than slots, busy ones: everybody has a turn within as many rotations as it takes.
        #[test]
        fn everybody_has_a_turn(max in 1_u32..6, more in 0_usize..20, begin in 0_u64..4_000) {
            let holders = max as usize + more;
            let mut world = World::new(max, holders);
            world.later(Duration::from_millis(begin));
            let mut turns = vec![0_u32; holders];
            let rotations = holders.div_ceil(max as usize) + 1;
            for _ in 0..rotations * 4 {
                world.later(ROUND);
                world.round(&vec![9; holders], Duration::from_millis(700));
                world.actors.iter().zip(&mut turns).for_each(|(actor, turns)| *turns += actor.in_use());
            }
            prop_assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
        }
    }
}
