//! Operations on many, for programs: planned, started, looked at and ended.

use axum::Extension;
use axum::extract::{Path, State as Extract};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Asked, Document, Fields, Filter};
use crate::clock::Timestamp;
use crate::dash::Shared;
use crate::dash::access::User;
use crate::dash::acts::{Refused, handle, speaker};
use crate::dash::bulk::{self, Wish};
use crate::dash::mask;
use crate::governor::operations::Plan;
use crate::job::control::Source;
use crate::job::operation::{Action, Operation};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::documents;

/// Operations of the list.
const ROWS_MAX: usize = 100;

/// What to do to which, how fast and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::dash) struct Wanted {
    action: Action,
    lane: Option<LaneName>,
    endpoint: Option<EndpointName>,
    tenant: Option<Tenant>,
    reason: Option<String>,
    /// As of when, in RFC 3339: what a plan answered as `until`.
    until: Option<String>,
    /// Its handle: asking again with the same one begins it once.
    id: Option<Uuid>,
    /// `50/1s`
    #[serde(default)]
    pace: String,
    #[serde(default)]
    note: String,
    /// Only plan it.
    #[serde(default)]
    dry_run: bool,
}

/// Why.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::dash) struct Why {
    note: String,
}

/// No field at all.
#[derive(Debug, Deserialize)]
pub(in crate::dash) struct Nothing {}

impl Fields for Nothing {
    const NAMES: &'static [&'static str] = &[];
}

fn moment(text: &str) -> Result<Timestamp, Refused> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| Refused::wrong("until is a time like 2026-11-22T09:30:00Z"))
}

fn planned(plan: &Plan) -> Value {
    let left: Vec<Value> = plan.left.iter().map(|(items, why)| json!({ "items": items, "why": why })).collect();
    let until = documents::time(Some(plan.selection.until));
    json!({ "until": until, "matched": plan.matched, "planned": plan.eligible, "left": left, "warnings": plan.warnings })
}

/// An operation; what it says may carry what nobody should see.
fn told(operation: &Operation) -> Value {
    let mut document = documents::operation(operation);
    document["problem"] = mask::text(&operation.problem).into();
    document
}

/// `POST /api/v1/operations`
pub(in crate::dash) async fn start(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Asked(wanted): Asked<Wanted>,
) -> Answer {
    let Wanted { action, lane, endpoint, tenant, reason, until, id, pace, note, dry_run } = wanted;
    let until = until.as_deref().map(moment).transpose()?;
    let wish = Wish { action, lane, endpoint, tenant, reason, until, id }.check()?;
    if dry_run {
        return Ok(Document(json!({ "schema": 1, "plan": planned(&dash.plan(&wish).await?), "operation": null })));
    }
    let by = speaker(&user, Source::Api, &note);
    let (plan, new) = dash.start(&wish, bulk::pace(&pace)?, &user, &by).await?;
    Ok(Document(json!({ "schema": 1, "plan": planned(&plan), "operation": new.id })))
}

/// `GET /api/v1/operations`
pub(in crate::dash) async fn list(Extract(dash): Extract<Shared>, Filter(Nothing {}): Filter<Nothing>) -> Answer {
    let found = dash.read(async |store| store.operations(ROWS_MAX).await).await?;
    let operations: Vec<Value> = found.iter().map(told).collect();
    Ok(Document(json!({ "schema": 1, "operations": operations })))
}

/// `GET /api/v1/operations/{operation}`
pub(in crate::dash) async fn show(Extract(dash): Extract<Shared>, Path(operation): Path<String>) -> Answer {
    let id = handle(&operation)?;
    let found = dash.read(async |store| store.operation(id).await).await?;
    let unknown =
        || Refused::unknown(format!("no operation has the handle {id}"), "The list shows those that there are.");
    Ok(Document(told(&found.ok_or_else(unknown)?)))
}

/// `POST /api/v1/operations/{operation}/cancel`
pub(in crate::dash) async fn cancel(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(operation): Path<String>,
    Asked(why): Asked<Why>,
) -> Answer {
    let by = speaker(&user, Source::Api, &why.note);
    let ended = dash.end_operation(handle(&operation)?, &user, &by).await?;
    Ok(Document(told(&ended)))
}
