//! Calls against real local servers: what is sent, what is reported, and what is never done.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use lanes::clock::{SharedClock, SystemClock, Timestamp};
use lanes::dispatch::address::Lookup;
use lanes::dispatch::http::{HttpDispatch, LANE_CLIENTS_MAX, Target};
use lanes::dispatch::{Call, Dispatch};
use lanes::job::outcome::{ANSWER_BODY_BYTES_MAX, Answer, HttpAnswer};
use lanes::job::{EndpointName, Identity, Job, JobId, JobMeta, LaneName, Tenant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use uuid::Uuid;

const SECRET: &str = "s3cr3t-canary";

/// A request as the server read it.
#[derive(Debug, Clone, Default)]
struct Seen {
    line: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
enum Reply {
    /// Sends these bytes and waits for the next request.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Close(Vec<u8>),
    /// Says nothing for as long as the connection lives.
    Silence,
}

fn reply(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    Reply::Bytes([head.as_bytes(), body].concat())
}

/// A server on raw sockets: it answers the n-th request with the n-th reply, the last one again and again.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server =
            Self { address: listener.local_addr().expect("bound"), seen: Arc::default(), connections: Arc::default() };
        let (seen, connections, replies) = (server.seen.clone(), server.connections.clone(), Arc::new(replies));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *connections.lock().expect("no panic") += 1;
                tokio::spawn(serve(stream, seen.clone(), replies.clone()));
            }
        });
        server
    }

    fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).expect("a URL")
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, replies: Arc<Vec<Reply>>) {
    while let Some(request) = read_request(&mut stream).await {
        let index = {
            let mut seen = seen.lock().expect("no panic");
            seen.push(request);
            seen.len() - 1
        };
        match &replies[index.min(replies.len() - 1)] {
            Reply::Bytes(bytes) => drop(stream.write_all(bytes).await),
            Reply::Close(bytes) => {
                drop(stream.write_all(bytes).await);
                return;
            }
            Reply::Silence => {
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest).await);
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).expect("ASCII head");
    let mut lines = text.lines();
    let line = lines.next().expect("a request line").to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { line, headers, body })
}

fn clock() -> SharedClock {
    Arc::new(SystemClock::new())
}

fn target(url: Url) -> Target {
    Target::new(EndpointName::new("crm").expect("valid"), url)
}

fn dispatch(target: Target) -> HttpDispatch {
    HttpDispatch::new(vec![target], clock()).expect("a target that can be used")
}

fn job(meta: JobMeta) -> Job {
    Job {
        instance: Uuid::from_u128(7),
        identity: Identity::Stamped,
        lane: LaneName::new("bulk").expect("valid"),
        tenant: Tenant::new("acme").expect("valid"),
        id: JobId::new("order-42").expect("valid"),
        endpoint: EndpointName::new("crm").expect("valid"),
        published_at: Timestamp::from_secs(1),
        meta,
        body: Bytes::from_static(b"{\"a\":1}"),
    }
}

fn call(job: Job) -> Call {
    Call { job: Arc::new(job), attempt: 1, generation: 1, trace: None, timeout: Duration::from_secs(20) }
}

async fn answer(dispatch: &HttpDispatch, job: Job) -> Answer {
    dispatch.call(call(job)).await.answer
}

#[track_caller]
fn http_of(answer: Answer) -> HttpAnswer {
    match answer {
        Answer::Http(http) => http,
        other => panic!("expected an HTTP answer, got {other:?}"),
    }
}

#[tokio::test]
async fn a_request_carries_the_job() {
    let server = Server::start(vec![reply("204 No Content", &[], b"")]).await;
    let mut target = target(server.url("/contacts?key=own"));
    target.allow_methods = vec![Method::PATCH];
    target.allow_paths = vec!["/contacts/*".to_owned()];
    target.headers = vec![
        (HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer t0ken")),
        (HeaderName::from_static("content-type"), HeaderValue::from_static("text/plain")),
    ];
    let dispatch = dispatch(target);
    let mut full = job(JobMeta {
        method: Some("patch".to_owned()),
        path: Some("/contacts/42?expand=1".to_owned()),
        content_type: Some("application/json".to_owned()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        tracestate: Some("vendor=1".to_owned()),
        ..JobMeta::default()
    });
    full.id = JobId::new("caf\u{e9} 1").expect("valid");
    let outcome = dispatch.call(Call { attempt: 3, generation: 2, ..call(full) }).await;
    assert_eq!(outcome.status(), Some(204));
    assert!(outcome.ended_at >= outcome.started_at);
    answer(&dispatch, job(JobMeta::default())).await;

    let seen = server.seen();
    assert_eq!(seen[0].line, "PATCH /contacts/42?key=own&expand=1 HTTP/1.1");
    assert_eq!(seen[0].body, b"{\"a\":1}");
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer t0ken"),
        ("lanes-job-id", "caf%C3%A9 1"),
        ("idempotency-key", "00000000-0000-0000-0000-000000000007:g2"),
        ("lanes-attempt", "3"),
        ("lanes-lane", "bulk"),
        ("lanes-tenant", "acme"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1"),
        ("user-agent", concat!("lanes/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(seen[0].headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(seen[1].line, "POST /contacts?key=own HTTP/1.1");
    assert_eq!(seen[1].headers["content-type"], "text/plain");
    assert_eq!(seen[1].headers["idempotency-key"], "00000000-0000-0000-0000-000000000007");
    assert!(!seen[1].headers.contains_key("traceparent"));
}

#[tokio::test]
async fn what_the_endpoint_does_not_allow_is_never_sent() {
    let server = Server::start(vec![reply("200 OK", &[], b"")]).await;
    let mut target = target(server.url("/contacts"));
    target.allow_methods = vec![Method::PATCH];
    target.allow_paths = vec!["/contacts/*".to_owned()];
    let dispatch = dispatch(target);
    let with = |method: Option<&str>, path: Option<&str>, content_type: Option<&str>| {
        job(JobMeta {
            method: method.map(str::to_owned),
            path: path.map(str::to_owned),
            content_type: content_type.map(str::to_owned),
            ..JobMeta::default()
        })
    };
    for (refused, says) in [
        (with(Some("DELETE"), None, None), "PATCH, POST"),
        (with(None, Some("/admin"), None), "/contacts/*"),
        (with(None, Some("/contacts/../admin"), None), "'..'"),
        (with(None, Some("//evil.example/contacts/1"), None), "segment"),
        (with(None, None, Some("a\nb")), "content type"),
    ] {
        match answer(&dispatch, refused).await {
            Answer::Impossible(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let mut stranger = job(JobMeta::default());
    stranger.endpoint = EndpointName::new("nobody").expect("valid");
    assert!(matches!(answer(&dispatch, stranger).await, Answer::Impossible(_)));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn redirects_are_answers() {
    let second = Server::start(vec![reply("200 OK", &[], b"")]).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let first = Server::start(vec![reply(status, &[("location", second.url("/x").as_str())], b"")]).await;
        let http = http_of(answer(&dispatch(target(first.url("/"))), job(JobMeta::default())).await);
        assert_eq!(http.status.to_string(), status[..3]);
        assert_eq!(first.seen().len(), 1);
    }
    assert!(second.seen().is_empty());
}

#[tokio::test]
async fn a_connection_closed_without_a_status_is_no_answer_and_one_request() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-le".to_vec();
    for bytes in [Vec::new(), half] {
        let server = Server::start(vec![Reply::Close(bytes)]).await;
        let dispatch = dispatch(target(server.url("/")));
        assert!(matches!(answer(&dispatch, job(JobMeta::default())).await, Answer::NoAnswer(_)));
        assert_eq!(server.seen().len(), 1);
    }
    // the same on a connection that has served before
    let server = Server::start(vec![reply("200 OK", &[], b"ok"), Reply::Close(Vec::new())]).await;
    let dispatch = dispatch(target(server.url("/")));
    http_of(answer(&dispatch, job(JobMeta::default())).await);
    assert!(matches!(answer(&dispatch, job(JobMeta::default())).await, Answer::NoAnswer(_)));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_matters_only_where_it_is_needed() {
    let broken = |status: &str| {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 100\r\nretry-after: 7\r\n\r\nstart");
        vec![Reply::Close(text.into_bytes())]
    };
    let server = Server::start(broken("200 OK")).await;
    let http = http_of(answer(&dispatch(target(server.url("/"))), job(JobMeta::default())).await);
    assert_eq!((http.status, http.body.len()), (200, 0));
    let keeping = dispatch(Target { keep_body_of_2xx: true, ..target(server.url("/")) });
    assert!(matches!(answer(&keeping, job(JobMeta::default())).await, Answer::NoAnswer(_)));
    assert_eq!(server.seen().len(), 2);

    let server = Server::start(broken("429 Too Many")).await;
    let http = http_of(answer(&dispatch(target(server.url("/"))), job(JobMeta::default())).await);
    assert_eq!((http.status, &http.body[..], http.header("retry-after")), (429, &b"start"[..], Some("7")));
}

#[tokio::test]
async fn silence_is_no_answer_after_the_timeout() {
    let server = Server::start(vec![Reply::Silence]).await;
    let dispatch = dispatch(target(server.url("/")));
    let short = Call { timeout: Duration::from_millis(60), ..call(job(JobMeta::default())) };
    let outcome = dispatch.call(short).await;
    match &outcome.answer {
        Answer::NoAnswer(why) => assert!(why.contains("60ms"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(outcome.duration() >= Duration::from_millis(60) && outcome.duration() < Duration::from_secs(10));
    assert_eq!(server.seen().len(), 1);

    // the endpoint's own timeout bounds what the job asks for
    let bounded = self::dispatch(Target { timeout: Duration::from_millis(50), ..target(server.url("/")) });
    assert!(matches!(answer(&bounded, job(JobMeta::default())).await, Answer::NoAnswer(why) if why.contains("50ms")));
    // also while the body dawdles
    let head = b"HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\nstart".to_vec();
    let server = Server::start(vec![Reply::Bytes(head)]).await;
    let bounded = self::dispatch(Target { timeout: Duration::from_millis(50), ..target(server.url("/")) });
    let outcome = bounded.call(call(job(JobMeta::default()))).await;
    assert!(outcome.status() == Some(500) && outcome.duration() < Duration::from_secs(10), "{outcome:?}");
}

#[tokio::test]
async fn what_never_left_is_not_sent_and_secrets_stay_inside() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let lookup: Lookup = Arc::new(|_| Box::pin(async { Err(std::io::Error::other("no such host")) }));
    for host in [address.to_string(), "nowhere.example".to_owned()] {
        let url = Url::parse(&format!("http://user:{SECRET}@{host}/?key={SECRET}")).expect("a URL");
        let mut target = target(url);
        target.headers = vec![(HeaderName::from_static("x-api-key"), HeaderValue::from_static(SECRET))];
        assert!(!format!("{target:?}").contains(SECRET));
        let dispatch = HttpDispatch::with_lookup(vec![target], clock(), &lookup).expect("usable");
        let answer = answer(&dispatch, job(JobMeta::default())).await;
        assert!(matches!(&answer, Answer::NotSent(why) if !why.is_empty()), "{answer:?}");
        assert!(!format!("{answer:?} {dispatch:?}").contains(SECRET), "{answer:?}");
    }
}

#[tokio::test]
async fn bodies_and_headers_of_answers_are_bounded_and_filtered() {
    let big = vec![b'x'; 1 << 20];
    let headers = [
        ("Retry-After", "120"),
        ("X-RateLimit-Remaining", "0"),
        ("Set-Cookie", SECRET),
        ("WWW-Authenticate", SECRET),
        ("Date", "Sun, 22 Nov 2026 03:30:00 GMT"),
    ];
    let server = Server::start(vec![reply("429 Too Many Requests", &headers, &big)]).await;
    let http = http_of(answer(&dispatch(target(server.url("/"))), job(JobMeta::default())).await);
    assert_eq!(http.body.len(), ANSWER_BODY_BYTES_MAX);
    let names: Vec<_> = http.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["retry-after", "x-ratelimit-remaining", "date"]);

    let server = Server::start(vec![reply("200 OK", &[], b"result")]).await;
    assert!(http_of(answer(&dispatch(target(server.url("/"))), job(JobMeta::default())).await).body.is_empty());
    let keeping = dispatch(Target { keep_body_of_2xx: true, ..target(server.url("/")) });
    assert_eq!(http_of(answer(&keeping, job(JobMeta::default())).await).body, "result");
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let server = Server::start(vec![reply("200 OK", &[], &[b'x'; 5000]), reply("500 Oops", &[], b"no")]).await;
    let dispatch = dispatch(target(server.url("/")));
    for _ in 0..5 {
        http_of(answer(&dispatch, job(JobMeta::default())).await);
    }
    assert_eq!((*server.connections.lock().expect("no panic"), server.seen().len()), (1, 5));
}

#[tokio::test]
async fn every_lane_has_connections_of_its_own() {
    let server = Server::start(vec![reply("200 OK", &[], b"")]).await;
    let dispatch = dispatch(target(server.url("/")));
    let of = |lane: &str| Job { lane: LaneName::new(lane).expect("valid"), ..job(JobMeta::default()) };
    for _ in 0..3 {
        for lane in ["bulk", "realtime"] {
            http_of(answer(&dispatch, of(lane)).await);
        }
    }
    assert_eq!((*server.connections.lock().expect("no panic"), server.seen().len()), (2, 6));
}

#[tokio::test]
async fn lanes_beyond_the_bound_share_connections() {
    let server = Server::start(vec![reply("200 OK", &[], b"")]).await;
    let dispatch = dispatch(target(server.url("/")));
    let lanes = LANE_CLIENTS_MAX + 3;
    for index in 0..lanes {
        let lane = LaneName::new(&format!("lane-{index}")).expect("valid");
        http_of(answer(&dispatch, Job { lane, ..job(JobMeta::default()) }).await);
    }
    assert_eq!((*server.connections.lock().expect("no panic"), server.seen().len()), (LANE_CLIENTS_MAX + 1, lanes));
}

#[tokio::test]
async fn metadata_addresses_are_refused_by_name_and_by_number() {
    for ip in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200"] {
        let lookup: Lookup = Arc::new(move |_| {
            Box::pin(async move {
                let good: SocketAddr = "127.0.0.1:0".parse().expect("valid");
                Ok(vec![good, SocketAddr::new(ip.parse().expect("an address"), 0)])
            })
        });
        let url = Url::parse("http://harmless.example/").expect("a URL");
        let dispatch = HttpDispatch::with_lookup(vec![target(url)], clock(), &lookup).expect("usable");
        match answer(&dispatch, job(JobMeta::default())).await {
            Answer::NotSent(why) => assert!(why.contains(ip) && why.contains("allow_metadata"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    for host in ["169.254.169.254", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "2852039166", "metadata.google.internal"] {
        let refused = target(Url::parse(&format!("http://{host}/")).expect("a URL"));
        let error = HttpDispatch::new(vec![refused.clone()], clock()).expect_err("refused").to_string();
        assert!(error.contains("crm") && error.contains("allow_metadata"), "{error}");
        assert!(HttpDispatch::new(vec![Target { allow_metadata: true, ..refused }], clock()).is_ok());
    }
}

#[tokio::test]
async fn names_are_called_where_the_lookup_says() {
    let server = Server::start(vec![reply("200 OK", &[], b"")]).await;
    let address = server.address;
    let lookup: Lookup = Arc::new(move |_| Box::pin(async move { Ok(vec![address]) }));
    let url = Url::parse(&format!("http://harmless.example:{}/", address.port())).expect("a URL");
    let dispatch = HttpDispatch::with_lookup(vec![target(url)], clock(), &lookup).expect("usable");
    http_of(answer(&dispatch, job(JobMeta::default())).await);
    assert_eq!(server.seen()[0].headers["host"], format!("harmless.example:{}", address.port()));
}

#[test]
fn targets_that_cannot_work_are_refused_at_start() {
    let url = || Url::parse(&format!("https://api.example.com/?key={SECRET}")).expect("a URL");
    let reserved = (HeaderName::from_static("lanes-attempt"), HeaderValue::from_static("1"));
    for (bad, says) in [
        (vec![target(Url::parse("ftp://example.com/").expect("a URL"))], "http://"),
        (vec![Target { allow_paths: vec!["contacts".to_owned()], ..target(url()) }], "start with '/'"),
        (vec![Target { headers: vec![reserved], ..target(url()) }], "lanes-attempt"),
        (vec![target(url()), target(url())], "twice"),
    ] {
        let error = HttpDispatch::new(bad, clock()).expect_err("refused").to_string();
        assert!(error.contains("crm") && error.contains(says) && !error.contains(SECRET), "{error}");
    }
}

/// Runs itself in a child process whose environment names a proxy: the proxy must not hear of the call.
#[tokio::test]
async fn proxy_variables_are_ignored() {
    const NAME: &str = "dispatch::proxy_variables_are_ignored";
    const URL: &str = "LANES_TEST_PROXY_TARGET";
    if let Ok(url) = std::env::var(URL) {
        let dispatch = dispatch(target(Url::parse(&url).expect("a URL")));
        assert_eq!(http_of(answer(&dispatch, job(JobMeta::default())).await).status, 202);
        return;
    }
    let server = Server::start(vec![reply("202 Accepted", &[], b"")]).await;
    let proxy = Server::start(vec![reply("502 Proxied", &[], b"")]).await;
    let (target, through) = (server.url("/").to_string(), proxy.url("").to_string());
    let child = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args([NAME, "--exact"]).env(URL, target).env_remove("NO_PROXY").env_remove("no_proxy");
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env(name, &through);
        }
        command.output().expect("the child runs")
    });
    let output = child.await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((server.seen().len(), proxy.seen().len()), (1, 0));
}

mod handler {
    //! The user's own functions.

    use std::fmt;

    use lanes::clock::ManualClock;
    use lanes::dispatch::handler::{Handler, HandlerDispatch, HandlerError, JobContext};
    use lanes::job::outcome::HandlerAnswer;

    use super::*;

    async fn said(handler: impl Handler) -> Answer {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(5)));
        let dispatch = HandlerDispatch::new(handler, clock);
        let outcome = dispatch.call(Call { attempt: 3, generation: 2, ..call(job(JobMeta::default())) }).await;
        assert_eq!(outcome.started_at, Timestamp::from_secs(5));
        outcome.answer
    }

    #[track_caller]
    fn answer_of(answer: Answer) -> HandlerAnswer {
        match answer {
            Answer::Handler(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the amount is wrong")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    async fn named(context: JobContext) -> Result<(), HandlerError> {
        let value: serde_json::Value = context.json()?;
        assert_eq!((value["a"].as_i64(), context.attempt(), context.generation()), (Some(1), 3, 2));
        assert_eq!(context.idempotency_key(), "00000000-0000-0000-0000-000000000007:g2");
        Ok(())
    }

    #[tokio::test]
    async fn results_become_answers() {
        assert_eq!(answer_of(said(named).await), HandlerAnswer::Done);
        let wait = Duration::from_secs(7);
        assert_eq!(
            answer_of(said(move |_| async move { Err(HandlerError::rate_limited(wait)) }).await),
            HandlerAnswer::RateLimited { retry_after: Some(wait) }
        );
        let parse = |text: &'static str| {
            move |_: JobContext| async move {
                text.parse::<i32>().map_err(Outer)?;
                Ok(())
            }
        };
        assert_eq!(
            answer_of(said(parse("x")).await),
            HandlerAnswer::Retry("the amount is wrong: invalid digit found in string".to_owned())
        );
        assert_eq!(answer_of(said(parse("1")).await), HandlerAnswer::Done);
        assert_eq!(
            answer_of(said(|_| async { Err("down for a moment".into()) }).await),
            HandlerAnswer::Retry("down for a moment".to_owned())
        );
        assert_eq!(
            answer_of(said(|_| async { Err(HandlerError::failed("gone")) }).await),
            HandlerAnswer::Failed("gone".to_owned())
        );
        let wrong_json = said(|context: JobContext| async move { context.json::<Vec<u8>>().map(drop) }).await;
        assert!(matches!(answer_of(wrong_json), HandlerAnswer::Failed(why) if why.contains("JSON")));
        let long = "\u{e9}".repeat(10_000);
        let cut = said(move |_| {
            let long = long.clone();
            async move { Err(HandlerError::retry(long)) }
        });
        assert!(matches!(answer_of(cut.await), HandlerAnswer::Retry(text) if text.len() == 4096));
    }

    #[tokio::test]
    async fn panics_are_answers() {
        async fn panics(context: JobContext) -> Result<(), HandlerError> {
            panic!("job {} is too much", context.id())
        }
        fn panics_early(_: JobContext) -> std::future::Ready<Result<(), HandlerError>> {
            panic!("before the first await")
        }
        assert_eq!(answer_of(said(panics).await), HandlerAnswer::Panicked("job order-42 is too much".to_owned()));
        assert_eq!(answer_of(said(panics_early).await), HandlerAnswer::Panicked("before the first await".to_owned()));
    }

    #[tokio::test]
    async fn a_handler_that_never_ends_is_given_up() {
        let dispatch = HandlerDispatch::new(|_| std::future::pending(), clock());
        let short = Call { timeout: Duration::from_millis(20), ..call(job(JobMeta::default())) };
        assert!(matches!(dispatch.call(short).await.answer, Answer::NoAnswer(why) if why.contains("20ms")));
    }
}
