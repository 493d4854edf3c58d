//! Tenants: the large import of one holds up neither another tenant nor its own real-time jobs.

use std::time::Duration;

use lanes::clock::{Timestamp, sleep};
use lanes::job::Tenant;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

use super::Bench;
use super::api::{Api, Rules, Tells};
use super::limiter::{Kind, Limiter, Scope};
use super::pacing::{HEADROOM, limit};
use super::stage::{SHORT_RETRIES, Setup, Stage, new_job};

/// Jobs of the import, and what its tenant may do in a minute.
const IMPORT: usize = 35_000;
const REQUESTS: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);
/// Burst of the API's own cell rate limiter: what the headroom leaves.
const API_BURST: u32 = 20;
const WORKERS: usize = 2;
/// The other tenant is called so soon.
const OTHER_MAX: Duration = Duration::from_secs(1);
/// Real-time jobs of the importing tenant, and the time between two.
const SAMPLES: usize = 20;
const SAMPLE_EVERY: Duration = Duration::from_secs(3);
/// They wait at most so many token intervals.
const INTERVALS_MAX: u32 = 2;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

impl Bench {
    pub(super) async fn tenants(&self) {
        let burst = Kind::Gcra { burst: API_BURST };
        let limiters = [Kind::SlidingLog, burst].map(|kind| Limiter::new(kind, Scope::Tenant, REQUESTS, MINUTE));
        let api = Api::start(Rules { limiters: limiters.into(), tells: Tells::Nothing, takes: Duration::ZERO }).await;
        let more = limit(REQUESTS, "1m");
        let setup = Setup { name: "tenants", url: &api.url, realtime: 8, bulk: 100, retry: SHORT_RETRIES, more: &more };
        let stage = self.stage(&setup).await;
        stage.reserve_for_realtime("0.2");
        let running = stage.workers(WORKERS);
        // until both are there, and have opened what they need
        stage.publisher.publish_one(new_job("bulk", "first", &tenant("warm"))).await.expect("confirmed");
        assert!(api.until_called("first", PATIENCE).await.is_some(), "nothing is called");
        sleep(&*self.clock, Duration::from_secs(2)).await;
        let started = self.clock.now();
        stage.publish_bulk("import", &tenant("importer"), IMPORT).await;
        let published = self.clock.now();
        stage.publisher.publish_one(new_job("bulk", "other", &tenant("other"))).await.expect("confirmed");
        let (other, left) = tokio::join!(api.until_called("other", PATIENCE), self.until_left(&stage));
        let wait = other.map(|at| at.since(published));
        let figure = wait.map_or("never called".to_owned(), |wait| format!("called after {wait:.3?}"));
        let is_met = wait.is_some_and(|wait| wait < OTHER_MAX);
        self.verdict.target("tenants, the other tenant behind 35,000 jobs", &figure, "< 1 s", is_met);
        let left = left.map_or("never".to_owned(), |at| format!("{:.2?} after the last publish", at.since(published)));
        println!("tenants: publishing took {:.2?}, the import had left the queue {left}", published.since(started));
        self.realtime_beside_import(&stage, &api).await;
        drop(running);
        for (name, refused) in api.refused() {
            let figure = format!("{refused} of {} calls refused", api.count());
            self.verdict.target(&format!("tenants, {name}"), &figure, "0", refused == 0);
        }
    }

    async fn realtime_beside_import(&self, stage: &Stage, api: &Api) {
        let importer = tenant("importer");
        let mut waits = Vec::new();
        for n in 0..SAMPLES {
            let next = self.clock.now().plus(SAMPLE_EVERY);
            let (id, published) = (format!("realtime-{n}"), self.clock.now());
            stage.publisher.publish_one(new_job("realtime", &id, &importer)).await.expect("confirmed");
            let called = api.until_called(&id, PATIENCE).await;
            waits.push(called.map_or(PATIENCE, |at| at.since(published)));
            self.clock.sleep_until(next).await;
        }
        waits.sort();
        let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
        let interval = MINUTE.div_f64(f64::from(REQUESTS) * HEADROOM);
        self.verdict.target(
            "tenants, real-time jobs of the importing tenant",
            &format!("waited {median:.3?} at the median, {worst:.3?} at most"),
            &format!("< {:?}", interval * INTERVALS_MAX),
            worst < interval * INTERVALS_MAX,
        );
    }

    /// When nothing of the import stands in the queue any more.
    async fn until_left(&self, stage: &Stage) -> Option<Timestamp> {
        let connection = Connection::connect(&stage.amqp, ConnectionProperties::default()).await.expect("connects");
        let channel = connection.create_channel().await.expect("a channel");
        let deadline = self.clock.now().plus(PATIENCE);
        while self.clock.now() < deadline {
            let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let queue = channel.queue_declare("lanes.bulk".into(), look, FieldTable::default()).await;
            if queue.expect("the queue is there").message_count() == 0 {
                return Some(self.clock.now());
            }
            sleep(&*self.clock, Duration::from_millis(20)).await;
        }
        None
    }
}

impl Stage {
    fn reserve_for_realtime(&self, share: &str) {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        let table = "[lanes.realtime]\n";
        std::fs::write(&self.config, text.replace(table, &format!("{table}reserve = {share}\n"))).expect("written");
    }
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a legal name")
}
