//! Paces, limits and times in words. A pace is never told as more than it is: whoever keeps to what he reads keeps to it.

use std::time::Duration;

use crate::policy::limit::Limit;

/// Units of a pace: how many seconds they have.
const PER: [(&str, f64); 4] = [("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("day", 86_400.0)];
/// Units of a time, in milliseconds.
const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Calls a second in a unit in which it can be read: `1.33/s`, `30/h`. Rounded down.
pub fn pace(per_second: f64) -> String {
    let (unit, seconds) = PER.into_iter().find(|(_, seconds)| per_second * seconds >= 0.1).unwrap_or(PER[3]);
    format!("{}/{unit}", down(per_second * seconds))
}

/// Three digits that count, rounded down: `0.267`, `1.33`, `53.3`, `1333`.
pub(super) fn down(number: f64) -> String {
    digits(number, |scaled| (scaled + 1e-6).floor())
}

/// The same, rounded up.
pub(super) fn up(number: f64) -> String {
    digits(number, |scaled| (scaled - 1e-6).ceil())
}

fn digits(number: f64, round: impl Fn(f64) -> f64) -> String {
    let places: usize = match number {
        number if number >= 100.0 => 0,
        number if number >= 10.0 => 1,
        number if number >= 1.0 => 2,
        _ => 3,
    };
    let scale = [1.0, 10.0, 100.0, 1_000.0][places];
    let text = format!("{:.places$}", round(number * scale) / scale);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    text.to_owned()
}

/// A time in its two largest units: `7h 17m`, `12.5s`, `250ms`.
pub fn span(time: Duration) -> String {
    let millis = time.as_millis();
    if (1_000..60_000).contains(&millis) {
        return format!("{}s", down(time.as_secs_f64()));
    }
    let Some(at) = UNITS.iter().position(|(_, scale)| millis >= *scale) else { return "0s".to_owned() };
    let (unit, scale) = UNITS[at];
    let first = format!("{}{unit}", millis / scale);
    match UNITS.get(at + 1).filter(|_| unit != "s").map(|(unit, smaller)| (unit, millis % scale / smaller)) {
        Some((unit, count)) if count > 0 => format!("{first} {count}{unit}"),
        _ => first,
    }
}

/// `100/min`, `40000/day`, `5/10s`.
pub(super) fn limit(limit: &Limit) -> String {
    let millis = limit.per.as_millis();
    let per = match PER.into_iter().find(|(_, seconds)| Duration::from_secs_f64(*seconds) == limit.per) {
        Some((unit, _)) => unit.to_owned(),
        None => match UNITS.iter().find(|(_, scale)| millis.is_multiple_of(*scale)) {
            Some((unit, scale)) => format!("{}{unit}", millis / scale),
            None => format!("{:?}", limit.per),
        },
    };
    format!("{}/{per}", limit.requests)
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::{HEADROOM, Scope};

    #[test]
    fn numbers_can_be_read_and_are_kept_to() {
        let paces = [(4.0 / 3.0, "1.33/s"), (2.0, "2/s"), (53.33, "53.3/s"), (0.05, "3/min"), (1e-5, "0.864/day")];
        for (number, text) in paces {
            assert_eq!(pace(number), text);
        }
        assert_eq!((up(4.0 / 3.0), up(0.375), up(150.0), down(1_333.3)), s("1.34", "0.375", "150", "1333"));
    }

    fn s(a: &str, b: &str, c: &str, d: &str) -> (String, String, String, String) {
        (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (millis, text) in
            [(26_250_000, "7h 17m"), (12_340, "12.3s"), (250, "250ms"), (0, "0s"), (60_000, "1m"), (90_000, "1m 30s")]
        {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn limits_are_told_as_people_say_them() {
        let of = |requests, per| Limit { requests, per, burst: None, scope: Scope::Tenant, headroom: HEADROOM };
        assert_eq!(limit(&of(100, Duration::from_mins(1))), "100/min");
        assert_eq!(limit(&of(40_000, Duration::from_hours(24))), "40000/day");
        assert_eq!(limit(&of(5, Duration::from_secs(10))), "5/10s");
        assert_eq!(list(&["a".to_owned(), "b".to_owned(), "c".to_owned()]), "a, b and c");
    }
}
