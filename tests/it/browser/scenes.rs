//! Eight situations at three in the morning, each with a real worker and a fake API, and what the dashboard has to say.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lanes::broker::Broker as _;
use lanes::broker::sqlite::SqliteBroker;
use lanes::clock::{ManualClock, SharedClock, SystemClock, within};
use lanes::db;
use lanes::engine::queues;
use lanes::job::Tenant;
use lanes::job::history::{Count, Measure, Series};
use lanes::publish::{NewJob, Publisher};
use lanes::store::sqlite::SqliteStore;
use lanes::store::{HistoryStore as _, LetterStore as _};
use tokio::sync::watch;

use crate::flow::rig::{Api, Reply, lane, new_job, telemetry};

/// Real time in which a situation must come about.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_hours(1);

/// One situation, with what runs in it.
pub struct Scene {
    pub name: &'static str,
    /// Where the dashboard is.
    pub url: String,
    /// What the overview has to say: parts of one sentence, in their order.
    pub says: &'static [&'static str],
    processes: Vec<Child>,
    broker: Arc<SqliteBroker>,
    store: SqliteStore,
    api: Api,
    clock: SharedClock,
    config: PathBuf,
    /// Calls are answered while it holds true.
    gate: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What the API answers while the gate is open, how the lanes are configured, and what the overview has to say.
struct Stage {
    name: &'static str,
    says: &'static [&'static str],
    status: u16,
    retry_after: Option<u32>,
    lanes: &'static str,
}

impl Scene {
    async fn new(stage: Stage) -> Self {
        let clock: SharedClock = Arc::new(SystemClock::new());
        let (gate, opened) = watch::channel(true);
        let Stage { name, says, status, retry_after, lanes } = stage;
        let script = move |_: &_, _| {
            let reply = Reply::status(status).gated(&opened);
            match retry_after {
                Some(seconds) => reply.header("retry-after", seconds),
                None => reply,
            }
        };
        let api = Api::start(Arc::clone(&clock), Arc::new(script)).await;
        let dir = tempfile::tempdir().expect("a directory");
        let file = format!("sqlite:{}", dir.path().join("lanes.db").display());
        let listen = free_address();
        let config = dir.path().join("lanes.toml");
        let text = format!(
            "[broker]\nurl = \"{file}\"\n[store]\nurl = \"{file}\"\n[http]\nlisten = \"{listen}\"\n\
             [worker]\nlease = \"3s\"\n[endpoints.crm]\nurl = \"{}\"\nlearn = \"off\"\n\
             circuit = {{ failures = 1000, open = \"1s\", open_max = \"1s\" }}\n{lanes}",
            api.url
        );
        std::fs::write(&config, text).expect("written");
        let db = db::open_sqlite(&file).await.expect("opens");
        let store = SqliteStore::new(db.clone());
        let broker = Arc::new(SqliteBroker::new(db, Arc::clone(&clock), Duration::from_secs(1_000_000)));
        for name in ["realtime", "bulk"] {
            broker.declare(&queues(&lane(name))).await.expect("declares");
        }
        let (url, processes) = (format!("http://{listen}/"), Vec::new());
        Self { name, url, says, processes, broker, store, api, clock, config, gate, _dir: dir }
    }

    fn start(&mut self, command: &[&str]) {
        let log = std::fs::File::create(self.config.with_extension(format!("{}.log", self.processes.len())));
        let child = Command::new(env!("CARGO_BIN_EXE_lanes"))
            .arg("--config")
            .arg(&self.config)
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn();
        self.processes.push(child.expect("it starts"));
    }

    async fn publish(&self, name: &str, jobs: usize) {
        self.publish_ago(Duration::ZERO, name, jobs).await;
    }

    /// Publishes jobs of tenant acme as if it had been some time ago.
    async fn publish_ago(&self, ago: Duration, name: &str, jobs: usize) {
        let then: SharedClock = Arc::new(ManualClock::new(self.clock.now().minus(ago)));
        let publisher = Publisher::new(Arc::clone(&self.broker) as _, telemetry(), then, "library");
        let job =
            |nth| NewJob { tenant: Tenant::new("acme").expect("a tenant"), ..new_job(name, &format!("{name}-{nth}")) };
        for answer in publisher.publish((0..jobs).map(job).collect()).await {
            answer.expect("confirmed");
        }
    }

    async fn calls(&self, count: usize) {
        let called = within(PATIENCE, self.api.until_calls(count)).await;
        assert!(called.is_ok(), "{}: {} of {count} calls\n{}", self.name, self.api.count(), self.log());
    }

    /// Writes down what happened before the test began.
    async fn remember(&self, ago: Duration, measure: Measure, (subject, part): (&str, &str), count: Count) {
        let series = Series { measure, bucket: 0, subject: subject.to_owned(), part: part.to_owned() };
        let at = self.clock.now().minus(ago);
        self.store.add_history(at, &[(series, count)]).await.expect("written");
    }

    /// What `lanes status` shows, and its exit code.
    pub async fn status(&self) -> (Option<i32>, String) {
        let config = self.config.clone();
        let run = move || Command::new(env!("CARGO_BIN_EXE_lanes")).arg("--config").arg(config).arg("status").output();
        let output = tokio::task::spawn_blocking(run).await.expect("joined").expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether a line says all that the overview has to say.
    pub fn is_said_in(&self, text: &str) -> bool {
        text.lines().any(|line| {
            let mut rest = line;
            self.says.iter().all(|part| match rest.split_once(part) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
        })
    }

    pub fn log(&self) -> String {
        let log = |nth| std::fs::read_to_string(self.config.with_extension(format!("{nth}.log"))).unwrap_or_default();
        (0..self.processes.len()).map(log).collect::<Vec<_>>().join("\n")
    }
}

/// A port that was free a moment ago.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

const fn many(count: u64) -> Count {
    Count { count, total: 0 }
}

const PLAIN: &str = "[lanes.realtime]\n[lanes.bulk]\nconcurrency = 4\n";
const ONE_ATTEMPT: &str = "[lanes.realtime]\n[lanes.bulk]\nconcurrency = 4\nretry = { max_attempts = 1 }\n";
const ONE_SLOT: &str = "[lanes.realtime]\n[lanes.bulk]\nconcurrency = 1\nprefetch = 1\n";
const SHORT_DELAYS: &str = "[lanes.realtime]\n[lanes.bulk]\nconcurrency = 4\n\
                            retry = { max_attempts = 50, first_delay = \"50ms\", max_delay = \"50ms\" }\n";

/// All of them, running at the same time.
pub async fn all() -> Vec<Scene> {
    vec![
        spike().await,
        exhaustion().await,
        realtime_waits().await,
        stuck().await,
        backoff_rising().await,
        duration_rising().await,
        worker_silent().await,
        dead_letters().await,
    ]
}

/// An endpoint answers 429 to one tenant, far more often than on the day before.
async fn spike() -> Scene {
    let says: &[&str] = &["crm: ", " 429s/min, ", "x its daily average. 100 % from tenant acme."];
    let stage = Stage { name: "spike", says, status: 429, retry_after: None, lanes: SHORT_DELAYS };
    let mut scene = Scene::new(stage).await;
    scene.remember(12 * HOUR, Measure::RateLimited, ("crm", "globex"), many(1_440)).await;
    scene.publish("bulk", 20).await;
    scene.start(&["worker"]);
    scene.calls(100).await;
    scene
}

/// Jobs run out of attempts.
async fn exhaustion() -> Scene {
    let says: &[&str] =
        &["bulk: 100 % of jobs ran out of retries in the last hour (30 of 30). Most of them at crm (30)."];
    let stage = Stage { name: "exhaustion", says, status: 503, retry_after: None, lanes: ONE_ATTEMPT };
    let mut scene = Scene::new(stage).await;
    scene.publish("bulk", 30).await;
    scene.start(&["worker"]);
    scene.calls(30).await;
    scene
}

/// Real-time jobs waited while bulk made nearly all calls.
async fn realtime_waits() -> Scene {
    let says: &[&str] = &["realtime waits ", "(p95, goal 2.0 s). bulk makes 92 % of the calls of crm"];
    let stage = Stage { name: "realtime-waits", says, status: 200, retry_after: None, lanes: PLAIN };
    let mut scene = Scene::new(stage).await;
    scene.publish_ago(Duration::from_secs(12), "realtime", 5).await;
    scene.publish("bulk", 60).await;
    scene.start(&["worker"]);
    scene.calls(65).await;
    scene
}

/// The only slot of a lane is taken by a call that does not end.
async fn stuck() -> Scene {
    let says: &[&str] = &["bulk has called nothing for 15 min (", " could run): "];
    let mut scene = Scene::new(Stage { name: "stuck", says, status: 200, retry_after: None, lanes: ONE_SLOT }).await;
    scene.gate.send_replace(false);
    for minutes in 1..14 {
        for measure in [Measure::Looked, Measure::Backlogged] {
            scene.remember(Duration::from_mins(minutes), measure, ("bulk", ""), many(12)).await;
        }
    }
    scene.publish("bulk", 200).await;
    scene.start(&["worker"]);
    scene.calls(1).await;
    scene
}

/// An API asks for longer waits than yesterday.
async fn backoff_rising() -> Scene {
    let says: &[&str] = &["Average backoff at crm is ", " min, 1.0 s yesterday at this hour."];
    let stage = Stage { name: "backoff", says, status: 429, retry_after: Some(240), lanes: PLAIN };
    let mut scene = Scene::new(stage).await;
    let usual = Count { count: 10, total: 10_000_000 };
    scene.remember(24 * HOUR, Measure::Retries, ("crm", ""), usual).await;
    scene.publish("bulk", 1).await;
    scene.start(&["worker"]);
    scene.calls(1).await;
    scene
}

/// Jobs take longer than they did three days ago.
async fn duration_rising() -> Scene {
    let says: &[&str] = &["bulk takes ", "x as long as three days ago (mean 1 ms -> "];
    let mut scene = Scene::new(Stage { name: "duration", says, status: 200, retry_after: None, lanes: PLAIN }).await;
    let usual = Count { count: 100, total: 100_000 };
    for ago in [80 * HOUR, 30 * HOUR] {
        scene.remember(ago, Measure::Duration, ("bulk", ""), usual).await;
    }
    scene.publish("bulk", 30).await;
    scene.start(&["worker"]);
    scene.calls(30).await;
    scene
}

/// A worker is killed, and the dashboard is served by another process.
async fn worker_silent() -> Scene {
    let says: &[&str] = &["worker ", " is silent for ", "its jobs return "];
    let mut scene = Scene::new(Stage { name: "silent", says, status: 200, retry_after: None, lanes: PLAIN }).await;
    scene.publish("bulk", 1).await;
    scene.start(&["worker", "--no-http"]);
    scene.calls(1).await;
    scene.processes[0].kill().expect("kill -9");
    scene.processes[0].wait().expect("reaped");
    scene.start(&["dash"]);
    scene
}

/// An API refuses the content of an import.
async fn dead_letters() -> Scene {
    let says: &[&str] = &["bulk: 130 dead letters, +130 in the last hour."];
    let stage = Stage { name: "dead-letters", says, status: 422, retry_after: None, lanes: PLAIN };
    let mut scene = Scene::new(stage).await;
    scene.publish("bulk", 130).await;
    scene.start(&["worker"]);
    scene.calls(130).await;
    let buried = within(PATIENCE, async {
        while scene.store.letter_counts().await.expect("answers").iter().map(|(_, count)| count).sum::<u64>() < 130 {
            tokio::task::yield_now().await;
        }
    });
    assert!(buried.await.is_ok(), "not all died\n{}", scene.log());
    scene
}
