//! `/healthz/deep`: whether the whole installation needs a person, and why, for probes; from the look that all share.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Shared, mask};
use crate::policy::health::Incident;

/// 200 while nothing needs a person, 503 while something does: exactly when `lanes status` ends with 3.
pub(super) async fn show(Extract(dash): Extract<Shared>) -> Response {
    let Some(seen) = dash.live.glance().await else {
        let why = "store and broker did not answer in time";
        let document = json!({ "schema": 1, "healthy": false, "error": why, "incidents": [] });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(document)).into_response();
    };
    let picture = &seen.picture;
    let reachable = |state: &Result<(), String>| json!({ "reachable": state.is_ok(), "error": state.as_ref().err() });
    let document = json!({
        "schema": 1, "healthy": picture.is_healthy(), "time": picture.now.to_string(),
        "broker": reachable(&picture.broker), "store": reachable(&picture.store),
        "incidents": picture.incidents.iter().map(incident).collect::<Vec<_>>(),
    });
    let status = if picture.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(document)).into_response()
}

/// As `lanes status --json` shows it; an API's words in it may hold what nobody should see.
fn incident(incident: &Incident) -> Value {
    let mut shown = json!(incident);
    shown["message"] = mask::text(&incident.message).into();
    shown["runbook"] = incident.kind.runbook().into();
    shown
}
