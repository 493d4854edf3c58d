//! What incidents are concluded from: the picture of now beside what was counted before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Picture;
use super::trail::Trails;
use crate::clock::Timestamp;
use crate::job::history::{Count, Measure, Series, Step, WAIT_BOUNDS_MS};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::policy::health::{
    self, Blocked, EndpointReading, Incident, LaneReading, Mean, Reading, STORE_FAILS_FOR, STUCK_AFTER, SilentWorker,
};
use crate::store::{State, Store, StoreResult};

const LATELY: Duration = Duration::from_mins(5);
const HALF_AN_HOUR: Duration = Duration::from_mins(30);
/// A backlog's age is compared with what it was so long before.
const AGES_OVER: Duration = Duration::from_mins(25);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// What is usual is counted without the last minutes: they are what is compared with it.
const USUAL_WITHOUT: Duration = Duration::from_mins(10);

/// Counts of some stretches of time, by what they are about.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// Five minutes.
    lately: Sums,
    /// The five minutes before those, and those that began half an hour ago.
    before: Sums,
    long_before: Sums,
    /// As long as a stuck lane calls nothing.
    stuck: Sums,
    /// Half an hour, and the same a day before.
    half_hour: Sums,
    half_hour_before: Sums,
    /// An hour.
    hour: Sums,
    /// A day, the day before it, and the day three days before.
    day: Sums,
    yesterday: Sums,
    day_before: Sums,
    /// A day without the last minutes.
    usual: Sums,
}

/// Bucket, part and count.
type Part = (u8, String, Count);

#[derive(Debug, Clone, Default)]
struct Sums(BTreeMap<(Measure, String), Vec<Part>>);

impl Sums {
    fn new(counted: Vec<(Series, Count)>) -> Self {
        let mut sums: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (Series { measure, bucket, subject, part }, count) in counted {
            sums.entry((measure, subject)).or_default().push((bucket, part, count));
        }
        Self(sums)
    }

    fn of(&self, measure: Measure, subject: &str) -> &[Part] {
        self.0.get(&(measure, subject.to_owned())).map_or(&[], Vec::as_slice)
    }

    fn total(&self, measure: Measure, subject: &str) -> Count {
        let mut total = Count::default();
        for (_, _, count) in self.of(measure, subject) {
            total.add(*count);
        }
        total
    }

    fn count(&self, measure: Measure, subject: &str) -> u64 {
        self.total(measure, subject).count
    }

    /// Of all subjects together, what is counted for that part of them.
    fn of_part(&self, measure: Measure, wanted: &str) -> u64 {
        let of_measure = self.0.iter().filter(|((of, _), _)| *of == measure);
        let parts = of_measure.flat_map(|(_, parts)| parts).filter(|(_, part, _)| part == wanted);
        parts.map(|(_, _, count)| count.count).sum()
    }

    fn mean(&self, measure: Measure, subject: &str) -> Mean {
        mean(self.total(measure, subject))
    }

    /// Of all subjects.
    fn all(&self, measure: Measure) -> Count {
        let mut total = Count::default();
        let of_it = self.0.iter().filter(|((of, _), _)| *of == measure);
        of_it.flat_map(|(_, parts)| parts).for_each(|(_, _, count)| total.add(*count));
        total
    }

    /// The part with the greatest count, and the count.
    fn most(&self, measure: Measure, subject: &str) -> Option<(&str, u64)> {
        let parts = self.of(measure, subject).iter().filter(|(_, part, count)| !part.is_empty() && count.count > 0);
        parts.max_by_key(|(_, _, count)| count.count).map(|(_, part, count)| (part.as_str(), count.count))
    }

    /// Upper bound of the bucket in which this share of the waits ends; `None` without any.
    fn wait(&self, subject: &str, part: f64) -> Option<Duration> {
        wait(self.of(Measure::Waited, subject).iter().map(|(bucket, _, count)| (*bucket, count.count)).collect(), part)
    }

    fn subjects(&self, measure: Measure) -> impl Iterator<Item = &str> {
        self.0.keys().filter(move |(of, _)| *of == measure).map(|(_, subject)| subject.as_str())
    }
}

fn mean(Count { count, total }: Count) -> Mean {
    Mean { count, mean: Duration::from_micros(total.checked_div(count).unwrap_or(0)) }
}

/// Upper bound of the bucket in which this share of the waits ends, of buckets and their counts; `None` without any.
pub(super) fn wait(mut buckets: Vec<(u8, u64)>, part: f64) -> Option<Duration> {
    buckets.sort_unstable();
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut seen = 0;
    let (bucket, _) = buckets.into_iter().find(|(_, count)| {
        seen += count;
        *count > 0 && health::share(seen, all) >= part
    })?;
    let longest = WAIT_BOUNDS_MS[WAIT_BOUNDS_MS.len() - 1];
    Some(Duration::from_millis(WAIT_BOUNDS_MS.get(usize::from(bucket)).copied().unwrap_or(longest)))
}

impl Past {
    /// How long this share of a lane's jobs waited at most, in the last five minutes.
    pub fn wait(&self, lane: &LaneName, part: f64) -> Option<Duration> {
        self.lately.wait(lane.as_str(), part)
    }

    /// 429s a minute of all endpoints: in the last five minutes, and usually, on average of the day before.
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    pub fn limited(&self) -> (f64, f64) {
        let a_minute =
            |sums: &Sums, of: Duration| sums.all(Measure::RateLimited).count as f64 / of.as_secs_f64() * 60.0;
        (a_minute(&self.lately, LATELY), a_minute(&self.usual, DAY))
    }

    /// Jobs that ran out of attempts in the last hour, and all that ended.
    pub fn exhausted(&self) -> (u64, u64) {
        let ended = |measure| self.hour.all(measure).count;
        let exhausted = ended(Measure::Exhausted);
        (exhausted, exhausted + ended(Measure::Succeeded) + ended(Measure::Ended))
    }

    /// Dead letters that came in the last hour.
    pub fn died(&self) -> u64 {
        self.hour.all(Measure::Died).count
    }

    /// Jobs of a lane and their mean time from publish to end: of the last day, and of the day three days before.
    pub fn durations(&self, lane: &LaneName) -> (Mean, Mean) {
        let of = |sums: &Sums| sums.mean(Measure::Duration, lane.as_str());
        (of(&self.day), of(&self.day_before))
    }

    /// Retries of the last half hour and their mean delay, and the same half hour a day before.
    pub fn backoff(&self) -> (Mean, Mean) {
        (mean(self.half_hour.all(Measure::Retries)), mean(self.half_hour_before.all(Measure::Retries)))
    }
}

/// How long what was read of the history is good for: its steps are as long.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// What was read of the history lately: whoever looks every two seconds need not sum up a day each time.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    known: Arc<Mutex<Option<Read>>>,
    charts: bool,
}

/// When, and what.
type Read = (Timestamp, Arc<Past>, Arc<Trails>);

impl Recent {
    /// One that also knows what charts show.
    pub fn with_charts() -> Self {
        Self { known: Arc::default(), charts: true }
    }

    /// What is known, or is read anew. Trails are empty where nobody wants charts.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn read(&self, store: &dyn Store, now: Timestamp) -> StoreResult<(Arc<Past>, Arc<Trails>)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut trails = Arc::default();
        if let Some((at, past, known)) = known.filter(|(at, ..)| *at <= now) {
            if now.since(at) < GOOD_FOR {
                return Ok((past, known));
            }
            trails = known;
        }
        let past = Arc::new(past(store, now).await?);
        if self.charts {
            Arc::make_mut(&mut trails).follow(store, now).await?;
        }
        let read = (now, Arc::clone(&past), Arc::clone(&trails));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
        Ok((past, trails))
    }
}

/// Reads what incidents are concluded from.
///
/// # Errors
/// The store did not answer.
pub async fn past(store: &dyn Store, now: Timestamp) -> StoreResult<Past> {
    let read = async |step: Step, from: Duration, until: Timestamp, measures: &[Measure]| {
        Ok(Sums::new(store.history(step, until.minus(from), until, measures).await?))
    };
    // the step that has begun counts too
    let end = now.plus(Step::Coarse.length());
    let ends = [Measure::Succeeded, Measure::Exhausted, Measure::Ended];
    let backoff = [Measure::Retries, Measure::LateRetries];
    let calls = [Measure::Calls, Measure::CallsByLane, Measure::RateLimited];
    let lately = [Measure::Waited, Measure::Aged, Measure::StoreErrors];
    let stuck = [Measure::Looked, Measure::Backlogged, Measure::TakenOver];
    let trends = [Measure::Duration, Measure::Retries];
    Ok(Past {
        lately: read(Step::Fine, LATELY, now, &[&lately[..], &calls, &ends].concat()).await?,
        before: read(Step::Fine, STORE_FAILS_FOR, now.minus(LATELY), &[Measure::StoreErrors]).await?,
        long_before: read(Step::Fine, LATELY, now.minus(AGES_OVER), &[Measure::Aged]).await?,
        stuck: read(Step::Coarse, STUCK_AFTER, end, &[&stuck[..], &calls].concat()).await?,
        half_hour: read(Step::Coarse, HALF_AN_HOUR, end, &[&backoff[..], &ends].concat()).await?,
        half_hour_before: read(Step::Coarse, HALF_AN_HOUR, end.minus(DAY), &backoff).await?,
        hour: read(Step::Coarse, HOUR, end, &[&ends[..], &[Measure::Died]].concat()).await?,
        day: read(Step::Coarse, DAY, end, &[Measure::Duration]).await?,
        yesterday: read(Step::Coarse, DAY, end.minus(DAY), &trends).await?,
        day_before: read(Step::Coarse, DAY, end.minus(3 * DAY), &[Measure::Duration]).await?,
        usual: read(Step::Coarse, DAY, now.minus(USUAL_WITHOUT), &[Measure::RateLimited]).await?,
    })
}

/// What needs a person, the worst first.
pub fn incidents(picture: &Picture, past: &Past, lease: Duration) -> Vec<Incident> {
    health::incidents(&reading(picture, past, lease))
}

fn reading(picture: &Picture, past: &Past, lease: Duration) -> Reading {
    let silent = picture.workers.iter().filter(|(_, alive)| !alive).map(|(worker, _)| SilentWorker {
        name: worker.name.clone(),
        heard_at: worker.heartbeat_at,
        over_at: worker.heartbeat_at.plus(lease),
    });
    let called = past.lately.subjects(Measure::Calls).chain(past.half_hour.subjects(Measure::Retries));
    let blocked = picture.accounts.iter().filter(|account| account.since.is_some());
    let endpoints: BTreeSet<&str> = called.chain(blocked.map(|account| account.endpoint.as_str())).collect();
    Reading {
        now: picture.now,
        broker: picture.broker.clone().err(),
        store: picture.store.clone().err(),
        store_errors: (past.lately.count(Measure::StoreErrors, ""), past.before.count(Measure::StoreErrors, "")),
        lanes: picture.lanes.iter().map(|(name, lane)| of_lane(picture, past, name, lane)).collect(),
        endpoints: endpoints.into_iter().filter_map(|name| of_endpoint(picture, past, name)).collect(),
        silent: silent.collect(),
    }
}

fn of_lane(picture: &Picture, past: &Past, name: &LaneName, lane: &super::Lane) -> LaneReading {
    let subject = name.as_str();
    let ended = |sums: &Sums| {
        [Measure::Succeeded, Measure::Exhausted, Measure::Ended]
            .map(|measure| sums.count(measure, subject))
            .iter()
            .sum()
    };
    let exhausted = |sums: &Sums| health::share(sums.count(Measure::Exhausted, subject), ended(sums));
    let held = picture.held.iter().filter(|held| held.of.lane == *name).max_by_key(|held| held.of.jobs);
    let most = past.hour.most(Measure::Exhausted, subject);
    let age = lane.oldest().map(|at| picture.now.since(at));
    LaneReading {
        name: name.clone(),
        configured: lane.configured,
        realtime: health::is_realtime(name),
        workers: lane.workers,
        work: lane.work(),
        ready: lane.ready + lane.jobs(State::Queued),
        paused_at: picture.pause_of(name).map(|pause| pause.set_at),
        looks: (past.stuck.count(Measure::Looked, subject), past.stuck.count(Measure::Backlogged, subject)),
        calls: past.stuck.of_part(Measure::CallsByLane, subject),
        taken_over: past.stuck.count(Measure::TakenOver, subject),
        oldest: age.map(|age| (age, ageing(past, subject))),
        held_by: held.and_then(|held| held.next.as_ref()).map(|next| next.why.clone()),
        ended: ended(&past.hour),
        exhausted: past.hour.count(Measure::Exhausted, subject),
        exhausted_lately: (exhausted(&past.half_hour), exhausted(&past.lately)),
        exhausted_most: most.and_then(|(endpoint, count)| Some((EndpointName::new(endpoint).ok()?, count))),
        wait_p95: past.lately.wait(subject, 0.95),
        letters: lane.dead,
        letters_new: past.hour.count(Measure::Died, subject),
        duration: past.day.mean(Measure::Duration, subject),
        duration_yesterday: past.yesterday.mean(Measure::Duration, subject),
        duration_before: past.day_before.mean(Measure::Duration, subject),
    }
}

/// By how much a lane's oldest job gets older, for each second; 0 while too little is known.
fn ageing(past: &Past, subject: &str) -> f64 {
    let age = |sums: &Sums| Some(sums.mean(Measure::Aged, subject)).filter(|mean| mean.count > 0);
    let Some((now, before)) = age(&past.lately).zip(age(&past.long_before)) else { return 0.0 };
    (now.mean.as_secs_f64() - before.mean.as_secs_f64()) / AGES_OVER.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn of_endpoint(picture: &Picture, past: &Past, subject: &str) -> Option<EndpointReading> {
    let calls = past.lately.count(Measure::Calls, subject);
    let limited = past.lately.count(Measure::RateLimited, subject);
    let by_lane = past.lately.of(Measure::CallsByLane, subject);
    let all: u64 = by_lane.iter().map(|(_, _, count)| count.count).sum();
    let mut lanes: Vec<(LaneName, f64)> = by_lane
        .iter()
        .filter_map(|(_, lane, count)| Some((LaneName::new(lane).ok()?, health::share(count.count, all))))
        .collect();
    lanes.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let backoff = past.half_hour.mean(Measure::Retries, subject);
    let same_hour = past.half_hour_before.mean(Measure::Retries, subject);
    let is_same_hour = same_hour.count > 0;
    let most = past.lately.most(Measure::RateLimited, subject);
    Some(EndpointReading {
        name: EndpointName::new(subject).ok()?,
        calls,
        limited,
        calls_long: past.stuck.count(Measure::Calls, subject),
        limited_long: past.stuck.count(Measure::RateLimited, subject),
        limited_usual: past.usual.count(Measure::RateLimited, subject) as f64 / DAY.as_secs_f64() * 60.0,
        limited_most: most.and_then(|(tenant, count)| Some((Tenant::new(tenant).ok()?, health::share(count, limited)))),
        lanes,
        late: health::share(past.half_hour.count(Measure::LateRetries, subject), backoff.count),
        backoff,
        backoff_before: if is_same_hour { same_hour } else { past.yesterday.mean(Measure::Retries, subject) },
        is_same_hour,
        blocked: blocked(picture, subject),
    })
}

/// Who has been blocked at an endpoint for the longest time.
fn blocked(picture: &Picture, endpoint: &str) -> Option<Blocked> {
    let accounts = picture.accounts.iter().filter(|account| account.endpoint.as_str() == endpoint);
    let blocked = accounts.filter_map(|account| {
        Some(Blocked { tenant: account.tenant.clone(), since: account.since?, why: account.detail.clone() })
    });
    blocked.min_by_key(|blocked| blocked.since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(counts: &[(u8, u64)]) -> Sums {
        let series =
            |bucket| Series { measure: Measure::Waited, bucket, subject: "bulk".to_owned(), part: String::new() };
        Sums::new(counts.iter().map(|(bucket, count)| (series(*bucket), Count { count: *count, total: 0 })).collect())
    }

    #[test]
    fn a_wait_is_the_bound_of_the_bucket_in_which_the_share_ends() {
        let p95 = |counts: &[(u8, u64)]| waits(counts).wait("bulk", 0.95).map(|wait| wait.as_millis());
        assert_eq!(p95(&[]), None);
        assert_eq!(p95(&[(0, 1)]), Some(10));
        assert_eq!(p95(&[(8, 5), (0, 95)]), Some(10));
        assert_eq!(p95(&[(8, 6), (0, 94)]), Some(10_000));
        assert_eq!(p95(&[(14, 1)]), Some(3_600_000), "at least an hour");
    }

    #[test]
    fn the_part_with_most_of_it_is_named() {
        let series = |part: &str| Series {
            measure: Measure::RateLimited,
            bucket: 0,
            subject: "crm".to_owned(),
            part: part.to_owned(),
        };
        let counted = |part: &str, count| (series(part), Count { count, total: 2 * count });
        let sums = Sums::new(vec![counted("acme", 9), counted("globex", 1)]);
        assert_eq!(sums.most(Measure::RateLimited, "crm"), Some(("acme", 9)));
        assert_eq!(sums.most(Measure::RateLimited, "erp"), None);
        assert_eq!(sums.mean(Measure::RateLimited, "crm"), Mean { count: 10, mean: Duration::from_micros(2) });
    }
}
