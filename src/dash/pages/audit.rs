//! The log of what people changed: who, when, from where, and how it was before.

use axum::Extension;
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::Frame;
use super::parts::{both, empty, field, query, table};
use crate::clock::Timestamp;
use crate::dash::Shared;
use crate::dash::access::User;
use crate::dash::place::link;
use crate::store::{AuditFilter, AuditRow};

/// Lines of one page.
const ROWS: usize = 50;

/// The filter as the url has it; empty = any.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(in crate::dash) struct Wish {
    actor: String,
    action: String,
    target: String,
    before: String,
}

impl Wish {
    fn pairs<'a>(&'a self, before: &'a str) -> [(&'static str, &'a str); 4] {
        [("actor", &self.actor), ("action", &self.action), ("target", &self.target), ("before", before)]
    }

    fn filter(&self) -> Result<AuditFilter, String> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let before =
            given(&self.before).map(|text| text.parse().map_err(|_| "the page's key cannot be read".to_owned()));
        Ok(AuditFilter {
            actor: given(&self.actor),
            action: given(&self.action),
            target: given(&self.target),
            before: before.transpose()?,
        })
    }
}

/// `GET /audit`
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Query(wish): Query<Wish>,
) -> Response {
    let seen = dash.live.fresh().await;
    let found = match wish.filter() {
        Err(wrong) => html! { p.problem role="alert" { (wrong) } },
        Ok(filter) => {
            // one more shows whether there is a next page
            let asked = dash.read(async |store| Ok((store.audit(&filter, ROWS + 1).await?, store.time().await?))).await;
            match asked {
                Err(unreadable) => return unreadable.into_response(),
                Ok((rows, now)) => page(&wish, rows, now),
            }
        }
    };
    let body = html! {
        h1 { "Audit" }
        form.filter action=(link("/audit")) role="search" aria-label="Filter the log" {
            (field("actor", "Who", &wish.actor))
            (field("action", "Action", &wish.action))
            (field("target", "Target", &wish.target))
            button { "Filter" }
            a href=(link("/audit")) { "Clear" }
        }
        (found)
    };
    Frame::new("Audit", "/audit", &user, seen.as_deref(), "health").page(&dash, &body)
}

fn page(wish: &Wish, mut rows: Vec<AuditRow>, now: Timestamp) -> Markup {
    let more = rows.len() > ROWS;
    rows.truncate(ROWS);
    let before = rows.last().filter(|_| more).map(|last| last.id.to_string());
    let filtered = wish.pairs("").iter().any(|(_, value)| !value.is_empty());
    html! {
        @if rows.is_empty() {
            (empty(if filtered { "Nobody has changed anything like that." } else { "Nobody has changed anything yet." }))
        } @else {
            (lines(&rows, now))
        }
        nav.pager aria-label="Pages of the log" {
            @if !wish.before.is_empty() { a href=(link(format!("/audit?{}", query(&wish.pairs(""))))) { "Newest" } }
            @if let Some(before) = &before { a href=(link(format!("/audit?{}", query(&wish.pairs(before))))) rel="next" { "Older" } }
        }
    }
}

/// Lines of the log as a table.
pub(super) fn lines(rows: &[AuditRow], now: Timestamp) -> Markup {
    let row = |AuditRow { entry, .. }: &AuditRow| {
        let only = |name: &str, value: &str| link(format!("/audit?{}", query(&[(name, value)])));
        html! {
            td { (both(entry.at, now)) }
            td { a href=(only("actor", &entry.actor)) { (entry.actor) } }
            td { (entry.source.as_str()) }
            td { a href=(only("action", &entry.action)) { (entry.action.replace('_', " ")) } }
            td { a href=(only("target", &entry.target)) { (entry.target) } }
            td.why { (linked(&entry.before)) }
            td.why { (linked(&entry.after)) }
            td.why { @if entry.note.is_empty() { span.quiet { "–" } } @else { (entry.note) } }
        }
    };
    let rows: Vec<Markup> = rows.iter().map(row).collect();
    table("Log", &["When", "Who", "From", "Action", "Target", "Before", "After", "Note"], &rows)
}

/// A text in which a job that ends it leads to its page.
fn linked(text: &str) -> Markup {
    let found = text.rsplit_once(' ').and_then(|(head, last)| Some((head, Uuid::parse_str(last).ok()?)));
    match found {
        Some((head, job)) if head == "job" || head.ends_with(" job") => {
            html! { (head) " " a href=(link(format!("/jobs/{job}"))) { (job) } }
        }
        _ => html! { @if text.is_empty() { span.quiet { "–" } } @else { (text) } },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_at_the_end_of_a_text_is_a_link() {
        let job = Uuid::from_u128(7);
        let shown = linked(&format!("published anew as job {job}")).into_string();
        assert_eq!(shown, format!("published anew as job <a href=\"/jobs/{job}\">{job}</a>"));
        for text in ["dead (exhausted)", "job", "<b> 7", &format!("x {job}")] {
            assert!(!linked(text).into_string().contains("<a"), "{text}");
        }
    }
}
