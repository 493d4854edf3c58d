//! Pacing: several workers, one budget. The API refuses with exact limiters; how much of what may be used was used.

use std::time::Duration;

use lanes::clock::{Timestamp, sleep};
use lanes::job::Tenant;

use super::api::{Api, Call, Rules, Tells};
use super::limiter::{Kind, Limiter, Scope};
use super::stage::{SHORT_RETRIES, Setup, observed};
use super::{Bench, to_f64};

/// Allowed calls a second, workers.
const RUNS: [(u32, usize); 8] = [(2, 2), (10, 2), (100, 2), (500, 2), (2_000, 2), (100, 4), (500, 4), (2_000, 4)];
/// The window of the limits.
const WINDOW: Duration = Duration::from_secs(1);
/// The share of them that lanes uses.
pub const HEADROOM: f64 = 0.8;
/// Share of that which has to be used.
const USE_MIN: f64 = 0.95;
/// Longest wait for the first call.
const START: Duration = Duration::from_secs(20);

impl Bench {
    /// `workers`: only the runs with so many.
    pub(super) async fn pacing(&self, workers: Option<usize>) {
        for (requests, count) in RUNS.into_iter().filter(|(_, count)| workers.is_none_or(|wanted| wanted == *count)) {
            let api = Api::start(exact(requests)).await;
            let stage = self
                .stage(&Setup {
                    name: &format!("pacing-{requests}-{count}"),
                    url: &api.url,
                    realtime: 8,
                    bulk: 100,
                    retry: SHORT_RETRIES,
                    more: &limit(requests, "1s"),
                })
                .await;
            let jobs = f64::from(requests) * HEADROOM * (observed().as_secs_f64() + 4.0) * 1.1;
            stage.publish_bulk("job", &Tenant::unnamed(), whole(jobs) + 10).await;
            let running = stage.workers(count);
            assert!(api.until(1, START).await, "nothing is called: see {}", stage.config.display());
            sleep(&*self.clock, observed()).await;
            drop(running);
            let run = format!("pacing {requests}/s, {count} workers");
            let calls = api.calls();
            for (name, refused) in api.refused() {
                let figure = format!("{refused} of {} calls refused", calls.len());
                self.verdict.target(&format!("{run}, {name}"), &figure, "0", refused == 0);
            }
            let used = used(&calls, f64::from(requests) * HEADROOM);
            let figure = format!("{:.1} % of the allowed pace used", used * 100.0);
            self.verdict.target(&run, &figure, ">= 95", used >= USE_MIN);
        }
    }
}

/// An API with a sliding window and a cell rate limiter, over all calls. What the headroom leaves is the burst of the second.
pub fn exact(requests: u32) -> Rules {
    let gcra = Kind::Gcra { burst: (requests / 5).max(2) };
    let limiters =
        [Kind::SlidingLog, gcra].into_iter().map(|kind| Limiter::new(kind, Scope::All, requests, WINDOW)).collect();
    Rules { limiters, tells: Tells::Nothing, takes: Duration::ZERO }
}

/// A limit as it is configured.
pub fn limit(requests: u32, per: &str) -> String {
    format!("[[endpoints.sink.limits]]\nrequests = {requests}\nper = \"{per}\"\n")
}

/// The share of a pace that was used, from a second after the first call on: the burst of the start is not a pace.
pub fn used(calls: &[Call], per_second: f64) -> f64 {
    let from = calls.first().map_or(Timestamp::EPOCH, |first| first.at.plus(WINDOW));
    let to = calls.last().map_or(Timestamp::EPOCH, |last| last.at);
    rate(calls, from, to) / per_second
}

/// Calls a second that came in between.
pub fn rate(calls: &[Call], from: Timestamp, to: Timestamp) -> f64 {
    let between = calls.iter().filter(|call| call.at >= from && call.at < to).count();
    to_f64(between) / to.since(from).as_secs_f64().max(f64::MIN_POSITIVE)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of jobs")]
pub fn whole(jobs: f64) -> usize {
    jobs.ceil() as usize
}
