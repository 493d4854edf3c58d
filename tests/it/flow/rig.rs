//! One worker, one scripted API, one clock moved by hand; the same for every backend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as AxumState};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use lanes::broker::{Broker, BrokerLimits, rabbitmq::RabbitMq, sqlite::SqliteBroker};
use lanes::clock::{Clock, ManualClock, SharedClock, Timestamp, within};
use lanes::dispatch::http::{HttpDispatch, Target};
use lanes::engine::queues;
use lanes::engine::settings::{EndpointSettings, LaneSettings, WorkerSettings};
use lanes::engine::worker::{self, WorkerFailed, WorkerParts};
use lanes::job::wire::DecodeRules;
use lanes::job::{EndpointName, JobId, JobMeta, LaneName, Tenant};
use lanes::policy::backoff::RetryPolicy;
use lanes::policy::circuit::CircuitRules;
use lanes::policy::classify::EndpointRules;
use lanes::policy::pacing::{Budgets, EndpointBudget, Learn};
use lanes::publish::{NewJob, Published, Publisher};
use lanes::store::{JobFilter, JobRow, Letter, LetterFilter, State, Store, postgres::PgStore, sqlite::SqliteStore};
use lanes::telemetry::Telemetry;
use lanes::telemetry::health::Health;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::weather::Weather;
use crate::services;

/// Real time after which a wait for something that must happen fails the test.
const PATIENCE: Duration = Duration::from_secs(90);

/// Reads of the store for each second that a test's clock moves.
const READS_A_SECOND: usize = 25;
/// Reads of the store for each smaller step.
const READS_A_STEP: usize = 3;

/// Real time after which a clock that stands still moves by [`NUDGE`]. A store that did not answer in time, which happens
/// on a machine with too much to do, is asked again after a pause on that clock: it must not last for ever.
const STILL_MAX: Duration = Duration::from_secs(10);
const NUDGE: Duration = Duration::from_secs(1);

/// Rows that a failed wait shows.
const ROWS_SHOWN: usize = 20;

/// Where a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// One SQLite file for broker and store: the default with nothing installed.
    Sqlite,
    /// RabbitMQ and PostgreSQL: production.
    Rabbit,
}

/// Broker and store of one test, made afresh; `_dir` keeps the files.
pub struct Backing {
    pub broker: Arc<dyn Broker>,
    pub store: Arc<dyn Store>,
    pub broker_url: String,
    pub store_url: String,
    _dir: tempfile::TempDir,
}

impl Backing {
    pub async fn new(backend: Backend, clock: SharedClock) -> Self {
        match backend {
            Backend::Sqlite => Self::file(clock).await,
            Backend::Rabbit => {
                let urls = (services::fresh_vhost().await, services::fresh_database().await);
                Self::servers(urls, clock).await
            }
        }
    }

    async fn file(clock: SharedClock) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", dir.path().join("lanes.db").display());
        let db = lanes::db::open_sqlite(&url).await.expect("opens");
        let store = Arc::new(SqliteStore::new(db.clone()));
        let broker = Arc::new(SqliteBroker::new(db, clock, Duration::from_secs(1_000_000)));
        Self { broker, store, broker_url: url.clone(), store_url: url, _dir: dir }
    }

    /// RabbitMQ and PostgreSQL at these urls.
    pub async fn servers((broker_url, store_url): (String, String), clock: SharedClock) -> Self {
        let purpose = lanes::db::PgPoolUse { name: "test", connections: 8 };
        let pool = lanes::db::open_postgres(&store_url, purpose).expect("a legal url");
        lanes::db::migrate_postgres(&store_url, &pool).await.expect("migrates");
        let broker = RabbitMq::new(&broker_url, BrokerLimits::default(), clock).expect("a legal url");
        let store = Arc::new(PgStore::new(pool, &store_url));
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { broker: Arc::new(broker), store, broker_url, store_url, _dir: dir }
    }
}

/// One call as the API saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub job_id: String,
    pub key: String,
    pub attempt: String,
    pub lane: String,
    /// `traceparent`, and `tracestate`.
    pub trace: (String, String),
    pub at: Timestamp,
    pub body: Bytes,
}

/// What the API shall answer.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// Answer only once this gate is open.
    pub gate: Option<watch::Receiver<bool>>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), gate: None }
    }

    pub fn header(mut self, name: &'static str, value: u32) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn gated(mut self, gate: &watch::Receiver<bool>) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

/// What the API answers to the n-th call (from 1) of a job.
pub type Script = Arc<dyn Fn(&Seen, usize) -> Reply + Send + Sync>;

/// Waits with [`PATIENCE`] for what should come while this clock stands still; `None` when it did not.
async fn patiently<T>(clock: Option<&ManualClock>, what: impl Future<Output = T>) -> Option<T> {
    let mut what = std::pin::pin!(what);
    for _ in 0..PATIENCE.as_secs() / STILL_MAX.as_secs() {
        if let Ok(found) = within(STILL_MAX, &mut what).await {
            return Some(found);
        }
        if let Some(clock) = clock {
            clock.advance(NUDGE);
        }
    }
    None
}

/// A real HTTP server that answers by script and writes down every call.
#[derive(Clone)]
pub struct Api {
    pub url: String,
    seen: Arc<watch::Sender<Vec<Seen>>>,
    inflight: Arc<Mutex<HashMap<String, (usize, usize)>>>,
    script: Script,
    clock: SharedClock,
    /// The clock that a test moves by hand, if it does.
    by_hand: Option<ManualClock>,
}

impl Api {
    pub async fn start(clock: SharedClock, script: Script) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/call", listener.local_addr().expect("bound"));
        let seen = Arc::new(watch::Sender::new(Vec::new()));
        let api = Self { url, seen, inflight: Arc::default(), script, clock, by_hand: None };
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        api
    }

    pub fn calls(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    pub fn calls_of(&self, id: &str) -> Vec<Seen> {
        self.calls().into_iter().filter(|seen| seen.job_id == id).collect()
    }

    /// Waits until `count` calls have come in, and answers them all.
    pub async fn until_calls(&self, count: usize) -> Vec<Seen> {
        self.until(&format!("{count} calls"), |seen| seen.len() >= count).await
    }

    /// Waits until the calls satisfy `enough`.
    pub async fn until(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut watching = self.seen.subscribe();
        let waited = patiently(self.by_hand.as_ref(), watching.wait_for(|seen| enough(seen))).await;
        match waited {
            Some(Ok(seen)) => seen.clone(),
            _ => panic!("no {what} within {PATIENCE:?}; calls so far: {:#?}", self.calls()),
        }
    }

    /// The most calls of a lane that were in flight at one time.
    pub fn most_inflight(&self, lane: &str) -> usize {
        self.inflight.lock().expect("not poisoned").get(lane).map_or(0, |(_, most)| *most)
    }
}

async fn answer(AxumState(api): AxumState<Api>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let seen = Seen {
        job_id: header("lanes-job-id"),
        key: header("idempotency-key"),
        attempt: header("lanes-attempt"),
        lane: header("lanes-lane"),
        trace: (header("traceparent"), header("tracestate")),
        at: api.clock.now(),
        body,
    };
    {
        let mut inflight = api.inflight.lock().expect("not poisoned");
        let (now, most) = inflight.entry(seen.lane.clone()).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }
    let mut nth = 0;
    api.seen.send_modify(|all| {
        nth = all.iter().filter(|earlier| earlier.job_id == seen.job_id).count() + 1;
        all.push(seen.clone());
    });
    let reply = (api.script)(&seen, nth);
    if let Some(mut gate) = reply.gate {
        gate.wait_for(|open| *open).await.expect("the test holds the gate");
    }
    if let Some((now, _)) = api.inflight.lock().expect("not poisoned").get_mut(&seen.lane) {
        *now -= 1;
    }
    let status = StatusCode::from_u16(reply.status).expect("a legal status");
    let mut response = (status, reply.body).into_response();
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().expect("a legal header"));
    }
    response
}

/// A running worker.
pub struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), WorkerFailed>>,
}

impl Running {
    pub fn start(parts: WorkerParts) -> Self {
        let stop = CancellationToken::new();
        Self { stop: stop.clone(), task: tokio::spawn(worker::run(parts, stop)) }
    }

    /// Stops in order.
    pub async fn stop(self) {
        self.stop.cancel();
        within(PATIENCE, self.task).await.expect("ends in time").expect("does not panic").expect("no part failed");
    }

    /// Asks to stop and does not wait.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    pub async fn ended(self) {
        within(PATIENCE, self.task).await.expect("ends in time").expect("does not panic").expect("no part failed");
    }

    /// Waits until it ends because a part of it failed.
    pub async fn failed(self) -> WorkerFailed {
        within(PATIENCE, self.task).await.expect("ends in time").expect("does not panic").expect_err("a part failed")
    }

    /// Dies without a word, as far as one process can play that: every task of it is dropped.
    pub fn abort(self) {
        self.task.abort();
    }
}

/// Everything one flow test needs.
pub struct Rig {
    pub clock: ManualClock,
    pub api: Api,
    pub backing: Backing,
    pub publisher: Publisher,
    pub settings: WorkerSettings,
    pub telemetry: Telemetry,
}

pub fn lane(name: &str) -> LaneName {
    LaneName::new(name).expect("a legal lane name")
}

pub fn crm() -> EndpointName {
    EndpointName::new("crm").expect("a legal endpoint name")
}

impl Rig {
    /// A rig whose API answers by `script`, with lanes `realtime` (4 at a time) and `bulk` (2 at a time).
    pub async fn new(backend: Backend, script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let shared: SharedClock = Arc::new(clock.clone());
        let mut api = Api::start(Arc::clone(&shared), Arc::new(script)).await;
        api.by_hand = Some(clock.clone());
        let backing = Backing::new(backend, Arc::clone(&shared)).await;
        let telemetry = telemetry();
        let settings = settings();
        let queues: Vec<_> = settings.lanes.iter().flat_map(|lane| queues(&lane.name)).collect();
        backing.broker.declare(&queues).await.expect("declares");
        let publisher = Publisher::new(Arc::clone(&backing.broker), telemetry.clone(), shared, "library");
        Self { clock, api, backing, publisher, settings, telemetry }
    }

    /// Starts a worker with these settings.
    pub fn start(&self) -> Running {
        self.start_with(self.settings.clone())
    }

    pub fn start_with(&self, settings: WorkerSettings) -> Running {
        Running::start(self.parts(settings))
    }

    /// Starts a worker that has this store for everything.
    pub fn start_before(&self, settings: WorkerSettings, store: &Arc<Weather>) -> Running {
        let store: Arc<dyn Store> = Arc::clone(store) as _;
        let parts = WorkerParts {
            control_store: Arc::clone(&store),
            liveness_store: Arc::clone(&store),
            ..self.parts(settings)
        };
        Running::start(parts)
    }

    /// What a worker with these settings is made of. A lane without a store of its own has the control store.
    pub fn parts(&self, settings: WorkerSettings) -> WorkerParts {
        let shared: SharedClock = Arc::new(self.clock.clone());
        // every endpoint is the same API
        let target = |(name, endpoint): (&EndpointName, &EndpointSettings)| Target {
            timeout: endpoint.timeout,
            ..Target::new(name.clone(), self.api.url.parse().expect("a legal url"))
        };
        let targets = settings.endpoints.iter().map(target).collect();
        let dispatch = HttpDispatch::new(targets, Arc::clone(&shared)).expect("legal targets");
        WorkerParts {
            settings,
            broker: Arc::clone(&self.backing.broker),
            lane_stores: HashMap::new(),
            control_store: Arc::clone(&self.backing.store),
            liveness_store: Arc::clone(&self.backing.store),
            dispatch: Arc::new(dispatch),
            telemetry: self.telemetry.clone(),
            health: Health::default(),
            clock: shared,
        }
    }

    pub async fn publish(&self, lane_name: &str, id: &str) -> Published {
        self.publisher.publish_one(new_job(lane_name, id)).await.expect("confirmed")
    }

    pub async fn row(&self, published: &Published) -> Option<JobRow> {
        self.backing.store.job(published.instance).await.expect("answers")
    }

    /// Waits until the row of a publish satisfies `wanted`.
    pub async fn until_row(&self, published: &Published, what: &str, wanted: impl Fn(&JobRow) -> bool) -> JobRow {
        let mut last = None;
        let found = patiently(Some(&self.clock), async {
            loop {
                last = self.row(published).await;
                if let Some(row) = last.clone().filter(|row| wanted(row)) {
                    return row;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        found.unwrap_or_else(|| panic!("{what} never came; the row is {last:#?}"))
    }

    /// Lets time pass, a second at a time, until a dead worker's job was taken over for the `takeovers`-th time. The
    /// clock stands still afterwards: it must not run away from the heartbeats of the living.
    pub async fn until_taken_over(&self, published: &Published, takeovers: u32) {
        let found = within(PATIENCE, async {
            while self.row(published).await.is_none_or(|row| row.takeovers < takeovers) {
                self.pass_a_second().await;
            }
        });
        assert!(found.await.is_ok(), "no takeover {takeovers}; the row is {:#?}", self.row(published).await);
    }

    /// Moves the clock by a second, in real time enough for the worker to get on: it reads the store some times.
    pub async fn pass_a_second(&self) {
        self.clock.advance(Duration::from_secs(1));
        for _ in 0..READS_A_SECOND {
            self.rows().await;
        }
    }

    /// Moves the clock, in real time enough for the worker to get on.
    pub async fn pass(&self, step: Duration) {
        self.clock.advance(step);
        for _ in 0..READS_A_STEP {
            self.backing.store.workers().await.expect("answers");
        }
    }

    /// Waits for so many calls, while the clock goes on in steps; looks at nothing large, however many rows there are. Its
    /// patience is with the next call, not with all: how many come in a second is the machine's affair.
    pub async fn until_count(&self, step: Duration, count: usize) {
        loop {
            let before = self.api.count();
            if before >= count {
                return;
            }
            let next = within(PATIENCE, async {
                while self.api.count() == before {
                    self.pass(step).await;
                }
            });
            assert!(next.await.is_ok(), "after {before} of {count} calls no other came within {PATIENCE:?}");
        }
    }

    /// Waits for calls while the clock goes on, a second at a time.
    pub async fn until_with_clock(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) {
        let found = within(PATIENCE, async {
            while !enough(&self.api.calls()) {
                self.pass_a_second().await;
            }
        });
        assert!(found.await.is_ok(), "no {what}; calls so far: {:#?}", self.api.calls());
    }

    /// Waits until `holds`, while the clock goes on in steps, in real time enough for the worker to keep up.
    pub async fn until_in_steps(&self, step: Duration, what: &str, holds: impl AsyncFn() -> bool) {
        let found = within(PATIENCE, async {
            while !holds().await {
                self.clock.advance(step);
                for _ in 0..READS_A_STEP {
                    self.rows().await;
                }
            }
        });
        assert!(found.await.is_ok(), "no {what}; rows: {:#?}", self.some_rows().await);
    }

    /// Waits until `holds`, while the clock stands still.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let found = patiently(Some(&self.clock), async {
            while !holds().await {
                tokio::task::yield_now().await;
            }
        });
        assert!(found.await.is_some(), "no {what}; rows: {:#?}", self.some_rows().await);
    }

    /// Waits until `holds`, while the clock goes on, a second at a time.
    pub async fn until_in_time(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let found = within(PATIENCE, async {
            while !holds().await {
                self.pass_a_second().await;
            }
        });
        assert!(found.await.is_ok(), "no {what}; rows: {:#?}", self.some_rows().await);
    }

    pub async fn until_state(&self, published: &Published, state: State) -> JobRow {
        self.until_row(published, state.as_str(), |row| row.state == state).await
    }

    pub async fn letters(&self) -> Vec<Letter> {
        let filter = LetterFilter { limit: 100, ..LetterFilter::default() };
        self.backing.store.letters(&filter).await.expect("answers")
    }

    pub async fn until_letters(&self, count: usize) -> Vec<Letter> {
        let found = patiently(Some(&self.clock), async {
            loop {
                let letters = self.letters().await;
                if letters.len() >= count {
                    return letters;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        found.unwrap_or_else(|| panic!("no {count} letters"))
    }

    /// Messages that wait in a queue for a consumer.
    pub async fn ready(&self, queue: &str) -> u64 {
        self.backing.broker.depth(queue).await.expect("answers").map_or(0, |depth| depth.ready)
    }

    /// The present by the test's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Every row there is.
    pub async fn rows(&self) -> Vec<JobRow> {
        let filter = JobFilter { limit: 1_000, ..JobFilter::default() };
        self.backing.store.jobs(&filter).await.expect("answers")
    }

    /// Enough rows to see what is wrong in a failed test's output.
    async fn some_rows(&self) -> Vec<JobRow> {
        self.rows().await.into_iter().take(ROWS_SHOWN).collect()
    }

    /// Proves that the worker is alive and has seen everything before: a job published now is called.
    pub async fn barrier(&self, lane_name: &str) {
        let before = self.api.calls().len();
        let id = format!("barrier-{before}-{}", self.clock.now().as_micros());
        self.publish(lane_name, &id).await;
        self.api.until("the barrier's call", |seen| seen.iter().any(|call| call.job_id == id)).await;
    }
}

/// Telemetry of a test's own.
pub fn telemetry() -> Telemetry {
    Telemetry::prometheus().0
}

/// A job for the endpoint `crm` of tenant `acme`.
pub fn new_job(lane_name: &str, id: &str) -> NewJob {
    NewJob {
        lane: lane(lane_name),
        endpoint: crm(),
        tenant: Tenant::new("acme").expect("a legal tenant"),
        id: Some(JobId::new(id).expect("a legal id")),
        meta: JobMeta::default(),
        body: Bytes::from_static(b"{\"n\":1}"),
    }
}

/// Settings of the tests: retries after 2, 4, 8, 16 minutes without jitter, five attempts; a lease that no test's clock
/// passes unless it wants to.
pub fn settings() -> WorkerSettings {
    let retry = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
    let lane = |name: &str, concurrency| LaneSettings {
        name: lane(name),
        concurrency,
        global_concurrency: None,
        prefetch: 64,
        retry: retry.clone(),
        decode: DecodeRules { lane: lane(name), default_endpoint: None, body_bytes_max: 4_096 },
        window: Duration::from_mins(10),
        poison_after: 3,
    };
    let endpoint = EndpointSettings { rules: EndpointRules::default(), timeout: Duration::from_mins(10) };
    WorkerSettings {
        name: "test:1".to_owned(),
        lease: Duration::from_secs(1_000_000),
        drain_timeout: Duration::from_secs(25),
        poison_after: 3,
        ended_kept: Duration::from_secs(7 * 86_400),
        letters_kept: Duration::from_secs(30 * 86_400),
        lanes: vec![lane("realtime", 4), lane("bulk", 2)],
        endpoints: HashMap::from([(crm(), endpoint)]),
        budgets: Arc::new(unlimited()),
    }
}

/// Budgets of an endpoint that nothing is limited of, learnt of, or concluded from: only a `Retry-After` blocks.
fn unlimited() -> Budgets {
    let plain = EndpointBudget { learn: Learn::Off, circuit: CircuitRules::NEVER, ..EndpointBudget::default() };
    Budgets { endpoints: HashMap::from([(crm(), plain)]), ..Budgets::default() }
}
