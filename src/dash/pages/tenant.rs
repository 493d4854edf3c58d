//! Everything about one tenant: where support begins.

use axum::Extension;
use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::parts::query;
use super::{Frame, buttons, dead, done, error, jobs, limits, live, overview, unseen};
use crate::dash::Shared;
use crate::dash::access::{Role, User};
use crate::dash::forms::Flash;
use crate::dash::live::Snapshot;
use crate::dash::place::link;
use crate::job::Tenant;
use crate::job::control::Target;
use crate::store::{JobFilter, LetterFilter};

/// Rows of each list.
const ROWS: usize = 20;

/// Who. A name may hold anything, so it stands in the query and not in the path.
#[derive(Debug, Deserialize)]
pub(in crate::dash) struct Who {
    #[serde(default)]
    name: String,
}

/// `GET /tenant`
pub(in crate::dash) async fn show(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Query(who): Query<Who>,
    Query(flash): Query<Flash>,
) -> Response {
    let Ok(tenant) = Tenant::new(who.name.trim()) else {
        return error(StatusCode::NOT_FOUND, "No tenant can have that name.");
    };
    let seen = dash.live.fresh().await;
    let its_jobs = JobFilter { tenant: Some(tenant.clone()), limit: ROWS, ..JobFilter::default() };
    let its_letters = LetterFilter { tenant: Some(tenant.clone()), limit: ROWS, ..LetterFilter::default() };
    let asked = dash
        .read(async |store| Ok((store.jobs(&its_jobs).await?, store.letters(&its_letters).await?, store.time().await?)))
        .await;
    let (rows, letters, now) = match asked {
        Ok(answer) => answer,
        Err(unreadable) => return unreadable.into_response(),
    };
    let title = format!("Tenant {tenant}");
    let of_it = query(&[("tenant", tenant.as_str())]);
    let body = html! {
        h1 { "Tenant " (tenant) }
        (done(&flash))
        (live(&seen.as_deref().map_or_else(unseen, |seen| fragment(seen, &tenant, user.role))))
        section aria-labelledby="jobs" {
            h2 #jobs { "Its latest jobs" }
            @if rows.is_empty() { (super::parts::empty("No job of it is known.")) }
            @else { (jobs::rows_of(&rows, now)) p { a href=(link(format!("/jobs?{of_it}"))) { "All its jobs" } } }
        }
        section aria-labelledby="letters" {
            h2 #letters { "Its dead letters" }
            @if letters.is_empty() { (super::parts::empty("It has none.")) }
            @else { (dead::list(&letters, now, true)) p { a href=(link(format!("/dead?{of_it}"))) { "All its dead letters" } } }
        }
    };
    let mut frame = Frame::new(&title, "", &user, seen.as_deref(), "tenant");
    frame.events = query(&[("view", "tenant"), ("tenant", tenant.as_str())]);
    frame.page(&dash, &body)
}

/// What of it is live.
pub(in crate::dash) fn fragment(seen: &Snapshot, tenant: &Tenant, role: Role) -> Markup {
    let picture = &seen.picture;
    let accounts = picture.accounts.iter().filter(|account| account.tenant.as_ref() == Some(tenant));
    html! {
        p { (buttons::pausing(picture, &Target::Tenant(tenant.clone()), role)) }
        section aria-labelledby="held" {
            h2 #held { "Waiting for a turn: why, and until when" }
            (overview::held(picture.held.iter().filter(|held| held.of.tenant == *tenant), picture.now))
        }
        section aria-labelledby="limits" {
            h2 #limits { "Its limits" }
            (limits::of(accounts, picture, role))
        }
    }
}
