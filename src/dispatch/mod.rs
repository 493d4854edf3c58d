//! Seam 3: makes one call and reports facts; never decides, retries or sleeps.

pub mod address;
mod answer;
mod clients;
pub mod handler;
pub mod http;
mod path;
mod request;
pub mod signature;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use async_trait::async_trait;
use bytes::Bytes;

use crate::job::outcome::Outcome;
use crate::job::trace::Context;
use crate::job::{EndpointName, Job};

/// One call that has been granted.
#[derive(Debug, Clone)]
pub struct Call {
    /// The job.
    pub job: Arc<Job>,
    /// 1 for the first call of this generation.
    pub attempt: u32,
    /// 1, and one more for every operator's replay.
    pub generation: u32,
    /// Its place in its trace, where traces are exported; else the publisher's is passed on as it is.
    pub trace: Option<Context>,
    /// Most time the call may take, already bounded by the endpoint's own.
    pub timeout: Duration,
}

/// Makes calls.
#[async_trait]
pub trait Dispatch: Send + Sync + fmt::Debug {
    /// Makes one call and reports what happened. Never fails: a failure is a fact.
    async fn call(&self, call: Call) -> Outcome;
}

/// Sends what belongs to no job: notices of incidents. The same bounds as for calls, and facts as well.
#[async_trait]
pub trait Post: Send + Sync + fmt::Debug {
    /// Posts JSON to one of the configured places, within its timeout.
    async fn post(&self, to: &EndpointName, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> Outcome;
}
