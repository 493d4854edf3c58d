//! What numbers of a chart look like to people: units, round upper ends of an axis, times of day.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::dash::pages::parts::took;
use crate::observe::words::count;

/// Ends of an axis of time, in seconds, where powers of ten read badly.
const ROUND_SECONDS: [f64; 18] = [
    10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 43_200.0,
    86_400.0, 172_800.0, 432_000.0, 864_000.0,
];

/// Greater values are drawn and told as this one: nothing that is counted comes near it.
const VALUE_MAX: f64 = 1e15;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dash) enum Unit {
    /// So many.
    Count,
    /// So many a minute.
    PerMinute,
    /// Seconds.
    Seconds,
    /// A share of 1.
    Share,
}

impl Unit {
    /// A value in words.
    pub fn shown(self, value: f64) -> String {
        match self {
            Self::Count => number(value),
            Self::PerMinute => format!("{}/min", number(value)),
            Self::Seconds if value < 1e-3 => "0 s".to_owned(),
            Self::Seconds => took(Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)),
            Self::Share if (value > 0.0 && value < 0.1) || (value > 0.9 && value < 1.0) => {
                format!("{:.1} %", value * 100.0)
            }
            Self::Share => format!("{:.0} %", value * 100.0),
        }
    }

    /// Where an axis ends that has to hold `most`: the next round number.
    pub fn end(self, most: f64) -> f64 {
        let least = match self {
            Self::Count | Self::PerMinute => 1.0,
            Self::Seconds => 0.1,
            Self::Share => 0.02,
        };
        if most <= least {
            return least;
        }
        if self == Self::Seconds
            && most > 5.0
            && let Some(end) = ROUND_SECONDS.into_iter().find(|end| most <= *end)
        {
            return end;
        }
        let end = round_up(most);
        if self == Self::Share { end.min(1.0) } else { end }
    }
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|end| value <= end * (1.0 + 1e-9)).unwrap_or(value)
}

/// `7`, `0.4`, `1,204`, `35k`, `1.2M`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and below 2^53 here")]
pub(in crate::dash) fn number(value: f64) -> String {
    match value {
        value if value >= 1e12 => format!("{:.0}T", value / 1e12),
        value if value >= 1e9 => format!("{:.1}G", value / 1e9),
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e5 => format!("{:.0}k", value / 1e3),
        value if value >= 10.0 || value.fract() == 0.0 => count(value.round() as u64),
        value => format!("{value:.1}"),
    }
}

/// A value that can be drawn: known, a number, and not negative.
pub(super) fn drawn(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite()).map(|value| value.clamp(0.0, VALUE_MAX))
}

/// When a stretch of this length begins, as short as it can be told: `14:02`, or `11-25 06:00` of long ones.
pub(super) fn time(at: Timestamp, width: Duration) -> String {
    let text = at.to_string();
    let (day, clock) = (text.get(5..10).unwrap_or_default(), text.get(11..19).unwrap_or_default());
    let to_minute = clock.get(..5).unwrap_or_default();
    match width.as_secs() {
        0..60 => clock.to_owned(),
        60..3_600 => to_minute.to_owned(),
        _ => format!("{day} {to_minute}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = |unit: Unit, values: &[f64]| values.iter().map(|most| unit.end(*most)).collect::<Vec<_>>();
        assert_eq!(
            ends(Unit::Count, &[0.0, 1.0, 1.1, 7.0, 10.0, 214.0, 35_000.0]),
            [1.0, 1.0, 2.0, 10.0, 10.0, 500.0, 50_000.0]
        );
        assert_eq!(ends(Unit::Seconds, &[0.0, 0.12, 12.0, 61.0, 240.0, 2e6]), [0.1, 0.2, 20.0, 120.0, 300.0, 2e6]);
        assert_eq!(ends(Unit::Share, &[0.0, 0.034, 0.7, 1.0]), [0.02, 0.05, 1.0, 1.0]);
        assert!(Unit::Count.end(1e300) >= 1e300);
    }

    #[test]
    fn values_are_told_as_people_say_them() {
        let count = |value| Unit::Count.shown(value);
        assert_eq!((count(0.0), count(0.44), count(7.0)), ("0".into(), "0.4".into(), "7".into()));
        assert_eq!((count(1_204.4), count(350_000.0), count(1.2e9)), ("1,204".into(), "350k".into(), "1.2G".into()));
        assert_eq!((Unit::PerMinute.shown(214.0), Unit::Share.shown(0.034)), ("214/min".into(), "3.4 %".into()));
        assert_eq!((Unit::Share.shown(0.997), Unit::Share.shown(1.0)), ("99.7 %".into(), "100 %".into()));
        assert_eq!((Unit::Seconds.shown(0.0), Unit::Seconds.shown(240.0)), ("0 s".into(), "4m".into()));
        assert_eq!(Unit::Seconds.shown(f64::MAX).len(), Unit::Seconds.shown(1e300).len(), "no panic");
        let at = Timestamp::from_secs(1_700_000_000);
        let times = [10, 60, 21_600].map(|seconds| time(at, Duration::from_secs(seconds)));
        assert_eq!(times, ["22:13:20", "22:13", "11-14 22:13"]);
        assert_eq!((drawn(Some(-1.0)), drawn(Some(f64::NAN)), drawn(None)), (Some(0.0), None, None));
    }
}
