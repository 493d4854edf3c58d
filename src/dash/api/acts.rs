//! What programs ask for: the same acts as on pages, with the same lines in the log.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State as Extract};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, Asked, Document};
use crate::dash::Shared;
use crate::dash::access::User;
use crate::dash::acts::{Act, Refused, handle, made, speaker};
use crate::dash::forms::lane_of;
use crate::governor::operator::Wish;
use crate::job::budget::Account;
use crate::job::control::{Source, Target};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words::parse_duration;

/// A time as people write it: `15m`.
#[derive(Debug, Clone, Copy)]
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What to pause or resume.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::dash) struct Pausing {
    lane: Option<LaneName>,
    endpoint: Option<EndpointName>,
    tenant: Option<Tenant>,
    #[serde(default)]
    note: String,
    r#for: Option<Time>,
}

impl Pausing {
    fn target(&self) -> Result<Target, Refused> {
        let target = Target::of_parts(self.lane.clone(), self.endpoint.clone(), self.tenant.clone());
        target.ok_or_else(|| Refused::wrong("name a lane, an endpoint, a tenant, or a tenant at an endpoint"))
    }
}

/// One limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    requests: u32,
    per: Time,
}

/// Limits to set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::dash) struct Wanted {
    endpoint: EndpointName,
    tenant: Option<Tenant>,
    limits: Vec<Limit>,
    burst: Option<u32>,
    headroom: Option<f64>,
    shared: Option<bool>,
    r#for: Option<Time>,
    #[serde(default)]
    note: String,
}

/// Whose limits to lower.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::dash) struct Slower {
    endpoint: EndpointName,
    tenant: Option<Tenant>,
    percent: u32,
    r#for: Option<Time>,
    #[serde(default)]
    note: String,
}

/// Whose limits to take back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::dash) struct Reset {
    endpoint: EndpointName,
    tenant: Option<Tenant>,
    #[serde(default)]
    note: String,
}

/// Why something is done to a job.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::dash) struct Why {
    note: String,
}

/// Another body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::dash) struct Edit {
    body: String,
    #[serde(default)]
    note: String,
}

async fn act(dash: &Shared, user: &User, act: Act, note: &str) -> Answer {
    let done = dash.act(act, &speaker(user, Source::Api, note)).await?;
    let (handle, id) = made(&done).unzip();
    Ok(Document(match handle {
        Some(handle) => json!({ "result": done.word(), "handle": handle, "id": id }),
        None => json!({ "result": done.word() }),
    }))
}

/// `POST /api/v1/pause`
pub(in crate::dash) async fn pause(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Asked(asked): Asked<Pausing>,
) -> Answer {
    act(&dash, &user, Act::Pause(asked.target()?, asked.r#for.map(|time| time.0)), &asked.note).await
}

/// `POST /api/v1/resume`
pub(in crate::dash) async fn resume(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Asked(asked): Asked<Pausing>,
) -> Answer {
    if asked.r#for.is_some() {
        return Err(Refused::wrong("what is resumed is so for good: leave out for").into());
    }
    act(&dash, &user, Act::Resume(asked.target()?), &asked.note).await
}

/// How many calls at a time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::dash) struct Concurrency {
    calls: u32,
    r#for: Option<Time>,
    #[serde(default)]
    note: String,
}

/// `POST /api/v1/lanes/{lane}/concurrency`
pub(in crate::dash) async fn set_concurrency(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(lane): Path<String>,
    Asked(Concurrency { calls, r#for, note }): Asked<Concurrency>,
) -> Answer {
    act(&dash, &user, Act::SetConcurrency(lane_of(&lane)?, calls, r#for.map(|time| time.0)), &note).await
}

/// `POST /api/v1/lanes/{lane}/concurrency/reset`
pub(in crate::dash) async fn reset_concurrency(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(lane): Path<String>,
    Asked(why): Asked<Why>,
) -> Answer {
    act(&dash, &user, Act::ResetConcurrency(lane_of(&lane)?), &why.note).await
}

/// `POST /api/v1/limits`
pub(in crate::dash) async fn set_limits(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Asked(asked): Asked<Wanted>,
) -> Answer {
    let Wanted { endpoint, tenant, limits, burst, headroom, shared, r#for, note } = asked;
    if tenant.is_some() && shared == Some(true) {
        return Err(Refused::wrong("limits of one tenant can't be shared: leave out shared, or the tenant").into());
    }
    let is_shared = tenant.is_none() && dash.source.scope().budgets.endpoint(&endpoint).is_shared();
    let limits = limits.into_iter().map(|limit| (limit.requests, limit.per.0)).collect();
    let wish = Wish { limits, burst, headroom, shared: shared.unwrap_or(is_shared) };
    act(&dash, &user, Act::SetLimits(Account { endpoint, tenant }, wish, r#for.map(|time| time.0)), &note).await
}

/// `POST /api/v1/limits/slow`
pub(in crate::dash) async fn slow(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Asked(asked): Asked<Slower>,
) -> Answer {
    let Slower { endpoint, tenant, percent, r#for, note } = asked;
    act(&dash, &user, Act::Slow(Account { endpoint, tenant }, percent, r#for.map(|time| time.0)), &note).await
}

/// `POST /api/v1/limits/reset`
pub(in crate::dash) async fn reset(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Asked(Reset { endpoint, tenant, note }): Asked<Reset>,
) -> Answer {
    act(&dash, &user, Act::Reset(Account { endpoint, tenant }), &note).await
}

/// `POST /api/v1/jobs/{job}/retry`, `POST /api/v1/dead/{job}/retry`
pub(in crate::dash) async fn retry(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    Asked(why): Asked<Why>,
) -> Answer {
    act(&dash, &user, Act::Retry(handle(&job)?), &why.note).await
}

/// `POST /api/v1/jobs/{job}/cancel`
pub(in crate::dash) async fn cancel(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    Asked(why): Asked<Why>,
) -> Answer {
    act(&dash, &user, Act::Cancel(handle(&job)?), &why.note).await
}

/// `POST /api/v1/dead/{job}/discard`
pub(in crate::dash) async fn discard(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    Asked(why): Asked<Why>,
) -> Answer {
    act(&dash, &user, Act::Discard(handle(&job)?), &why.note).await
}

/// `POST /api/v1/jobs/{job}/edit`
pub(in crate::dash) async fn edit(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(job): Path<String>,
    Asked(Edit { body, note }): Asked<Edit>,
) -> Answer {
    act(&dash, &user, Act::Edit(handle(&job)?, body), &note).await
}
