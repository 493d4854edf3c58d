//! Notices of incidents, by sink and by what came of them.

use std::sync::Arc;

use ::metrics::Counter;

use super::metrics::NOTIFICATIONS;
use super::series::{Cache, Maker};

/// Most sinks with series of their own; the configuration allows fewer.
const SINK_LABELS_MAX: usize = 32;
/// The closed set of the label `outcome`.
const OUTCOMES: [&str; 3] = ["sent", "failed", "given_up"];

/// What came of a notice of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notified {
    /// The sink took it.
    Sent,
    /// It did not; it is tried again.
    Failed,
    /// It is not tried any more.
    GivenUp,
}

/// The counters of every sink.
pub(super) struct SinkSeries(Cache<String, Arc<[Counter; 3]>>);

impl Default for SinkSeries {
    fn default() -> Self {
        Self(Cache::new(SINK_LABELS_MAX))
    }
}

impl SinkSeries {
    /// Counts notices; 0 makes the series exist.
    pub fn notified(&self, maker: &Maker, sink: &str, outcome: Notified, notices: u64) {
        let make = || Arc::new(OUTCOMES.map(|outcome| maker.counter(&NOTIFICATIONS, &[sink, outcome])));
        if let Some(counters) = self.0.get(&sink.to_owned(), make) {
            counters[outcome as usize].increment(notices);
        }
    }
}
