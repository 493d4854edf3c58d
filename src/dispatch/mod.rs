//! Seam 3: makes one call and reports facts; never decides, retries or sleeps.

pub mod address;
mod answer;
mod clients;
pub mod handler;
pub mod http;
mod path;
mod request;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::job::Job;
use crate::job::outcome::Outcome;
use crate::job::trace::Context;

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
