//! The real binary under kill -9, and its servers too; the history checker says what was lost or repeated.
#![allow(clippy::print_stderr, reason = "the seed of a failing run must be seen")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lanes::clock::{SharedClock, SystemClock, within};
use lanes::store::{JobFilter, LetterFilter, State};

use lanes::broker::rabbitmq::RabbitMq;
use lanes::broker::{Broker, BrokerLimits};
use lanes::engine::queues;

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
