//! Dead letters: first what they died of, by endpoint, reason and tenant, then each of them.

use axum::Extension;
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::Frame;
use super::operations::begin;
use super::parts::{empty, field, lane, query, select, since, table, tenant};
use super::search::{self, Qualifier};
use crate::clock::Timestamp;
use crate::dash::access::{Role, User};
use crate::dash::place::link;
use crate::dash::{Dash, Shared, mask};
use crate::job::operation::Action;
use crate::job::verdict::DeadReason;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words::{count, counted, shorten};
use crate::store::{Letter, LetterFilter, LetterGroup};

/// Most groups.
const GROUPS_MAX: usize = 100;
/// Most letters.
const LETTERS_MAX: usize = 100;
/// Most characters of a name, and of a detail.
const NAME_MAX: usize = 60;
const DETAIL_MAX: usize = 160;

/// What can be done to all of them.
const ACTIONS: [Action; 2] = [Action::Retry, Action::Discard];

/// The filter as the url has it; empty = any.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(in crate::dash) struct Wish {
    lane: String,
    endpoint: String,
    tenant: String,
    reason: String,
    /// Only programs say how many.
    pub limit: Option<usize>,
    /// All of it as a line of text, which leads to the url that says the same.
    q: Option<String>,
}

impl Wish {
    pub fn filter(&self, rows: usize) -> Result<LetterFilter, String> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let reason =
            given(&self.reason).map(|word| DeadReason::parse(&word).ok_or(format!("{word:?} is no reason to die")));
        Ok(LetterFilter {
            lane: given(&self.lane).map(|name| LaneName::new(&name)).transpose().map_err(|e| e.to_string())?,
            endpoint: given(&self.endpoint)
                .map(|name| EndpointName::new(&name))
                .transpose()
                .map_err(|e| e.to_string())?,
            tenant: given(&self.tenant).map(|name| Tenant::new(&name)).transpose().map_err(|e| e.to_string())?,
            reason: reason.transpose()?,
            after: None,
            limit: rows,
        })
    }

    fn pairs(&self) -> [(&'static str, &str); 4] {
        [("lane", &self.lane), ("endpoint", &self.endpoint), ("tenant", &self.tenant), ("reason", &self.reason)]
    }

    fn is_filter(&self) -> bool {
        [&self.lane, &self.endpoint, &self.tenant, &self.reason].iter().any(|value| !value.is_empty())
    }
}

/// `GET /dead`
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Query(wish): Query<Wish>,
) -> Response {
    let read = wish.q.as_deref().map(|text| search::parse(text, &qualifiers(&dash)));
    if let Some(Ok(pairs)) = &read {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        return Redirect::to(&link(format!("/dead?{}", query(&pairs)))).into_response();
    }
    let seen = dash.live.fresh().await;
    let asked = match read.and_then(Result::err).map_or_else(|| wish.filter(LETTERS_MAX), Err) {
        Err(wrong) => Err(wrong),
        Ok(filter) => Ok(dash
            .read(async |store| {
                Ok((store.letter_groups(GROUPS_MAX).await?, store.letters(&filter).await?, store.time().await?))
            })
            .await),
    };
    let found = match asked {
        Err(wrong) => html! { p.problem role="alert" { (wrong) } },
        Ok(Err(unreadable)) => return unreadable.into_response(),
        Ok(Ok((all, letters, now))) => html! {
            section aria-labelledby="groups" {
                h2 #groups { "What they died of" }
                (groups(&all, now, user.role))
            }
            section aria-labelledby="letters" {
                h2 #letters { @if wish.is_filter() { "Those of the filter, the latest first" } @else { "The latest" } }
                (list(&letters, now, wish.is_filter()))
                @if !letters.is_empty() { p { (begin(&ACTIONS, &wish.pairs(), user.role)) } }
            }
        },
    };
    let body = html! { h1 { "Dead letters" } (form(&dash, &wish)) (found) };
    Frame::new("Dead letters", "/dead", &user, seen.as_deref(), "health").page(&dash, &body)
}

/// What letters can be filtered by.
fn qualifiers(dash: &Dash) -> Vec<Qualifier<'_>> {
    let any = |name| Qualifier { name, words: Vec::new() };
    vec![
        Qualifier { name: "lane", words: dash.source.scope().lanes.iter().map(LaneName::as_str).collect() },
        any("endpoint"),
        any("tenant"),
        Qualifier { name: "reason", words: DeadReason::ALL.iter().map(|reason| reason.as_str()).collect() },
    ]
}

fn form(dash: &Shared, wish: &Wish) -> Markup {
    let shown = wish.q.clone().unwrap_or_else(|| search::text(&wish.pairs()));
    let scope = dash.source.scope();
    let mut endpoints: Vec<&str> = scope.budgets.endpoints.keys().map(EndpointName::as_str).collect();
    endpoints.sort_unstable();
    html! {
        (search::form("/dead", "Find dead letters", &shown, &qualifiers(dash)))
        form.filter action=(link("/dead")) role="search" aria-label="Filter dead letters" {
            (select("lane", "Lane", &wish.lane, scope.lanes.iter().map(LaneName::as_str)))
            (select("endpoint", "Endpoint", &wish.endpoint, endpoints.into_iter()))
            (select("reason", "Reason", &wish.reason, DeadReason::ALL.iter().map(|reason| reason.as_str())))
            (field("tenant", "Tenant", &wish.tenant))
            button { "Filter" }
            a href=(link("/dead")) { "Clear" }
        }
    }
}

fn groups(groups: &[LetterGroup], now: Timestamp, role: Role) -> Markup {
    let row = |group: &LetterGroup| {
        let endpoint = group.endpoint.as_deref().unwrap_or_default();
        let tenant_name = group.tenant.as_ref().map(Tenant::as_str).unwrap_or_default();
        let pairs = [("endpoint", endpoint), ("reason", group.reason.as_str()), ("tenant", tenant_name)];
        let these = query(&pairs);
        // what can't be told from the others by these is not acted on by them
        let is_whole = group.endpoint.is_some() && group.tenant.is_some();
        html! {
            td { @if endpoint.is_empty() { span.quiet { "not known" } } @else { (shorten(endpoint, NAME_MAX)) } }
            td { a href=(link(format!("/dead?{these}"))) { (group.reason.as_str().replace('_', " ")) } }
            td { @match &group.tenant { Some(of) => (tenant(of)), None => span.quiet { "not known" } } }
            td.number { (count(group.letters)) }
            td { (since(group.first_at, now)) }
            td { (since(group.last_at, now)) }
            td { @if is_whole { (begin(&ACTIONS, &pairs, role)) } }
        }
    };
    let rows: Vec<Markup> = groups.iter().map(row).collect();
    if rows.is_empty() {
        return empty("There are no dead letters: no job was given up, and none is kept from before.");
    }
    let all = groups.iter().map(|group| group.letters).sum();
    html! {
        p { (counted(all, "letter")) " in " (counted(groups.len() as u64, "group")) @if groups.len() == GROUPS_MAX { ", the largest only" } }
        (table("Dead letters by cause", &["Endpoint", "Reason", "Tenant", ">Letters", "First", "Last", "Act"], &rows))
    }
}

/// Letters as a table.
pub(super) fn list(letters: &[Letter], now: Timestamp, filtered: bool) -> Markup {
    let row = |letter: &Letter| {
        let id = letter.id.as_deref().unwrap_or("not readable");
        html! {
            td { a href=(link(format!("/jobs/{}", letter.instance))) { (shorten(id, NAME_MAX)) } }
            td { (lane(&letter.lane)) }
            td { (shorten(letter.endpoint.as_deref().unwrap_or("–"), NAME_MAX)) }
            td { @match &letter.tenant { Some(of) => (tenant(of)), None => span.quiet { "–" } } }
            td { (letter.reason.as_str().replace('_', " ")) }
            td.why { (shorten(&mask::text(&letter.detail), DETAIL_MAX)) }
            td.number { (letter.attempts) }
            td { (since(letter.died_at, now)) }
        }
    };
    let rows: Vec<Markup> = letters.iter().map(row).collect();
    if rows.is_empty() {
        return empty(if filtered { "No dead letter fits this filter." } else { "None." });
    }
    let heads = ["Id", "Lane", "Endpoint", "Tenant", "Reason", "Detail", ">Calls", "Died"];
    html! {
        (table("Dead letters", &heads, &rows))
        @if letters.len() == LETTERS_MAX { p.quiet { "The latest " (LETTERS_MAX) " only: filter for others." } }
    }
}
