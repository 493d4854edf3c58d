//! What machines ask: `/metrics`, `/healthz`, `/readyz`, and where there is no dashboard a page that lists them.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::telemetry::health::Health;

/// The text format's version that Prometheus expects.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const INDEX: &str = concat!(
    "lanes ",
    env!("CARGO_PKG_VERSION"),
    "\n\n\
     /metrics   metrics for Prometheus\n\
     /healthz   200 while this process is alive\n\
     /readyz    200 while it can work, 503 and the reason while it cannot\n"
);

/// Renders all metrics.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Where the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// Renders `/metrics`.
    pub metrics: Render,
    /// Answers `/readyz`.
    pub health: Health,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("health", &self.health).finish_non_exhaustive()
    }
}

/// The routes, with a page that lists them.
pub fn router(sources: Sources) -> Router {
    probes(sources).route("/", get(async || INDEX))
}

/// Whether this process is alive; nothing else is known of it.
pub fn alive() -> Router {
    Router::new().route("/healthz", get(async || "ok\n"))
}

/// The routes, beside pages that come from elsewhere.
pub fn probes(sources: Sources) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(sources)
}

async fn ready(State(sources): State<Sources>) -> Response {
    let components = sources.health.snapshot();
    // an empty snapshot means that nothing has started
    let ready = !components.is_empty() && components.iter().all(|(_, state)| state.is_ok());
    let shown: Map<String, Value> = components
        .into_iter()
        .map(|(name, state)| match state {
            Ok(()) => (name, json!({ "ready": true })),
            Err(why) => (name, json!({ "ready": false, "why": why })),
        })
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "components": shown }))).into_response()
}

async fn metrics(State(sources): State<Sources>) -> Response {
    // with many tenants this takes milliseconds: not on a thread that calls are waiting for
    match tokio::task::spawn_blocking(move || (sources.metrics)()).await {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}
