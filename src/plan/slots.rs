//! Slots that all workers share: how many more calls there is room for, each lane being one holder beside the others.

use std::time::Duration;

use super::world::World;
use crate::store::slots::{Holding, share};
use crate::store::{Holder, SlotAsk, WorkerId};

impl World<'_> {
    /// How many more calls of a gate the shared slots have room for.
    pub(super) fn free_slots(&self, at: usize) -> usize {
        let gate = &self.gates[at];
        gate.slot_keys.iter().map(|key| self.free_of(gate.lane, *key) as usize).min().unwrap_or(usize::MAX)
    }

    /// Each lane is a holder; what it may have beside the others is the store's arithmetic.
    fn free_of(&self, lane: usize, key: usize) -> u32 {
        let key = &self.slot_keys[key];
        let others = (0..key.used.len()).filter(|other| *other != lane && key.used[*other] + key.waiting[*other] > 0);
        let holding = |other: usize| Holding {
            key: key.slot.key.clone(),
            worker: WorkerId(0),
            lane: self.setup.lanes[other].name.clone(),
            held: key.used[other],
            in_use: key.used[other],
            wanted: key.used[other] + key.waiting[other],
            renewed_at: self.now,
            kept_until: self.now,
            alive: true,
        };
        let others: Vec<Holding> = others.map(holding).collect();
        let in_use = key.used[lane];
        if others.is_empty() {
            return key.slot.max.saturating_sub(in_use);
        }
        let name = self.setup.lanes[lane].name.clone();
        let holder = Holder { worker: WorkerId(0), lane: name, longest_call: Duration::ZERO };
        let ask = SlotAsk { slot: key.slot.clone(), in_use, wanted: in_use + key.waiting[lane] };
        share(&holder, self.now, &ask, &others).saturating_sub(in_use)
    }
}
