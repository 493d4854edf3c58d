//! What was counted piece by piece over time, as charts show it: the past is read once, then only what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::reading;
use crate::clock::Timestamp;
use crate::job::history::{Count, Measure, Pieces, Step};
use crate::store::{HISTORY_PIECES_MAX, Piece, Store, StoreResult};

/// Most counts that one trail keeps; older pieces are not read then.
const COUNTS_MAX: usize = 100_000;
/// What is read of the past at once, so that no look takes long: what nobody has seen for long fills itself within some looks.
const CHUNK: Duration = Duration::from_hours(24);
/// Workers write what they counted up to this much later.
const LATE: Duration = Duration::from_secs(30);

/// What a trail is made of.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    step: Step,
    width: Duration,
    /// How many pieces.
    pieces: u16,
    /// Time between two readings of what is new.
    every: Duration,
    /// The piece that is not over is shown as well: it is long, and a new installation has nothing else.
    unfinished: bool,
    measures: &'static [Measure],
}

const LATELY: Plan = Plan {
    step: Step::Fine,
    width: Duration::from_secs(10),
    pieces: 30,
    every: Duration::from_secs(10),
    unfinished: false,
    measures: &[Measure::Succeeded, Measure::Exhausted, Measure::Ended],
};
const HOUR: Plan = Plan {
    step: Step::Coarse,
    width: Duration::from_mins(1),
    pieces: 60,
    every: Duration::from_secs(10),
    unfinished: false,
    measures: &[
        Measure::Succeeded,
        Measure::Exhausted,
        Measure::Ended,
        Measure::Died,
        Measure::Waited,
        Measure::RateLimited,
    ],
};
const DAY: Plan = Plan {
    step: Step::Coarse,
    width: Duration::from_mins(15),
    pieces: 192,
    every: Duration::from_mins(1),
    unfinished: true,
    measures: &[Measure::Calls, Measure::RateLimited, Measure::Took, Measure::Retries],
};
const WEEK: Plan = Plan {
    step: Step::Coarse,
    width: Duration::from_hours(6),
    pieces: 28,
    every: Duration::from_mins(10),
    unfinished: true,
    measures: &[Measure::Duration],
};

/// The trails that pages show.
#[derive(Debug, Clone)]
pub struct Trails {
    /// Five minutes, by ten seconds: what lanes ended.
    pub lately: Trail,
    /// An hour, by minutes: waits, ends, letters, 429s.
    pub hour: Trail,
    /// Two days, by quarters of an hour: calls, 429s, times and retries of endpoints.
    pub day: Trail,
    /// A week, by six hours: how long jobs took.
    pub week: Trail,
}

impl Default for Trails {
    fn default() -> Self {
        let [lately, hour, day, week] = [&LATELY, &HOUR, &DAY, &WEEK].map(Trail::new);
        Self { lately, hour, day, week }
    }
}

impl Trails {
    /// Reads what is new, and some of what is not known yet.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn follow(&mut self, store: &dyn Store, now: Timestamp) -> StoreResult<()> {
        for trail in [&mut self.lately, &mut self.hour, &mut self.day, &mut self.week] {
            for pieces in trail.wanted(now) {
                let found = store.history_pieces(pieces, trail.plan.measures, HISTORY_PIECES_MAX).await?;
                trail.keep(pieces, found, now);
            }
        }
        Ok(())
    }
}

/// By measure and bucket and subject.
type Counts = BTreeMap<(Measure, u8, String), Count>;

/// Counts over time, in pieces of one length.
#[derive(Debug, Clone)]
pub struct Trail {
    plan: &'static Plan,
    pieces: BTreeMap<Timestamp, Counts>,
    /// Known from here,
    since: Timestamp,
    /// to here: the piece that begins here is not over.
    until: Timestamp,
    /// When what is new was read.
    read_at: Option<Timestamp>,
}

impl Trail {
    fn new(plan: &'static Plan) -> Self {
        let nothing = Timestamp::EPOCH;
        Self { plan, pieces: BTreeMap::new(), since: nothing, until: nothing, read_at: None }
    }

    fn reach(&self) -> Duration {
        self.plan.width * u32::from(self.plan.pieces)
    }

    /// What to read: what is new, and a chunk of the past.
    fn wanted(&mut self, now: Timestamp) -> Vec<Pieces> {
        let Plan { step, width, .. } = *self.plan;
        let (over, until) = (Pieces::start_of(width, now), now.plus(step.length()));
        let oldest = over.minus(self.reach());
        let pieces = |since, until| Pieces { step, width, since, until };
        let Some(read_at) = self.read_at.filter(|at| *at <= now && self.until >= oldest) else {
            *self = Self::new(self.plan);
            return vec![pieces(oldest.max(over.minus(CHUNK)), until)];
        };
        let mut wanted = Vec::new();
        if now.since(read_at) >= self.plan.every {
            // what was over may not have been written whole
            wanted.push(pieces(Pieces::start_of(width, read_at.minus(LATE)), until));
        }
        let known: usize = self.pieces.values().map(BTreeMap::len).sum();
        if self.since > oldest && known < COUNTS_MAX {
            wanted.push(pieces(oldest.max(self.since.minus(CHUNK)), self.since));
        }
        wanted
    }

    /// Takes what was read of these pieces in the place of what is known of them.
    fn keep(&mut self, read: Pieces, found: Vec<Piece>, now: Timestamp) {
        // what did not fit is missing at the beginning: its piece is not known whole
        let cut =
            if found.len() >= HISTORY_PIECES_MAX { found.last().map(|(at, ..)| at.plus(read.width)) } else { None };
        let since = Pieces::start_of(read.width, read.since).max(cut.unwrap_or(Timestamp::EPOCH));
        self.pieces.retain(|at, _| *at < since || *at >= read.until);
        for (at, series, count) in found.into_iter().filter(|(at, ..)| *at >= since) {
            let piece = self.pieces.entry(at).or_default();
            piece.entry((series.measure, series.bucket, series.subject)).or_default().add(count);
        }
        let is_first = self.read_at.is_none();
        if is_first || since < self.since {
            self.since = since;
        }
        if read.until > now {
            self.until = Pieces::start_of(read.width, now);
            self.read_at = Some(now);
        }
        let oldest = self.until.minus(self.reach());
        self.pieces = self.pieces.split_off(&oldest);
        self.since = self.since.max(oldest);
    }

    /// Everything that was counted, of this measure.
    pub fn subjects(&self, measure: Measure) -> BTreeSet<&str> {
        let keys = self.pieces.values().flat_map(BTreeMap::keys);
        keys.filter(|(of, ..)| *of == measure).map(|(_, _, subject)| subject.as_str()).collect()
    }

    /// One value for each so many pieces, the oldest first; `None` where nothing is known, or nothing was counted
    /// that a value could be made of.
    pub fn line(&self, together: u16, value: impl Fn(&Window<'_>) -> Option<f64>) -> Line {
        let width = self.plan.width * u32::from(together);
        let points = self.plan.pieces / together;
        let end = if self.plan.unfinished { self.until.plus(self.plan.width) } else { self.until };
        let start = end.minus(width * u32::from(points));
        let point = |at: u16| {
            let from = start.plus(width * u32::from(at));
            let to = from.plus(width);
            if from < self.since || self.read_at.is_none() {
                return None;
            }
            value(&Window { pieces: self.pieces.range(from..to).map(|(_, counts)| counts).collect() })
        };
        Line { start, width, values: (0..points).map(point).collect() }
    }

    /// How many were counted of these measures.
    pub fn counts(&self, together: u16, measures: &[Measure], subject: Option<&str>) -> Line {
        self.line(together, |window| Some(as_f64(measures.iter().map(|of| window.total(*of, subject).count).sum())))
    }

    /// The mean of what was measured, in seconds.
    pub fn mean(&self, together: u16, measure: Measure, subject: Option<&str>) -> Line {
        self.line(together, |window| {
            let Count { count, total } = window.total(measure, subject);
            (count > 0).then(|| as_f64(total) / as_f64(count) / 1e6)
        })
    }

    /// How long this share of a lane's jobs waited at most, in seconds.
    pub fn waits(&self, together: u16, lane: &str, part: f64) -> Line {
        self.line(together, |window| Some(reading::wait(window.buckets(Measure::Waited, lane), part)?.as_secs_f64()))
    }

    /// How many were counted in each bucket within the last so many pieces.
    pub fn buckets(&self, measure: Measure, last: u16) -> BTreeMap<u8, u64> {
        let mut sums = BTreeMap::new();
        for counts in self.pieces.range(self.until.minus(self.plan.width * u32::from(last))..).map(|(_, counts)| counts)
        {
            for ((_, bucket, _), count) in counts.iter().filter(|((of, ..), _)| *of == measure) {
                *sums.entry(*bucket).or_default() += count.count;
            }
        }
        sums
    }
}

/// What was counted in a stretch of time.
#[derive(Debug)]
pub struct Window<'a> {
    pieces: Vec<&'a Counts>,
}

impl Window<'_> {
    /// The total of a measure, of one subject or of all.
    pub fn total(&self, measure: Measure, subject: Option<&str>) -> Count {
        let mut total = Count::default();
        for counts in &self.pieces {
            let of_it =
                counts.iter().filter(|((of, _, who), _)| *of == measure && subject.is_none_or(|one| one == who));
            of_it.for_each(|(_, count)| total.add(*count));
        }
        total
    }

    fn buckets(&self, measure: Measure, subject: &str) -> Vec<(u8, u64)> {
        let mut sums = BTreeMap::<u8, u64>::new();
        for counts in &self.pieces {
            for ((_, bucket, _), count) in counts.iter().filter(|((of, _, who), _)| *of == measure && who == subject) {
                *sums.entry(*bucket).or_default() += count.count;
            }
        }
        sums.into_iter().collect()
    }
}

/// Values over time, one for each stretch of the same length.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Where the first stretch begins.
    pub start: Timestamp,
    /// Length of a stretch.
    pub width: Duration,
    /// The values, the oldest first; `None` = not known, or there is none.
    pub values: Vec<Option<f64>>,
}

impl Line {
    /// Its last so many values.
    #[must_use]
    pub fn last(mut self, values: usize) -> Self {
        let cut = self.values.len().saturating_sub(values);
        self.values.drain(..cut);
        let cut = u32::try_from(cut).unwrap_or(u32::MAX);
        Self { start: self.start.plus(self.width.saturating_mul(cut)), ..self }
    }

    /// Its first so many values.
    #[must_use]
    pub fn first(mut self, values: usize) -> Self {
        self.values.truncate(values);
        self
    }

    /// Each value times this.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        self.values.iter_mut().flatten().for_each(|value| *value *= factor);
        self
    }

    /// Beginning of a stretch.
    pub fn at(&self, index: usize) -> Timestamp {
        self.start.plus(self.width.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX)))
    }

    /// Its greatest value and where it is.
    pub fn most(&self) -> Option<(usize, f64)> {
        let known = self.values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?)));
        known.max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Its latest value that is known.
    pub fn latest(&self) -> Option<f64> {
        self.values.iter().rev().flatten().next().copied()
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::history::Series;

    /// Begins a day.
    const START: Timestamp = Timestamp::from_secs(1_800_057_600);

    fn at(minutes: u64) -> Timestamp {
        START.plus(Duration::from_mins(minutes))
    }

    fn piece(minute: u64, measure: Measure, bucket: u8, count: u64, total: u64) -> Piece {
        (
            at(minute),
            Series { measure, bucket, subject: "bulk".to_owned(), part: String::new() },
            Count { count, total },
        )
    }

    /// Feeds a trail as a store would.
    fn feed(trail: &mut Trail, now: Timestamp, all: &[Piece]) -> usize {
        let wanted = trail.wanted(now);
        for pieces in &wanted {
            let found =
                all.iter().filter(|(at, ..)| *at >= pieces.since && *at < pieces.until && *at <= now).cloned().rev();
            trail.keep(*pieces, found.collect(), now);
        }
        wanted.len()
    }

    #[test]
    fn an_hour_is_read_once_and_then_what_is_new() {
        let mut trail = Trail::new(&HOUR);
        let all: Vec<Piece> = (0..180).map(|minute| piece(minute, Measure::Succeeded, 0, minute, 0)).collect();
        assert_eq!(feed(&mut trail, at(100), &all), 1);
        let line = trail.counts(1, &[Measure::Succeeded], Some("bulk"));
        assert_eq!((line.start, line.values.len()), (at(40), 60));
        assert_eq!(
            (line.values[0], line.latest()),
            (Some(40.0), Some(99.0)),
            "the minute that is not over is not shown"
        );
        assert_eq!(feed(&mut trail, at(100).plus(Duration::from_secs(5)), &all), 0, "nothing is new");
        let soon = at(101).plus(Duration::from_secs(5));
        let wanted = trail.clone().wanted(soon);
        assert_eq!(
            wanted.iter().map(|pieces| pieces.since).collect::<Vec<_>>(),
            [at(99)],
            "only what may have changed"
        );
        assert_eq!(feed(&mut trail, soon, &all), 1);
        let line = trail.counts(1, &[Measure::Succeeded], None);
        assert_eq!((line.start, line.values[0], line.latest()), (at(41), Some(41.0), Some(100.0)));
        assert_eq!(trail.pieces.len(), 61, "no more is kept than is shown");
        assert_eq!(feed(&mut trail, at(50), &all), 1, "a clock that was set back begins anew");
        assert_eq!(trail.counts(1, &[Measure::Succeeded], None).latest(), Some(49.0));
    }

    #[test]
    fn a_week_fills_itself_day_by_day() {
        let mut trail = Trail::new(&WEEK);
        let days = 24 * 60;
        let all: Vec<Piece> = (0..40).map(|n| piece(n * 360, Measure::Duration, 0, 2, 6_000_000 * n)).collect();
        let now = at(9 * days + 1);
        let known = |trail: &Trail| trail.mean(1, Measure::Duration, Some("bulk")).values.iter().flatten().count();
        let mut seen = Vec::new();
        for look in 0..9 {
            feed(&mut trail, now.plus(Duration::from_secs(10 * look)), &all);
            seen.push(known(&trail));
        }
        assert_eq!(seen, [5, 9, 13, 17, 21, 25, 28, 28, 28], "with the piece that is not over");
        assert_eq!(trail.wanted(now.plus(Duration::from_secs(100))), [], "all of it is known");
        assert_eq!(trail.mean(1, Measure::Duration, Some("bulk")).latest(), Some(3.0 * 36.0));
        assert_eq!(trail.mean(1, Measure::Duration, Some("other")).latest(), None);
    }

    #[test]
    fn what_did_not_fit_is_not_taken_for_nothing() {
        let mut trail = Trail::new(&HOUR);
        let pieces = trail.wanted(at(60)).remove(0);
        let one = piece(30, Measure::Succeeded, 0, 1, 0);
        let found = std::iter::repeat_n(piece(31, Measure::Succeeded, 0, 1, 0), HISTORY_PIECES_MAX - 1).chain([one]);
        trail.keep(pieces, found.collect(), at(60));
        let line = trail.counts(1, &[Measure::Succeeded], None);
        assert_eq!((line.values[30], line.values[31], line.values[32]), (None, Some(19_999.0), Some(0.0)));
    }

    #[test]
    fn waits_and_shares_are_of_their_minutes() {
        let mut trail = Trail::new(&HOUR);
        let all = [
            piece(50, Measure::Waited, 0, 94, 0),
            piece(50, Measure::Waited, 8, 6, 0),
            piece(51, Measure::Waited, 1, 1, 0),
        ];
        feed(&mut trail, at(60), &all);
        let waits = trail.waits(1, "bulk", 0.95);
        assert_eq!((waits.values[49], waits.values[50], waits.values[51]), (None, Some(10.0), Some(0.05)));
        assert_eq!(trail.waits(5, "bulk", 0.95).values[10], Some(10.0));
        assert_eq!(trail.buckets(Measure::Waited, 60), BTreeMap::from([(0, 94), (1, 1), (8, 6)]));
        assert_eq!(trail.subjects(Measure::Waited), BTreeSet::from(["bulk"]));
        assert_eq!(waits.most(), Some((50, 10.0)));
        let last = waits.last(10);
        assert_eq!((last.start, last.values[0]), (at(50), Some(10.0)));
        assert_eq!(last.first(1).times(2.0).values, [Some(20.0)]);
    }
}
