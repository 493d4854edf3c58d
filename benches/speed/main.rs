//! Speed, as ratios within one run: lanes beside a bare `lapin` consumer that does the same call with a batched dedup
//! insert, on the same private RabbitMQ and PostgreSQL. `cargo bench --bench speed [-- SCENARIO...]`
#![allow(
    clippy::print_stdout,
    clippy::format_collect,
    reason = "a benchmark prints its figures, and its input is small"
)]

mod api;
mod bare;
mod change;
mod child;
mod decisions;
mod kills;
mod learn;
mod limiter;
mod operations;
mod outage;
mod overhead;
mod pacing;
mod sink;
mod stage;
mod tenants;
mod verdict;
#[path = "../../tests/it/services.rs"]
#[allow(unused_imports, reason = "the tests use more of it")]
mod services;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lanes::clock::{SharedClock, SystemClock, sleep};
use lanes::job::Tenant;
use lanes::publish::{NewJob, Publisher};

use child::Child;
use sink::Sink;
use stage::{SHORT_RETRIES, Setup, Stage, new_job};
use verdict::Verdict;

/// Jobs of the throughput runs.
const TINY_JOBS: usize = 60_000;
/// Pairs of throughput runs; the median of their ratios counts, because other guests of a machine disturb single runs.
const THROUGHPUT_ROUNDS: usize = 5;
/// Jobs of the memory run.
const BACKLOG: usize = 200_000;
/// Jobs of the retry storm.
const STORM: usize = 5_000;
/// Real-time samples of the latency runs, and the time between two of them.
const SAMPLES: usize = 600;
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    if let Ok(role) = std::env::var("LANES_BENCH_BARE") {
        bare::run(&role).await;
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let run = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    let bench = Bench::start();
    if run("throughput") {
        bench.throughput().await;
    }
    if run("publish") {
        bench.publish_from_file().await;
    }
    if run("latency") {
        bench.latency().await;
    }
    if run("storm") {
        bench.storm().await;
    }
    if run("memory") {
        bench.memory().await;
    }
    bench.governor(run).await;
    match bench.verdict.missed() {
        0 => ExitCode::SUCCESS,
        missed => {
            println!("{missed} targets were MISSED");
            ExitCode::FAILURE
        }
    }
}

struct Bench {
    rabbit: services::Rabbit,
    postgres: services::Postgres,
    clock: SharedClock,
    dir: tempfile::TempDir,
    verdict: Verdict,
}

impl Bench {
    fn start() -> Self {
        let (rabbit, postgres) = (services::Rabbit::start(), services::Postgres::start_durable());
        let clock: SharedClock = Arc::new(SystemClock::new());
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { rabbit, postgres, clock, dir, verdict: Verdict::default() }
    }

    /// What the governor of budgets promises.
    async fn governor(&self, run: impl Fn(&str) -> bool) {
        if run("pacing") {
            self.pacing(None).await;
        } else {
            for workers in [2, 4] {
                if run(&format!("pacing-{workers}")) {
                    self.pacing(Some(workers)).await;
                }
            }
        }
        if run("kills") {
            self.kills().await;
        }
        if run("learn") {
            self.learn().await;
        }
        if run("change") {
            self.change().await;
        }
        if run("tenants") {
            self.tenants().await;
        }
        if run("decisions") {
            self.decisions().await;
        }
        if run("overhead") {
            self.overhead().await;
        }
        if run("operations") {
            self.operations().await;
        }
        if run("outage") {
            self.outage().await;
        }
    }

    async fn plain_stage(&self, name: &str, sink: &Sink, realtime: usize, bulk: usize) -> Stage {
        self.stage(&Setup { name, url: &sink.url, realtime, bulk, retry: SHORT_RETRIES, more: "" }).await
    }

    /// N tiny jobs at concurrency 100, lanes and the bare consumer in turn.
    async fn throughput(&self) {
        let mut ratios = Vec::new();
        for round in 1..=THROUGHPUT_ROUNDS {
            let bare = self.bare_round().await;
            let lanes = self.lanes_round(&format!("throughput-{round}")).await;
            ratios.push(lanes.0 / bare.0);
            println!(
                "throughput {round}: lanes {:.0} jobs/s ({:.1} us CPU a job, {} MB peak), bare {:.0} jobs/s ({:.1} us), \
                 ratio {:.2}",
                lanes.0,
                lanes.1,
                lanes.2,
                bare.0,
                bare.1,
                lanes.0 / bare.0
            );
        }
        ratios.sort_by(f64::total_cmp);
        println!("throughput: median ratio {:.2} (must be >= 0.5, goal 1.0)", ratios[ratios.len() / 2]);
    }

    async fn lanes_round(&self, name: &str) -> (f64, f64, u64) {
        let sink = Sink::start(sink::Mode::Fast).await;
        let stage = self.plain_stage(name, &sink, 8, 100).await;
        preload(&stage.publisher, "bulk", TINY_JOBS).await;
        let worker = Child::lanes(&stage.config);
        let (rate, cpu) = self.measure(&sink, &worker, TINY_JOBS).await;
        (rate, cpu, worker.peak_rss_mb())
    }

    async fn bare_round(&self) -> (f64, f64) {
        let sink = Sink::start(sink::Mode::Fast).await;
        let (amqp, postgres) = (self.rabbit.fresh_vhost(), self.postgres.fresh_database().await);
        bare::preload(&amqp, TINY_JOBS).await;
        let worker = Child::bare(&format!("{amqp} {postgres} {}", sink.url));
        self.measure(&sink, &worker, TINY_JOBS).await
    }

    /// Jobs per second and CPU microseconds per job, between the 5th and the 95th percent of the calls.
    async fn measure(&self, sink: &Sink, worker: &Child, jobs: usize) -> (f64, f64) {
        let (first, last) = (jobs / 20, jobs - jobs / 20);
        sink.until(first).await;
        let (started, cpu) = (self.clock.now(), worker.cpu());
        sink.until(last).await;
        let (took, used) = (self.clock.now().since(started), worker.cpu().saturating_sub(cpu));
        sink.until(jobs).await;
        let measured = to_f64(last - first);
        (measured / took.as_secs_f64(), used.as_secs_f64() * 1e6 / measured)
    }

    /// `lanes publish --from` a file.
    async fn publish_from_file(&self) {
        let sink = Sink::start(sink::Mode::Fast).await;
        let stage = self.plain_stage("publish", &sink, 8, 8).await;
        let file = self.dir.path().join("jobs.ndjson");
        let lines: String = (0..TINY_JOBS)
            .map(|n| {
                format!(
                    "{{\"id\":\"file-{n}\",\"endpoint\":\"sink\",\"body\":{{\"n\":{n},\"pad\":\"{}\"}}}}\n",
                    "x".repeat(150)
                )
            })
            .collect();
        std::fs::write(&file, lines).expect("written");
        let started = self.clock.now();
        Child::publish(&stage.config, &file);
        let took = self.clock.now().since(started).as_secs_f64();
        println!("publish --from: {:.0} confirmed jobs/s (must be >= 15,000)", to_f64(TINY_JOBS) / took);
    }

    /// Real-time at 50/s, alone and beside a saturated bulk lane.
    async fn latency(&self) {
        let sink = Sink::start(sink::Mode::SlowBulk(Duration::from_millis(20))).await;
        let stage = self.plain_stage("latency", &sink, 20, 40).await;
        let worker = Child::lanes(&stage.config);
        let idle = self.samples(&stage, &sink, "idle").await;
        preload(&stage.publisher, "bulk", 40_000).await;
        let loaded = self.samples(&stage, &sink, "loaded").await;
        drop(worker);
        let show = |of: &[Duration], percent: usize| percentile(of, percent).as_secs_f64() * 1e3;
        for (name, of) in [("idle", &idle), ("loaded", &loaded)] {
            println!(
                "latency {name}: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms",
                show(of, 50),
                show(of, 95),
                show(of, 99)
            );
        }
        let ratio = show(&loaded, 99) / show(&idle, 99);
        println!("latency: loaded p99 / idle p99 = {ratio:.2} (must be <= 1.5; and p99 <= 6 ms on a quiet machine)");
    }

    async fn samples(&self, stage: &Stage, sink: &Sink, name: &str) -> Vec<Duration> {
        let mut taken = Vec::with_capacity(SAMPLES);
        for n in 0..SAMPLES + 50 {
            let next = self.clock.now().plus(SAMPLE_EVERY);
            let id = format!("{name}-{n}");
            let published = self.clock.now();
            stage.publisher.publish_one(job("realtime", &id)).await.expect("confirmed");
            let called = sink.until_called(&id).await;
            if n >= 50 {
                taken.push(called.since(published)); // the first ones warm up connections
            }
            self.clock.sleep_until(next).await;
        }
        taken.sort();
        taken
    }

    /// Jobs that are limited twice, wanted again after 0.5 s and 1 s.
    async fn storm(&self) {
        let sink = Sink::start(sink::Mode::LimitTwice).await;
        let stage = self.plain_stage("storm", &sink, 8, 100).await;
        preload(&stage.publisher, "bulk", STORM).await;
        let worker = Child::lanes(&stage.config);
        sink.until(1).await;
        let started = self.clock.now();
        sink.until(3 * STORM).await;
        let took = self.clock.now().since(started).as_secs_f64();
        sleep(&*self.clock, Duration::from_secs(2)).await; // an extra call would come now
        drop(worker);
        let early = sink.early([Duration::from_millis(500), Duration::from_secs(1)]);
        println!(
            "storm: drained in {took:.2} s (ideal 1.5, must be <= 3.0), extra calls {}, early {early}",
            sink.count() - 3 * STORM
        );
    }

    /// Peak memory of a worker with a large backlog.
    async fn memory(&self) {
        let sink = Sink::start(sink::Mode::Fast).await;
        let stage = self.plain_stage("memory", &sink, 8, 100).await;
        preload(&stage.publisher, "bulk", BACKLOG).await;
        let worker = Child::lanes(&stage.config);
        sink.until(BACKLOG).await;
        println!("memory: peak {} MB with a backlog of {BACKLOG} (must be <= 40)", worker.peak_rss_mb());
    }
}

async fn preload(publisher: &Publisher, lane: &str, jobs: usize) {
    let mut left = jobs;
    while left > 0 {
        let now = left.min(1_000);
        let batch = (0..now).map(|n| job(lane, &format!("{lane}-{}", left - n))).collect();
        for answer in publisher.publish(batch).await {
            answer.expect("confirmed");
        }
        left -= now;
    }
}

fn job(lane: &str, id: &str) -> NewJob {
    new_job(lane, id, &Tenant::unnamed())
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

/// Where the worker's log goes, beside its configuration.
fn log_of(config: &Path) -> PathBuf {
    config.with_extension("log")
}
