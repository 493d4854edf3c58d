//! Calls as spans over OTLP/HTTP: gathered in a bounded queue, sent in batches, dropped where the collector cannot follow.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Spans;
use crate::clock::{self, SharedClock, Timestamp};
use crate::job::event::{AttemptEvent, AttemptNext};
use crate::job::trace::Context;
use crate::job::verdict::Class;

/// Most spans that wait to be sent; more are dropped and counted: traces must not slow calls.
const QUEUE_MAX: usize = 8_192;
/// Most spans of one request.
const BATCH_MAX: usize = 512;
/// Time between two requests while there are few spans.
const EVERY: Duration = Duration::from_secs(1);
/// Longest time of one request.
const SEND_MAX: Duration = Duration::from_secs(5);
/// The collector's path for traces, as OTLP/HTTP says.
const PATH: &str = "/v1/traces";

/// Puts spans into the queue.
struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
    scope: InstrumentationScope,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl Spans for Queue {
    fn record(&self, call: &AttemptEvent) {
        let Some(trace) = call.trace.filter(|trace| trace.is_sampled()) else { return };
        if self.spans.try_send(span(call, trace, &self.scope)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts to send spans to the collector at `endpoint` (its base url) until `stop`; what is left then is sent before the task ends.
///
/// # Errors
/// Why it cannot be done, as a sentence.
pub fn start(
    endpoint: &str,
    clock: &SharedClock,
    stop: CancellationToken,
) -> Result<(Box<dyn Spans>, JoinHandle<()>), String> {
    // Err = somebody was first; any provider will do
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(SEND_MAX);
    if endpoint.starts_with("http://") {
        client = client.tls_certs_only([]); // no TLS here: works where the machine has no root certificates
    }
    let failed = |error: &dyn fmt::Display| format!("traces cannot be sent to {endpoint}: {error}");
    let client = client.build().map_err(|error| failed(&error))?;
    let url = format!("{}{PATH}", endpoint.trim_end_matches('/'));
    let builder =
        SpanExporter::builder().with_http().with_http_client(client).with_endpoint(url).with_timeout(SEND_MAX);
    let mut exporter = builder.build().map_err(|error| failed(&error))?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    exporter.set_resource(&Resource::builder().with_service_name("lanes").with_attribute(version).build());
    let (spans, queue) = mpsc::channel(QUEUE_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let scope = InstrumentationScope::builder("lanes").with_version(env!("CARGO_PKG_VERSION")).build();
    let sender = Sender { exporter, dropped: Arc::clone(&dropped), clock: Arc::clone(clock), failing: false };
    let sending = tokio::spawn(sender.run(queue, stop));
    Ok((Box::new(Queue { spans, dropped, scope }), sending))
}

struct Sender {
    exporter: SpanExporter,
    dropped: Arc<AtomicU64>,
    clock: SharedClock,
    failing: bool,
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = queue.recv_many(&mut batch, BATCH_MAX) => {}
            }
            let is_full = batch.len() == BATCH_MAX;
            self.send(std::mem::take(&mut batch)).await;
            if !is_full {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = clock::sleep(&*self.clock, EVERY) => {}
                }
            }
        }
        queue.close();
        while queue.recv_many(&mut batch, BATCH_MAX).await > 0 && !self.failing {
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Sends; what cannot be sent is lost, and that is said when it begins and when it ends.
    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len();
        let sent = clock::within(SEND_MAX, self.exporter.export(batch)).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(late) => Some(format!("no answer within {:?}", late.0)),
        };
        match problem {
            Some(problem) if !self.failing => {
                tracing::warn!(spans, %problem, "spans are lost until the collector takes them again: see telemetry.otlp");
                self.failing = true;
            }
            None if self.failing => {
                tracing::info!("the collector takes spans again");
                self.failing = false;
            }
            _ => {}
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(spans = dropped, "spans were dropped: more calls end than the collector takes");
        }
    }
}

/// A call as a span: its parent is what the publisher sent, its id what the endpoint was told.
fn span(call: &AttemptEvent, trace: Context, scope: &InstrumentationScope) -> SpanData {
    let job = &call.job;
    let parent = Context::of_publisher(job);
    let state = job.meta.tracestate.as_deref().and_then(|text| text.parse::<TraceState>().ok()).unwrap_or_default();
    let flags = TraceFlags::new(trace.flags);
    let mut attributes = vec![
        KeyValue::new("lanes.lane", job.lane.to_string()),
        KeyValue::new("lanes.endpoint", job.endpoint.to_string()),
        KeyValue::new("lanes.tenant", job.tenant.to_string()),
        KeyValue::new("lanes.job.id", job.id.to_string()),
        KeyValue::new("lanes.job.instance", job.instance.to_string()),
        KeyValue::new("lanes.attempt", i64::from(call.attempt)),
        KeyValue::new("lanes.outcome", call.class.as_str()),
        KeyValue::new("lanes.next", next(&call.next)),
    ];
    attributes.extend(call.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    if let AttemptNext::Retry { delay, .. } = &call.next {
        attributes.push(KeyValue::new("lanes.backoff_ms", i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)));
    }
    SpanData {
        span_context: SpanContext::new(TraceId::from(trace.trace), SpanId::from(trace.span), flags, false, state),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span)),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Client,
        name: format!("call {}", job.endpoint).into(),
        start_time: system_time(call.started_at),
        end_time: system_time(call.started_at.plus(call.duration)),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        // the answer's text is not told: it may hold what nobody should see
        status: if call.class == Class::Ok { Status::Unset } else { Status::error(call.class.as_str()) },
        instrumentation_scope: scope.clone(),
    }
}

fn next(next: &AttemptNext) -> &'static str {
    match next {
        AttemptNext::Done { .. } => "done",
        AttemptNext::Retry { .. } => "retry",
        AttemptNext::Dead { .. } => "dead",
        AttemptNext::Cancelled => "cancelled",
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + at.since(Timestamp::EPOCH)
}
