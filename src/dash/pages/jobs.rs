//! The list of jobs: the filter is the url, and one page follows the other by key.

use axum::Extension;
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::Frame;
use super::operations::begin;
use super::parts::{empty, endpoint, field, lane, next, query, select, since, state, table, tenant};
use super::search::{self, Qualifier};
use crate::clock::Timestamp;
use crate::dash::access::User;
use crate::dash::place::link;
use crate::dash::{Dash, Shared};
use crate::job::operation::Action;
use crate::job::verdict::{DeadReason, WaitReason};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words::shorten;
use crate::store::{JobFilter, JobRow, State};

/// Rows of one page.
const ROWS: usize = 50;
/// Most characters of an id in a table.
const ID_MAX: usize = 60;

/// The filter as the url has it; empty = any.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(in crate::dash) struct Wish {
    state: String,
    lane: String,
    endpoint: String,
    tenant: String,
    reason: String,
    id: String,
    after: String,
    /// Only programs say how many.
    pub limit: Option<usize>,
    /// All of it as a line of text, which leads to the url that says the same.
    q: Option<String>,
}

impl Wish {
    fn pairs<'a>(&'a self, after: &'a str) -> [(&'static str, &'a str); 7] {
        [
            ("state", &self.state),
            ("lane", &self.lane),
            ("endpoint", &self.endpoint),
            ("tenant", &self.tenant),
            ("reason", &self.reason),
            ("id", &self.id),
            ("after", after),
        ]
    }

    fn is_filter(&self) -> bool {
        self.pairs("").iter().any(|(_, value)| !value.is_empty())
    }

    /// Whether it shows those that wait, of somebody: they can be cancelled together.
    fn waits(&self) -> bool {
        let of_somebody = [&self.lane, &self.endpoint, &self.tenant].iter().any(|value| !value.is_empty());
        self.state == State::Waiting.as_str() && self.id.is_empty() && of_somebody
    }

    fn conditions(&self) -> [(&'static str, &str); 4] {
        [("lane", &self.lane), ("endpoint", &self.endpoint), ("tenant", &self.tenant), ("reason", &self.reason)]
    }

    /// What the store is asked for; or what is wrong, as a sentence.
    pub fn filter(&self, rows: usize) -> Result<JobFilter, String> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let state = given(&self.state).map(|word| {
            State::ALL.into_iter().find(|state| state.as_str() == word).ok_or(format!("{word:?} is no state"))
        });
        Ok(JobFilter {
            state: state.transpose()?,
            lane: given(&self.lane).map(|name| LaneName::new(&name)).transpose().map_err(|e| e.to_string())?,
            endpoint: given(&self.endpoint)
                .map(|name| EndpointName::new(&name))
                .transpose()
                .map_err(|e| e.to_string())?,
            tenant: given(&self.tenant).map(|name| Tenant::new(&name)).transpose().map_err(|e| e.to_string())?,
            reason: given(&self.reason),
            id: given(&self.id),
            after: given(&self.after).map(|text| key(&text).ok_or("the page's key cannot be read")).transpose()?,
            // one more shows whether there is a next page
            limit: rows + 1,
        })
    }
}

/// The key of the page after this row.
pub fn key_of(last: &JobRow) -> String {
    format!("{}.{}", last.published_at.as_micros(), last.instance)
}

/// `<microseconds>.<handle>` of the last row of the page before.
fn key(text: &str) -> Option<(Timestamp, Uuid)> {
    let (at, instance) = text.split_once('.')?;
    Some((Timestamp::from_micros(at.parse().ok()?), Uuid::parse_str(instance).ok()?))
}

/// `GET /jobs`
pub(in crate::dash) async fn list(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Query(wish): Query<Wish>,
) -> Response {
    let asked = wish.q.as_deref().map(|text| search::parse(text, &qualifiers(&dash)));
    if let Some(Ok(pairs)) = &asked {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        return Redirect::to(&link(format!("/jobs?{}", query(&pairs)))).into_response();
    }
    let seen = dash.live.fresh().await;
    let found = match asked.and_then(Result::err).map_or_else(|| wish.filter(ROWS), Err) {
        Err(wrong) => html! { p.problem role="alert" { (wrong) } },
        Ok(filter) => {
            let asked = dash.read(async |store| Ok((store.jobs(&filter).await?, store.time().await?))).await;
            match asked {
                Err(unreadable) => return unreadable.into_response(),
                Ok((rows, now)) => html! {
                    (page(&wish, rows, now))
                    @if wish.waits() { p { (begin(&[Action::Cancel], &wish.conditions(), user.role)) } }
                },
            }
        }
    };
    let body = html! { h1 { "Jobs" } (form(&dash, &wish)) (found) };
    Frame::new("Jobs", "/jobs", &user, seen.as_deref(), "health").page(&dash, &body)
}

/// What jobs can be filtered by.
fn qualifiers(dash: &Dash) -> Vec<Qualifier<'_>> {
    let waiting = WaitReason::ALL.iter().map(|reason| reason.as_str());
    let reasons = waiting.chain(DeadReason::ALL.iter().map(|reason| reason.as_str()));
    let any = |name| Qualifier { name, words: Vec::new() };
    vec![
        Qualifier { name: "state", words: State::ALL.into_iter().map(State::as_str).collect() },
        Qualifier { name: "lane", words: dash.source.scope().lanes.iter().map(LaneName::as_str).collect() },
        any("endpoint"),
        any("tenant"),
        Qualifier { name: "reason", words: reasons.collect() },
        any("id"),
    ]
}

fn form(dash: &Shared, wish: &Wish) -> Markup {
    let shown = wish.q.clone().unwrap_or_else(|| search::text(&wish.pairs("")));
    let scope = dash.source.scope();
    let mut endpoints: Vec<&str> = scope.budgets.endpoints.keys().map(EndpointName::as_str).collect();
    endpoints.sort_unstable();
    let waiting = WaitReason::ALL.iter().map(|reason| reason.as_str());
    let reasons = waiting.chain(DeadReason::ALL.iter().map(|reason| reason.as_str()));
    html! {
        (search::form("/jobs", "Find jobs", &shown, &qualifiers(dash)))
        form.filter action=(link("/jobs")) role="search" aria-label="Filter jobs" {
            (select("state", "State", &wish.state, State::ALL.into_iter().map(State::as_str)))
            (select("lane", "Lane", &wish.lane, scope.lanes.iter().map(LaneName::as_str)))
            (select("endpoint", "Endpoint", &wish.endpoint, endpoints.into_iter()))
            (field("tenant", "Tenant", &wish.tenant))
            (select("reason", "Reason", &wish.reason, reasons))
            (field("id", "Id", &wish.id))
            button { "Filter" }
            a href=(link("/jobs")) { "Clear" }
        }
    }
}

fn page(wish: &Wish, mut rows: Vec<JobRow>, now: Timestamp) -> Markup {
    let more = rows.len() > ROWS;
    rows.truncate(ROWS);
    let after = rows.last().filter(|_| more).map(key_of);
    html! {
        @if rows.is_empty() {
            @if wish.is_filter() { (empty("No job fits this filter. A job that no worker has taken yet is only in its lane's queue.")) }
            @else { (empty("No job is known yet. A job appears here when a worker takes it out of its lane's queue.")) }
        } @else {
            (rows_of(&rows, now))
        }
        nav.pager aria-label="Pages of jobs" {
            @if !wish.after.is_empty() { a href=(link(format!("/jobs?{}", query(&wish.pairs(""))))) { "Newest" } }
            @if let Some(after) = &after { a href=(link(format!("/jobs?{}", query(&wish.pairs(after))))) rel="next" { "Older" } }
        }
    }
}

/// Jobs as a table.
pub(super) fn rows_of(rows: &[JobRow], now: Timestamp) -> Markup {
    let row = |job: &JobRow| {
        html! {
            td { (state(job.state)) }
            td { a href=(link(format!("/jobs/{}", job.instance))) { (shorten(job.id.as_str(), ID_MAX)) } }
            td { (lane(&job.lane)) }
            td { (endpoint(&job.endpoint)) }
            td { (tenant(&job.tenant)) }
            td { @if job.reason.is_empty() { span.quiet { "–" } } @else { (job.reason) } }
            td.number { (job.attempt) }
            td { (next(job.resume_at, now)) }
            td { (since(job.published_at, now)) }
        }
    };
    let rows: Vec<Markup> = rows.iter().map(row).collect();
    let heads = ["State", "Id", "Lane", "Endpoint", "Tenant", "Reason", ">Calls", "Next call", "Published"];
    table("Jobs", &heads, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_the_filter() {
        let wish = Wish { state: "waiting".to_owned(), tenant: " a&b ".to_owned(), ..Wish::default() };
        let filter = wish.filter(ROWS).expect("a filter");
        assert_eq!((filter.state, filter.tenant.as_ref().map(Tenant::as_str)), (Some(State::Waiting), Some("a&b")));
        assert_eq!(query(&wish.pairs("1.2")), "state=waiting&tenant=+a%26b+&after=1.2");
        for wrong in [
            Wish { state: "asleep".to_owned(), ..Wish::default() },
            Wish { lane: "a b".to_owned(), ..Wish::default() },
            Wish { after: "1".to_owned(), ..Wish::default() },
        ] {
            assert!(wrong.filter(ROWS).is_err(), "{wrong:?}");
        }
        let instance = Uuid::from_u128(7);
        assert_eq!(key(&format!("5.{instance}")), Some((Timestamp::from_micros(5), instance)));
    }
}
