//! The IETF's `RateLimit` and `RateLimit-Policy` fields, from draft 7 (a dictionary) to the latest (named items).

use std::time::Duration;

use super::value::{self, Unit};
use super::{READINGS_MAX, RateReading, Times, joined};
use crate::job::outcome::HttpAnswer;

/// `"burst";q=100;w=60`
struct Item<'a> {
    head: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl Item<'_> {
    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn window(&self) -> Option<Duration> {
        self.param("w").and_then(|text| Duration::try_from_secs_f64(value::count(text)?).ok())
    }

    /// The quota: parameter `q`, or (to draft 7) the item itself.
    fn quota(&self) -> Option<f64> {
        self.param("q").map_or_else(|| value::count(self.head), value::count)
    }

    /// The budget's name; one that does not count requests says so.
    fn name(&self) -> String {
        let name = if value::number(self.head).is_some() { "policy" } else { self.head };
        match self.param("qu") {
            Some(unit) if unit != "requests" => format!("{name} ({unit})"),
            _ => name.to_owned(),
        }
    }
}

/// What the two fields say. Items that can't be read are left out.
pub fn readings(answer: &HttpAnswer, times: &Times) -> Vec<RateReading> {
    let (limits, policies) = (joined(answer, "ratelimit"), joined(answer, "ratelimit-policy"));
    let (limits, mut policies) = (items(&limits), items(&policies));
    let mut found = Vec::new();
    if let Some(mut reading) = dictionary(&limits, times) {
        if let Some(at) = policies.iter().position(|policy| policy.quota().is_some() && policy.quota() == reading.limit)
        {
            reading.window = policies.remove(at).window();
        }
        found.push(reading);
    } else {
        for item in &limits {
            let Some(remaining) = item.param("r").and_then(value::count) else { continue };
            let policy = policies.iter().position(|policy| policy.head == item.head).map(|at| policies.remove(at));
            found.push(RateReading {
                limit: policy.as_ref().and_then(Item::quota),
                remaining: Some(remaining),
                reset_at: item.param("t").and_then(|text| times.moment(text, Unit::Auto)),
                window: policy.as_ref().and_then(Item::window),
                ..RateReading::named(&policy.as_ref().unwrap_or(item).name())
            });
        }
    }
    let known = |policy: &Item<'_>| {
        Some(RateReading {
            limit: Some(policy.quota()?),
            window: policy.window(),
            ..RateReading::named(&policy.name())
        })
    };
    found.extend(policies.iter().filter_map(known));
    found
}

/// Draft 7: `limit=100, remaining=50, reset=30`.
fn dictionary(items: &[Item<'_>], times: &Times) -> Option<RateReading> {
    let member = |name| items.iter().find_map(|item| item.head.strip_prefix(name)?.strip_prefix('='));
    let remaining = member("remaining").and_then(value::count)?;
    Some(RateReading {
        limit: member("limit").and_then(value::count),
        remaining: Some(remaining),
        reset_at: member("reset").and_then(|text| times.moment(text, Unit::Auto)),
        ..RateReading::named("ratelimit")
    })
}

fn items(text: &str) -> Vec<Item<'_>> {
    let item = |text| {
        let mut parts = split(text, ';').map(str::trim);
        let head = unquoted(parts.next().unwrap_or_default());
        let params = parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key.trim(), unquoted(value)));
        Item { head, params: params.take(READINGS_MAX).collect() }
    };
    split(text, ',').map(item).filter(|item| !item.head.is_empty()).take(READINGS_MAX).collect()
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// Splits at `separator` where it is not inside quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let ends = c == separator && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    /// limit, remaining, seconds to reset, seconds of the window, name
    type Row<'a> = (Option<f64>, Option<f64>, Option<u64>, Option<u64>, &'a str);

    #[track_caller]
    fn check(headers: &[(&str, &str)], expect: &[Row<'_>]) {
        let now = Timestamp::from_secs(1_795_318_200);
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let answer = HttpAnswer { headers, ..HttpAnswer::default() };
        let found = readings(&answer, &Times { server_now: now, received_at: now });
        let expect: Vec<_> = expect
            .iter()
            .map(|&(limit, remaining, reset, window, name)| RateReading {
                limit,
                remaining,
                reset_at: reset.map(|secs| now.plus(Duration::from_secs(secs))),
                window: window.map(Duration::from_secs),
                name: name.to_owned(),
            })
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn named_items_meet_their_policies() {
        check(
            &[
                ("ratelimit", "\"burst\";r=50;t=30, \"day,;\";r=0;t=300"),
                ("ratelimit-policy", "\"burst\";q=100;w=60;pk=:cGs=:, \"day,;\";q=1000;w=86400, \"idle\";q=5"),
            ],
            &[
                (Some(100.0), Some(50.0), Some(30), Some(60), "burst"),
                (Some(1000.0), Some(0.0), Some(300), Some(86_400), "day,;"),
                (Some(5.0), None, None, None, "idle"),
            ],
        );
        check(&[("ratelimit", "default;r=50;t=30")], &[(None, Some(50.0), Some(30), None, "default")]);
        check(
            &[("ratelimit", "\"b\";r=5"), ("ratelimit-policy", "\"b\";q=10;qu=\"content-bytes\"")],
            &[(Some(10.0), Some(5.0), None, None, "b (content-bytes)")],
        );
    }

    #[test]
    fn draft_seven_is_a_dictionary() {
        check(
            &[("ratelimit", "limit=100, remaining=50, reset=30"), ("ratelimit-policy", "10;w=1, 100;w=60")],
            &[(Some(100.0), Some(50.0), Some(30), Some(60), "ratelimit"), (Some(10.0), None, None, Some(1), "policy")],
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        check(&[("ratelimit", "\"a\";t=30, ;;;, \"b, \"\"\";r=x")], &[]);
        check(&[("ratelimit-policy", "\"a\";w=30")], &[]);
    }
}
