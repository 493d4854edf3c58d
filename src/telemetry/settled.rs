//! How many deliveries were settled, by verdict: every one ends in exactly one of them.

use std::sync::atomic::AtomicU64;

#[derive(Default)]
pub(super) struct Tally(pub [AtomicU64; 7]);

/// How many deliveries were settled, by verdict: every delivery ends in exactly one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Succeeded.
    pub done: u64,
    /// Became dead letters, before or after a call.
    pub dead: u64,
    /// Will be called again.
    pub retry: u64,
    /// Parked before a call.
    pub wait: u64,
    /// Dropped as duplicates.
    pub duplicate: u64,
    /// Dropped because their job's row says everything.
    pub stale: u64,
    /// Ended by an operator.
    pub cancelled: u64,
}

impl Settled {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.done + self.dead + self.retry + self.wait + self.duplicate + self.stale + self.cancelled
    }
}

/// Index into [`Tally`].
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Done,
    Dead,
    Retry,
    Wait,
    Duplicate,
    Stale,
    Cancelled,
}
