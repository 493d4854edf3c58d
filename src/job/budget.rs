//! Budgets as data: the windows that a call has to fit, and the tokens that were taken of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EndpointName, Tenant};
use crate::clock::Timestamp;

/// Whose calls an API counts together: those to one endpoint, or those of one tenant to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Account {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// The tenant; `None` = all tenants together.
    pub tenant: Option<Tenant>,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{} for {tenant}", self.endpoint),
            None => write!(f, "{}", self.endpoint),
        }
    }
}

/// A place for a call in flight, of which there are so many over all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Under what it is kept: equal keys share one count. At most [`WINDOW_KEY_BYTES_MAX`].
    pub key: String,
    /// How many there are, at least one.
    pub max: u32,
}

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
    /// How far beyond what is asked for the arrival time can be by grants of this pace. What is further is of a slower pace
    /// that no longer counts, and is forgotten.
    pub reach: Duration,
}

/// By how much the foresight and the clocks of workers may differ.
const REACH_SLACK: Duration = Duration::from_secs(1);

impl Window {
    /// A window for calls that take one token each.
    pub fn new(key: String, interval: Duration, tolerance: Duration) -> Self {
        Self { key, interval, tolerance, reach: tolerance + interval + REACH_SLACK }
    }

    /// The same window, in which some calls take up to `cost` tokens.
    #[must_use]
    pub fn reaching(self, cost: u32) -> Self {
        Self { reach: self.tolerance + self.interval * cost + REACH_SLACK, ..self }
    }

    /// The same window for calls that take `cost` tokens each: fewer of them fit, never one too many.
    #[must_use]
    pub fn costing(self, cost: u32) -> Self {
        let tolerance = self.tolerance.saturating_sub(self.interval * (cost - 1));
        Self { interval: self.interval * cost, tolerance, ..self }
    }
}

/// Longest key of a window, in bytes.
pub const WINDOW_KEY_BYTES_MAX: usize = 1_024;
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
