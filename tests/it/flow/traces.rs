//! Traces: what a publisher sends reaches the endpoint through every retry; where calls are told as spans, each is one of that trace.

use std::sync::{Arc, Mutex};

use lanes::job::event::AttemptEvent;
use lanes::job::trace::Context;
use lanes::job::{JobMeta, NewJob};
use lanes::store::State;
use lanes::telemetry::Spans;

use super::on_every_backend;
use super::rig::{Backend, Reply, Rig, new_job};

const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "vendor=1";

on_every_backend!(a_trace_reaches_the_endpoint_through_every_retry, each_call_is_a_span_of_its_trace);

fn traced(id: &str) -> NewJob {
    let meta = JobMeta { traceparent: Some(SENT.to_owned()), tracestate: Some(STATE.to_owned()), ..JobMeta::default() };
    NewJob { meta, ..new_job("bulk", id) }
}

fn limited_once() -> impl Fn(&super::rig::Seen, usize) -> Reply + Send + Sync + 'static {
    |_, nth| Reply::status(if nth <= 2 { 429 } else { 200 })
}

async fn a_trace_reaches_the_endpoint_through_every_retry(backend: Backend) {
    let rig = Rig::new(backend, limited_once()).await;
    let worker = rig.start();
    rig.publisher.publish_one(traced("a")).await.expect("published");
    rig.until_with_clock("three calls", |calls| calls.len() == 3).await;
    for call in rig.api.calls() {
        assert_eq!((call.trace.0.as_str(), call.trace.1.as_str()), (SENT, STATE), "call {}", call.attempt);
    }
    worker.stop().await;
}

/// Keeps what it is told.
struct Kept(Arc<Mutex<Vec<(u32, Context)>>>);

impl Spans for Kept {
    fn record(&self, call: &AttemptEvent) {
        let trace = call.trace.expect("every call has its place");
        self.0.lock().expect("not poisoned").push((call.attempt, trace));
    }
}

async fn each_call_is_a_span_of_its_trace(backend: Backend) {
    let rig = Rig::new(backend, limited_once()).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    rig.telemetry.trace_to(Box::new(Kept(Arc::clone(&told))));
    let worker = rig.start();
    let job = rig.publisher.publish_one(traced("a")).await.expect("published");
    rig.until_with_clock("three calls", |calls| calls.len() == 3).await;
    rig.until_state(&job, State::Done).await;
    let alone = rig.publish("realtime", "without a trace").await;
    rig.until_with_clock("three calls more", |calls| calls.len() == 6).await;
    rig.until_state(&alone, State::Done).await;
    worker.stop().await;
    let sent = Context::parse(SENT).expect("a traceparent");
    let mut spans = std::collections::BTreeSet::from([sent.span]);
    for call in rig.api.calls() {
        let seen = Context::parse(&call.trace.0).expect("a traceparent");
        let (trace, state) = if call.job_id == "a" { (sent.trace, STATE) } else { (alone.instance.as_u128(), "") };
        assert_eq!((seen.trace, seen.flags, call.trace.1.as_str()), (trace, 1, state), "{call:?}");
        assert!(spans.insert(seen.span), "each call is a span of its own");
        let attempt: u32 = call.attempt.parse().expect("a number");
        let told = told.lock().expect("not poisoned");
        assert!(told.contains(&(attempt, seen)), "what the endpoint was told is what is exported: {told:?}");
    }
}
