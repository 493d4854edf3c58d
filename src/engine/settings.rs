//! What the engine has to know: plain values, taken from the configuration by `app`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::job::wire::DecodeRules;
use crate::job::{EndpointName, LaneName};
use crate::policy::backoff::RetryPolicy;
use crate::policy::classify::EndpointRules;
use crate::policy::pacing::Budgets;

/// One lane.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// Its name.
    pub name: LaneName,
    /// Most calls in flight, per worker.
    pub concurrency: usize,
    /// Most calls in flight, over all workers; `None` = as many as they make.
    pub global_concurrency: Option<u32>,
    /// Most fresh messages in hand and not yet acked, per worker.
    pub prefetch: u16,
    /// When a failed call is repeated.
    pub retry: RetryPolicy,
    /// How its messages are read.
    pub decode: DecodeRules,
    /// The deduplication window.
    pub window: Duration,
    /// A job that was running while so many workers died is quarantined.
    pub poison_after: u32,
}

/// One endpoint, as far as the engine decides about its answers.
#[derive(Debug, Clone)]
pub struct EndpointSettings {
    /// What an answer means.
    pub rules: EndpointRules,
    /// Most time a call may take.
    pub timeout: Duration,
}

/// The whole worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// `host:pid`, for people.
    pub name: String,
    /// A worker that was not heard of for so long is dead and its jobs are taken over.
    pub lease: Duration,
    /// How long calls in flight may go on after the stop.
    pub drain_timeout: Duration,
    /// A job that was running while so many workers died is quarantined.
    pub poison_after: u32,
    /// Ended rows go after this time in any case.
    pub ended_kept: Duration,
    /// Dead letters go after this time.
    pub letters_kept: Duration,
    /// Its lanes.
    pub lanes: Vec<LaneSettings>,
    /// The endpoints its jobs may name.
    pub endpoints: HashMap<EndpointName, EndpointSettings>,
    /// What the endpoints allow.
    pub budgets: Arc<Budgets>,
}
