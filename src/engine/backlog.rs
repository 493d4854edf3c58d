//! Whose jobs wait in the store for their turn: fresh ones queue up behind them, so that they go in publish order.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use super::paced::GateKey;

/// The gates of one lane that have such jobs, as far as this worker knows.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    gates: RwLock<HashSet<GateKey>>,
    any: AtomicBool,
}

impl Backlog {
    /// Whether there are any at all.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// Whether jobs of this gate wait there.
    pub fn has(&self, key: &GateKey) -> bool {
        !self.is_empty() && self.gates.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// One more was parked.
    pub fn add(&self, key: GateKey) {
        self.gates.write().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.any.store(true, Ordering::Relaxed);
    }

    /// What the store says.
    pub fn set(&self, gates: HashSet<GateKey>) {
        self.any.store(!gates.is_empty(), Ordering::Relaxed);
        *self.gates.write().unwrap_or_else(PoisonError::into_inner) = gates;
    }
}
