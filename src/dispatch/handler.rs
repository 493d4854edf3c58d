//! Calls the user's own async function instead of an HTTP endpoint (library use).

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Call, Dispatch};
use crate::clock::{self, SharedClock, Timestamp};
use crate::job::outcome::{Answer, HandlerAnswer, Outcome};
use crate::job::{EndpointName, Job, JobId, JobMeta, LaneName, Tenant};

/// Longest text of a failure that is kept.
const FAILURE_BYTES_MAX: usize = 4 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;

/// What a handler is given: one job and which call of it this is.
#[derive(Debug, Clone)]
pub struct JobContext {
    job: Arc<Job>,
    attempt: u32,
    generation: u32,
    timeout: Duration,
}

impl JobContext {
    /// The deduplication id.
    pub fn id(&self) -> &JobId {
        &self.job.id
    }

    /// The handle of this publish.
    pub fn instance(&self) -> Uuid {
        self.job.instance
    }

    /// Where it runs.
    pub fn lane(&self) -> &LaneName {
        &self.job.lane
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Tenant {
        &self.job.tenant
    }

    /// What it asks to be called.
    pub fn endpoint(&self) -> &EndpointName {
        &self.job.endpoint
    }

    /// When it was published.
    pub fn published_at(&self) -> Timestamp {
        self.job.published_at
    }

    /// What travelled with it: content type, correlation id, trace context, ...
    pub fn meta(&self) -> &JobMeta {
        &self.job.meta
    }

    /// Its payload.
    pub fn body(&self) -> &Bytes {
        &self.job.body
    }

    /// Its payload read as JSON.
    ///
    /// # Errors
    /// [`HandlerError::Failed`]: bytes that cannot be read now cannot be read later.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        serde_json::from_slice(&self.job.body)
            .map_err(|error| HandlerError::failed(format!("the body is not the JSON that is expected: {error}")))
    }

    /// 1 for the first call; starts over when an operator replays the job.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// 1, and one more for every replay.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// After this time the call is given up and its result no longer counts.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The key by which the called side can recognise a repeated call.
    pub fn idempotency_key(&self) -> String {
        self.job.idempotency_key(self.generation)
    }
}

/// Why a handler did not succeed, and so what lanes will do.
///
/// `?` turns any error into [`HandlerError::Retry`].
pub enum HandlerError {
    /// The API is limiting us: called again after the lane's delay, and no earlier than `retry_after`.
    RateLimited {
        /// The least wait the API asked for.
        retry_after: Option<Duration>,
    },
    /// It may pass: called again after the lane's delay.
    Retry(BoxError),
    /// It will never work: dead letter at once.
    Failed(BoxError),
}

impl HandlerError {
    /// Rate limited, with the wait the API asked for.
    pub fn rate_limited(retry_after: impl Into<Option<Duration>>) -> Self {
        Self::RateLimited { retry_after: retry_after.into() }
    }

    /// A failure that may pass.
    pub fn retry(why: impl Into<BoxError>) -> Self {
        Self::Retry(why.into())
    }

    /// A failure for good.
    pub fn failed(why: impl Into<BoxError>) -> Self {
        Self::Failed(why.into())
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::Retry(error.into())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited { retry_after } => write!(f, "rate limited, retry after {retry_after:?}"),
            Self::Retry(error) => write!(f, "retry: {error}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// Does the work of a job. Every `Fn(JobContext) -> impl Future<Output = Result<(), HandlerError>>` is one.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Called once per attempt. Dropped when the call's time is over: keep no lock across an await.
    async fn handle(&self, context: JobContext) -> Result<(), HandlerError>;
}

#[async_trait]
impl<F, Fut> Handler for F
where
    F: Fn(JobContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&self, context: JobContext) -> Result<(), HandlerError> {
        self(context).await
    }
}

/// Calls a [`Handler`] for every job.
#[derive(Clone)]
pub struct HandlerDispatch {
    handler: Arc<dyn Handler>,
    clock: SharedClock,
}

impl HandlerDispatch {
    /// Calls `handler`, whatever endpoint a job names.
    pub fn new(handler: impl Handler, clock: SharedClock) -> Self {
        Self { handler: Arc::new(handler), clock }
    }
}

impl fmt::Debug for HandlerDispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerDispatch")
    }
}

#[async_trait]
impl Dispatch for HandlerDispatch {
    async fn call(&self, call: Call) -> Outcome {
        let started_at = self.clock.now();
        let Call { job, attempt, generation, timeout, .. } = call;
        let context = JobContext { job, attempt, generation, timeout };
        // unwind safety: a handler that panicked is only ever called again as a whole, its own state is its own affair
        let handled = AssertUnwindSafe(self.handler.handle(context)).catch_unwind();
        let answer = match clock::within(timeout, handled).await {
            Err(_) => Answer::NoAnswer(format!("the handler did not finish within {timeout:?}")),
            Ok(Err(panic)) => Answer::Handler(HandlerAnswer::Panicked(panic_text(&*panic))),
            Ok(Ok(result)) => Answer::Handler(answer_of(result)),
        };
        Outcome { started_at, ended_at: self.clock.now(), answer }
    }
}

fn answer_of(result: Result<(), HandlerError>) -> HandlerAnswer {
    match result {
        Ok(()) => HandlerAnswer::Done,
        Err(HandlerError::RateLimited { retry_after }) => HandlerAnswer::RateLimited { retry_after },
        Err(HandlerError::Retry(error)) => HandlerAnswer::Retry(causes(&*error)),
        Err(HandlerError::Failed(error)) => HandlerAnswer::Failed(causes(&*error)),
    }
}

/// The causes of an error, outermost first, bounded.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause
        && text.len() < FAILURE_BYTES_MAX
    {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    bounded(text)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    bounded(text.unwrap_or("the panic carries no text").to_owned())
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(FAILURE_BYTES_MAX));
    text
}
