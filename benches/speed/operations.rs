//! Operations: a hundred thousand dead letters come back while workers are killed and the operation is cancelled and begun again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lanes::clock::{Timestamp, sleep};
use lanes::db;
use lanes::governor::operations::{self, Manner};
use lanes::job::control::{Source, Speaker};
use lanes::job::operation::{Action, Operation, Phase, Selection};
use lanes::job::verdict::DeadReason;
use lanes::job::{DedupKey, Identity, Tenant};
use lanes::store::sqlite::SqliteStore;
use lanes::store::{BATCH_MAX, ClaimContext, FreshClaim, Next, Payload, Settlement, Store};
use uuid::Uuid;

use super::Bench;
use super::api::Api;
use super::pacing::{exact, limit};
use super::stage::{SHORT_RETRIES, Setup, new_job};

/// Dead letters.
const LETTERS: usize = 100_000;
/// Calls a second that the API allows.
const ALLOWED: u32 = 2_000;
/// Longest plan of all of them.
const PLAN_MAX: Duration = Duration::from_secs(1);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(240);

impl Bench {
    pub(super) async fn operations(&self) {
        self.plan_on_sqlite().await;
        let api = Api::start(exact(ALLOWED)).await;
        let more = limit(ALLOWED, "1s");
        let setup =
            Setup { name: "operations", url: &api.url, realtime: 8, bulk: 100, retry: SHORT_RETRIES, more: &more };
        let stage = self.stage(&setup).await;
        let mut workers = stage.workers(2);
        let store: Arc<dyn Store> = Arc::new(stage.store());
        while store.operations(1).await.is_err() {
            sleep(&*self.clock, Duration::from_millis(50)).await; // until a worker has made the tables
        }
        bury(&*store, self.clock.now()).await;
        self.plan_in_time("PostgreSQL", &*store).await;

        let first = self.begin(&*store).await;
        let part = self.until(&*store, first, |operation| operation.tally.done >= LETTERS as u64 / 5).await;
        workers.clear(); // SIGKILL
        println!("operations: both workers killed after {} letters", part.tally.done);
        workers.extend((3..=4).map(|nth| stage.worker(&format!("worker-{nth}"))));
        let half = self.until(&*store, first, |operation| operation.tally.done >= LETTERS as u64 / 2).await;
        let speaker = Speaker::new("bench", Source::Cli);
        assert!(operations::cancel(&*store, &half, &speaker, self.clock.now()).await.expect("cancelled"));
        let cancelled = self.until(&*store, first, |operation| operation.phase == Phase::Cancelled).await;
        let left: u64 = store.letter_counts().await.expect("counts").iter().map(|(_, letters)| letters).sum();
        let whole = cancelled.tally.done + left;
        let figure = format!("{} done + {left} left = {whole}", cancelled.tally.done);
        self.verdict.target("operations: cancelled half way", &figure, "all", whole == LETTERS as u64);
        let second = self.begin(&*store).await;
        let done = self.until(&*store, second, |operation| operation.phase == Phase::Done).await;
        let whole = cancelled.tally.done + done.tally.done;
        let figure = format!("{whole} put back to work, {} failed", done.tally.failed);
        self.verdict.target("operations: killed, cancelled, begun again", &figure, "all", whole == LETTERS as u64);
        self.judge(&api).await;
        drop(workers);
    }

    async fn plan_on_sqlite(&self) {
        let url = format!("sqlite:{}", self.dir.path().join("operations.db").display());
        let store = SqliteStore::new(db::open_sqlite(&url).await.expect("opens"));
        bury(&store, self.clock.now()).await;
        self.plan_in_time("SQLite", &store).await;
    }

    async fn plan_in_time(&self, backend: &str, store: &dyn Store) {
        let started = self.clock.now();
        let all = Selection::all(self.clock.now());
        let plan = operations::plan(store, Action::Retry, all, |_| true, |_| true).await.expect("planned");
        let took = self.clock.now().since(started);
        assert_eq!(plan.eligible, LETTERS as u64);
        let figure = format!("{} letters in {took:?}", plan.eligible);
        self.verdict.target(&format!("operations: plan on {backend}"), &figure, "< 1 s", took < PLAN_MAX);
    }

    async fn begin(&self, store: &dyn Store) -> Uuid {
        let now = self.clock.now();
        let plan = operations::plan(store, Action::Retry, Selection::all(now), |_| true, |_| true).await;
        let manner = Manner { id: Uuid::new_v4(), per_second: None, claim: None };
        let speaker = Speaker::new("bench", Source::Cli);
        let plan = plan.expect("planned");
        operations::start(store, Action::Retry, &plan, manner, &speaker, now).await.expect("started").id
    }

    async fn until(&self, store: &dyn Store, id: Uuid, enough: impl Fn(&Operation) -> bool) -> Operation {
        let deadline = self.clock.now().plus(PATIENCE);
        loop {
            let operation = store.operation(id).await.expect("answers").expect("it is there");
            if enough(&operation) {
                return operation;
            }
            assert!(self.clock.now() < deadline, "the operation came to a halt: {operation:?}");
            sleep(&*self.clock, Duration::from_millis(20)).await;
        }
    }

    /// Every job was called, and the API never had to refuse.
    async fn judge(&self, api: &Api) {
        let deadline = self.clock.now().plus(PATIENCE);
        let called = loop {
            let calls = api.calls();
            let called = calls.iter().map(|call| call.job.clone()).collect::<HashSet<_>>().len();
            if called == LETTERS || self.clock.now() >= deadline {
                break called;
            }
            sleep(&*self.clock, Duration::from_millis(500)).await;
        };
        self.verdict.target("operations: jobs called", &called.to_string(), "all", called == LETTERS);
        let mut times: HashMap<String, usize> = HashMap::new();
        for call in api.calls() {
            *times.entry(call.job).or_default() += 1;
        }
        let repeats: usize = times.values().map(|times| times - 1).sum();
        println!("operations: {repeats} calls repeated, of what was in flight when the workers were killed");
        for (name, refused) in api.refused() {
            self.verdict.target(&format!("operations, {name}"), &format!("{refused} refused"), "0", refused == 0);
        }
    }
}

/// Writes dead letters as a worker would.
async fn bury(store: &dyn Store, now: Timestamp) {
    let worker = store.register("gone:1", "bulk", now).await.expect("registered");
    let ctx = ClaimContext { worker, now, window: Duration::from_mins(10) };
    let mut nth = 0;
    while nth < LETTERS {
        let batch: Vec<FreshClaim> = (nth..LETTERS.min(nth + BATCH_MAX)).map(|nth| claim(nth, now)).collect();
        nth += batch.len();
        store.claim_fresh(ctx, &batch).await.expect("claimed");
        let dead = |claim: &FreshClaim| Settlement {
            key: claim.key,
            instance: claim.instance,
            token: claim.token,
            next: Next::Dead { reason: DeadReason::Exhausted, detail: "five times".to_owned(), counted: true },
            effect_possible: false,
            attempt: None,
        };
        store.settle(now, &batch.iter().map(dead).collect::<Vec<_>>()).await.expect("settled");
    }
    store.deregister(worker).await.expect("deregistered");
}

fn claim(nth: usize, now: Timestamp) -> FreshClaim {
    let job = new_job("bulk", &format!("job-{nth}"), &Tenant::unnamed());
    let id = job.id.expect("it has one");
    FreshClaim {
        key: DedupKey::of(&job.lane, &job.tenant, &id),
        instance: Uuid::new_v4(),
        token: Uuid::new_v4(),
        lane: job.lane,
        tenant: job.tenant,
        id,
        endpoint: job.endpoint,
        published_at: now,
        payload_sha256: [0; 32],
        payload: Payload { meta: b"{}".to_vec().into(), body: job.body },
        identity: Identity::Stamped,
        redelivered: false,
        in_turn: None,
    }
}
