//! What the demo has shown, counted: where every published job is now, and what that proves.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;

use serde::Serialize;

/// Version of the JSON form.
const SCHEMA: u32 = 1;

/// Where the store says a published job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Succeeded.
    Done,
    /// Dead letter: every allowed call failed.
    Exhausted,
    /// Dead letter for any other reason.
    Failed,
    /// Waiting, queued or running.
    Alive,
    /// The store does not know it: a copy of another publish, or still in the broker's queue.
    Unknown,
}

/// Where all publishes of one lane are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Accounts {
    /// Confirmed by the broker.
    pub published: u64,
    /// Succeeded.
    pub succeeded: u64,
    /// Copies of a job that is known, dropped.
    pub duplicates_dropped: u64,
    /// Dead letters: every allowed call failed.
    pub exhausted: u64,
    /// Dead letters: refused for good, or unknown endpoint.
    pub failed: u64,
    /// Waiting in the store, or still in the queue.
    pub still_waiting: u64,
    /// None of these.
    pub lost: u64,
}

/// Accounts for every publish of a lane: its key and its fate, how many duplicates the workers counted, and how many
/// messages are in the broker's queue.
///
/// A job whose every publish is unknown must be in the queue. A copy of a known job must be in the queue, or have been
/// counted as a duplicate. What is neither is lost.
pub fn account<K: Hash + Eq>(publishes: &[(K, Fate)], duplicates: u64, in_queue: u64) -> Accounts {
    let mut known: HashMap<&K, bool> = HashMap::new();
    for (key, fate) in publishes {
        *known.entry(key).or_default() |= *fate != Fate::Unknown;
    }
    let count = |wanted| publishes.iter().filter(|(_, fate)| *fate == wanted).count() as u64;
    let unknown = count(Fate::Unknown);
    let jobs_unknown = known.values().filter(|known| !**known).count() as u64;
    let copies_lost = unknown.saturating_sub(duplicates + in_queue);
    let jobs_lost = jobs_unknown.saturating_sub(in_queue);
    let lost = copies_lost.max(jobs_lost);
    let dropped = duplicates.min(unknown);
    Accounts {
        published: publishes.len() as u64,
        succeeded: count(Fate::Done),
        duplicates_dropped: dropped,
        exhausted: count(Fate::Exhausted),
        failed: count(Fate::Failed),
        still_waiting: count(Fate::Alive) + unknown.saturating_sub(dropped).saturating_sub(lost),
        lost,
    }
}

/// The middle and the slow end of some times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// Half were faster.
    pub p50_ms: f64,
    /// 99 of 100 were faster.
    pub p99_ms: f64,
}

impl Quantiles {
    /// Of microseconds in order of size; `None` when there are none.
    #[expect(clippy::cast_precision_loss, reason = "latencies fit 53 bits")]
    pub fn of(sorted_micros: &[u64]) -> Option<Self> {
        let ms = |permille| percentile(sorted_micros, permille).map(|micros| micros as f64 / 1_000.0);
        Some(Self { count: sorted_micros.len() as u64, p50_ms: ms(500)?, p99_ms: ms(990)? })
    }
}

/// The nearest-rank percentile (in tenths of a percent) of values in order of size.
pub fn percentile(sorted: &[u64], permille: usize) -> Option<u64> {
    let rank = (sorted.len() * permille).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied()
}

/// Real-time latency, publish to first call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Realtime {
    /// Before the import began.
    pub idle: Option<Quantiles>,
    /// While it ran.
    pub during_import: Option<Quantiles>,
}

/// What one lane did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaneSummary {
    /// Its name.
    pub lane: String,
    /// Calls that the API counted.
    pub calls: u64,
    /// Calls that it answered 429.
    pub rate_limited: u64,
    /// Jobs that succeeded after a retry.
    pub retried_ok: u64,
    /// Calls made although the job was over.
    pub called_twice: u64,
    /// Where its jobs are.
    #[serde(flatten)]
    pub jobs: Accounts,
}

/// The whole demo.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// How long it ran.
    pub seconds: f64,
    /// Publishes that the broker did not confirm.
    pub unconfirmed: u64,
    /// Calls of jobs beyond those the API could remember: not checked for a needless call.
    pub unchecked: u64,
    /// Its lanes.
    pub lanes: Vec<LaneSummary>,
    /// Real-time latency.
    pub realtime: Realtime,
}

/// A line of the summary: its label, and its number for a lane.
type Row = (&'static str, fn(&LaneSummary) -> u64);

impl Summary {
    fn sum(&self, of: impl Fn(&LaneSummary) -> u64) -> u64 {
        self.lanes.iter().map(of).sum()
    }

    /// Whether the promises were kept.
    pub fn is_good(&self) -> bool {
        self.sum(|lane| lane.jobs.lost) == 0 && self.sum(|lane| lane.called_twice) == 0
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "schema": SCHEMA,
            "seconds": self.seconds,
            "published": self.sum(|lane| lane.jobs.published),
            "unconfirmed": self.unconfirmed,
            "unchecked_calls": self.unchecked,
            "calls": self.sum(|lane| lane.calls),
            "rate_limited": self.sum(|lane| lane.rate_limited),
            "succeeded": self.sum(|lane| lane.jobs.succeeded),
            "retried_ok": self.sum(|lane| lane.retried_ok),
            "duplicates_dropped": self.sum(|lane| lane.jobs.duplicates_dropped),
            "exhausted": self.sum(|lane| lane.jobs.exhausted),
            "failed": self.sum(|lane| lane.jobs.failed),
            "still_waiting": self.sum(|lane| lane.jobs.still_waiting),
            "lost": self.sum(|lane| lane.jobs.lost),
            "called_twice": self.sum(|lane| lane.called_twice),
            "realtime_latency": self.realtime,
            "lanes": self.lanes,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("\nAfter {:.1} s:\n\n{:<34}", self.seconds, "");
        for lane in &self.lanes {
            put(&mut out, &format!("{:>12}", lane.lane));
        }
        out.push('\n');
        let rows: [Row; 10] = [
            ("jobs published", |lane| lane.jobs.published),
            ("  succeeded", |lane| lane.jobs.succeeded),
            ("  duplicates dropped", |lane| lane.jobs.duplicates_dropped),
            ("  dead: attempts exhausted", |lane| lane.jobs.exhausted),
            ("  dead: refused for good", |lane| lane.jobs.failed),
            ("  still waiting", |lane| lane.jobs.still_waiting),
            ("  lost", |lane| lane.jobs.lost),
            ("calls the API counted", |lane| lane.calls),
            ("  answered 429, waited, came back", |lane| lane.rate_limited),
            ("  made twice without need", |lane| lane.called_twice),
        ];
        for (label, of) in rows {
            put(&mut out, &format!("{label:<34}"));
            for lane in &self.lanes {
                put(&mut out, &format!("{:>12}", grouped(of(lane))));
            }
            out.push('\n');
        }
        let retried = grouped(self.sum(|lane| lane.retried_ok));
        put(&mut out, &format!("\n{retried} jobs failed at first and succeeded on a later call.\n"));
        put(&mut out, "real-time, publish to call: ");
        match (self.realtime.during_import, self.realtime.idle) {
            (Some(during), Some(idle)) => {
                put(
                    &mut out,
                    &format!(
                        "{} during the import\n                            {} before it\n",
                        quantiles(during),
                        quantiles(idle)
                    ),
                );
            }
            (None, Some(idle)) => put(&mut out, &format!("{} (the import had not begun)\n", quantiles(idle))),
            _ => out.push_str("no webhook was called\n"),
        }
        if self.unconfirmed > 0 {
            put(&mut out, &format!("{} publishes were not confirmed; see the log.\n", grouped(self.unconfirmed)));
        }
        if self.unchecked > 0 {
            put(
                &mut out,
                &format!("{} calls were too many to be checked for a second one.\n", grouped(self.unchecked)),
            );
        }
        let verdict = if self.is_good() {
            "Nothing was lost, nothing was called twice."
        } else {
            "This must not happen: jobs were lost, or called although they were over. Please report it."
        };
        put(&mut out, &format!("\n{verdict}\n"));
        out
    }
}

fn put(out: &mut String, text: &str) {
    out.write_str(text).expect("writing to a String cannot fail");
}

/// `p50 4.1 ms, p99 12 ms`.
pub fn quantiles(of: Quantiles) -> String {
    format!("p50 {}, p99 {}", millis(of.p50_ms), millis(of.p99_ms))
}

fn millis(ms: f64) -> String {
    if ms < 9.95 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_publish_has_its_place() {
        let publishes = [
            ("a", Fate::Done),
            ("a", Fate::Unknown), // its copy
            ("b", Fate::Exhausted),
            ("c", Fate::Failed),
            ("d", Fate::Alive),
            ("e", Fate::Unknown), // still in the queue
        ];
        let accounts = account(&publishes, 1, 1);
        let expected = Accounts {
            published: 6,
            succeeded: 1,
            duplicates_dropped: 1,
            exhausted: 1,
            failed: 1,
            still_waiting: 2,
            lost: 0,
        };
        assert_eq!(accounts, expected);
    }

    #[test]
    fn what_is_nowhere_is_lost() {
        assert_eq!(account(&[("a", Fate::Unknown)], 0, 0).lost, 1);
        assert_eq!(account(&[("a", Fate::Unknown)], 1, 0).lost, 1, "a lost job cannot hide as a duplicate of itself");
        assert_eq!(account(&[("a", Fate::Done), ("a", Fate::Unknown)], 0, 0).lost, 1, "a copy that nobody dropped");
        assert_eq!(account(&[("a", Fate::Done), ("a", Fate::Unknown)], 0, 1).lost, 0, "it is still in the queue");
    }

    #[test]
    fn the_accounts_add_up_whatever_happened() {
        for duplicates in 0..4 {
            for in_queue in 0..4 {
                let publishes = [(1, Fate::Done), (1, Fate::Unknown), (2, Fate::Unknown), (3, Fate::Alive)];
                let of = account(&publishes, duplicates, in_queue);
                let sum = of.succeeded + of.duplicates_dropped + of.exhausted + of.failed + of.still_waiting + of.lost;
                assert!(sum >= of.published, "{of:?}");
                if of.lost == 0 {
                    assert_eq!(sum, of.published, "{of:?}");
                }
            }
        }
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&values, 500), Some(100));
        assert_eq!(percentile(&values, 990), Some(198));
        assert_eq!(percentile(&[7], 990), Some(7));
        assert_eq!(percentile(&[], 500), None);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    fn summary(lost: u64, called_twice: u64) -> Summary {
        let jobs = Accounts { published: 5, succeeded: 4, lost, ..Accounts::default() };
        let lane =
            LaneSummary { lane: "bulk".to_owned(), calls: 9, rate_limited: 4, retried_ok: 3, called_twice, jobs };
        let realtime = Realtime { idle: Quantiles::of(&[1_000]), during_import: Quantiles::of(&[2_000, 30_000]) };
        Summary { seconds: 6.0, unconfirmed: 0, unchecked: 0, lanes: vec![lane.clone(), lane], realtime }
    }

    #[test]
    fn one_loss_or_one_needless_call_is_bad() {
        assert!(summary(0, 0).is_good());
        assert!(!summary(1, 0).is_good());
        assert!(!summary(0, 1).is_good());
    }

    #[test]
    fn json_totals_are_sums_over_the_lanes() {
        let json = summary(0, 0).json();
        assert_eq!(json["published"], 10);
        assert_eq!(json["rate_limited"], 8);
        assert_eq!(json["lanes"][0]["succeeded"], 4);
        assert_eq!(json["realtime_latency"]["during_import"]["p99_ms"], 30.0);
    }

    #[test]
    fn the_text_says_what_was_proven() {
        let text = summary(0, 0).text();
        assert!(text.contains("Nothing was lost, nothing was called twice."), "{text}");
        assert!(text.contains("p50 2.0 ms, p99 30 ms during the import\n"), "{text}");
        assert!(summary(1, 0).text().contains("must not happen"));
    }
}
