//! Pages that ask before something is done: how long, which limits, are you sure, which body.

use axum::Extension;
use axum::extract::{Path, RawQuery, State as Extract};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use uuid::Uuid;

use super::buttons::{self, fields};
use super::{Frame, refused};
use crate::dash::Shared;
use crate::dash::access::User;
use crate::dash::acts::{Refused, handle};
use crate::dash::edit::Editable;
use crate::dash::forms::{Fields, lane_of, page_of};
use crate::dash::place::link;
use crate::governor::operator::{OperatorError, jobs};
use crate::job::control::{CONCURRENCY_MAX, NOTE_CHARS_MAX, Target};
use crate::observe::words::limits_text;

/// What a pause is offered for: the value, and how it reads.
const TIMES: [(&str, &str); 4] =
    [("15m", "15 minutes"), ("1h", "1 hour"), ("1d", "1 day"), ("", "until it is taken back")];

fn asked(query: Option<&str>) -> Fields {
    Fields::read(query.unwrap_or_default().as_bytes())
}

fn hidden(target: &Target) -> Markup {
    html! {
        @for (name, value) in fields(target).iter().filter(|(_, value)| !value.is_empty()) {
            input type="hidden" name=(name) value=(value);
        }
    }
}

fn how_long() -> Markup {
    html! {
        label { span { "For" } select name="for" { @for (value, words) in TIMES { option value=(value) { (words) } } } }
    }
}

fn note() -> Markup {
    html! {
        label { span { "Why, as others will see it" } input name="note" maxlength=(NOTE_CHARS_MAX) autocomplete="off"; }
    }
}

/// A page that asks.
async fn page(dash: &Shared, user: &User, title: &str, here: &str, body: &Markup) -> Response {
    let seen = dash.live.fresh().await;
    Frame::new(title, here, user, seen.as_deref(), "health").page(dash, &html! { h1 { (title) } (body) })
}

/// `GET /pause`
pub(in crate::dash) async fn pause(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    RawQuery(query): RawQuery,
) -> Response {
    let target = match asked(query.as_deref()).target() {
        Ok(target) => target,
        Err(wrong) => return refused(&wrong),
    };
    let what = match &target {
        Target::Lane(_) => {
            "Nothing of it is taken, called or released meanwhile, on all workers. Its messages stay in the broker."
        }
        _ => "Its jobs wait meanwhile, on all workers; others go on.",
    };
    let body = html! {
        p { (what) " Calls in flight finish; nothing is lost, and no attempt is spent." }
        form.ask method="post" action=(link("/pause")) {
            (hidden(&target)) (how_long()) (note())
            button { "Pause " (target) }
            a href=(link(page_of(&target))) { "Do nothing" }
        }
    };
    page(&dash, &user, &format!("Pause {target}?"), "", &body).await
}

/// `GET /lanes/{lane}/concurrency`
pub(in crate::dash) async fn concurrency(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(lane): Path<String>,
) -> Response {
    let known = lane_of(&lane).and_then(|lane| dash.knows_lane(&lane).map(|()| lane));
    let lane = match known {
        Ok(lane) => lane,
        Err(unknown) => return refused(&unknown),
    };
    let configured = dash.source.scope().concurrency.get(&lane).copied();
    let body = html! {
        p {
            "How many calls it makes at a time in each worker"
            @if let Some(calls) = configured { "; configured are " (calls) }
            ". Of fewer calls those in flight finish; none is cut off."
        }
        form.ask method="post" action=(link(format!("/lanes/{lane}/concurrency"))) {
            label { span { "Calls at a time" } input name="calls" type="number" min="1" max=(CONCURRENCY_MAX) value=[configured] required; }
            (how_long()) (note())
            button { "Set it for lane " (lane) }
            a href=(link(format!("/lanes/{lane}"))) { "Do nothing" }
        }
    };
    page(&dash, &user, &format!("Calls of lane {lane} at a time"), "/lanes", &body).await
}

/// `GET /limits/set`
pub(in crate::dash) async fn set_limits(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    RawQuery(query): RawQuery,
) -> Response {
    let account = match asked(query.as_deref()).account() {
        Ok(account) => account,
        Err(wrong) => return refused(&wrong),
    };
    if let Err(unknown) = dash.knows_endpoint(&account.endpoint) {
        return refused(&unknown);
    }
    let seen = dash.live.fresh().await;
    let accounts = seen.as_deref().map(|seen| &seen.picture.accounts[..]).unwrap_or_default();
    let of = |tenant| accounts.iter().find(|one| one.endpoint == account.endpoint && one.tenant == tenant);
    // a tenant that nothing is known of has what all have
    let now_set = of(account.tenant.clone()).or_else(|| of(None));
    let target = Target::from(account.clone());
    let value =
        now_set.map(|one| limits_text(&one.limits).replace(" (shared)", "").replace(',', "")).unwrap_or_default();
    let body = html! {
        p { "They replace the configured ones within a second, on all workers, also for jobs that wait. A share of each is used, as everywhere." }
        form.ask method="post" action=(link("/limits/set")) {
            (hidden(&target))
            label { span { "Limits, like 100/1m 40000/1d; or none" } input name="limits" value=(value) required autocomplete="off"; }
            (how_long()) (note())
            button { "Set the limits of " (target) }
            a href=(link(page_of(&target))) { "Do nothing" }
        }
    };
    page(&dash, &user, &format!("Limits of {target}"), "/limits", &body).await
}

/// `GET /limits/reset`
pub(in crate::dash) async fn reset(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    RawQuery(query): RawQuery,
) -> Response {
    let account = match asked(query.as_deref()).account() {
        Ok(account) => account,
        Err(wrong) => return refused(&wrong),
    };
    let target = Target::from(account);
    let body = html! {
        p { "Takes back what was set, forgets what was learnt from answers, and opens what is blocked." }
        form.ask method="post" action=(link("/limits/reset")) {
            (hidden(&target)) (note())
            button.danger { "Reset the limits of " (target) }
            a href=(link(page_of(&target))) { "Do nothing" }
        }
    };
    page(&dash, &user, &format!("Reset the limits of {target}?"), "/limits", &body).await
}

async fn sure(dash: &Shared, user: &User, job: &str, verb: &str, title: &str, what: &str) -> Response {
    let handle = match handle(job) {
        Ok(handle) => handle,
        Err(unknown) => return refused(&unknown),
    };
    let body = html! {
        p { (what) }
        form.ask method="post" action=(link(format!("/jobs/{handle}/{verb}"))) {
            (note())
            button.danger { (title) }
            a href=(link(format!("/jobs/{handle}"))) { "Do nothing" }
        }
        p.quiet { "Handle " code { (handle) } }
    };
    page(dash, user, &format!("{title}?"), "/jobs", &body).await
}

/// `GET /jobs/{job}/cancel`
pub(in crate::dash) async fn cancel(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
) -> Response {
    let what = "It will not be called, and its payload is not kept. If it is being called now, it will not be called again. That can't be taken back.";
    sure(&dash, &user, &job, "cancel", "Cancel this job", what).await
}

/// `GET /jobs/{job}/discard`
pub(in crate::dash) async fn discard(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
) -> Response {
    let what = "The letter and its payload are deleted for good. That can't be taken back.";
    sure(&dash, &user, &job, "discard", "Discard this dead letter", what).await
}

/// `GET /jobs/{job}/edit`
pub(in crate::dash) async fn edit(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
) -> Response {
    let handle = match handle(&job) {
        Ok(handle) => handle,
        Err(unknown) => return refused(&unknown),
    };
    let editable = match body_of(&dash, handle).await.and_then(|body| Editable::new(&body).map_err(Refused::wrong)) {
        Ok(editable) => editable,
        Err(why) => return refused(&why),
    };
    let body = edit_form(handle, &editable.text, None);
    page(&dash, &user, "Retry with another body", "/jobs", &body).await
}

async fn body_of(dash: &Shared, handle: Uuid) -> Result<bytes::Bytes, Refused> {
    // the answer is of two kinds: the store's, which is read bounded in time, and the operator's
    let asked = dash.read(async |store| match jobs::editable_body(&*store, handle).await {
        Err(OperatorError::Store(error)) => Err(error),
        other => Ok(other),
    });
    Ok(asked.await??)
}

/// The form once more, with what was typed and why it was refused.
pub(in crate::dash) async fn edit_again(
    dash: &Shared,
    user: &User,
    handle: Uuid,
    text: &str,
    problem: &Refused,
) -> Response {
    let body = edit_form(handle, text, Some(problem));
    let page = page(dash, user, "Retry with another body", "/jobs", &body).await;
    (problem.status, page).into_response()
}

fn edit_form(handle: Uuid, text: &str, problem: Option<&Refused>) -> Markup {
    let rows = text.lines().count().clamp(6, 30);
    html! {
        p { "Publishes a new job with this body, and the same lane, endpoint, tenant and headers. Then this one is taken away." }
        p.quiet { "Values of fields whose names tell of secrets are shown as a number behind dots. Leave it where it is, and the job gets the value that it had." }
        @if let Some(problem) = problem { p.problem role="alert" { (problem.why) ". " (problem.help) } }
        form.ask method="post" action=(link(format!("/jobs/{handle}/edit"))) {
            // a browser drops the first line break of a text
            label { span { "Body" } textarea name="body" rows=(rows) spellcheck="false" { "\n" (text) } }
            (note())
            button { "Publish it anew" }
            a href=(link(format!("/jobs/{handle}"))) { "Do nothing" }
        }
    }
}

/// What a job's page offers: by what it is, and who looks.
pub(super) fn of_job(handle: Uuid, is_letter: bool, is_alive: bool, is_waiting: bool, user: &User) -> Markup {
    use crate::dash::access::Role::{Admin, Operator};
    let at = |verb: &str| format!("/jobs/{handle}/{verb}");
    html! {
        p.acts {
            @if (is_letter || is_waiting) && user.role >= Operator { (buttons::button(&at("retry"), "Retry now", "", &[])) " " }
            @if (is_letter || is_waiting) && user.role >= Admin { (buttons::link(&at("edit"), "Retry with another body", "")) " " }
            @if is_alive && user.role >= Operator { (buttons::link(&at("cancel"), "Cancel", "")) " " }
            @if is_letter && user.role >= Admin { (buttons::link(&at("discard"), "Discard", "")) }
        }
    }
}
