//! Budgets as data: the windows that a call has to fit, and the tokens that were taken of them.

use std::time::Duration;

use crate::clock::Timestamp;

/// One window of a budget: at most one token each `interval`, and as many at once as `tolerance` has room for.
///
/// This is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371): in any time `t` at most
/// `1 + (tolerance + t) / interval` tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Under what it is kept: equal keys share one count. At most [`WINDOW_KEY_BYTES_MAX`].
    pub key: String,
    /// Time that one token takes; at least a microsecond.
    pub interval: Duration,
    /// How far ahead of its time a token may be taken.
    pub tolerance: Duration,
}

/// Longest key of a window, in bytes.
pub const WINDOW_KEY_BYTES_MAX: usize = 512;
/// Most windows that one call has to fit.
pub const WINDOWS_MAX: usize = 64;

/// A wish for tokens, each of which counts in every one of the windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The windows; none of them twice.
    pub windows: Vec<Window>,
    /// How many tokens at most.
    pub tokens: u32,
    /// The present.
    pub now: Timestamp,
    /// Only tokens that may be used at this time or before.
    pub until: Timestamp,
}

/// The answer: `granted` tokens of every window, or none of any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// How many.
    pub granted: u32,
    /// For each window, when the first token (granted or not) may be used; the next ones follow in its interval.
    pub first: Vec<Timestamp>,
}

impl Taken {
    /// When each granted token may be used, in order.
    pub fn slots<'a>(&'a self, windows: &'a [Window]) -> impl Iterator<Item = Timestamp> + 'a {
        (0..self.granted).map(|nth| self.slot(windows, nth))
    }

    /// When the first token that was not granted may be used, if nobody takes it before.
    pub fn opens_at(&self, windows: &[Window]) -> Timestamp {
        self.slot(windows, self.granted)
    }

    fn slot(&self, windows: &[Window], nth: u32) -> Timestamp {
        let of_windows = self.first.iter().zip(windows).map(|(first, window)| first.plus(window.interval * nth));
        of_windows.max().unwrap_or(Timestamp::EPOCH)
    }
}
