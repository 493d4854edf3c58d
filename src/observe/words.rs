//! How values look to people, the same in a terminal and on a page: counts, times, durations, where a job is; and how people
//! write durations.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::governor::view::{Hold, LimitState};
use crate::policy::operation::interval;
use crate::store::{IN_TURN, JobRow, State};

/// Units of durations, largest first, in milliseconds.
pub const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `text` cut to `most` characters, with an ellipsis where something is missing.
pub fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// `35000` as `35,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 job`, `2,000 jobs`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A duration in its two largest units: `1h 5m`, `12s`, `250ms`.
pub fn duration(value: Duration) -> String {
    let mut millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, scale) in UNITS {
        let too_fine = unit == "ms" && !parts.is_empty();
        if millis >= scale && parts.len() < 2 && !too_fine {
            parts.push(format!("{}{unit}", millis / scale));
            millis %= scale;
        } else if !parts.is_empty() {
            break; // only neighbouring units: `1d`, not `1d 3s`
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Reads `10s`, `1m30s`, `500ms`: the form of the configuration.
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write it like \"10s\", \"1m30s\" or \"2h\" (ms, s, m, h, d)");
    let mut rest = text.trim();
    let mut millis = 0_u64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (amount, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let amount: u64 = amount.parse().map_err(|_| wrong())?;
        let scale = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?.1;
        millis = amount.checked_mul(scale).and_then(|part| millis.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a limit: `100/1m`, `40000/1d`, or `none`.
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_limit(text: &str) -> Result<Option<(u32, Duration)>, String> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = || format!("{text:?} is not a limit: write it like 100/1m or 40000/1d, or none");
    let (requests, per) = text.split_once('/').ok_or_else(wrong)?;
    let requests = requests.trim().parse().map_err(|_| wrong())?;
    // `100/m` is how people say it
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    Ok(Some((requests, parse_duration(&per).map_err(|_| wrong())?)))
}

/// Limits in a line: `100/1m, 40000/1d (shared)`
pub fn limits_text(limits: &[LimitState]) -> String {
    if limits.is_empty() {
        return "none".to_owned();
    }
    let one = |limit: &LimitState| {
        let shared = if limit.scope == "endpoint" { " (shared)" } else { "" };
        match limit.requests {
            0 => "none".to_owned(),
            requests => format!("{requests}/{}{shared}", duration(limit.per).replace(' ', "")),
        }
    };
    limits.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// How long ago `at` was.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", duration(at.since(now))) } else { format!("{} ago", duration(now.since(at))) }
}

/// When something will go on: `in 2m 5s`, or `due` when that time has come.
pub fn until(at: Timestamp, now: Timestamp) -> String {
    if at == IN_TURN {
        return "when its budget has room".to_owned();
    }
    if at > now { format!("in {}", duration(at.since(now))) } else { "due".to_owned() }
}

/// Where a job is, why, and what happens next.
pub fn state_of(row: &JobRow, hold: Option<&Hold>, now: Timestamp) -> String {
    let ended = row.ended_at.map(|at| format!(" {}", ago(at, now))).unwrap_or_default();
    let text = match row.state {
        State::Run => match row.worker {
            Some(worker) => format!("is being called by worker {}", worker.0),
            None => "is being called".to_owned(),
        },
        State::Waiting => match row.resume_at {
            // a pause holds back also what is due
            _ if hold.is_some() => in_turn(row, hold, now),
            Some(IN_TURN) => in_turn(row, None, now),
            Some(at) => format!("waits ({}), goes on {} ({at})", row.reason, until(at, now)),
            None => format!("waits ({})", row.reason),
        },
        State::Queued => match hold {
            Some(_) => format!("is due, and {}", in_turn(row, hold, now)),
            None => "is due, on its way to a worker".to_owned(),
        },
        State::Done => format!("succeeded{ended}"),
        State::Dead => format!("dead letter ({}){ended}", row.reason),
        State::Cancelled => format!("cancelled{ended}"),
    };
    if row.cancel_requested && row.state.is_alive() { format!("{text}; cancel requested") } else { text }
}

/// Why a job waits for its turn, and until about when.
fn in_turn(row: &JobRow, hold: Option<&Hold>, now: Timestamp) -> String {
    let Some(hold) = hold else { return format!("waits ({}), its turn is about to come", row.reason) };
    let since = row.held_since.map(|since| format!("; held back since {}", ago(since, now))).unwrap_or_default();
    match hold.until {
        Some(at) => format!("waits ({}), goes on about {} ({at}): {}{since}", hold.reason, until(at, now), hold.why),
        None => format!("waits ({}): {}{since}", hold.reason, hold.why),
    }
}

/// How often it was called, and what befell it.
pub fn attempts_of(row: &JobRow) -> String {
    let mut text = row.attempt.to_string();
    if row.generation > 1 {
        text = format!("{text} since it was put back to work (generation {})", row.generation);
    }
    if row.takeovers > 0 {
        text = format!("{text}; {} died with it", counted(row.takeovers.into(), "worker"));
    }
    if row.effect_possible {
        text.push_str("; a call may have had an effect that nobody saw");
    }
    text
}

/// Reads `50/1s` or `600/m`: so many a second.
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_pace(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a pace: write it like 50/1s or 600/1m");
    let (number, per) = parse_limit(text).ok().flatten().ok_or_else(wrong)?;
    let pace = f64::from(number) / per.as_secs_f64();
    interval(pace).map(|_| pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let minute = Duration::from_mins(1);
        assert_eq!(parse_limit("100/1m"), Ok(Some((100, minute))));
        assert_eq!(parse_limit("100/m"), Ok(Some((100, minute))));
        assert_eq!(parse_limit("40000/1d"), Ok(Some((40_000, Duration::from_hours(24)))));
        assert_eq!(parse_limit("none"), Ok(None));
        for wrong in ["", "100", "100/", "x/1m", "100/1", "-1/1m", "100/1y"] {
            assert!(parse_limit(wrong).is_err_and(|why| why.contains("100/1m")), "{wrong}");
        }
    }
}
