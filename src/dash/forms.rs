//! What forms of pages ask for: the fields, the act, and the page that says what was done.

use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::access::User;
use super::acts::{Act, Done, Refused, handle, speaker};
use super::pages::ask;
use super::pages::parts::query;
use super::place::link;
use super::{Shared, pages};
use crate::governor::operator::Wish;
use crate::job::budget::Account;
use crate::job::control::{Source, Target};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words::{parse_duration, parse_limit};

/// What forms send.
const FORM: &str = "application/x-www-form-urlencoded";

/// The fields of a form, or of a url's query.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl FromRequest<Shared> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, dash: &Shared) -> Result<Self, Response> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case(FORM) {
            return Err(pages::error(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Only forms of the pages are taken here; programs use /api/v1.",
            ));
        }
        let body = Bytes::from_request(request, dash).await;
        let body = body.map_err(|rejection| pages::error(rejection.status(), "The form is larger than one can be."))?;
        Ok(Self::read(&body))
    }
}

impl Fields {
    /// Fields as they are written in forms and queries.
    pub fn read(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// A field as it was sent; one that was not is empty.
    pub fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// A field without the space around it.
    pub fn get(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// What is to be paused or resumed.
    pub fn target(&self) -> Result<Target, Refused> {
        let lane = named(self.get("lane"), LaneName::new)?;
        let endpoint = named(self.get("endpoint"), EndpointName::new)?;
        let tenant = named(self.get("tenant"), Tenant::new)?;
        let none = || Refused::wrong("name a lane, an endpoint, a tenant, or a tenant at an endpoint");
        Target::of_parts(lane, endpoint, tenant).ok_or_else(none)
    }

    /// Whose limits.
    pub fn account(&self) -> Result<Account, Refused> {
        let tenant = named(self.get("tenant"), Tenant::new)?;
        let endpoint = named(self.get("endpoint"), EndpointName::new)?;
        let endpoint = endpoint.ok_or_else(|| Refused::wrong("name an endpoint"))?;
        Ok(Account { endpoint, tenant })
    }

    fn lasts(&self) -> Result<Option<Duration>, Refused> {
        let text = self.get("for");
        Some(text).filter(|text| !text.is_empty()).map(parse_duration).transpose().map_err(Refused::wrong)
    }

    /// `100/1m 40000/1d`, or `none`.
    fn wish(&self, is_shared: bool) -> Result<Wish, Refused> {
        let words = self.get("limits").split([' ', ',']).filter(|word| !word.is_empty());
        let limits: Vec<_> = words.map(parse_limit).collect::<Result<_, _>>().map_err(Refused::wrong)?;
        match limits[..] {
            [] => return Err(Refused::wrong("say which limits, like 100/1m 40000/1d, or none")),
            [_, _, ..] if limits.contains(&None) => {
                return Err(Refused::wrong("none means not limited: it stands alone"));
            }
            _ => {}
        }
        Ok(Wish { limits: limits.into_iter().flatten().collect(), shared: is_shared, ..Wish::default() })
    }
}

/// A name, where one is given.
pub(super) fn named<T, E: ToString>(text: &str, new: impl Fn(&str) -> Result<T, E>) -> Result<Option<T>, Refused> {
    let given = Some(text).filter(|text| !text.is_empty());
    given.map(new).transpose().map_err(|error| Refused::wrong(error.to_string()))
}

/// The page of a target.
pub(super) fn page_of(target: &Target) -> String {
    match target {
        Target::Lane(lane) => format!("/lanes/{lane}?"),
        Target::Endpoint(endpoint) => format!("/limits?{}&", query(&[("endpoint", endpoint.as_str())])),
        Target::Tenant(tenant) => format!("/tenant?{}&", query(&[("name", tenant.as_str())])),
        Target::TenantAt(endpoint, tenant) => {
            format!("/limits?{}&", query(&[("endpoint", endpoint.as_str()), ("tenant", tenant.as_str())]))
        }
    }
}

/// Does it; then the page at `page` says so.
async fn act(dash: &Shared, user: &User, fields: &Fields, act: Result<Act, Refused>, page: String) -> Response {
    let by = speaker(user, Source::Page, fields.get("note"));
    let done = match act {
        Ok(act) => dash.act(act, &by).await,
        Err(refused) => Err(refused),
    };
    match done {
        Ok(done) => {
            let page = if fields.get("from") == "overview" { "/?".to_owned() } else { page };
            Redirect::to(&link(format!("{page}done={}", done.word()))).into_response()
        }
        Err(refused) => pages::refused(&refused),
    }
}

/// `POST /pause`
pub(super) async fn pause(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    fields: Fields,
) -> Response {
    match fields.target() {
        Ok(target) => {
            let page = page_of(&target);
            act(&dash, &user, &fields, fields.lasts().map(|lasts| Act::Pause(target, lasts)), page).await
        }
        Err(refused) => pages::refused(&refused),
    }
}

/// `POST /resume`
pub(super) async fn resume(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    fields: Fields,
) -> Response {
    match fields.target() {
        Ok(target) => {
            let page = page_of(&target);
            act(&dash, &user, &fields, Ok(Act::Resume(target)), page).await
        }
        Err(refused) => pages::refused(&refused),
    }
}

/// What is done to limits.
enum Limits {
    Set,
    Slow,
    Reset,
}

async fn limits(dash: &Shared, user: &User, fields: &Fields, what: Limits) -> Response {
    let account = match fields.account() {
        Ok(account) => account,
        Err(refused) => return pages::refused(&refused),
    };
    let page = page_of(&account.clone().into());
    let wanted = match what {
        Limits::Set => {
            let budget = dash.source.scope().budgets.endpoint(&account.endpoint);
            let is_shared = account.tenant.is_none() && budget.is_shared();
            fields.lasts().and_then(|lasts| Ok(Act::SetLimits(account, fields.wish(is_shared)?, lasts)))
        }
        Limits::Slow => {
            let percent =
                fields.get("percent").parse().map_err(|_| Refused::wrong("percent is a whole number, 1 to 99"));
            fields.lasts().and_then(|lasts| Ok(Act::Slow(account, percent?, lasts)))
        }
        Limits::Reset => Ok(Act::Reset(account)),
    };
    act(dash, user, fields, wanted, page).await
}

/// `POST /limits/set`
pub(super) async fn set_limits(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    fields: Fields,
) -> Response {
    limits(&dash, &user, &fields, Limits::Set).await
}

/// `POST /limits/slow`
pub(super) async fn slow(Extract(dash): Extract<Shared>, Extension(user): Extension<User>, fields: Fields) -> Response {
    limits(&dash, &user, &fields, Limits::Slow).await
}

/// `POST /limits/reset`
pub(super) async fn reset(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    fields: Fields,
) -> Response {
    limits(&dash, &user, &fields, Limits::Reset).await
}

/// `POST /lanes/{lane}/concurrency`
pub(super) async fn set_concurrency(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(lane): Path<String>,
    fields: Fields,
) -> Response {
    let calls = fields.get("calls").parse().map_err(|_| Refused::wrong("calls is a whole number"));
    let wanted = lane_of(&lane).and_then(|lane| Ok(Act::SetConcurrency(lane, calls?, fields.lasts()?)));
    act(&dash, &user, &fields, wanted, format!("/lanes/{lane}?")).await
}

/// `POST /lanes/{lane}/concurrency/reset`
pub(super) async fn reset_concurrency(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(lane): Path<String>,
    fields: Fields,
) -> Response {
    act(&dash, &user, &fields, lane_of(&lane).map(Act::ResetConcurrency), format!("/lanes/{lane}?")).await
}

/// The lane of a path.
pub(super) fn lane_of(text: &str) -> Result<LaneName, Refused> {
    LaneName::new(text).map_err(|error| Refused::unknown(error.to_string(), "The list shows the lanes that there are."))
}

/// `POST /jobs/{job}/retry`
pub(super) async fn retry(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    fields: Fields,
) -> Response {
    act(&dash, &user, &fields, handle(&job).map(Act::Retry), format!("/jobs/{job}?")).await
}

/// `POST /jobs/{job}/cancel`
pub(super) async fn cancel(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    fields: Fields,
) -> Response {
    act(&dash, &user, &fields, handle(&job).map(Act::Cancel), format!("/jobs/{job}?")).await
}

/// `POST /jobs/{job}/discard`
pub(super) async fn discard(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    fields: Fields,
) -> Response {
    act(&dash, &user, &fields, handle(&job).map(Act::Discard), format!("/jobs/{job}?")).await
}

/// `POST /jobs/{job}/edit`; what is refused comes back in the form, so that nothing typed is lost.
pub(super) async fn edit(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    fields: Fields,
) -> Response {
    let handle = match handle(&job) {
        Ok(handle) => handle,
        Err(refused) => return pages::refused(&refused),
    };
    let text = fields.raw("body").to_owned();
    let by = speaker(&user, Source::Page, fields.get("note"));
    match dash.act(Act::Edit(handle, text.clone()), &by).await {
        Ok(done) => Redirect::to(&link(format!("/jobs/{handle}?done={}", done.word()))).into_response(),
        Err(refused) if refused.status == StatusCode::NOT_FOUND => pages::refused(&refused),
        Err(refused) => ask::edit_again(&dash, &user, handle, &text, &refused).await,
    }
}

/// What was done before this page was shown.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Flash {
    done: String,
}

impl Flash {
    /// As a sentence of ours; a word that is not of ours says nothing.
    pub fn sentence(&self) -> Option<&'static str> {
        Done::sentence(&self.done)
    }
}
