//! Fresh copies in hand, not claimed yet: tenants take turns, so that one with many does not stand before all others.

use std::collections::{HashMap, VecDeque};

use super::paced::GateKey;
use super::{Copy, InHand};
use crate::job::Tenant;
use crate::job::verdict::WaitReason;
use crate::store::BATCH_BYTES_MAX;

/// The copies of a lane, those of each endpoint and tenant in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Hand {
    gates: HashMap<GateKey, VecDeque<InHand>>,
    /// Gates with copies; the first one is next.
    round: VecDeque<GateKey>,
    /// How many of the first one were taken in its turn.
    taken: u32,
    len: usize,
}

impl Hand {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a copy. A wake-up has no place here: it is due, and goes first.
    pub fn push(&mut self, in_hand: InHand) {
        let Copy::Fresh { job, .. } = &in_hand.copy else { return };
        let key = (job.endpoint.clone(), job.tenant.clone());
        let copies = self.gates.entry(key.clone()).or_default();
        if copies.is_empty() {
            self.round.push_back(key);
        }
        copies.push_back(in_hand);
        self.len += 1;
    }

    /// Takes at most `room` copies, and bytes that one batch carries, tenants in rounds by weight; of each gate at most as
    /// many as `most` says, where it says anything.
    pub fn take(
        &mut self,
        room: usize,
        weight: impl Fn(&Tenant) -> u32,
        most: Option<&dyn Fn(&GateKey) -> usize>,
    ) -> Vec<InHand> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let mut left: HashMap<GateKey, usize> = HashMap::new();
        let mut passed_over = 0;
        while taken.len() < room && passed_over < self.round.len() {
            let Some(key) = self.round.front() else { break };
            if let Some(most) = most {
                let left = left.entry(key.clone()).or_insert_with(|| most(key));
                if *left == 0 {
                    self.round.rotate_left(1);
                    (self.taken, passed_over) = (0, passed_over + 1);
                    continue;
                }
                (*left, passed_over) = (*left - 1, 0);
            }
            let Some(copies) = self.gates.get_mut(key) else { break };
            let Some(copy) = copies.front() else { break };
            bytes += copy.body_bytes();
            if bytes > BATCH_BYTES_MAX && !taken.is_empty() {
                break;
            }
            taken.extend(copies.pop_front());
            self.len -= 1;
            self.taken += 1;
            let is_empty = copies.is_empty();
            if is_empty || self.round.len() > 1 && self.taken >= weight(&key.1) {
                self.taken = 0;
                let Some(key) = self.round.pop_front() else { break };
                if is_empty {
                    self.gates.remove(&key);
                } else {
                    self.round.push_back(key);
                }
            }
        }
        taken
    }

    /// Takes at most `most` copies of those gates that have to wait for their turn, and bytes that one batch carries; with
    /// each why.
    pub fn take_waiting(
        &mut self,
        most: usize,
        why: impl Fn(&GateKey) -> Option<WaitReason>,
    ) -> Vec<(InHand, WaitReason)> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for key in &self.round {
            let Some(reason) = why(key) else { continue };
            let Some(copies) = self.gates.get_mut(key) else { continue };
            while let Some(copy) = copies.front() {
                bytes += copy.body_bytes();
                if taken.len() == most || bytes > BATCH_BYTES_MAX && !taken.is_empty() {
                    break;
                }
                taken.extend(copies.pop_front().map(|copy| (copy, reason)));
            }
        }
        if !taken.is_empty() {
            self.len -= taken.len();
            self.gates.retain(|_, copies| !copies.is_empty());
            let first = self.round.front().cloned();
            self.round.retain(|key| self.gates.contains_key(key));
            if self.round.front() != first.as_ref() {
                self.taken = 0;
            }
        }
        taken
    }

    /// Everything leaves.
    pub fn drain(&mut self) -> impl Iterator<Item = InHand> {
        let hand = std::mem::take(self);
        hand.gates.into_values().flatten()
    }
}
