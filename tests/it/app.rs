//! The worker as `app` puts it together: what the parts are connected to can be seen from outside only here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lanes::app::{WorkerOptions, run_worker};
use lanes::clock::{SharedClock, SystemClock, within};
use lanes::config;
use lanes::dash::Settings;
use lanes::telemetry::Telemetry;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::flow::rig::{Backend, Backing};

const PATIENCE: Duration = Duration::from_secs(60);

struct Working {
    metrics: PrometheusHandle,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Working {
    /// A worker of the lane `bulk` that serves nothing over HTTP.
    fn start(backing: &Backing) -> Self {
        let text = format!(
            "[broker]\nurl = \"{}\"\n[store]\nurl = \"{}\"\n[lanes.bulk]\n[endpoints.crm]\nurl = \"http://127.0.0.1:1/\"\n",
            backing.broker_url, backing.store_url
        );
        let no_files = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let loaded = config::read("lanes.toml", &text, &BTreeMap::new(), &no_files).expect("a legal configuration");
        let (telemetry, metrics) = Telemetry::prometheus();
        let stop = CancellationToken::new();
        let (shown, stopped) = (metrics.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let options =
                WorkerOptions { only: None, metrics: shown, http: false, settings: Settings::default(), bound: None };
            run_worker(&loaded.specs, options, &telemetry, &SystemClock::new(), stopped).await.expect("works");
        });
        Self { metrics, stop, task }
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let found = within(PATIENCE, async {
            while !holds().await {
                tokio::task::yield_now().await;
            }
        });
        assert!(found.await.is_ok(), "no {what} within {PATIENCE:?}");
    }

    async fn stop(self) {
        self.stop.cancel();
        within(PATIENCE, self.task).await.expect("ends in time").expect("does not panic");
    }
}

/// Whether samples were put into buckets. Rendering does that too, so the handle itself has to be looked at.
fn is_condensed(metrics: &PrometheusHandle) -> bool {
    format!("{metrics:?}").contains("Histogram(Histogram {")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_kept_in_order_although_nobody_reads_them() {
    let (telemetry, metrics) = Telemetry::prometheus();
    telemetry.store_operation("claim", Duration::from_millis(1), true);
    assert!(!is_condensed(&metrics), "a sample waits to be put into its bucket");
    metrics.run_upkeep();
    assert!(is_condensed(&metrics));

    let clock: SharedClock = Arc::new(SystemClock::new());
    let backing = Backing::new(Backend::Sqlite, clock).await;
    let worker = Working::start(&backing);
    worker.until("condensed samples", async || is_condensed(&worker.metrics)).await;
    let shown = worker.metrics.render();
    assert!(shown.contains("lanes_jobs_finished_total{lane=\"bulk\",outcome=\"succeeded\"} 0"), "{shown}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_has_a_connection_of_its_own() {
    let clock: SharedClock = Arc::new(SystemClock::new());
    let backing = Backing::new(Backend::Rabbit, clock).await;
    let purpose = lanes::db::PgPoolUse { name: "watcher", connections: 1 };
    let pool = lanes::db::open_postgres(&backing.store_url, purpose).expect("a legal url");
    let worker = Working::start(&backing);
    let beats_of = async |who: &str| -> i64 {
        let seen = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND application_name = $1 AND query LIKE 'UPDATE workers SET heartbeat_at%'";
        sqlx::query_scalar(seen).bind(who).fetch_one(&pool).await.expect("answers")
    };
    worker.until("heartbeat", async || beats_of("lanes:liveness").await == 1).await;
    assert_eq!((beats_of("lanes:lane").await, beats_of("lanes:control").await), (0, 0));
    worker.stop().await;
}
