//! What the demo sees while it runs, and where every job is when it has ended: asked of API, store, broker and ledger.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::api::Api;
use super::book::{Book, Calls};
use super::screen::{Lane, View, Waiting};
use super::summary::{Accounts, Fate, LaneSummary, Quantiles, Realtime, Summary, account};
use super::traffic::{self, BULK, Entry, IMPORT_EXTRA, IMPORT_TENANT, REALTIME, Traffic, WEBHOOK_TENANT};
use crate::app::AppError;
use crate::broker::Broker;
use crate::clock::{SharedClock, Timestamp};
use crate::config::Specs;
use crate::job::verdict::DeadReason;
use crate::job::{LaneName, wire};
use crate::store::{IN_TURN, LIST_MAX, LetterFilter, State, StateCount, Store};

/// Real-time latency "now" is that of so much time.
const NOW: Duration = Duration::from_secs(3);
/// Time that one column of the pace stands for.
const PACE_EVERY: Duration = Duration::from_millis(400);
/// Columns of the pace that are kept.
const PACE_MAX: usize = 120;
/// Rows that are looked up at a time.
const LOOKUPS: usize = 8;

/// The two lanes, real-time first: name, tenant and what its jobs are.
const LANES: [(&str, &str, &str); 2] = [(REALTIME, WEBHOOK_TENANT, "webhooks"), (BULK, IMPORT_TENANT, "import")];

/// Looks at everything.
#[derive(Debug)]
pub struct Observer {
    pub api: Api,
    pub traffic: Traffic,
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    pub clock: SharedClock,
    pub began: Timestamp,
    pub ends_after: Option<Duration>,
    pub per_minute: u64,
    pub records: u32,
    pub dashboard: String,
    pub try_next: String,
    pub slots: [u64; 2],
    pub pace: Pace,
    /// When every record of the import had ended, and so had every copy of one.
    pub import_over: Option<Timestamp>,
}

impl Observer {
    /// The present moment.
    ///
    /// # Errors
    /// The store or the broker did not answer.
    pub async fn look(&mut self) -> Result<View, AppError> {
        let now = self.clock.now();
        let states = self.store.state_counts().await?;
        let letters: HashMap<LaneName, u64> = self.store.letter_counts().await?.into_iter().collect();
        let mut lanes = Vec::with_capacity(LANES.len());
        let (mut ok, mut limited) = (0, 0);
        for ((name, tenant, what), slots) in LANES.into_iter().zip(self.slots) {
            let lane = traffic::lane(name);
            let calls = self.api.read(|book| book.lane(name));
            ok += calls.ok;
            limited += calls.limited;
            lanes.push(Lane {
                name,
                tenant,
                what,
                published: self.traffic.read(|ledger| ledger.published(&lane)),
                queued: self.broker.depth(&wire::queue(&lane)).await?.unwrap_or_default().ready,
                busy: calls.in_flight,
                slots,
                waiting: waiting(&states, &lane, now),
                done: calls.ok,
                limited: calls.limited,
                retries: calls.retries,
                dead: letters.get(&lane).copied().unwrap_or_default(),
            });
        }
        self.pace.note(now, ok, limited);
        let import = u64::from(self.records) + IMPORT_EXTRA;
        let ended = lanes.last().map_or(0, |bulk| bulk.done + bulk.dead).min(import);
        let published = self.traffic.read(|ledger| ledger.import_published.is_some());
        let bulk_is_idle = lanes.last().is_some_and(|bulk| bulk.queued + bulk.busy == 0 && bulk.waiting.is_empty());
        if published && bulk_is_idle && ended == import {
            self.import_over.get_or_insert(now);
        }
        let realtime = self.realtime(now);
        Ok(View {
            elapsed: now.since(self.began),
            ends_after: self.ends_after,
            phase: self.phase(&lanes),
            per_minute: self.per_minute,
            lanes,
            api: LANES
                .map(|(_, tenant, _)| (tenant, self.api.read(|book| book.tenant(tenant))))
                .map(|(tenant, calls)| (tenant, calls.ok + calls.refused, calls.limited))
                .to_vec(),
            import: (ended, import),
            pace: self.pace.columns(),
            per_second: self.pace.per_second(),
            realtime_now: self.latency(now.minus(NOW).max(self.began), now),
            realtime_idle: realtime.during_import.and(realtime.idle),
            dashboard: self.dashboard.clone(),
            try_next: self.try_next.clone(),
        })
    }

    fn phase(&self, lanes: &[Lane]) -> &'static str {
        let (began, published) = self.traffic.read(|ledger| (ledger.import_began, ledger.import_published));
        let limited = lanes.last().is_some_and(|bulk| bulk.limited > 0);
        match (began, published) {
            _ if self.import_over.is_some() => "the import is through",
            (None, _) => "webhooks only; the import begins in a moment",
            (Some(_), None) => "the import is being published",
            (Some(_), Some(_)) if limited => "the import runs into the API's limit",
            (Some(_), Some(_)) => "the import runs",
        }
    }

    fn latency(&self, from: Timestamp, to: Timestamp) -> Option<Quantiles> {
        Quantiles::of(&self.api.read(|book| book.latencies(from, to)))
    }

    fn realtime(&self, now: Timestamp) -> Realtime {
        let import_began = self.traffic.read(|ledger| ledger.import_began).unwrap_or(now);
        let import_over = self.import_over.unwrap_or(now);
        Realtime {
            idle: self.latency(self.began, import_began),
            during_import: self.latency(import_began, import_over),
        }
    }

    /// Where every published job is, once the worker has ended.
    ///
    /// # Errors
    /// The store or the broker did not answer.
    pub async fn settle_accounts(
        &self,
        ended: Timestamp,
        duplicates: impl Fn(&LaneName) -> u64,
    ) -> Result<Summary, AppError> {
        let (entries, unconfirmed) = self.traffic.read(|ledger| (ledger.entries().to_vec(), ledger.unconfirmed));
        let fates = self.fates(entries).await?;
        let mut lanes = Vec::with_capacity(LANES.len());
        for (name, _, _) in LANES {
            let lane = traffic::lane(name);
            let publishes: Vec<_> = fates
                .iter()
                .filter(|(entry, _)| entry.lane == lane)
                .map(|(entry, fate)| ((&entry.tenant, &entry.id), *fate))
                .collect();
            let in_queue = self.broker.depth(&wire::queue(&lane)).await?.unwrap_or_default().ready;
            let jobs = account(&publishes, duplicates(&lane), in_queue);
            lanes.push(lane_summary(name, self.api.read(|book| book.lane(name)), jobs));
        }
        Ok(Summary {
            seconds: ended.since(self.began).as_secs_f64(),
            unconfirmed,
            unchecked: self.api.read(Book::unchecked),
            lanes,
            realtime: self.realtime(ended),
        })
    }

    async fn fates(&self, entries: Vec<Entry>) -> Result<Vec<(Entry, Fate)>, AppError> {
        let filter = LetterFilter { limit: LIST_MAX, ..LetterFilter::default() };
        let letters = self.store.letters(&filter).await?;
        let refused = |entry: &Entry| {
            letters.iter().any(|letter| {
                letter.raw
                    && letter.lane == entry.lane
                    && letter.tenant.as_ref() == Some(&entry.tenant)
                    && letter.id.as_deref() == Some(entry.id.as_str())
            })
        };
        let lookups = stream::iter(entries).map(|entry| async {
            let row = self.store.job(entry.instance).await?;
            let fate = match row {
                None if refused(&entry) => Fate::Failed,
                None => Fate::Unknown,
                Some(row) => fate(row.state, &row.reason),
            };
            Ok::<_, AppError>((entry, fate))
        });
        lookups.buffered(LOOKUPS).try_collect().await
    }
}

fn fate(state: State, reason: &str) -> Fate {
    match state {
        State::Done => Fate::Done,
        State::Dead if reason == DeadReason::Exhausted.as_str() => Fate::Exhausted,
        State::Dead | State::Cancelled => Fate::Failed,
        State::Run | State::Waiting | State::Queued => Fate::Alive,
    }
}

fn lane_summary(name: &str, calls: Calls, jobs: Accounts) -> LaneSummary {
    LaneSummary {
        lane: name.to_owned(),
        calls: calls.total,
        rate_limited: calls.limited,
        retried_ok: calls.retried_ok,
        called_twice: calls.needless,
        jobs,
    }
}

/// Jobs of `lane` that wait, the largest number first. Those that are due and not yet taken count as `queued`.
fn waiting(states: &[StateCount], lane: &LaneName, now: Timestamp) -> Vec<Waiting> {
    let of_lane = states.iter().filter(|count| count.lane == *lane && count.jobs > 0);
    let mut waiting: Vec<Waiting> = of_lane
        .filter_map(|count| {
            let reason = match count.state {
                State::Waiting => count.reason.clone(),
                State::Queued => State::Queued.as_str().to_owned(),
                _ => return None,
            };
            Some(Waiting {
                reason,
                jobs: count.jobs,
                next_in: count.next_resume_at.filter(|at| *at != IN_TURN).map(|at| at.since(now)),
            })
        })
        .collect();
    waiting.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.reason.cmp(&b.reason)));
    waiting
}

/// Slots of the demo's lanes, in their order.
pub fn slots(specs: &Specs) -> [u64; 2] {
    LANES.map(|(name, _, _)| {
        specs.lanes.iter().find(|lane| lane.name.as_str() == name).map_or(0, |lane| u64::from(lane.concurrency))
    })
}

/// The value of a counter of `lane` in a metrics page; 0 when it is not there.
pub fn counter(page: &str, name: &str, lane: &str) -> u64 {
    let series = format!("{name}{{lane=\"{lane}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok()).unwrap_or(0)
}

/// How many calls were answered, over time.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<(Timestamp, u64)>,
    columns: VecDeque<u64>,
    second: VecDeque<(Timestamp, u64, u64)>,
}

impl Pace {
    /// At `now` the API has answered so many calls with 200 and with 429.
    fn note(&mut self, now: Timestamp, ok: u64, limited: u64) {
        self.second.push_back((now, ok, limited));
        while self.second.len() > 2 && now.since(self.second[1].0) >= Duration::from_secs(1) {
            self.second.pop_front();
        }
        let Some((at, before)) = self.last else {
            self.last = Some((now, ok));
            return;
        };
        if now.since(at) >= PACE_EVERY {
            self.columns.push_back(ok.saturating_sub(before));
            self.last = Some((now, ok));
            if self.columns.len() > PACE_MAX {
                self.columns.pop_front();
            }
        }
    }

    fn columns(&self) -> Vec<u64> {
        self.columns.iter().copied().collect()
    }

    /// Calls a second answered 200 and 429, of about the last second.
    fn per_second(&self) -> (u64, u64) {
        let (Some(first), Some(last)) = (self.second.front(), self.second.back()) else { return (0, 0) };
        let millis = u64::try_from(last.0.since(first.0).as_millis()).unwrap_or(u64::MAX);
        let rate = |from: u64, to: u64| (to.saturating_sub(from) * 1_000).checked_div(millis).unwrap_or(0);
        (rate(first.1, last.1), rate(first.2, last.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_from_the_metrics_page() {
        let page = "# TYPE x_total counter\nx_total{lane=\"bulk\"} 12\nx_total{lane=\"realtime\"} 3\n";
        assert_eq!(["bulk", "realtime", "other"].map(|lane| counter(page, "x_total", lane)), [12, 3, 0]);
    }

    #[test]
    fn pace_is_per_second_whatever_the_rhythm() {
        let mut pace = Pace::default();
        for tick in 0..20 {
            let now = Timestamp::from_millis(tick * 200);
            pace.note(now, u64::try_from(tick * 40).expect("small"), u64::try_from(tick * 10).expect("small"));
        }
        assert_eq!(pace.per_second(), (200, 50));
        assert_eq!(pace.columns(), [80; 9]);
    }

    #[test]
    fn due_jobs_are_shown_with_those_that_wait() {
        let lane = traffic::lane(BULK);
        let now = Timestamp::from_secs(10);
        let count = |state, reason: &str, jobs, lane: &str| StateCount {
            lane: traffic::lane(lane),
            state,
            reason: reason.to_owned(),
            jobs,
            oldest_published_at: None,
            next_resume_at: (state == State::Waiting).then(|| now.plus(Duration::from_millis(250))),
        };
        let states = [
            count(State::Run, "", 8, BULK),
            count(State::Queued, "", 3, BULK),
            count(State::Waiting, "rate_limited", 40, BULK),
            count(State::Waiting, "transient", 9, REALTIME),
        ];
        let expected = [
            Waiting { reason: "rate_limited".to_owned(), jobs: 40, next_in: Some(Duration::from_millis(250)) },
            Waiting { reason: "queued".to_owned(), jobs: 3, next_in: None },
        ];
        assert_eq!(waiting(&states, &lane, now), expected);
    }
}
