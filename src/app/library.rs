//! Library use: the worker as a value, with the user's own async function in place of an HTTP call.
//!
//! ```no_run
//! use lanes::{HandlerError, Lane, Worker};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Worker::builder()
//!     .url("sqlite:lanes.db")
//!     .lane(Lane::new("realtime")?.concurrency(64))
//!     .handler(|job: lanes::JobContext| async move {
//!         println!("{} for {}", job.id(), job.tenant());
//!         Ok::<(), HandlerError>(())
//!     })
//!     .build()
//!     .await?;
//! worker.run_until(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
//! # Ok(()) }
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{self as app, AppError, Assembly};
use crate::broker::Broker;
use crate::clock::{SharedClock, SystemClock};
use crate::dispatch::Dispatch;
use crate::dispatch::handler::{Handler, HandlerDispatch};
use crate::engine::settings::{EndpointSettings, LaneSettings, WorkerSettings};
use crate::job::wire::DecodeRules;
use crate::job::{EndpointName, LaneName, NameError};
use crate::policy::backoff::RetryPolicy;
use crate::policy::circuit::CircuitRules;
use crate::policy::classify::EndpointRules;
use crate::policy::control::usual_prefetch;
use crate::policy::pacing::{Budgets, EndpointBudget, Learn};
use crate::publish::Publisher;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Health;

/// The endpoint of jobs that are handled by the user's own function, unless they name another one.
pub const HANDLER_ENDPOINT: &str = "handler";
/// Most bytes of a message's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// A job that was running while so many workers died is quarantined.
const POISON_AFTER: u32 = 3;
/// Ended rows are kept for deduplication at most so long.
const ENDED_KEPT: Duration = Duration::from_hours(7 * 24);
/// Dead letters are kept so long.
const LETTERS_KEPT: Duration = Duration::from_hours(30 * 24);
const DEFAULT_URL: &str = "sqlite:lanes.db";

/// A lane of a worker.
#[derive(Debug, Clone)]
pub struct Lane {
    name: LaneName,
    concurrency: usize,
    prefetch: Option<u16>,
    retry: RetryPolicy,
}

impl Lane {
    /// A lane that makes eight calls at a time and retries after 2, 4, 8 and 16 minutes.
    ///
    /// # Errors
    /// The name holds something else than letters, digits, `-` and `_`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Ok(Self { name: LaneName::new(name)?, concurrency: 8, prefetch: None, retry: RetryPolicy::default() })
    }

    /// Calls in flight at a time in this process; at least 1.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls.max(1);
        self
    }

    /// When failed calls are repeated.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Messages in hand and not yet acked; by default four times the concurrency, within 32 and 1,000.
    #[must_use]
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.prefetch = Some(messages);
        self
    }

    fn settings(self, window: Duration, endpoint: &EndpointName) -> LaneSettings {
        let natural = usual_prefetch(u32::try_from(self.concurrency).unwrap_or(u32::MAX));
        LaneSettings {
            decode: DecodeRules {
                lane: self.name.clone(),
                default_endpoint: Some(endpoint.clone()),
                body_bytes_max: BODY_BYTES_MAX,
            },
            name: self.name,
            concurrency: self.concurrency,
            global_concurrency: None,
            prefetch: self.prefetch.unwrap_or(natural),
            retry: self.retry,
            window,
            poison_after: POISON_AFTER,
        }
    }
}

/// Wraps the handler once the clock is known.
type MakeDispatch = Box<dyn FnOnce(SharedClock) -> Arc<dyn Dispatch> + Send>;

/// Builds a [`Worker`].
pub struct Builder {
    broker_url: String,
    store_url: String,
    lanes: Vec<Lane>,
    handler: Option<MakeDispatch>,
    window: Duration,
    timeout: Duration,
    lease: Duration,
    drain_timeout: Duration,
}

impl Builder {
    /// One SQLite file for queues and state.
    #[must_use]
    pub fn url(self, url: &str) -> Self {
        self.broker(url).store(url)
    }

    /// Where jobs are queued: `amqp://..`, `amqps://..` or `sqlite:FILE`.
    #[must_use]
    pub fn broker(mut self, url: &str) -> Self {
        url.clone_into(&mut self.broker_url);
        self
    }

    /// Where the state of jobs is kept: `postgres://..` or `sqlite:FILE`.
    #[must_use]
    pub fn store(mut self, url: &str) -> Self {
        url.clone_into(&mut self.store_url);
        self
    }

    /// Adds a lane.
    #[must_use]
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lanes.push(lane);
        self
    }

    /// What is called for every job.
    #[must_use]
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Box::new(|clock| Arc::new(HandlerDispatch::new(handler, clock))));
        self
    }

    /// Two publishes of one id within this time are one job (default: ten minutes).
    #[must_use]
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Most time one call may take (default: 30 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A worker that was not heard of for so long is dead, and its jobs are taken over (default: 15 s).
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long calls in flight may go on after the stop (default: 25 s).
    #[must_use]
    pub fn drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.drain_timeout = drain_timeout;
        self
    }

    /// Opens queues and store, and brings the store's schema up to date.
    ///
    /// # Errors
    /// There is no handler or no lane, a url is malformed, or broker or store cannot be reached.
    pub async fn build(self) -> Result<Worker, AppError> {
        let Some(handler) = self.handler else {
            return Err(AppError::Url("a worker needs a handler: call Builder::handler".to_owned()));
        };
        if self.lanes.is_empty() {
            return Err(AppError::Url("a worker needs a lane: call Builder::lane".to_owned()));
        }
        let endpoint = EndpointName::new(HANDLER_ENDPOINT).expect("a legal name");
        let clock = SystemClock::new();
        let shared: SharedClock = Arc::new(clock.clone());
        let lanes: Vec<LaneSettings> =
            self.lanes.into_iter().map(|lane| lane.settings(self.window, &endpoint)).collect();
        let broker = app::broker_at(&self.broker_url, &shared).await?;
        let queues: Vec<_> = lanes.iter().flat_map(|lane| crate::engine::queues(&lane.name)).collect();
        broker.declare(&queues).await?;
        let rules = EndpointSettings { rules: EndpointRules::default(), timeout: self.timeout };
        // a handler that says when to come back is believed; that it fails is its own affair
        let quiet = EndpointBudget { learn: Learn::Off, circuit: CircuitRules::NEVER, ..EndpointBudget::default() };
        let budgets = Budgets { endpoints: HashMap::from([(endpoint.clone(), quiet)]), ..Budgets::default() };
        let settings = WorkerSettings {
            name: app::worker_name(),
            lease: self.lease,
            drain_timeout: self.drain_timeout,
            poison_after: POISON_AFTER,
            ended_kept: ENDED_KEPT,
            letters_kept: LETTERS_KEPT,
            lanes,
            endpoints: HashMap::from([(endpoint, rules)]),
            budgets: Arc::new(budgets),
        };
        let (telemetry, metrics) = Telemetry::prometheus();
        let dispatch = handler(shared);
        Ok(Worker { settings, broker, store_url: self.store_url, telemetry, metrics, dispatch, clock })
    }
}

/// A worker in this process.
pub struct Worker {
    settings: WorkerSettings,
    broker: Arc<dyn Broker>,
    store_url: String,
    telemetry: Telemetry,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    dispatch: Arc<dyn Dispatch>,
    clock: SystemClock,
}

impl Worker {
    /// Starts with the defaults: one SQLite file `lanes.db` in the current directory, no lanes.
    pub fn builder() -> Builder {
        Builder {
            broker_url: DEFAULT_URL.to_owned(),
            store_url: DEFAULT_URL.to_owned(),
            lanes: Vec::new(),
            handler: None,
            window: Duration::from_mins(10),
            timeout: Duration::from_secs(30),
            lease: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(25),
        }
    }

    /// Publishes jobs to the lanes of this worker.
    pub fn publisher(&self) -> Publisher {
        let clock: SharedClock = Arc::new(self.clock.clone());
        Publisher::new(Arc::clone(&self.broker), self.telemetry.clone(), clock, "library")
    }

    /// The metrics as Prometheus text, for the user's own `/metrics`.
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }

    /// Works until `stop` completes, then finishes what is in flight and gives the rest back.
    ///
    /// # Errors
    /// A part could not be put in place.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let token = CancellationToken::new();
        let assembly = Assembly {
            settings: self.settings,
            broker: self.broker,
            store_url: self.store_url,
            dispatch: self.dispatch,
            telemetry: self.telemetry,
            metrics: self.metrics,
            health: Health::default(),
            clock: self.clock,
        };
        let working = app::run_assembly(assembly, token.clone());
        tokio::pin!(working);
        tokio::select! {
            ended = &mut working => return ended,
            () = stop => token.cancel(),
        }
        working.await
    }
}
