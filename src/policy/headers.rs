//! What rate and retry headers say: the IETF's drafts, the `X-RateLimit` families and the forms of single vendors.

mod structured;
mod value;
mod vendors;

use std::time::Duration;

use self::value::Unit;
use crate::clock::Timestamp;
use crate::job::outcome::HttpAnswer;

/// The longest wait that is believed at all.
pub const WAIT_MAX: Duration = Duration::from_hours(24 * 366);
/// Most budgets that are read from one answer.
pub const READINGS_MAX: usize = 16;
/// Most characters of a budget's name.
const NAME_CHARS_MAX: usize = 64;

/// One budget of an API, as an answer described it. Everything here is a hint.
#[derive(Debug, Clone, PartialEq)]
pub struct RateReading {
    /// Calls allowed per window.
    pub limit: Option<f64>,
    /// Calls left.
    pub remaining: Option<f64>,
    /// When calls are allowed again, by our clock.
    pub reset_at: Option<Timestamp>,
    /// Length of the window.
    pub window: Option<Duration>,
    /// Which budget: the server's own name for it, or the family of headers.
    pub name: String,
}

impl RateReading {
    /// Whether not even one call is left.
    pub fn is_exhausted(&self) -> bool {
        self.remaining.is_some_and(|remaining| remaining < 1.0)
    }

    /// Whether the budget counts requests: not tokens, points or another unit.
    pub fn counts_requests(&self) -> bool {
        !self.name.contains("token") && self.name != "complexity" && !self.name.ends_with(')')
    }

    fn named(name: &str) -> Self {
        let name = name.chars().take(NAME_CHARS_MAX).collect();
        Self { limit: None, remaining: None, reset_at: None, window: None, name }
    }
}

/// How long an answer asks us to wait; `None` when it does not say, or names a moment that has passed.
///
/// `Retry-After` in seconds, with decimals, as a date or an epoch; else its forms in milliseconds; else the latest reset
/// of the budgets that are used up. Absolute times are read by the server's own clock (`Date`), where it tells. At most
/// [`WAIT_MAX`].
pub fn retry_after(answer: &HttpAnswer, received_at: Timestamp) -> Option<Duration> {
    let server_now = server_now(answer, received_at);
    let of = |name, unit| {
        answer.header(name).and_then(|text| value::wait(text, unit, server_now)).filter(|wait| !wait.is_zero())
    };
    of("retry-after", Unit::Auto)
        .or_else(|| of("retry-after-ms", Unit::Millis))
        .or_else(|| of("x-ms-retry-after-ms", Unit::Millis))
        .or_else(|| {
            let exhausted = readings(answer, received_at).into_iter().filter(RateReading::is_exhausted);
            exhausted.filter_map(|reading| reading.reset_at).max().map(|at| at.since(received_at))
        })
        .filter(|wait| !wait.is_zero())
}

/// The budgets that an answer describes, at most [`READINGS_MAX`].
pub fn readings(answer: &HttpAnswer, received_at: Timestamp) -> Vec<RateReading> {
    // a `Date` has whole seconds: where our clock fits it, ours is the better one
    let date = server_now(answer, received_at);
    let server_now = received_at.clamp(date, date.plus(Duration::from_secs(1)));
    let times = Times { server_now, received_at };
    let mut found = structured::readings(answer, &times);
    found.extend(vendors::readings(answer, &times));
    found.truncate(READINGS_MAX);
    found
}

/// The two clocks that a time in a header can refer to.
struct Times {
    server_now: Timestamp,
    received_at: Timestamp,
}

impl Times {
    /// The moment, by our clock, that `text` names.
    fn moment(&self, text: &str, unit: Unit) -> Option<Timestamp> {
        value::wait(text, unit, self.server_now).map(|wait| self.received_at.plus(wait))
    }
}

fn server_now(answer: &HttpAnswer, received_at: Timestamp) -> Timestamp {
    answer.header("date").and_then(value::http_date).unwrap_or(received_at)
}

/// All values of a header, as one list.
fn joined(answer: &HttpAnswer, name: &str) -> String {
    let values: Vec<_> = answer.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect();
    values.join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-22T03:30:00Z
    const NOW: Timestamp = Timestamp::from_secs(1_795_318_200);

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn answer(headers: Headers<'_>) -> HttpAnswer {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        HttpAnswer { status: 429, headers, ..HttpAnswer::default() }
    }

    fn wait_secs(headers: Headers<'_>) -> Option<f64> {
        retry_after(&answer(headers), NOW).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn forms_of_retry_after() {
        let table = [
            ("120", Some(120.0)),
            (" 120 ", Some(120.0)),
            ("2.5", Some(2.5)),
            ("120, 120", Some(120.0)),
            ("0", None),
            ("-5", None),
            ("", None),
            ("soon", None),
            ("NaN", None),
            ("inf", None),
            ("1e300", Some(WAIT_MAX.as_secs_f64())),
            ("1795318260", Some(60.0)),
            ("1795318260.5", Some(60.5)),
            ("1795318260000", Some(60.0)),
            ("1795318100", None),
            ("Sun, 22 Nov 2026 03:31:00 GMT", Some(60.0)),
            ("Sunday, 22-Nov-26 03:31:00 GMT", Some(60.0)),
            ("Sun Nov 22 03:31:00 2026", Some(60.0)),
            ("Sun, 22 Nov 2026 03:29:00 GMT", None),
            ("2026-11-22T03:31:00Z", Some(60.0)),
            ("2026-11-22T05:31:00+02:00", Some(60.0)),
            ("Sun Nov 22 2026 03:31:00 GMT+0000 (Coordinated Universal Time)", Some(60.0)),
            ("6m0s", Some(360.0)),
            ("12ms", Some(0.012)),
            ("1h1m1s", Some(3661.0)),
        ];
        for (text, expect) in table {
            assert_eq!(wait_secs(&[("retry-after", text)]), expect, "{text:?}");
        }
    }

    #[test]
    fn absolute_times_are_read_by_the_servers_clock() {
        // the server is an hour ahead of us
        let date = ("date", "Sun, 22 Nov 2026 04:30:00 GMT");
        assert_eq!(wait_secs(&[date, ("retry-after", "Sun, 22 Nov 2026 04:30:10 GMT")]), Some(10.0));
        assert_eq!(wait_secs(&[date, ("retry-after", "1795321810")]), Some(10.0));
        assert_eq!(wait_secs(&[date, ("retry-after", "10")]), Some(10.0));
        assert_eq!(wait_secs(&[("date", "today"), ("retry-after", "1795318210")]), Some(10.0));
    }

    #[test]
    fn other_headers_stand_in_for_retry_after() {
        let table: &[(Headers<'_>, Option<f64>)] = &[
            (&[("retry-after-ms", "1500")], Some(1.5)),
            (&[("x-ms-retry-after-ms", "20")], Some(0.02)),
            (&[("retry-after", "7"), ("retry-after-ms", "1500")], Some(7.0)),
            (&[("retry-after", "x"), ("retry-after-ms", "1500")], Some(1.5)),
            (&[("ratelimit", "\"default\";r=0;t=30")], Some(30.0)),
            (&[("ratelimit", "\"default\";r=1;t=30")], None),
            (&[("ratelimit", "\"burst\";r=0;t=3, \"day\";r=0;t=300")], Some(300.0)),
            (&[("ratelimit", "\"burst\";r=0;t=3"), ("ratelimit", "\"day\";r=0;t=300")], Some(300.0)),
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795318260")], Some(60.0)),
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset-after", "1.25")], Some(1.25)),
            (&[("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "1795318260")], None),
            (&[("x-ratelimit-reset", "1795318260")], None),
        ];
        for (headers, expect) in table {
            assert_eq!(wait_secs(headers), *expect, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_bounded(
            headers in proptest::collection::vec((proptest::sample::select(NAMES), "\\PC{0,60}|[0-9.,;=\"rtqw: -]{0,40}"), 0..6),
            now: i64,
        ) {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = answer(&headers);
            let now = Timestamp::from_micros(now);
            if let Some(wait) = retry_after(&answer, now) {
                prop_assert!(!wait.is_zero() && wait <= WAIT_MAX);
            }
            let readings = readings(&answer, now);
            prop_assert!(readings.len() <= READINGS_MAX);
            for reading in readings {
                prop_assert!(reading.limit.is_none_or(|limit| limit.is_finite() && limit >= 0.0));
                prop_assert!(reading.remaining.is_none_or(|remaining| remaining.is_finite() && remaining >= 0.0));
                prop_assert!(reading.name.chars().count() <= NAME_CHARS_MAX);
            }
        }
    }

    const NAMES: &[&str] = &[
        "retry-after",
        "retry-after-ms",
        "date",
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-ratelimit-reset-after",
        "x-ratelimit-resource",
        "sforce-limit-info",
        "x-shopify-shop-api-call-limit",
    ];
}
