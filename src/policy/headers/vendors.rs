//! Families of separate limit, remaining and reset headers, one row each; to learn another vendor, add a row and a test.

use std::time::Duration;

use super::value::{self, Unit};
use super::{RateReading, Times};
use crate::job::outcome::HttpAnswer;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// Three headers that describe one budget.
struct Row {
    /// The budget's name, where `named_by` finds no better one.
    name: &'static str,
    limit: &'static str,
    remaining: &'static str,
    /// The first that is present counts.
    reset: &'static [&'static str],
    /// Header with the server's own name of the budget.
    named_by: &'static [&'static str],
    /// Seconds.
    window: Option<u64>,
    /// Header with the window in milliseconds.
    window_ms: Option<&'static str>,
}

const fn row(
    name: &'static str,
    limit: &'static str,
    remaining: &'static str,
    reset: &'static [&'static str],
    window: Option<u64>,
) -> Row {
    Row { name, limit, remaining, reset, named_by: &[], window, window_ms: None }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // GitHub, Discord, Reddit, Vimeo, Akamai and most others
    Row {
        named_by: &["x-ratelimit-resource", "x-ratelimit-bucket"],
        ..row("x-ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining",
              &["x-ratelimit-reset-after", "x-ratelimit-reset", "x-ratelimit-next"], None)
    },
    // X (Twitter)
    row("x-rate-limit", "x-rate-limit-limit", "x-rate-limit-remaining", &["x-rate-limit-reset"], None),
    // IETF drafts up to 6, and GitLab, which sends an epoch in the same header
    row("ratelimit", "ratelimit-limit", "ratelimit-remaining", &["ratelimit-reset"], None),
    // OpenAI and compatible
    row("requests", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", &["x-ratelimit-reset-requests"], None),
    row("tokens", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", &["x-ratelimit-reset-tokens"], None),
    // Anthropic
    row("requests", "anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining",
        &["anthropic-ratelimit-requests-reset"], None),
    row("tokens", "anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining",
        &["anthropic-ratelimit-tokens-reset"], None),
    row("input-tokens", "anthropic-ratelimit-input-tokens-limit", "anthropic-ratelimit-input-tokens-remaining",
        &["anthropic-ratelimit-input-tokens-reset"], None),
    row("output-tokens", "anthropic-ratelimit-output-tokens-limit", "anthropic-ratelimit-output-tokens-remaining",
        &["anthropic-ratelimit-output-tokens-reset"], None),
    // Linear
    row("requests", "x-ratelimit-requests-limit", "x-ratelimit-requests-remaining", &["x-ratelimit-requests-reset"], None),
    row("complexity", "x-ratelimit-complexity-limit", "x-ratelimit-complexity-remaining",
        &["x-ratelimit-complexity-reset"], None),
    // HubSpot
    row("daily", "x-hubspot-ratelimit-daily", "x-hubspot-ratelimit-daily-remaining", &[], Some(DAY)),
    row("secondly", "x-hubspot-ratelimit-secondly", "x-hubspot-ratelimit-secondly-remaining", &[], Some(1)),
    Row {
        window_ms: Some("x-hubspot-ratelimit-interval-milliseconds"),
        ..row("interval", "x-hubspot-ratelimit-max", "x-hubspot-ratelimit-remaining", &[], None)
    },
    // Kong
    row("second", "x-ratelimit-limit-second", "x-ratelimit-remaining-second", &[], Some(1)),
    row("minute", "x-ratelimit-limit-minute", "x-ratelimit-remaining-minute", &[], Some(60)),
    row("hour", "x-ratelimit-limit-hour", "x-ratelimit-remaining-hour", &[], Some(HOUR)),
    row("day", "x-ratelimit-limit-day", "x-ratelimit-remaining-day", &[], Some(DAY)),
];

/// Headers that say `used/limit`: header, key before the `=` (empty: none), name, window in seconds.
const USED_OF_LIMIT: &[(&str, &str, &str, Option<u64>)] = &[
    ("sforce-limit-info", "api-usage", "api-usage", Some(DAY)),
    // a bucket of 40, 80 or 400 that leaks in 20 seconds, on every plan
    ("x-shopify-shop-api-call-limit", "", "call-limit", Some(20)),
];

/// What the headers of all known families say.
pub fn readings(answer: &HttpAnswer, times: &Times) -> Vec<RateReading> {
    let rows = ROWS.iter().filter_map(|row| read(row, answer, times));
    rows.chain(USED_OF_LIMIT.iter().filter_map(|row| used_of_limit(row, answer))).collect()
}

fn read(row: &Row, answer: &HttpAnswer, times: &Times) -> Option<RateReading> {
    let limit_text = answer.header(row.limit);
    let limit = limit_text.and_then(value::count);
    let remaining = answer.header(row.remaining).and_then(value::count);
    if limit.is_none() && remaining.is_none() {
        return None;
    }
    let name = row.named_by.iter().find_map(|name| answer.header(name)).unwrap_or(row.name);
    let millis = row.window_ms.and_then(|name| value::count(answer.header(name)?)).map(|millis| millis / 1e3);
    let seconds = millis.or_else(|| limit_text.and_then(window_param));
    Some(RateReading {
        limit,
        remaining,
        reset_at: row.reset.iter().find_map(|name| times.moment(answer.header(name)?, Unit::Auto)),
        window: seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .or_else(|| row.window.map(Duration::from_secs)),
        ..RateReading::named(name)
    })
}

/// The `w` of `100, 100;w=60`.
fn window_param(text: &str) -> Option<f64> {
    text.split([',', ';']).find_map(|part| value::count(part.trim().strip_prefix("w=")?))
}

fn used_of_limit(
    &(header, key, name, window): &(&str, &str, &str, Option<u64>),
    answer: &HttpAnswer,
) -> Option<RateReading> {
    let pair = answer.header(header)?.split([',', ';']).find_map(|part| match part.trim().split_once('=') {
        Some((found, pair)) => (found == key).then_some(pair),
        None => key.is_empty().then_some(part),
    })?;
    let (used, limit) = pair.split_once('/')?;
    let (used, limit) = (value::count(used)?, value::count(limit)?);
    Some(RateReading {
        limit: Some(limit),
        remaining: Some((limit - used).max(0.0)),
        window: window.map(Duration::from_secs),
        ..RateReading::named(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    /// limit, remaining, seconds to reset, seconds of the window, name
    type Expect<'a> = (Option<f64>, Option<f64>, Option<f64>, Option<f64>, &'a str);

    #[track_caller]
    fn check(headers: &[(&str, &str)], expect: &[Expect<'_>]) {
        let now = Timestamp::from_secs(1_795_318_200);
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let found =
            readings(&HttpAnswer { headers, ..HttpAnswer::default() }, &Times { server_now: now, received_at: now });
        let expect: Vec<_> = expect
            .iter()
            .map(|&(limit, remaining, reset, window, name)| RateReading {
                limit,
                remaining,
                reset_at: reset.map(|secs| now.plus(Duration::from_secs_f64(secs))),
                window: window.map(Duration::from_secs_f64),
                name: name.to_owned(),
            })
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn the_common_family() {
        let github = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "4999"),
            ("x-ratelimit-reset", "1795318260"),
            ("x-ratelimit-resource", "core"),
        ];
        check(&github, &[(Some(5000.0), Some(4999.0), Some(60.0), None, "core")]);
        let discord = [
            ("x-ratelimit-limit", "5"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1795318201.470"),
            ("x-ratelimit-reset-after", "1.5"),
            ("x-ratelimit-bucket", "abcd1234"),
        ];
        check(&discord, &[(Some(5.0), Some(0.0), Some(1.5), None, "abcd1234")]);
        let reddit = [("x-ratelimit-remaining", "59.5"), ("x-ratelimit-reset", "412")];
        check(&reddit, &[(None, Some(59.5), Some(412.0), None, "x-ratelimit")]);
        let vimeo = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "Sun, 22 Nov 2026 03:31:00 GMT")];
        check(&vimeo, &[(None, Some(0.0), Some(60.0), None, "x-ratelimit")]);
        let akamai = [("x-ratelimit-limit", "60"), ("x-ratelimit-next", "2026-11-22T03:31:00.000Z")];
        check(&akamai, &[(Some(60.0), None, Some(60.0), None, "x-ratelimit")]);
    }

    #[test]
    fn single_vendors() {
        let twitter =
            [("x-rate-limit-limit", "900"), ("x-rate-limit-remaining", "1"), ("x-rate-limit-reset", "1795318260")];
        check(&twitter, &[(Some(900.0), Some(1.0), Some(60.0), None, "x-rate-limit")]);
        let openai = [
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "12ms"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ];
        check(
            &openai,
            &[
                (Some(60.0), Some(59.0), Some(0.012), None, "requests"),
                (Some(150_000.0), Some(0.0), Some(360.0), None, "tokens"),
            ],
        );
        for kind in ["requests", "tokens", "input-tokens", "output-tokens"] {
            let name = |part| format!("anthropic-ratelimit-{kind}-{part}");
            let (limit, remaining, reset) = (name("limit"), name("remaining"), name("reset"));
            check(
                &[(&limit, "50"), (&remaining, "49"), (&reset, "2026-11-22T03:31:00Z")],
                &[(Some(50.0), Some(49.0), Some(60.0), None, kind)],
            );
        }
        for kind in ["requests", "complexity"] {
            let name = |part| format!("x-ratelimit-{kind}-{part}");
            let (limit, remaining, reset) = (name("limit"), name("remaining"), name("reset"));
            check(
                &[(&limit, "1500"), (&remaining, "7"), (&reset, "1795318260000")],
                &[(Some(1500.0), Some(7.0), Some(60.0), None, kind)],
            );
        }
        let hubspot = [
            ("x-hubspot-ratelimit-daily", "250000"),
            ("x-hubspot-ratelimit-daily-remaining", "249999"),
            ("x-hubspot-ratelimit-secondly", "10"),
            ("x-hubspot-ratelimit-secondly-remaining", "9"),
            ("x-hubspot-ratelimit-max", "100"),
            ("x-hubspot-ratelimit-remaining", "99"),
            ("x-hubspot-ratelimit-interval-milliseconds", "10000"),
        ];
        check(
            &hubspot,
            &[
                (Some(250_000.0), Some(249_999.0), None, Some(86_400.0), "daily"),
                (Some(10.0), Some(9.0), None, Some(1.0), "secondly"),
                (Some(100.0), Some(99.0), None, Some(10.0), "interval"),
            ],
        );
        for (kind, seconds) in [("second", 1.0), ("minute", 60.0), ("hour", 3_600.0), ("day", 86_400.0)] {
            let (limit, remaining) = (format!("x-ratelimit-limit-{kind}"), format!("x-ratelimit-remaining-{kind}"));
            check(&[(&limit, "20"), (&remaining, "19")], &[(Some(20.0), Some(19.0), None, Some(seconds), kind)]);
        }
    }

    #[test]
    fn used_of_limit_forms() {
        check(
            &[("sforce-limit-info", "api-usage=18/5000; per-app-api-usage=17/250(appName=lanes)")],
            &[(Some(5000.0), Some(4982.0), None, Some(86_400.0), "api-usage")],
        );
        check(
            &[("x-shopify-shop-api-call-limit", "41/40")],
            &[(Some(40.0), Some(0.0), None, Some(20.0), "call-limit")],
        );
        check(&[("x-shopify-shop-api-call-limit", "40")], &[]);
    }

    #[test]
    fn early_ietf_drafts_and_gitlab() {
        check(
            &[("ratelimit-limit", "100, 100;w=60"), ("ratelimit-remaining", "50"), ("ratelimit-reset", "30")],
            &[(Some(100.0), Some(50.0), Some(30.0), Some(60.0), "ratelimit")],
        );
        check(
            &[("ratelimit-limit", "500"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "1795318260")],
            &[(Some(500.0), Some(0.0), Some(60.0), None, "ratelimit")],
        );
    }
}
