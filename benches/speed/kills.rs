//! Kills: workers die and others start while one budget is used; nothing is refused, lost, or repeated without need.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use lanes::clock::{Timestamp, sleep};
use lanes::job::Tenant;
use lanes::store::{LIST_MAX, LetterFilter, LetterStore};

use super::Bench;
use super::api::{Api, Call};
use super::pacing::{HEADROOM, exact, limit, used, whole};
use super::stage::{SHORT_RETRIES, Setup, observed};

/// Allowed calls a second, workers.
const RUNS: [(u32, usize); 2] = [(100, 2), (500, 4)];
/// Time between two kills.
const KILL_EVERY: Duration = Duration::from_secs(5);
/// Longest wait for the jobs that are left at the end: leases have to run out.
const PATIENCE: Duration = Duration::from_secs(60);
/// A repeat that was not needed would come within this time.
const AFTERMATH: Duration = Duration::from_secs(4);

impl Bench {
    pub(super) async fn kills(&self) {
        for (requests, count) in RUNS {
            self.kill_workers(requests, count).await;
        }
    }

    async fn kill_workers(&self, requests: u32, count: usize) {
        let api = Api::start(exact(requests)).await;
        let name = format!("kills-{requests}-{count}");
        let more = limit(requests, "1s");
        let setup = Setup { name: &name, url: &api.url, realtime: 8, bulk: 100, retry: SHORT_RETRIES, more: &more };
        let stage = self.stage(&setup).await;
        let pace = f64::from(requests) * HEADROOM;
        let jobs = whole(pace * observed().as_secs_f64());
        stage.publish_bulk("job", &Tenant::unnamed(), jobs).await;
        let mut running: Vec<_> =
            (1..=count).map(|nth| (format!("worker-{nth}"), stage.worker(&format!("worker-{nth}")))).collect();
        assert!(api.until(1, PATIENCE).await, "nothing is called: see {}", stage.config.display());
        let (started, mut killed) = (self.clock.now(), HashMap::<String, Timestamp>::new());
        while self.clock.now().since(started) + KILL_EVERY <= observed() {
            sleep(&*self.clock, KILL_EVERY).await;
            let (victim, child) = running.remove(0);
            drop(child); // SIGKILL
            killed.insert(victim, self.clock.now());
            let successor = format!("worker-{}", count + killed.len());
            running.push((successor.clone(), stage.worker(&successor)));
        }
        let observed_until = self.clock.now();
        let all_called = self.until_all_called(&api, jobs).await;
        sleep(&*self.clock, AFTERMATH).await;
        let run = format!("kills {requests}/s, {count} workers, {} killed", killed.len());
        let calls = api.calls();
        for (name, refused) in api.refused() {
            let figure = format!("{refused} of {} calls refused", calls.len());
            self.verdict.target(&format!("{run}, {name}"), &figure, "0", refused == 0);
        }
        let during: Vec<Call> = calls.iter().filter(|call| call.at < observed_until).cloned().collect();
        println!("{run}: {:.1} % of the allowed pace used meanwhile", used(&during, pace) * 100.0);
        println!("{run}: calls in each half second: {:?}", per_half_second(&during));
        let called: HashSet<&str> = calls.iter().map(|call| call.job.as_str()).collect();
        let figure = format!("{} of {jobs} jobs called", called.len());
        self.verdict.target(&run, &figure, "all", all_called && called.len() == jobs);
        let (explained, unexplained) = repeats(&calls, &killed);
        let figure = format!("{unexplained} repeats that no kill explains, {explained} that one does");
        self.verdict.target(&run, &figure, "0", unexplained == 0);
        let letters = stage.store().letters(&LetterFilter { limit: LIST_MAX, ..LetterFilter::default() }).await;
        let letters = letters.expect("the store answers").len();
        self.verdict.target(&run, &format!("{letters} dead letters"), "0", letters == 0);
    }

    /// Waits until every job was called; the last ones come when the leases of the dead have run out.
    async fn until_all_called(&self, api: &Api, jobs: usize) -> bool {
        let deadline = self.clock.now().plus(PATIENCE);
        while self.clock.now() < deadline {
            let calls = api.calls();
            if calls.iter().map(|call| call.job.as_str()).collect::<HashSet<_>>().len() >= jobs {
                return true;
            }
            sleep(&*self.clock, Duration::from_millis(200)).await;
        }
        false
    }
}

/// Second calls of jobs whose caller before was killed in between, and those without such a reason.
fn repeats(calls: &[Call], killed: &HashMap<String, Timestamp>) -> (usize, usize) {
    let mut last: HashMap<&str, &Call> = HashMap::new();
    let (mut explained, mut unexplained) = (0, 0);
    for call in calls {
        // who was refused comes again
        if let Some(before) = last.insert(&call.job, call).filter(|before| before.status == 200) {
            let died = killed.get(&before.worker);
            if died.is_some_and(|died| *died >= before.at && *died <= call.at) {
                explained += 1;
            } else {
                unexplained += 1;
            }
        }
    }
    (explained, unexplained)
}

/// How many calls came in each half second, from the first one on.
fn per_half_second(calls: &[Call]) -> Vec<usize> {
    let mut counts = Vec::new();
    for call in calls {
        let half = usize::try_from(call.at.since(calls[0].at).as_millis() / 500).expect("small");
        counts.resize(counts.len().max(half + 1), 0);
        counts[half] += 1;
    }
    counts
}
