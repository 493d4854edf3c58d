//! A limit that changes in mid-run, told in headers: how soon the pace follows.

use std::time::Duration;

use lanes::clock::sleep;
use lanes::job::Tenant;

use super::api::{Api, Rules, Tells};
use super::limiter::{Kind, Limiter, Scope};
use super::pacing::{HEADROOM, limit, rate};
use super::stage::{SHORT_RETRIES, Setup};
use super::{Bench, to_f64};

/// Calls a second that are allowed in each phase.
const PHASES: [u32; 3] = [100, 50, 100];
const PHASE: Duration = Duration::from_secs(10);
/// The pace has to follow within this time.
const FOLLOWS: Duration = Duration::from_secs(2);
/// The pace of a phase: at most the limit, at least this share of what may be used of it.
const USE_MIN: f64 = 0.9;
/// Share of all calls that may be refused.
const REFUSED_MAX: f64 = 0.01;
const WORKERS: usize = 2;
const WINDOW: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_millis(20);
const JOBS: usize = 4_000;
/// Longest wait for the first call.
const START: Duration = Duration::from_secs(20);

impl Bench {
    pub(super) async fn change(&self) {
        for (name, tells) in [("X-RateLimit", Tells::XRateLimit), ("RateLimit", Tells::Ietf)] {
            self.change_told_by(name, tells).await;
        }
    }

    async fn change_told_by(&self, name: &str, tells: Tells) {
        let limiters = vec![Limiter::new(Kind::SlidingLog, Scope::All, PHASES[0], WINDOW)];
        let api = Api::start(Rules { limiters, tells, takes: ANSWER }).await;
        let more = limit(PHASES[0], "1s");
        let setup = Setup {
            name: &format!("change-{name}"),
            url: &api.url,
            realtime: 8,
            bulk: 100,
            retry: SHORT_RETRIES,
            more: &more,
        };
        let stage = self.stage(&setup).await;
        stage.publish_bulk("job", &Tenant::unnamed(), JOBS).await;
        let running = stage.workers(WORKERS);
        assert!(api.until(1, START).await, "nothing is called: see {}", stage.config.display());
        let mut began = Vec::new();
        for requests in PHASES {
            began.push(self.clock.now());
            api.set_requests(requests);
            sleep(&*self.clock, PHASE).await;
        }
        drop(running);
        let calls = api.calls();
        for (requests, began) in PHASES.into_iter().zip(began) {
            let pace = rate(&calls, began.plus(FOLLOWS), began.plus(PHASE));
            let least = f64::from(requests) * HEADROOM * USE_MIN;
            self.verdict.target(
                &format!("change by {name}, at {requests}/s"),
                &format!("{pace:.1} calls/s from {FOLLOWS:?} after the change on"),
                &format!("{least:.0} to {requests}"),
                pace >= least && pace <= f64::from(requests),
            );
        }
        let refused = calls.iter().filter(|call| call.status == 429).count();
        let share = to_f64(refused) / to_f64(calls.len()).max(1.0);
        let figure = format!("{refused} of {} calls refused ({:.2} %)", calls.len(), share * 100.0);
        self.verdict.target(&format!("change by {name}"), &figure, "<= 1 %", share <= REFUSED_MAX);
    }
}
