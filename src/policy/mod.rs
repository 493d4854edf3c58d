//! Pure decisions: what the facts of a call mean, how long to wait, what may be called. No I/O, no clock, no randomness.

pub mod account;
pub mod admit;
pub mod backoff;
pub mod circuit;
pub mod classify;
pub mod control;
pub mod headers;
pub mod health;
pub mod learn;
pub mod limit;
pub mod notices;
pub mod operation;
pub mod pacing;
pub mod turns;
