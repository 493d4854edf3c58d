//! Runs a worker: waits for its store, follows the store's clock, serves metrics, ends in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::ExposeSecret;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::backends::Stores;
use super::traces::Traces;
use super::{AppError, dash, notices, open_broker};
use crate::broker::Broker;
use crate::clock::{self, Clock, SharedClock, SystemClock, Timestamp};
use crate::config::Specs;
use crate::config::specs::{EndpointSpec, LaneSpec};
use crate::dash::Settings;
use crate::dispatch::Dispatch;
use crate::dispatch::http::{HttpDispatch, Target};
use crate::engine::settings::{EndpointSettings, LaneSettings, WorkerSettings};
use crate::engine::worker::{self, WorkerParts};
use crate::http::Server;
use crate::http::status::{self, Sources};
use crate::job::control::CONCURRENCY_MAX;
use crate::job::wire::DecodeRules;
use crate::job::{EndpointName, LaneName};
use crate::policy::pacing::Budgets;
use crate::store::{Store, StoreError};
use crate::telemetry::health::Health;
use crate::telemetry::{Telemetry, UPKEEP_INTERVAL};

/// Connections of one lane to PostgreSQL: two claims and two settlements in flight, the releaser, and one to spare.
const LANE_CONNECTIONS: u32 = 6;
/// Connections for liveness, sweeps, retention and gauges.
const CONTROL_CONNECTIONS: u32 = 3;
/// How often the offset to the store's clock is measured again.
const CLOCK_EVERY: Duration = Duration::from_mins(1);
/// Samples of one measurement.
const CLOCK_SAMPLES: usize = 3;
/// A sample that took longer says too little.
const CLOCK_SAMPLE_MAX: Duration = Duration::from_millis(100);
/// A jump of the offset that is worth a warning.
const CLOCK_JUMP: Duration = Duration::from_millis(500);
/// Wait between two tries to reach the store at start.
const START_WAIT: Duration = Duration::from_secs(2);

/// How a worker is run.
pub struct WorkerOptions {
    /// Only these lanes; `None` = all.
    pub only: Option<Vec<LaneName>>,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
    /// Serve the dashboard, `/metrics`, `/healthz` and `/readyz`.
    pub http: bool,
    /// The configuration as the dashboard shows it.
    pub settings: Settings,
    /// Told the address once the HTTP server has its port.
    pub bound: Option<oneshot::Sender<SocketAddr>>,
}

/// Runs a worker until `stop`, retrying until store and broker can be reached.
///
/// # Errors
/// Something that waiting cannot cure: a malformed url, an endpoint that cannot be called, a taken port.
pub fn run_worker<'a>(
    specs: &'a Specs,
    options: WorkerOptions,
    telemetry: &'a Telemetry,
    clock: &'a SystemClock,
    stop: CancellationToken,
) -> BoxFuture<'a, Result<(), AppError>> {
    // boxed: the compiler cannot prove the unboxed future `Send` for every lifetime of its arguments
    Box::pin(async move {
        let shared: SharedClock = Arc::new(clock.clone());
        let settings = settings(specs, options.only.as_deref());
        let lanes: Vec<LaneName> = settings.lanes.iter().map(|lane| lane.name.clone()).collect();
        let parts = ["store".to_owned(), "broker".to_owned()];
        let health = Health::expecting(parts.into_iter().chain(lanes.iter().map(|lane| format!("lane:{lane}"))));
        let over = CancellationToken::new();
        let _ends_server = over.clone().drop_guard();
        let broker = open_broker(specs, &shared).await?;
        if options.http {
            let server = Server::bind(specs.http.listen).await?;
            if let Some(bound) = options.bound {
                // nobody may be waiting for it any more
                let _unheard = bound.send(server.address());
            }
            let render = options.metrics.clone();
            let sources = Sources { metrics: Arc::new(move || render.render()), health: health.clone() };
            let (broker, clock) = (Arc::clone(&broker), &shared);
            let feed = dash::Feed { specs, settings: options.settings, telemetry, broker, clock };
            let router = pages(feed, sources, server.address(), &over);
            tokio::spawn(server.run(router, over.clone()));
        }
        let traces = Traces::begin(&specs.telemetry, telemetry, &shared)?;
        if let Some(parts) = notices::parts(specs, &broker, telemetry, &shared).await? {
            tokio::spawn(crate::notices::run(parts, over.clone()));
        }
        let targets = specs.endpoints.iter().map(target).collect();
        let dispatch = HttpDispatch::new(targets, Arc::clone(&shared))?;
        let assembly = Assembly {
            settings,
            broker,
            store_url: specs.store.url.expose_secret().to_owned(),
            dispatch: Arc::new(dispatch),
            telemetry: telemetry.clone(),
            metrics: options.metrics,
            health,
            clock: clock.clone(),
        };
        let ended = run_assembly(assembly, stop).await;
        traces.end().await;
        ended
    })
}

/// What is served at `address`: probes and metrics everywhere, the dashboard where nobody sees it unasked.
fn pages(feed: dash::Feed<'_>, sources: Sources, address: SocketAddr, over: &CancellationToken) -> Router {
    if dash::is_guarded(feed.specs, address) {
        tracing::info!(%address, "serving the dashboard, /metrics, /healthz and /readyz");
        return status::probes(sources).merge(dash::router(feed, false, over));
    }
    tracing::warn!(
        %address,
        "serving /metrics, /healthz and /readyz, and no dashboard: other machines can reach this address, and nobody \
         is asked who they are; set [http.auth] in lanes.toml for that"
    );
    status::router(sources)
}

/// A worker that lacks only its store.
pub(crate) struct Assembly {
    pub settings: WorkerSettings,
    pub broker: Arc<dyn Broker>,
    pub store_url: String,
    pub dispatch: Arc<dyn Dispatch>,
    pub telemetry: Telemetry,
    pub metrics: PrometheusHandle,
    pub health: Health,
    pub clock: SystemClock,
}

/// Waits for the store, then works until `stop`.
pub(crate) async fn run_assembly(assembly: Assembly, stop: CancellationToken) -> Result<(), AppError> {
    let Assembly { settings, broker, store_url, dispatch, telemetry, metrics, health, clock } = assembly;
    let lanes: Vec<_> = settings.lanes.iter().map(|lane| lane.name.clone()).collect();
    let endpoints: Vec<_> = settings.endpoints.keys().cloned().collect();
    telemetry.prime(&lanes, &endpoints);
    let over = CancellationToken::new();
    let _ends_helpers = over.clone().drop_guard();
    tokio::spawn(condense(metrics, Arc::new(clock.clone()), over.clone()));
    let stores = Stores::open(&store_url).await?;
    let control_store = stores.handle("control", CONTROL_CONNECTIONS)?;
    if !reach_store(&stores, &*control_store, &health, &clock, &stop).await? {
        return Ok(());
    }
    let mut lane_stores = HashMap::new();
    for lane in &settings.lanes {
        lane_stores.insert(lane.name.clone(), stores.handle("lane", LANE_CONNECTIONS)?);
    }
    tokio::spawn(follow_store_clock(Arc::clone(&control_store), clock.clone(), over.clone()));
    let parts = WorkerParts {
        settings,
        broker: Arc::clone(&broker),
        lane_stores,
        control_store,
        liveness_store: stores.handle("liveness", 1)?,
        dispatch,
        telemetry,
        health,
        clock: Arc::new(clock),
    };
    let ended = worker::run(parts, stop).await;
    broker.close().await;
    Ok(ended?)
}

/// Waits until the store can be used: migrates it, takes over its clock, says what weakens its promises. False = stopped.
async fn reach_store(
    stores: &Stores,
    store: &dyn Store,
    health: &Health,
    clock: &SystemClock,
    stop: &CancellationToken,
) -> Result<bool, AppError> {
    loop {
        let attempt = async {
            stores.migrate().await?;
            measure_clock(store, clock).await?;
            Ok::<_, AppError>(store.warnings().await?)
        };
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            answer = attempt => match answer {
                Ok(warnings) => {
                    for warning in warnings {
                        tracing::warn!("{warning}");
                    }
                    return Ok(true);
                }
                Err(error) => error,
            }
        };
        health.set("store", Err(error.to_string()));
        tracing::error!(%error, "the store cannot be used yet, trying again every {START_WAIT:?}");
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            () = clock::sleep(clock, START_WAIT) => {}
        }
    }
}

/// Moves our clock to the store's; answers by how much, in microseconds.
///
/// Of several samples the one with the shortest way counts; when none was quick, nothing is moved: a clock that runs ahead
/// would call a job before its time.
async fn measure_clock(store: &dyn Store, clock: &SystemClock) -> Result<i64, StoreError> {
    let mut best: Option<(Duration, Timestamp, Timestamp)> = None;
    for _ in 0..CLOCK_SAMPLES {
        let asked_at = clock.now();
        let theirs = store.time().await?;
        let took = clock.now().since(asked_at);
        // the store read its clock somewhere between question and answer
        if took <= CLOCK_SAMPLE_MAX && best.is_none_or(|(shortest, ..)| took < shortest) {
            best = Some((took, asked_at.plus(took / 2), theirs));
        }
    }
    Ok(best.map_or(0, |(_, ours, theirs)| clock.follow(ours, theirs)))
}

async fn follow_store_clock(store: Arc<dyn Store>, clock: SystemClock, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = clock::sleep(&clock, CLOCK_EVERY) => {}
        }
        match measure_clock(&*store, &clock).await {
            Ok(moved) if Duration::from_micros(moved.unsigned_abs()) > CLOCK_JUMP => {
                tracing::warn!(microseconds = moved, "the offset to the store's clock has jumped");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the store's clock was not read this time"),
        }
    }
}

/// Without it histogram samples would pile up between two scrapes.
async fn condense(metrics: PrometheusHandle, clock: SharedClock, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = clock::sleep(&*clock, UPKEEP_INTERVAL) => metrics.run_upkeep(),
        }
    }
}

fn settings(specs: &Specs, only: Option<&[LaneName]>) -> WorkerSettings {
    let wanted = |lane: &&LaneSpec| only.is_none_or(|only| only.contains(&lane.name));
    WorkerSettings {
        name: worker_name(),
        lease: specs.worker.lease,
        drain_timeout: specs.worker.drain_timeout,
        poison_after: specs.worker.poison_after,
        ended_kept: specs.retention.done_cap,
        letters_kept: specs.retention.letters,
        lanes: specs.lanes.iter().filter(wanted).map(|lane| lane_settings(specs, lane)).collect(),
        endpoints: specs.endpoints.iter().map(|spec| (spec.name.clone(), endpoint_settings(spec))).collect(),
        budgets: Arc::new(budgets(specs)),
    }
}

/// Of all lanes, also those that this worker does not run: their reserves count.
pub fn budgets(specs: &Specs) -> Budgets {
    let endpoints = specs.endpoints.iter().map(|endpoint| (endpoint.name.clone(), endpoint.budget.clone()));
    let overrides = specs.tenants.iter().flat_map(|tenant| {
        let of_tenant = tenant.limits.iter();
        of_tenant.map(|(endpoint, limits)| ((tenant.name.clone(), endpoint.clone()), limits.clone()))
    });
    Budgets {
        costs_max: costs_max(&specs.endpoints),
        endpoints: endpoints.collect(),
        overrides: overrides.collect(),
        weights: specs.tenants.iter().map(|tenant| (tenant.name.clone(), tenant.weight)).collect(),
        reserves: specs.lanes.iter().map(|lane| (lane.name.clone(), lane.reserve)).collect(),
    }
}

/// The dearest call that counts in the budgets of each endpoint.
fn costs_max(endpoints: &[EndpointSpec]) -> HashMap<EndpointName, u32> {
    let mut most = HashMap::new();
    for endpoint in endpoints {
        let owner = endpoint.budget.shares.as_ref().unwrap_or(&endpoint.name);
        let cost = most.entry(owner.clone()).or_insert(1);
        *cost = endpoint.budget.cost.max(*cost);
    }
    most
}

fn lane_settings(specs: &Specs, lane: &LaneSpec) -> LaneSettings {
    LaneSettings {
        name: lane.name.clone(),
        concurrency: lane.concurrency as usize,
        global_concurrency: lane.global_concurrency,
        prefetch: lane.prefetch,
        retry: lane.retry.clone(),
        decode: DecodeRules {
            lane: lane.name.clone(),
            default_endpoint: lane.default_endpoint.clone(),
            body_bytes_max: usize::try_from(specs.worker.max_message_bytes).unwrap_or(usize::MAX),
        },
        window: specs.dedup_window,
        poison_after: specs.worker.poison_after,
    }
}

fn endpoint_settings(spec: &EndpointSpec) -> EndpointSettings {
    EndpointSettings { rules: spec.rules.clone(), timeout: spec.timeout }
}

fn target(spec: &EndpointSpec) -> Target {
    Target {
        name: spec.name.clone(),
        url: spec.url.clone(),
        default_method: spec.default_method.clone(),
        allow_methods: spec.allow_methods.clone(),
        allow_paths: spec.allow_paths.clone(),
        timeout: spec.timeout,
        connect_timeout: spec.connect_timeout,
        headers: spec.headers.clone(),
        keep_body_of_2xx: spec.rules.needs_body_of_2xx(),
        allow_metadata: spec.allow_metadata,
        http1_only: spec.http1_only,
        // a lane keeps a connection for each of its calls, as many as an operator may let it make: fewer, and a full lane
        // would open some anew all the time
        connections_idle_max: CONCURRENCY_MAX as usize,
    }
}

/// `host:pid`, for people.
pub(crate) fn worker_name() -> String {
    format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id())
}
