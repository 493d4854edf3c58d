//! The real binary under kill -9, and its servers too; the history checker says what was lost or repeated.
#![allow(clippy::print_stderr, reason = "the seed of a failing run must be seen")]

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lanes::broker::rabbitmq::RabbitMq;
use lanes::broker::{Broker, BrokerLimits};
use lanes::clock::{SharedClock, SystemClock, Timestamp, within};
use lanes::engine::queues;
use lanes::governor::operations::{self, Manner};
use lanes::job::control::{Source, Speaker};
use lanes::job::operation::{Action, Operation, Phase, Selection};
use lanes::job::verdict::DeadReason;
use lanes::job::{DedupKey, Identity};
use lanes::store::{ClaimContext, FreshClaim, JobFilter, LetterFilter, Next, Payload, Settlement, State};
use uuid::Uuid;

use crate::flow::rig::{Api, Backend, Backing, Reply, Seen, lane, new_job, telemetry};
use crate::history::{Call, Findings, History, Publish, check};
use crate::services;

const MAX_ATTEMPTS: u32 = 8;
const JOBS: usize = 400;
/// Real time in which everything must have ended after the last fault.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the API answers to a job's n-th call: most work at once, some are limited twice, some fail for good.
fn status(id: &str, nth: usize) -> u16 {
    let number: usize = id.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    match (number % 10, nth) {
        (3 | 4, 1 | 2) => 429,
        (5, 1) => 503,
        (7, _) => 422,
        _ => 200,
    }
}

struct Scene {
    dir: tempfile::TempDir,
    config: PathBuf,
    backing: Backing,
    clock: SharedClock,
    api: Api,
    workers: Vec<Child>,
    history: History,
    random: u64,
}

impl Scene {
    async fn new(backend: Backend, seed: u64) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::new());
        let backing = Backing::new(backend, Arc::clone(&clock)).await;
        eprintln!("crash test on {backend:?}, seed {seed}");
        Self::on(backing, clock, seed).await
    }

    async fn with_servers(rabbit: &services::Rabbit, postgres: &services::Postgres, seed: u64) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::new());
        let urls = (rabbit.fresh_vhost(), postgres.fresh_database().await);
        let first = RabbitMq::new(&urls.0, BrokerLimits::default(), Arc::clone(&clock)).expect("a legal url");
        for name in ["realtime", "bulk"] {
            first.declare(&queues(&lane(name))).await.expect("declares");
        }
        first.close().await;
        // RabbitMQ 3.10 writes its list of queues late: a kill soon after declaring one would forget it
        tokio::task::block_in_place(|| rabbit.restart());
        let backing = Backing::servers(urls, Arc::clone(&clock)).await;
        Self::on(backing, clock, seed).await
    }

    async fn on(backing: Backing, clock: SharedClock, seed: u64) -> Self {
        let script = |seen: &Seen, nth: usize| Reply::status(status(&seen.job_id, nth));
        let api = Api::start(Arc::clone(&clock), Arc::new(script)).await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("lanes.toml");
        write_config(&config, &backing, &api.url);
        for name in ["realtime", "bulk"] {
            backing.broker.declare(&queues(&lane(name))).await.expect("declares");
        }
        Self { dir, config, backing, clock, api, workers: Vec::new(), history: History::default(), random: seed }
    }

    /// xorshift: chance is injected, a seed replays the order of faults.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn start_worker(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("worker.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_lanes"))
            .args(["--config", &self.config.display().to_string(), "worker", "--no-http"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("the worker starts");
        self.workers.push(child);
    }

    fn kill_worker(&mut self) {
        let at = usize::try_from(self.random(self.workers.len() as u64)).expect("small");
        let mut child = self.workers.swap_remove(at);
        child.kill().expect("kill -9");
        child.wait().expect("reaped");
        self.history.kills.push(self.clock.now());
    }

    /// Publishes `JOBS` jobs of two lanes; every tenth id a second time.
    async fn publish(&mut self) {
        let broker = Arc::clone(&self.backing.broker);
        let publisher = lanes::publish::Publisher::new(broker, telemetry(), Arc::clone(&self.clock), "library");
        let mut jobs = Vec::new();
        for n in 0..JOBS {
            let name = if n % 4 == 0 { "realtime" } else { "bulk" };
            for _ in 0..=usize::from(n % 10 == 0) {
                jobs.push(new_job(name, &format!("{name}-{n}")));
            }
        }
        for answer in publisher.publish(jobs).await {
            let confirmed = answer.expect("confirmed");
            let id = confirmed.id.as_str().to_owned();
            self.history.publishes.push(Publish { instance: confirmed.instance, id });
        }
    }

    /// Waits until the API was called `more` times more.
    async fn until_more_calls(&self, more: usize) {
        let wanted = self.api.calls().len() + more;
        let arrived = within(PATIENCE, self.api.until("calls", |seen| seen.len() >= wanted)).await;
        assert!(arrived.is_ok(), "the workers came to a halt\n{}", self.log());
    }

    /// Waits until no row is alive and every publish has ended, then judges.
    async fn judge(mut self) -> Findings {
        let ended = within(PATIENCE, async {
            loop {
                self.collect().await;
                let findings = check(&self.history, MAX_ATTEMPTS);
                if findings.lost.is_empty() && findings.unfinished.is_empty() {
                    return findings;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        for worker in &mut self.workers {
            worker.kill().expect("kill -9");
            worker.wait().expect("reaped");
        }
        ended.unwrap_or_else(|_| {
            let findings = check(&self.history, MAX_ATTEMPTS);
            panic!("not everything ended: {findings:#?}\n{}", self.log())
        })
    }

    async fn collect(&mut self) {
        let store = &self.backing.store;
        let mut rows = Vec::new();
        for state in State::ALL.into_iter().filter(|state| state.is_alive()) {
            let filter = JobFilter { state: Some(state), limit: 1_000, ..JobFilter::default() };
            // the store may be the one that was killed
            match store.jobs(&filter).await {
                Ok(some) => rows.extend(some),
                Err(_) => return,
            }
        }
        let filter = LetterFilter { limit: 1_000, ..LetterFilter::default() };
        let Ok(letters) = store.letters(&filter).await else { return };
        let mut nth = std::collections::HashMap::<String, usize>::new();
        self.history.calls = self
            .api
            .calls()
            .into_iter()
            .map(|seen| {
                let count = nth.entry(seen.job_id.clone()).or_default();
                *count += 1;
                let status = status(&seen.job_id, *count);
                let attempt = seen.attempt.parse().expect("a number");
                Call { at: seen.at, id: seen.job_id, key: seen.key, attempt, status }
            })
            .collect();
        self.history.rows = rows;
        self.history.letters = letters;
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("worker.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            drop(worker.kill());
            drop(worker.wait());
        }
    }
}

fn write_config(path: &Path, backing: &Backing, api: &str) {
    let lanes = ["realtime", "bulk"].map(|name| {
        format!(
            "[lanes.{name}]\nconcurrency = 4\n[lanes.{name}.retry]\nmax_attempts = {MAX_ATTEMPTS}\n\
             first_delay = \"200ms\"\nmax_delay = \"1s\"\n"
        )
    });
    let text = format!(
        "[broker]\nurl = \"{}\"\n[store]\nurl = \"{}\"\n[worker]\nlease = \"3s\"\npoison_after = 20\n\
         [endpoints.crm]\nurl = \"{api}\"\n{}",
        backing.broker_url,
        backing.store_url,
        lanes.concat()
    );
    let mut file = std::fs::File::create(path).expect("a config file");
    file.write_all(text.as_bytes()).expect("written");
}

async fn workers_die(backend: Backend, seed: u64) {
    let mut scene = Scene::new(backend, seed).await;
    scene.start_worker();
    scene.start_worker();
    scene.publish().await;
    for _ in 0..6 {
        let calls = 10 + usize::try_from(scene.random(40)).expect("small");
        scene.until_more_calls(calls).await;
        scene.kill_worker();
        scene.start_worker();
    }
    let findings = scene.judge().await;
    assert!(findings.is_clean(), "{findings:#?}");
    eprintln!("repeats that a kill explains: {}", findings.explained_repeats);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_die_on_sqlite() {
    workers_die(Backend::Sqlite, 0x5eed_0001).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_die_on_rabbit_and_postgres() {
    workers_die(Backend::Rabbit, 0x5eed_0002).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_dies() {
    let rabbit = services::Rabbit::start();
    let postgres = services::Postgres::start_durable();
    let mut scene = Scene::with_servers(&rabbit, &postgres, 0x5eed_0003).await;
    scene.start_worker();
    scene.publish().await;
    scene.until_more_calls(40).await;
    tokio::task::block_in_place(|| rabbit.kill9());
    scene.history.kills.push(scene.clock.now());
    tokio::task::block_in_place(|| rabbit.restart());
    let findings = scene.judge().await;
    assert!(findings.is_clean(), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_dies() {
    let rabbit = services::Rabbit::start();
    let postgres = services::Postgres::start_durable();
    let mut scene = Scene::with_servers(&rabbit, &postgres, 0x5eed_0004).await;
    scene.start_worker();
    scene.publish().await;
    scene.until_more_calls(40).await;
    tokio::task::block_in_place(|| postgres.kill9());
    scene.history.kills.push(scene.clock.now());
    tokio::task::block_in_place(|| postgres.restart());
    let findings = scene.judge().await;
    assert!(findings.is_clean(), "{findings:#?}");
}

/// Dead letters of an operation that is killed half way.
const LETTERS: usize = 1_000;

/// Writes dead letters as a worker would that is gone since.
async fn bury_jobs(scene: &Scene, jobs: usize) {
    let (store, now) = (&scene.backing.store, scene.clock.now());
    let worker = store.register("gone:1", "bulk", now).await.expect("registered");
    let ctx = ClaimContext { worker, now, window: Duration::from_mins(10) };
    let claims: Vec<FreshClaim> = (0..jobs).map(|nth| fresh_claim(nth, now)).collect();
    for batch in claims.chunks(lanes::store::BATCH_MAX) {
        store.claim_fresh(ctx, batch).await.expect("claimed");
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

fn fresh_claim(nth: usize, now: Timestamp) -> FreshClaim {
    let job = new_job("bulk", &format!("bulk-{}", nth * 10));
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

async fn until_operation(scene: &Scene, id: Uuid, enough: impl Fn(&Operation) -> bool) -> Operation {
    let found = within(PATIENCE, async {
        loop {
            let operation = scene.backing.store.operation(id).await.expect("answers").expect("it is there");
            if enough(&operation) {
                return operation;
            }
            tokio::task::yield_now().await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("the operation came to a halt\n{}", scene.log()))
}

/// A worker that carries out an operation is killed; another one goes on with it, and each letter is acted on once.
async fn an_operation_outlives_its_worker(backend: Backend, seed: u64) {
    let mut scene = Scene::new(backend, seed).await;
    bury_jobs(&scene, LETTERS).await;
    scene.start_worker();
    let (store, now) = (Arc::clone(&scene.backing.store), scene.clock.now());
    let speaker = Speaker::new("ada", Source::Api);
    let plan =
        operations::plan(&*store, Action::Retry, Selection::all(now), |_| true, |_| true).await.expect("planned");
    assert_eq!(plan.eligible, LETTERS as u64);
    let manner = Manner { id: Uuid::new_v4(), per_second: Some(200.0), claim: None };
    operations::start(&*store, Action::Retry, &plan, manner, &speaker, now).await.expect("started");
    until_operation(&scene, manner.id, |operation| operation.tally.done >= 300).await;
    scene.kill_worker();
    let killed = until_operation(&scene, manner.id, |_| true).await;
    assert!(killed.tally.done < LETTERS as u64 && killed.phase == Phase::Running, "{killed:#?}");
    scene.start_worker();
    let ended = until_operation(&scene, manner.id, |operation| operation.phase == Phase::Done).await;
    assert_eq!((ended.tally.done, ended.tally.looked_at()), (LETTERS as u64, LETTERS as u64));
    let took = ended.ended_at.expect("it has ended").since(now);
    assert!(took >= Duration::from_millis(4_700), "200 a second, not more: {took:?}");
    let all = within(
        PATIENCE,
        scene
            .api
            .until("all called", |seen| seen.iter().map(|call| &call.job_id).collect::<HashSet<_>>().len() == LETTERS),
    )
    .await;
    let calls = all.unwrap_or_else(|_| panic!("not all were called\n{}", scene.log()));
    let killed_at = scene.history.kills[0];
    let mut first = HashMap::new();
    for call in &calls {
        // what was being called, or written down, when the worker was killed is called again; nothing else is
        if let Some(earlier) = first.insert(&call.job_id, call.at) {
            assert!(killed_at.since(earlier) < Duration::from_secs(2) && earlier <= killed_at, "{call:#?}");
        }
    }
    assert!(store.letter_counts().await.expect("answers").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_outlives_its_worker_on_sqlite() {
    an_operation_outlives_its_worker(Backend::Sqlite, 0x5eed_0005).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_outlives_its_worker_on_rabbit_and_postgres() {
    an_operation_outlives_its_worker(Backend::Rabbit, 0x5eed_0006).await;
}
