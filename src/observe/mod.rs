//! What is going on: one look at store, broker and budgets, the same for terminal, pages and probes.

pub mod documents;
mod reading;
pub mod trail;
pub mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::broker::{Broker, BrokerError};
use crate::clock::Timestamp;
use crate::governor::view::{self, AccountState, Held};
use crate::governor::{Governor, sync};
use crate::job::control::{Concurrency, Pause, Paused, Target};
use crate::job::operation::Operation;
use crate::job::{LaneName, wire};
use crate::policy::pacing::Budgets;
use crate::store::{State, StateCount, Store, StoreResult, WorkerRow};

pub use crate::policy::health::{Incident, Kind, Severity, Step};
pub use reading::{Past, Recent, incidents, past};
pub use trail::Trails;

/// What there is to look at.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The configured lanes, in the order of the configuration.
    pub lanes: Vec<LaneName>,
    /// How many calls each of them makes at a time in each worker, as configured.
    pub concurrency: BTreeMap<LaneName, u32>,
    /// A worker that was silent for longer is taken for dead.
    pub lease: Duration,
    /// The configured budgets.
    pub budgets: Budgets,
    /// What was read of the history lately.
    pub recent: Recent,
}

/// Operations of one look.
const OPERATIONS_MAX: usize = 50;

/// One lane.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// It is in the configuration.
    pub configured: bool,
    /// Fresh messages that no worker has claimed.
    pub ready: u64,
    /// Wake-ups of released jobs that no worker has claimed.
    pub due: u64,
    /// Deliveries that workers have in hand, where the broker tells.
    pub unacked: Option<u64>,
    /// Rows by state and reason.
    pub counts: Vec<StateCount>,
    /// Dead letters.
    pub dead: u64,
    /// Living workers.
    pub workers: u64,
    /// Calls at a time in each worker, as configured; `None` where the lane is not.
    pub concurrency: Option<u32>,
    /// The same as an operator has said, while that lasts.
    pub said: Option<Concurrency>,
}

impl Lane {
    /// Rows in this state.
    pub fn jobs(&self, state: State) -> u64 {
        self.counts.iter().filter(|count| count.state == state).map(|count| count.jobs).sum()
    }

    /// Jobs that need a worker. What is unacked has a row, or will be ready again.
    pub fn work(&self) -> u64 {
        self.ready + self.counts.iter().map(|count| count.jobs).sum::<u64>()
    }

    /// Calls at a time in each worker, as it is now.
    pub fn concurrency_now(&self) -> Option<u32> {
        self.said.as_ref().map(|said| said.calls).or(self.concurrency)
    }

    /// Publish time of the oldest job, where known.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.counts.iter().filter_map(|count| count.oldest_published_at).min()
    }
}

/// What one look shows. What cannot be reached is part of the picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// When, by the store's clock.
    pub now: Timestamp,
    /// Why the broker does not answer.
    pub broker: Result<(), String>,
    /// Why the store does not answer.
    pub store: Result<(), String>,
    /// Lanes in the order of the configuration, then what is not configured (any more).
    pub lanes: Vec<(LaneName, Lane)>,
    /// Workers, and whether they live.
    pub workers: Vec<(WorkerRow, bool)>,
    /// Who waits for a turn in a budget, most jobs first, and why.
    pub held: Vec<Held>,
    /// What may be called and what is known of it, as the first lane of the configuration sees it.
    pub accounts: Vec<AccountState>,
    /// What operators have paused, in the order of lanes, endpoints, tenants.
    pub paused: Vec<Paused>,
    /// Operations on many, the newest first; those that ended long ago are not among them.
    pub operations: Vec<Operation>,
    /// What needs a person, the worst first.
    pub incidents: Vec<Incident>,
    /// What was counted before.
    pub past: Arc<Past>,
    /// The same over time, where charts are wanted.
    pub trails: Arc<Trails>,
}

impl Picture {
    /// Nothing was seen yet.
    pub fn unseen(now: Timestamp) -> Self {
        Self {
            now,
            broker: Ok(()),
            store: Ok(()),
            lanes: Vec::new(),
            workers: Vec::new(),
            held: Vec::new(),
            accounts: Vec::new(),
            paused: Vec::new(),
            operations: Vec::new(),
            incidents: Vec::new(),
            past: Arc::default(),
            trails: Arc::default(),
        }
    }

    /// Whether nobody is needed.
    pub fn is_healthy(&self) -> bool {
        self.incidents.is_empty()
    }

    /// The pause of a lane.
    pub fn pause_of(&self, lane: &LaneName) -> Option<&Pause> {
        let of_lane = |paused: &&Paused| matches!(&paused.target, Target::Lane(name) if name == lane);
        self.paused.iter().find(of_lane).map(|paused| &paused.pause)
    }
}

/// Whoever can look, with all that it takes.
#[async_trait]
pub trait Look: Send + Sync + fmt::Debug {
    /// Looks once.
    async fn look(&self) -> Picture;
}

/// Looks once. `store` and `broker` are what could be opened, or why not.
pub async fn look(
    scope: &Scope,
    store: Result<&dyn Store, String>,
    broker: Result<&dyn Broker, String>,
    now: Timestamp,
) -> Picture {
    let mut lanes: BTreeMap<LaneName, Lane> = BTreeMap::new();
    for lane in &scope.lanes {
        let new = lanes.entry(lane.clone()).or_default();
        (new.configured, new.concurrency) = (true, scope.concurrency.get(lane).copied());
    }
    let mut picture = Picture::unseen(now);
    picture.store = match store {
        Ok(store) => {
            let read = read_store(scope, store, &mut picture, &mut lanes).await;
            read.map_err(|error| error.to_string())
        }
        Err(why) => Err(why),
    };
    picture.broker = match broker {
        Ok(broker) => read_depths(broker, &mut lanes).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    let configured: Vec<_> =
        scope.lanes.iter().filter_map(|lane| lanes.remove(lane).map(|found| (lane.clone(), found))).collect();
    picture.lanes = configured.into_iter().chain(lanes).collect();
    picture.incidents = incidents(&picture, &picture.past, scope.lease);
    picture
}

async fn read_store(
    scope: &Scope,
    store: &dyn Store,
    picture: &mut Picture,
    lanes: &mut BTreeMap<LaneName, Lane>,
) -> StoreResult<()> {
    picture.now = store.time().await?;
    for count in store.state_counts().await? {
        lanes.entry(count.lane.clone()).or_default().counts.push(count);
    }
    let governor = Governor::observer(scope.budgets.clone());
    sync::round(&governor, store, picture.now, Timestamp::EPOCH).await?;
    picture.paused = governor.lasting_pauses(picture.now);
    for (name, lane) in &mut *lanes {
        lane.said = governor.concurrency(name, picture.now);
    }
    picture.held = view::held(&governor, store, picture.now).await?;
    if let Some(lane) = scope.lanes.first() {
        let held: Vec<_> = picture.held.iter().map(|held| held.of.clone()).collect();
        picture.accounts = governor.accounts(lane, &held, picture.now);
    }
    for (lane, letters) in store.letter_counts().await? {
        lanes.entry(lane).or_default().dead = letters;
    }
    picture.operations = store.operations(OPERATIONS_MAX).await?;
    for worker in store.workers().await? {
        let alive = picture.now.since(worker.heartbeat_at) <= scope.lease;
        for name in worker.lanes.split(',').map(str::trim).filter(|_| alive) {
            if let Some(lane) = LaneName::new(name).ok().and_then(|name| lanes.get_mut(&name)) {
                lane.workers += 1;
            }
        }
        picture.workers.push((worker, alive));
    }
    (picture.past, picture.trails) = scope.recent.read(store, picture.now).await?;
    Ok(())
}

async fn read_depths(broker: &dyn Broker, lanes: &mut BTreeMap<LaneName, Lane>) -> Result<(), BrokerError> {
    for (name, lane) in lanes {
        // a queue that nobody has declared yet is empty
        let fresh = broker.depth(&wire::queue(name)).await?.unwrap_or_default();
        let due = broker.depth(&wire::due_queue(name)).await?.unwrap_or_default();
        lane.ready = fresh.ready;
        lane.due = due.ready;
        lane.unacked = fresh.unacked.zip(due.unacked).map(|(fresh, due)| fresh + due);
    }
    Ok(())
}
