//! Outage: an API that fails for a minute is left alone, costs no job its attempts, and is called at the pace afterwards.

use std::collections::HashSet;
use std::time::Duration;

use lanes::clock::{Timestamp, sleep};
use lanes::job::Tenant;
use lanes::store::{LIST_MAX, LetterFilter, LetterStore};

use super::api::{Api, Call};
use super::pacing::{HEADROOM, exact, limit, rate};
use super::stage::{SHORT_RETRIES, Setup};
use super::{Bench, to_f64};

const OUTAGE: Duration = Duration::from_secs(60);
const JOBS: usize = 5_000;
/// Allowed calls a second.
const REQUESTS: u32 = 250;
const WORKERS: usize = 2;
/// Soon open, soon tried again.
const CIRCUIT: &str = "[endpoints.sink.circuit]\nfailures = 10\nopen = \"2s\"\nopen_max = \"10s\"\n";
/// The answer to everything.
const UNAVAILABLE: u16 = 503;
/// Share of the allowed pace at which it has to drain, from the first to the last of these jobs: then the ramp is over.
const USE_MIN: f64 = 0.95;
const DRAIN_FROM: usize = JOBS / 5;
const DRAIN_TO: usize = JOBS * 9 / 10;
/// Longest wait for the end.
const PATIENCE: Duration = Duration::from_secs(90);

impl Bench {
    pub(super) async fn outage(&self) {
        let api = Api::start(exact(REQUESTS)).await;
        api.breaks(Some(UNAVAILABLE));
        let more = format!("{}{CIRCUIT}", limit(REQUESTS, "1s"));
        let setup = Setup { name: "outage", url: &api.url, realtime: 8, bulk: 100, retry: SHORT_RETRIES, more: &more };
        let stage = self.stage(&setup).await;
        stage.publish_bulk("job", &Tenant::unnamed(), JOBS).await;
        let running = stage.workers(WORKERS);
        assert!(api.until(1, PATIENCE).await, "nothing is called: see {}", stage.config.display());
        sleep(&*self.clock, OUTAGE).await;
        let failed = api.count();
        api.breaks(None);
        let over = self.clock.now();
        let is_drained = self.until_done(&api, over.plus(PATIENCE)).await;
        drop(running);
        println!("outage: {failed} calls in {OUTAGE:?} of outage, for {JOBS} jobs");
        let worked: Vec<Call> = api.calls().into_iter().filter(|call| call.status == 200).collect();
        let figure = format!("{} of {JOBS} jobs done", worked.len());
        self.verdict.target("outage", &figure, "all, once", is_drained && worked.len() == JOBS);
        let letters = stage.store().letters(&LetterFilter { limit: LIST_MAX, ..LetterFilter::default() }).await;
        let letters = letters.expect("the store answers").len();
        self.verdict.target("outage", &format!("{letters} jobs exhausted"), "0", letters == 0);
        for (name, refused) in api.refused() {
            self.verdict.target(&format!("outage, {name}"), &format!("{refused} calls refused"), "0", refused == 0);
        }
        let Some((from, to)) = worked.get(DRAIN_FROM).zip(worked.get(DRAIN_TO)) else { return };
        let pace = rate(&worked, from.at, to.at) / (f64::from(REQUESTS) * HEADROOM);
        let first = worked.first().map_or(Duration::ZERO, |call| call.at.since(over));
        let last = worked.last().map_or(Duration::ZERO, |call| call.at.since(over));
        let figure = format!(
            "first call {first:.2?} after it, all in {last:.2?} (at the pace {:.0} s), {:.1} % of the pace between",
            to_f64(JOBS) / (f64::from(REQUESTS) * HEADROOM),
            pace * 100.0
        );
        self.verdict.target("outage", &figure, ">= 95 %", pace >= USE_MIN);
    }

    /// Waits until every job was called with success; false when that takes too long.
    async fn until_done(&self, api: &Api, deadline: Timestamp) -> bool {
        while self.clock.now() < deadline {
            let calls = api.calls();
            let done: HashSet<&str> =
                calls.iter().filter(|call| call.status == 200).map(|call| call.job.as_str()).collect();
            if done.len() >= JOBS {
                return true;
            }
            sleep(&*self.clock, Duration::from_millis(200)).await;
        }
        false
    }
}
