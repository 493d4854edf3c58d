//! Pure decisions: what the facts of a call mean and how long to wait. No I/O, no clock, no randomness.

pub mod admit;
pub mod backoff;
pub mod classify;
pub mod headers;
pub mod pacing;
