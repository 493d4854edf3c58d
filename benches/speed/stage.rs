//! A stage for a scenario: a vhost, a database and a configuration of its own, so that scenarios do not see each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanes::broker::rabbitmq::RabbitMq;
use lanes::broker::{Broker, BrokerLimits};
use lanes::db::{self, PgPoolUse};
use lanes::job::{EndpointName, JobId, JobMeta, LaneName, Tenant};
use lanes::publish::{NewJob, Publisher};
use lanes::store::postgres::PgStore;
use lanes::telemetry::Telemetry;

use super::Bench;
use super::child::Child;

/// Retries that are soon over.
pub const SHORT_RETRIES: &str = "first_delay = \"500ms\"\nmax_delay = \"1s\"\njitter = 0.0\n";
/// Jobs of one publish.
const PUBLISH_BATCH: usize = 1_000;

/// What a scenario wants.
pub struct Setup<'a> {
    pub name: &'a str,
    /// Of the endpoint `sink`.
    pub url: &'a str,
    /// Concurrency of the two lanes.
    pub realtime: usize,
    pub bulk: usize,
    /// Lines of the table `lanes.bulk.retry`.
    pub retry: &'a str,
    /// More tables.
    pub more: &'a str,
}

pub struct Stage {
    pub config: PathBuf,
    pub publisher: Publisher,
    pub amqp: String,
    pub postgres: String,
}

impl Bench {
    pub async fn stage(&self, setup: &Setup<'_>) -> Stage {
        let (amqp, postgres) = (self.rabbit.fresh_vhost(), self.postgres.fresh_database().await);
        let config = self.dir.path().join(format!("{}.toml", setup.name));
        let Setup { url, realtime, bulk, retry, more, .. } = setup;
        let text = format!(
            "[broker]\nurl = \"{amqp}\"\n[store]\nurl = \"{postgres}\"\n[worker]\nlease = \"3s\"\n\
             [endpoints.sink]\nurl = \"{url}\"\n[lanes.realtime]\nconcurrency = {realtime}\n\
             [lanes.bulk]\nconcurrency = {bulk}\n[lanes.bulk.retry]\n{retry}{more}"
        );
        std::fs::write(&config, text).expect("written");
        let broker = RabbitMq::new(&amqp, BrokerLimits::default(), Arc::clone(&self.clock)).expect("a legal url");
        for lane in ["realtime", "bulk"] {
            broker.declare(&lanes::engine::queues(&lane_name(lane))).await.expect("declares");
        }
        let telemetry = Telemetry::prometheus().0;
        let publisher = Publisher::new(Arc::new(broker), telemetry, Arc::clone(&self.clock), "library");
        Stage { config, publisher, amqp, postgres }
    }
}

impl Stage {
    /// Starts a worker that tells the API who it is.
    pub fn worker(&self, name: &str) -> Child {
        let config = self.config.with_extension(format!("{name}.toml"));
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        std::fs::write(&config, format!("{text}[endpoints.sink.headers]\nx-worker = \"{name}\"\n")).expect("written");
        Child::lanes(&config)
    }

    pub fn workers(&self, count: usize) -> Vec<Child> {
        (1..=count).map(|nth| self.worker(&format!("worker-{nth}"))).collect()
    }

    /// Publishes jobs `ID-1` to `ID-n` into `bulk`.
    pub async fn publish_bulk(&self, id: &str, tenant: &Tenant, jobs: usize) {
        let mut next = 1;
        while next <= jobs {
            let batch = (next..=jobs).take(PUBLISH_BATCH).map(|n| new_job("bulk", &format!("{id}-{n}"), tenant));
            for answer in self.publisher.publish(batch.collect()).await {
                answer.expect("confirmed");
            }
            next += PUBLISH_BATCH;
        }
    }

    /// The store that the workers share; they have made its tables.
    pub fn store(&self) -> PgStore {
        let purpose = PgPoolUse { name: "bench", connections: 2 };
        PgStore::new(db::open_postgres(&self.postgres, purpose).expect("a pool"), &self.postgres)
    }
}

pub fn new_job(lane: &str, id: &str, tenant: &Tenant) -> NewJob {
    NewJob {
        lane: lane_name(lane),
        endpoint: EndpointName::new("sink").expect("a legal name"),
        tenant: tenant.clone(),
        id: Some(JobId::new(id).expect("a legal id")),
        meta: JobMeta::default(),
        body: Bytes::from_static(&[b'x'; 200]),
    }
}

pub fn lane_name(name: &str) -> LaneName {
    LaneName::new(name).expect("a legal name")
}

/// How long a run is observed: `LANES_BENCH_SECONDS`, or 30.
pub fn observed() -> Duration {
    let seconds = std::env::var("LANES_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}
