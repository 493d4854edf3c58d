//! Numbers, waits and dates in the text of rate headers.

use std::time::{Duration, UNIX_EPOCH};

use super::WAIT_MAX;
use crate::clock::Timestamp;

/// A number of seconds above this is a point in time (the year 2001), not a wait.
const EPOCH_SECONDS_MIN: f64 = 1e9;
/// A number above this is a point in time in milliseconds (the year 2001).
const EPOCH_MILLIS_MIN: f64 = 1e12;

/// What a bare number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds from now, or seconds or milliseconds since 1970, told apart by size.
    Auto,
    /// Milliseconds from now.
    Millis,
}

/// A finite number: the first item of a list, without its parameters.
pub fn number(text: &str) -> Option<f64> {
    let first = text.split([',', ';']).next().unwrap_or_default().trim();
    first.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// A count of calls; a negative one says nothing (some mean "unlimited").
pub fn count(text: &str) -> Option<f64> {
    number(text).filter(|number| *number >= 0.0)
}

/// The wait that `text` asks for, at most [`WAIT_MAX`], zero for what is past; `None` when it can't be read.
pub fn wait(text: &str, unit: Unit, server_now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let until = |at: Timestamp| at.since(server_now);
    let wait = match number(text) {
        Some(millis) if unit == Unit::Millis => seconds(millis / 1e3),
        Some(number) if number >= EPOCH_MILLIS_MIN => until(Timestamp::EPOCH.plus(seconds(number / 1e3))),
        Some(number) if number >= EPOCH_SECONDS_MIN => until(Timestamp::EPOCH.plus(seconds(number))),
        Some(number) => seconds(number),
        None => date(text).map(until).or_else(|| go_duration(text))?,
    };
    Some(wait.min(WAIT_MAX))
}

/// Seconds as a duration to the microsecond; zero when negative, the longest there is when too many.
fn seconds(number: f64) -> Duration {
    let rounded = (number.max(0.0) * 1e6).round() / 1e6;
    Duration::try_from_secs_f64(rounded).unwrap_or(Duration::MAX)
}

/// Any of the three forms of an HTTP date.
pub fn http_date(text: &str) -> Option<Timestamp> {
    let at = httpdate::parse_http_date(text.trim()).ok()?;
    at.duration_since(UNIX_EPOCH).ok().map(|since| Timestamp::EPOCH.plus(since))
}

/// HTTP dates, RFC 3339, RFC 2822, and what JavaScript's `Date` prints.
fn date(text: &str) -> Option<Timestamp> {
    let from = |at: jiff::Timestamp| Timestamp::from_micros(at.as_microsecond());
    http_date(text)
        .or_else(|| Timestamp::parse_rfc3339(text))
        .or_else(|| jiff::fmt::rfc2822::parse(text).ok().map(|at| from(at.timestamp())))
        .or_else(|| {
            let plain = text.split(" (").next().unwrap_or_default();
            jiff::Timestamp::strptime("%a %b %d %Y %H:%M:%S GMT%z", plain).ok().map(from)
        })
}

/// `1h2m3.5s`, `6m0s`, `12ms`: what Go's `Duration` prints.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += amount.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then(|| seconds(total))
}
