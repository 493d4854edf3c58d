//! The dashboard: pages that show what goes on, rendered here, live over one shared look, and what people do about it, on
//! pages and over HTTP.

pub mod access;
mod acts;
mod api;
mod assets;
mod bulk;
mod deep;
mod edit;
mod events;
mod forms;
mod guard;
mod live;
mod login;
pub mod mask;
mod pages;
pub mod place;
pub mod routes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::access::Access;
use self::live::Live;
use self::place::Place;
use crate::clock::{self, SharedClock};
use crate::governor::operator::jobs::Outlet;
use crate::observe::{Picture, Scope};
use crate::store::{Store, StoreResult};

/// Pages that ask the store at the same time; others wait their turn, so that many of them are one page's load.
const READS_MAX: usize = 2;
/// Longest wait for a turn, and longest time of one page's questions.
const READ_MAX: Duration = Duration::from_secs(5);
/// Most tabs that are live at a time.
const STREAMS_MAX: usize = 256;

/// Where pages read from.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// What there is to look at.
    fn scope(&self) -> &Scope;

    /// The store, over connections of its own; or why it cannot be had.
    async fn store(&self) -> Result<Arc<dyn Store>, String>;

    /// One look at everything.
    async fn look(&self) -> Picture;
}

/// What a dashboard is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where it reads from.
    pub source: Arc<dyn Source>,
    /// Where it publishes what people want called again.
    pub outlet: Arc<dyn Outlet>,
    /// The configuration in effect.
    pub settings: Settings,
    /// Who may see it.
    pub access: Access,
    /// Nobody may do more than look.
    pub read_only: bool,
    /// Where it is served, and what the installation is called.
    pub place: Place,
    /// Time.
    pub clock: SharedClock,
}

/// The configuration in effect, for people: secrets are masked already.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The file, or that there was none.
    pub source: String,
    /// What is doubtful.
    pub warnings: Vec<String>,
    /// Every setting.
    pub rows: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name, with dots.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Where that comes from.
    pub origin: String,
}

/// A dashboard while it is served.
#[derive(Debug)]
struct Dash {
    source: Arc<dyn Source>,
    outlet: Arc<dyn Outlet>,
    settings: Settings,
    access: Access,
    read_only: bool,
    live: Arc<Live>,
    reads: Semaphore,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// What every route has.
type Shared = Arc<Dash>;

/// Why a page could not read what it shows, as a sentence.
#[derive(Debug)]
struct Unreadable(String);

impl Dash {
    /// Asks the store, in turn and bounded in time, so that pages can slow nothing but pages.
    async fn read<T, F>(&self, ask: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, Unreadable>
    where
        F: Future<Output = StoreResult<T>>,
    {
        let late = |_| Unreadable(format!("the store did not answer within {READ_MAX:?}: ask for less, or try again"));
        let turn = clock::within(READ_MAX, self.reads.acquire()).await.map_err(late)?;
        let _turn = turn.expect("the semaphore is never closed");
        let store = self.source.store().await.map_err(Unreadable)?;
        let answer = clock::within(READ_MAX, ask(store)).await.map_err(late)?;
        answer.map_err(|error| Unreadable(error.to_string()))
    }
}

/// The dashboard's routes; what feeds them ends at `stop`, as do the streams of open tabs.
pub fn router(parts: Parts, stop: &CancellationToken) -> Router {
    let Parts { source, outlet, settings, access, read_only, place, clock } = parts;
    let live = Arc::new(Live::new(clock));
    tokio::spawn(Arc::clone(&live).run(Arc::clone(&source), stop.clone()));
    let (reads, streams) = (Semaphore::new(READS_MAX), Arc::new(Semaphore::new(STREAMS_MAX)));
    let stop = stop.clone();
    let dash = Dash { source, outlet, settings, access, read_only, live, reads, streams, stop };
    routes::placed(routes::router(Arc::new(dash)), place)
}
