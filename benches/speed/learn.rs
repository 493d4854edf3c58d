//! Learning: an endpoint without configured limits, whose answers tell them.

use std::collections::BTreeMap;
use std::time::Duration;

use lanes::clock::{Timestamp, sleep};
use lanes::job::Tenant;

use super::api::{Api, Call, Rules, Tells};
use super::limiter::{Kind, Limiter, Scope};
use super::pacing::{rate, whole};
use super::stage::{Setup, observed};
use super::{Bench, to_f64};

/// Workers.
const WORKERS: usize = 2;
/// How long the API takes for an answer.
const ANSWER: Duration = Duration::from_millis(20);
/// After so many answers the limit has to be known.
const FIRST: usize = 20;
/// Share of the calls after that which may be refused.
const REFUSED_MAX: f64 = 0.01;
/// Calls of the first second of a run were on their way before anything was known: told beside.
const KNOWN_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for the first call.
const START: Duration = Duration::from_secs(20);
/// So many times at which calls were refused are told.
const TIMES_MAX: usize = 12;
/// Refused calls count as attempts: enough of them.
const RETRIES: &str = "first_delay = \"500ms\"\nmax_delay = \"1s\"\njitter = 0.1\nmax_attempts = 100\n";

struct Run {
    name: &'static str,
    kind: Kind,
    requests: u32,
    per: Duration,
    tells: Tells,
}

const RUNS: [Run; 5] = [
    Run {
        name: "50 per 1 s, X-RateLimit",
        kind: Kind::SlidingLog,
        requests: 50,
        per: SECOND,
        tells: Tells::XRateLimit,
    },
    Run {
        name: "300 per 10 s, X-RateLimit",
        kind: Kind::FixedWindow,
        requests: 300,
        per: TEN,
        tells: Tells::XRateLimit,
    },
    Run { name: "300 per 10 s, RateLimit", kind: Kind::FixedWindow, requests: 300, per: TEN, tells: Tells::Ietf },
    Run { name: "50 per 1 s, RateLimit", kind: Kind::SlidingLog, requests: 50, per: SECOND, tells: Tells::Ietf },
    Run {
        name: "50 per 1 s, Retry-After alone",
        kind: Kind::SlidingLog,
        requests: 50,
        per: SECOND,
        tells: Tells::Nothing,
    },
];
const SECOND: Duration = Duration::from_secs(1);
const TEN: Duration = Duration::from_secs(10);

impl Bench {
    pub(super) async fn learn(&self) {
        for (nth, run) in RUNS.iter().enumerate() {
            let limiters = vec![Limiter::new(run.kind, Scope::All, run.requests, run.per)];
            let api = Api::start(Rules { limiters, tells: run.tells, takes: ANSWER }).await;
            let name = format!("learn-{nth}");
            let setup = Setup { name: &name, url: &api.url, realtime: 8, bulk: 100, retry: RETRIES, more: "" };
            let stage = self.stage(&setup).await;
            let limit = f64::from(run.requests) / run.per.as_secs_f64();
            stage.publish_bulk("job", &Tenant::unnamed(), whole(limit * (observed().as_secs_f64() + 5.0))).await;
            let running = stage.workers(WORKERS);
            assert!(api.until(1, START).await, "nothing is called: see {}", stage.config.display());
            sleep(&*self.clock, observed()).await;
            drop(running);
            self.judge_lesson(run, limit, &api.calls());
        }
    }

    fn judge_lesson(&self, run: &Run, limit: f64, calls: &[Call]) {
        let what = format!("learn {}", run.name);
        let started = calls.first().expect("it was called").at;
        let known_at = calls.get(FIRST - 1).map_or(started, |call| call.at.plus(ANSWER));
        let share = |from| {
            let after: Vec<&Call> = calls.iter().filter(|call| call.at > from).collect();
            let refused = after.iter().filter(|call| call.status == 429).count();
            (refused, after.len(), to_f64(refused) / to_f64(after.len()).max(1.0))
        };
        let (refused, all, part) = share(known_at);
        let figure =
            format!("{refused} of {all} calls refused after the first {FIRST} answers ({:.2} %)", part * 100.0);
        if run.tells == Tells::Nothing {
            println!("{what}: {figure}");
        } else {
            self.verdict.target(&what, &figure, "< 1 %", part < REFUSED_MAX);
        }
        let (refused, all, part) = share(started.plus(KNOWN_AFTER));
        let last = calls.last().expect("it was called").at;
        let let_in: Vec<Call> = calls.iter().filter(|call| call.status == 200).cloned().collect();
        let used = rate(&let_in, started.plus(KNOWN_AFTER), last) / limit;
        println!(
            "{what}: after the first second {refused} of {all} refused ({:.2} %), {:.1} % of the limit used{}",
            part * 100.0,
            used * 100.0,
            when_refused(calls)
        );
    }
}

/// When calls were refused: tenths of a second from the first call on, and how many.
fn when_refused(calls: &[Call]) -> String {
    let started = calls.first().map_or(Timestamp::EPOCH, |call| call.at);
    let mut tenths: BTreeMap<usize, usize> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.status == 429) {
        let tenth = call.at.since(started).as_millis() / 100;
        *tenths.entry(usize::try_from(tenth).expect("small")).or_default() += 1;
    }
    let times = tenths.iter().take(TIMES_MAX).map(|(at, count)| format!("{count} at {:.1} s", to_f64(*at) / 10.0));
    let times: Vec<String> = times.collect();
    if times.is_empty() { String::new() } else { format!("; refused: {}", times.join(", ")) }
}
