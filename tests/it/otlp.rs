//! Export of traces: a collector of our own takes what a program built with `--features otlp` sends.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use lanes::clock::{SharedClock, SystemClock, Timestamp, within};
use lanes::config;
use lanes::job::event::{AttemptEvent, AttemptNext, Event};
use lanes::job::trace::Context;
use lanes::job::verdict::Class;
use lanes::job::{EndpointName, Identity, Job, JobId, JobMeta, LaneName, Tenant};
use lanes::telemetry::{Telemetry, otlp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);
const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

type Posted = (Uri, HeaderMap, Bytes);

async fn collector() -> (String, mpsc::Receiver<Posted>) {
    let (posted, received) = mpsc::channel(100);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let take = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let posted = posted.clone();
        async move { posted.send((uri, headers, body)).await.expect("the test listens") }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await });
    (url, received)
}

fn call(traceparent: &str, status: u16) -> Event {
    let job = Arc::new(Job {
        instance: Uuid::from_u128(7),
        identity: Identity::Stamped,
        lane: LaneName::new("bulk").expect("valid"),
        tenant: Tenant::new("globex").expect("valid"),
        id: JobId::new("order-42").expect("valid"),
        endpoint: EndpointName::new("crm").expect("valid"),
        published_at: Timestamp::from_secs(1),
        meta: JobMeta { traceparent: Some(traceparent.to_owned()), ..JobMeta::default() },
        body: Bytes::from_static(b"secret of the body"),
    });
    Event::Attempt(Box::new(AttemptEvent {
        attempt: 2,
        trace: Some(Context::of_call(&job, Uuid::from_u128(0x1122_3344_5566_7788))),
        job,
        started_at: Timestamp::from_secs(100),
        duration: Duration::from_millis(250),
        status: Some(status),
        class: if status == 200 { Class::Ok } else { Class::RateLimited },
        detail: "secret of the answer".to_owned(),
        retry_after: None,
        rate_headers: Vec::new(),
        rate_readings: Vec::new(),
        learnt: None,
        held_back: Duration::ZERO,
        next: AttemptNext::Done { job_duration: Duration::from_secs(1) },
    }))
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_call_is_exported_as_a_span_below_the_publishers() {
    let (url, mut received) = collector().await;
    let (telemetry, _) = Telemetry::prometheus();
    let (clock, stop): (SharedClock, _) = (Arc::new(SystemClock::new()), CancellationToken::new());
    let (spans, sending) = otlp::start(&url, &clock, stop.clone()).expect("started");
    telemetry.trace_to(spans);
    assert!(telemetry.is_traced());
    telemetry.record(&call(&SENT.replace("-01", "-00"), 200));
    telemetry.record(&call(SENT, 429));
    let posted = within(PATIENCE, received.recv()).await.expect("in time").expect("a request");
    let (uri, headers, body) = posted;
    assert_eq!((uri.path(), headers["content-type"].as_bytes()), ("/v1/traces", &b"application/x-protobuf"[..]));
    let sent = Context::parse(SENT).expect("a traceparent");
    assert!(holds(&body, &sent.trace.to_be_bytes()), "the publisher's trace");
    assert!(holds(&body, &sent.span.to_be_bytes()), "its span is the parent");
    let spans = body.windows(8).filter(|window| *window == 0x1122_3344_5566_7788_u64.to_be_bytes()).count();
    assert_eq!(spans, 1, "a trace that is not recorded is not exported");
    for part in
        ["call crm", "lanes.tenant", "globex", "order-42", "rate_limited", "http.response.status_code", "service.name"]
    {
        assert!(holds(&body, part.as_bytes()), "{part}");
    }
    assert!(!holds(&body, b"secret"), "neither bodies nor answers are told");
    telemetry.record(&call(SENT, 200));
    stop.cancel();
    within(PATIENCE, sending).await.expect("in time").expect("it ends");
    let last = within(PATIENCE, received.recv()).await.expect("in time").expect("the rest is sent at the end");
    assert!(holds(&last.2, b"order-42"));
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let (telemetry, _) = Telemetry::prometheus();
    let (clock, stop): (SharedClock, _) = (Arc::new(SystemClock::new()), CancellationToken::new());
    let (spans, sending) = otlp::start("http://127.0.0.1:1", &clock, stop.clone()).expect("started");
    telemetry.trace_to(spans);
    for _ in 0..20_000 {
        telemetry.record(&call(SENT, 200));
    }
    stop.cancel();
    within(PATIENCE, sending).await.expect("in time").expect("it ends");
}

#[test]
fn where_spans_go_is_a_setting() {
    let read = |text: &str, env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let loaded = config::read("lanes.toml", text, &env, &|_| Err(std::io::Error::other("no files"))).expect("read");
        loaded.specs.telemetry.otlp
    };
    let lanes = "[lanes.a]\n";
    let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
    assert_eq!(read(lanes, &[]), None);
    assert_eq!(read(lanes, &variable).as_deref(), Some("http://collector:4318"));
    let set = format!("[telemetry]\notlp = \"http://127.0.0.1:4318\"\n{lanes}");
    assert_eq!(read(&set, &variable).as_deref(), Some("http://127.0.0.1:4318"), "what is set here comes first");
}
