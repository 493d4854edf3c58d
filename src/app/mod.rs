//! The composition root: the only room that names backends. It puts parts together and decides nothing.

mod backends;
mod dash;
pub mod library;
mod notices;
mod run;
mod traces;

use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::ExposeSecret;

use crate::broker::{Broker, BrokerError};
use crate::clock::{SharedClock, Timestamp};
use crate::config::Specs;
use crate::db::DbError;
use crate::dispatch::http::DispatchError;
use crate::engine::worker::WorkerFailed;
use crate::governor::{Governor, sync};
use crate::http::HttpError;
use crate::observe::{Recent, Scope};
use crate::publish::Publisher;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use backends::Stores;
pub(crate) use backends::broker_at;
pub use dash::{Outlet, run_dash, settings};
pub(crate) use run::{Assembly, run_assembly, worker_name};
pub use run::{WorkerOptions, budgets, run_worker};

/// Connections of a command that only reads.
const READER_CONNECTIONS: u32 = 2;

/// Why a part could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A database could not be opened or migrated.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker does not answer.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// An endpoint cannot be called as configured.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The HTTP server cannot start.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A task of the worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerFailed),
    /// A dashboard that everybody could see.
    #[error("{0} can be reached from other machines, and nobody is asked who they are: no dashboard is served there")]
    Unguarded(SocketAddr),
    /// Traces cannot be exported.
    #[error("{0}; set telemetry.otlp to the base url of a collector, or take it away")]
    Traces(String),
    /// Somebody who is to be told of incidents cannot be.
    #[error("notify {sink}: secret {why}")]
    Sink {
        /// Who.
        sink: String,
        /// Why.
        why: String,
    },
    /// A url names no backend.
    #[error("{0}")]
    Url(String),
}

/// The broker of the configuration. Does not wait for it to be reachable.
///
/// # Errors
/// The url is malformed, or the SQLite file cannot be opened.
pub async fn open_broker(specs: &Specs, clock: &SharedClock) -> Result<Arc<dyn Broker>, AppError> {
    broker_at(specs.broker.url.expose_secret(), clock).await
}

/// The store of the configuration, for commands that read or act once.
///
/// # Errors
/// It is unreachable, or its schema is missing.
pub async fn open_store(specs: &Specs) -> Result<Arc<dyn Store>, AppError> {
    let store = Stores::open(specs.store.url.expose_secret()).await?.handle("reader", READER_CONNECTIONS)?;
    store.time().await?;
    Ok(store)
}

/// What the workers know of budgets, for commands that read.
///
/// # Errors
/// The store did not answer.
pub async fn open_governor(specs: &Specs, store: &dyn Store, now: Timestamp) -> Result<Governor, AppError> {
    let governor = Governor::observer(budgets(specs));
    sync::round(&governor, store, now, Timestamp::EPOCH).await?;
    Ok(governor)
}

/// What there is to look at.
pub fn scope(specs: &Specs) -> Scope {
    let lanes = specs.lanes.iter().map(|lane| lane.name.clone()).collect();
    let concurrency = specs.lanes.iter().map(|lane| (lane.name.clone(), lane.concurrency)).collect();
    Scope { lanes, concurrency, lease: specs.worker.lease, budgets: budgets(specs), recent: Recent::default() }
}

/// A publisher whose lanes' queues exist.
///
/// # Errors
/// The broker is unreachable or refuses.
pub async fn open_publisher(
    specs: &Specs,
    telemetry: &Telemetry,
    clock: &SharedClock,
    source: &'static str,
) -> Result<Publisher, AppError> {
    let broker = open_broker(specs, clock).await?;
    let queues: Vec<_> = specs.lanes.iter().flat_map(|lane| crate::engine::queues(&lane.name)).collect();
    broker.declare(&queues).await?;
    Ok(Publisher::new(broker, telemetry.clone(), Arc::clone(clock), source))
}

/// Brings the store's schema up to date.
///
/// # Errors
/// The database is unreachable, or its schema is newer than this program.
pub async fn migrate(specs: &Specs) -> Result<(), AppError> {
    Stores::open(specs.store.url.expose_secret()).await?.migrate().await
}
