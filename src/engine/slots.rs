//! The slots for calls in flight that this lane has of those that all workers share: how many it may use, what to ask for.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::budget::Slot;
use crate::store::{BATCH_MAX, GRANT_GOOD_FOR, SlotAsk};

/// How often what is used and wanted is said again: what others hold is seen then, and what is not needed goes to them.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Shortest time between two asks while jobs wait for a slot.
const ASK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Key {
    slot: Slot,
    /// What was granted, and how long that may be used.
    held: u32,
    good_until: Timestamp,
    /// Taken by calls, and by jobs that are about to be called.
    used: u32,
    /// Jobs that wait for one.
    waiting: u32,
    asked_at: Option<Timestamp>,
}

/// The slots of one lane.
#[derive(Debug, Default)]
pub(super) struct Slots {
    keys: HashMap<String, Key>,
    asked_at: Timestamp,
    asking: bool,
}

impl Slots {
    /// How many more calls these have room for.
    pub fn free(&self, slots: &[Slot], now: Timestamp) -> usize {
        let of = |slot: &Slot| self.keys.get(&slot.key).map_or(0, |held| held.free(now));
        slots.iter().map(of).min().unwrap_or(usize::MAX)
    }

    /// How many calls these have room for, those in flight included, of a key that one holder uses by itself.
    pub fn granted(&self, slot: &Slot, now: Timestamp) -> usize {
        self.keys.get(&slot.key).filter(|held| held.good_until > now).map_or(0, |held| held.held as usize)
    }

    /// Takes places for `calls`; [`Slots::free`] said that they are there.
    pub fn take(&mut self, slots: &[Slot], calls: usize) {
        for slot in slots {
            let held = self.key(slot);
            held.used = held.used.saturating_add(count(calls));
        }
    }

    /// Gives places back.
    pub fn give_back(&mut self, slots: &[Slot], calls: usize) {
        for slot in slots {
            let held = self.key(slot);
            held.used = held.used.saturating_sub(count(calls));
        }
    }

    /// Says that `calls` of a key are in flight and so many more wait for it.
    pub fn set(&mut self, slot: &Slot, calls: usize, waiting: usize) {
        let held = self.key(slot);
        (held.used, held.waiting) = (count(calls), count(waiting));
    }

    fn key(&mut self, slot: &Slot) -> &mut Key {
        let new =
            || Key { slot: slot.clone(), held: 0, good_until: Timestamp::EPOCH, used: 0, waiting: 0, asked_at: None };
        let held = self.keys.entry(slot.key.clone()).or_insert_with(new);
        held.slot.max = slot.max;
        held
    }

    /// Whether anybody takes part in this at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// When to ask next; `None` while an answer is awaited, or nothing is to be asked.
    pub fn next_ask(&self) -> Option<Timestamp> {
        if self.asking || !self.keys.values().any(Key::takes_part) {
            return None;
        }
        let wait = if self.keys.values().any(Key::is_new) {
            Duration::ZERO
        } else if self.keys.values().any(Key::is_short) {
            ASK_AGAIN
        } else {
            RENEW_EVERY
        };
        Some(self.asked_at.plus(wait))
    }

    /// What to ask, where it is time to. `waiting`: jobs that wait for a slot of a key.
    pub fn asks(&mut self, now: Timestamp) -> Option<Vec<SlotAsk>> {
        if self.next_ask().is_none_or(|at| at > now) {
            return None;
        }
        (self.asking, self.asked_at) = (true, now);
        let mut keys: Vec<&mut Key> = self.keys.values_mut().filter(|held| held.takes_part()).collect();
        // where there are more than one call takes, those that were asked about longest ago
        keys.sort_unstable_by_key(|held| held.asked_at);
        let asks = keys.into_iter().take(BATCH_MAX).map(|held| {
            held.asked_at = Some(now);
            // asking gives the grant back: until the answer no more calls are in flight than were told
            held.held = held.held.min(held.used);
            SlotAsk { slot: held.slot.clone(), in_use: held.used, wanted: held.used.saturating_add(held.waiting) }
        });
        Some(asks.collect())
    }

    /// Takes the answer to what was asked at `asked_at`.
    pub fn renewed(&mut self, asks: &[SlotAsk], held: &[u32], asked_at: Timestamp) {
        self.asking = false;
        for (ask, granted) in asks.iter().zip(held) {
            if let Some(held) = self.keys.get_mut(&ask.slot.key) {
                (held.held, held.good_until) = (*granted, asked_at.plus(GRANT_GOOD_FOR));
                if ask.wanted == 0 && held.used == 0 && held.waiting == 0 {
                    self.keys.remove(&ask.slot.key);
                }
            }
        }
    }

    /// Nobody waits any more, as far as is known: [`Slots::set`] and [`Slots::waits`] say who does.
    pub fn forget_waiting(&mut self) {
        self.keys.values_mut().for_each(|held| held.waiting = 0);
    }

    /// So many more jobs wait for these.
    pub fn waits(&mut self, slots: &[Slot], jobs: usize) {
        for slot in slots {
            let held = self.key(slot);
            held.waiting = held.waiting.saturating_add(count(jobs));
        }
    }
}

impl Key {
    fn free(&self, now: Timestamp) -> usize {
        if self.good_until <= now {
            return 0;
        }
        self.held.saturating_sub(self.used) as usize
    }

    /// It was granted something, or wants to be.
    fn takes_part(&self) -> bool {
        self.asked_at.is_some() || self.waiting > 0
    }

    fn is_new(&self) -> bool {
        self.asked_at.is_none() && self.waiting > 0
    }

    fn is_short(&self) -> bool {
        self.waiting > 0 && self.held < self.slot.max && self.used >= self.held
    }
}

fn count(calls: usize) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(key: &str, max: u32) -> Slot {
        Slot { key: key.to_owned(), max }
    }

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn nothing_is_used_that_was_not_granted_or_is_not_good_any_more() {
        let (mut slots, both) = (Slots::default(), [slot("crm", 3), slot("crm/acme", 2)]);
        assert_eq!((slots.free(&both, at(1)), slots.free(&[], at(1))), (0, usize::MAX));
        slots.waits(&both, 5);
        let asks = slots.asks(at(1)).expect("something is wanted");
        assert_eq!(asks.iter().map(|ask| (ask.in_use, ask.wanted)).collect::<Vec<_>>(), [(0, 5), (0, 5)]);
        assert_eq!(slots.asks(at(9_000)), None, "one ask at a time");
        let held: Vec<u32> = asks.iter().map(|ask| ask.slot.max).collect();
        slots.renewed(&asks, &held, at(1));
        assert_eq!(slots.free(&both, at(2)), 2);
        slots.take(&both, 2);
        assert_eq!((slots.free(&both, at(2)), slots.free(&both[..1], at(2))), (0, 1));
        slots.give_back(&both, 1);
        assert_eq!(slots.free(&both, at(2)), 1);
        assert_eq!(slots.free(&both, at(1).plus(GRANT_GOOD_FOR)), 0, "others may have it by then");
    }

    #[test]
    fn what_nobody_needs_is_given_back_and_forgotten() {
        let (mut slots, one) = (Slots::default(), [slot("crm", 3)]);
        slots.waits(&one, 1);
        let asks = slots.asks(at(1)).expect("asks at once");
        slots.renewed(&asks, &[1], at(1));
        slots.forget_waiting();
        assert_eq!((slots.asks(at(500)), slots.next_ask()), (None, Some(at(501))));
        let asks = slots.asks(at(501)).expect("renews");
        assert_eq!((asks[0].in_use, asks[0].wanted), (0, 0));
        slots.renewed(&asks, &[0], at(501));
        assert!(slots.is_empty());
    }
}
