//! What pages are put together from: times, numbers, tables in regions, badges, links.

use std::time::Duration;

use maud::{Markup, html};

use crate::clock::Timestamp;
use crate::dash::place::link;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words::{ago, count, duration, shorten, until};
use crate::store::{IN_TURN, State};

/// Most characters of a name from outside in a table.
const NAME_MAX: usize = 60;

/// A moment as people in one room of the world read it: UTC, to the second.
pub fn absolute(at: Timestamp) -> String {
    let text = at.to_string();
    let whole = text.split(['.', 'Z']).next().unwrap_or_default();
    format!("{} UTC", whole.replace('T', " "))
}

fn time(at: Timestamp, shown: &str) -> Markup {
    html! { time datetime=(at) title=(absolute(at)) { (shown) } }
}

/// A moment, absolute.
pub fn moment(at: Timestamp) -> Markup {
    time(at, &absolute(at))
}

/// How long ago; the absolute time on hover.
pub fn since(at: Timestamp, now: Timestamp) -> Markup {
    time(at, &ago(at, now))
}

/// When something goes on; the absolute time on hover.
pub fn next(at: Option<Timestamp>, now: Timestamp) -> Markup {
    match at {
        None => html! { span.quiet { "–" } },
        Some(IN_TURN) => html! { (until(IN_TURN, now)) },
        Some(at) => time(at, &until(at, now)),
    }
}

/// Absolute and relative.
pub fn both(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(at) { (absolute(at)) } " " span.quiet { "(" (ago(at, now)) ")" } }
}

/// A short time in its finest sensible unit: `0.21 s`, `3.2 s`, `2m 3s`.
pub fn took(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.001 => "< 1 ms".to_owned(),
        seconds if seconds < 0.1 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 10.0 => format!("{seconds:.2} s"),
        _ => duration(time),
    }
}

/// A number in a cell; zero is quiet, `?` what is not known.
pub fn number(value: Option<u64>) -> Markup {
    match value {
        None => html! { span.quiet title="not known" { "?" } },
        Some(0) => html! { span.quiet { "0" } },
        Some(value) => html! { (count(value)) },
    }
}

/// A table in a region that scrolls by itself and by keyboard.
pub fn table(label: &str, heads: &[&str], rows: &[Markup]) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label={ (label) ", table" } {
            table {
                thead {
                    tr {
                        @for head in heads {
                            @match head.strip_prefix('>') {
                                Some(head) => th.number scope="col" { (head) },
                                None => th scope="col" { (head) },
                            }
                        }
                    }
                }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

/// Says why there is nothing, and what would be here.
pub fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

/// A word with a mark, so that no colour says it alone.
pub fn badge(kind: &str, mark: &str, word: &str) -> Markup {
    html! { span class={ "badge " (kind) } { span.mark aria-hidden="true" { (mark) } " " (word) } }
}

/// A job's state.
pub fn state(state: State) -> Markup {
    match state {
        State::Run => badge("busy", "▶", "running"),
        State::Waiting => badge("wait", "◷", "waiting"),
        State::Queued => badge("busy", "↑", "due"),
        State::Done => badge("good", "✓", "done"),
        State::Dead => badge("bad", "✕", "dead"),
        State::Cancelled => badge("off", "–", "cancelled"),
    }
}

/// A link to a lane.
pub fn lane(name: &LaneName) -> Markup {
    html! { a href=(link(format!("/lanes/{name}"))) { (name) } }
}

/// A link to everything of a tenant.
pub fn tenant(tenant: &Tenant) -> Markup {
    html! { a href=(link(format!("/tenant?{}", query(&[("name", tenant.as_str())])))) { (shorten(tenant.as_str(), NAME_MAX)) } }
}

/// A link to the budgets of an endpoint.
pub fn endpoint(name: &EndpointName) -> Markup {
    html! { a href=(link(format!("/limits?{}", query(&[("endpoint", name.as_str())])))) { (name) } }
}

/// The query of a url; empty values are left out.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        text.append_pair(name, value);
    }
    text.finish()
}

/// A share as a bar, with its number beside it: never colour or length alone.
pub fn bar(label: &str, value: f64, most: f64) -> Markup {
    let shown = format!("{value:.0} of {most:.0}");
    html! { meter aria-label=(label) min="0" max=(most) low=(most * 0.1) value=(value.clamp(0.0, most)) { (shown) } " " (shown) }
}

/// A choice of words; the first is any.
pub fn select<'a>(name: &str, label: &str, chosen: &str, words: impl Iterator<Item = &'a str>) -> Markup {
    let words: Vec<&str> = words.collect();
    // what the url asks for stays chosen, known or not
    let unknown = Some(chosen).filter(|chosen| !chosen.is_empty() && !words.contains(chosen));
    html! {
        label { span { (label) }
            select name=(name) {
                option value="" { "any" }
                @for word in unknown.into_iter().chain(words.iter().copied()) {
                    option value=(word) selected[word == chosen] { (word) }
                }
            }
        }
    }
}

/// A text.
pub fn field(name: &str, label: &str, value: &str) -> Markup {
    html! { label { span { (label) } input name=(name) value=(value) autocomplete="off" spellcheck="false"; } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_to_the_second() {
        assert_eq!(absolute(Timestamp::from_micros(1_700_000_000_123_456)), "2023-11-14 22:13:20 UTC");
        assert_eq!(absolute(Timestamp::from_secs(1_700_000_000)), "2023-11-14 22:13:20 UTC");
    }

    #[test]
    fn hostile_names_are_only_text() {
        let hostile = "\"><script>alert(1)</script>&x=%2e%2e/..";
        let shown = tenant(&Tenant::new(hostile).expect("any printable text")).into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert!(shown.contains("href=\"/tenant?name=%22%3E%3Cscript%3E"), "{shown}");
    }
}
