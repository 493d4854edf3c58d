//! The dashboard as browsers, viewers and attackers meet it: every route, hostile data, streams, one reader for all.

mod acts;
mod api;
mod found;
mod html;
mod operations;
mod placed;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http_body_util::BodyExt as _;
use hyper::{Request, Response, StatusCode};
use lanes::broker::memory::MemoryBroker;
use lanes::clock::{Clock as _, SharedClock, SystemClock, Timestamp};
use lanes::dash::access::{Access, Proxy, Role, Tokens, User};
use lanes::dash::place::Place;
use lanes::dash::routes::ROUTES;
use lanes::dash::{self, Parts, Setting, Settings, Source};
use lanes::governor::operator::jobs::Outlet;
use lanes::job::history::{Count, Measure, Series};
use lanes::job::verdict::{DeadReason, WaitReason};
use lanes::job::{DedupKey, EndpointName, Identity, JobId, LaneName, NewJob, Tenant};
use lanes::observe::{self, Picture, Recent, Scope};
use lanes::policy::pacing::{Budgets, EndpointBudget};
use lanes::store::sqlite::SqliteStore;
use lanes::store::{
    AttemptRecord, ClaimContext, FreshClaim, HistoryStore as _, JobStore as _, Letter, LetterStore as _, Next, Payload,
    RawLetter, Settlement, Store, WorkerStore as _,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

/// Whatever may come from outside holds this.
const HOSTILE: &str = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;{{7*7}}";
const ALICE: &str = "the-token-of-alice-operator";
const ADA: &str = "the-token-of-ada-who-is-admin";
const VICTOR: &str = "the-token-of-victor-viewer";
const SECRET: &str = "hunter2-is-secret";

/// A store that counts how often it is looked at.
#[derive(Debug)]
struct Watched {
    scope: Scope,
    store: Arc<dyn Store>,
    broker: MemoryBroker,
    clock: SystemClock,
    looks: AtomicUsize,
}

#[async_trait]
impl Source for Watched {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    async fn store(&self) -> Result<Arc<dyn Store>, String> {
        Ok(Arc::clone(&self.store))
    }

    async fn look(&self) -> Picture {
        self.looks.fetch_add(1, Ordering::SeqCst);
        observe::look(&self.scope, Ok(&*self.store), Ok(&self.broker), self.clock.now()).await
    }
}

/// What was published by way of the dashboard; or nothing can be.
#[derive(Debug, Default)]
struct Published {
    fails: AtomicBool,
    jobs: Mutex<Vec<NewJob>>,
    letters: Mutex<Vec<RawLetter>>,
}

impl Published {
    fn answer(&self) -> Result<(), String> {
        if self.fails.load(Ordering::SeqCst) { Err("the broker is gone".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl Outlet for Published {
    async fn publish(&self, job: NewJob) -> Result<Uuid, String> {
        self.answer()?;
        let mut jobs = self.jobs.lock().expect("no panic");
        jobs.push(job);
        Ok(Uuid::from_u128(1_000 + jobs.len() as u128))
    }

    async fn republish(&self, letter: RawLetter) -> Result<(), String> {
        self.answer()?;
        self.letters.lock().expect("no panic").push(letter);
        Ok(())
    }
}

fn settings() -> Settings {
    let setting =
        Setting { key: "http.listen".to_owned(), value: HOSTILE.to_owned(), origin: "lanes.toml:3".to_owned() };
    Settings { source: "lanes.toml".to_owned(), warnings: vec![HOSTILE.to_owned()], rows: vec![setting] }
}

/// A dashboard over a store with hostile jobs.
struct Bench {
    router: Router,
    source: Arc<Watched>,
    outlet: Arc<Published>,
    stop: CancellationToken,
    _dir: TempDir,
}

fn tokens() -> Access {
    let user = |name: &str, role| User { name: name.into(), role };
    let users = [
        (user("ada", Role::Admin), ADA.into()),
        (user("alice", Role::Operator), ALICE.into()),
        (user("victor", Role::Viewer), VICTOR.into()),
    ];
    Access::Token(Tokens::new(users))
}

fn bulk() -> LaneName {
    LaneName::new("bulk").expect("a name")
}

fn crm() -> EndpointName {
    EndpointName::new("crm").expect("a name")
}

fn claim(number: u128, in_turn: Option<WaitReason>, now: Timestamp) -> FreshClaim {
    let tenant = Tenant::new(&HOSTILE[..60]).expect("any printable text");
    let id = JobId::new(&format!("{HOSTILE}{number}")).expect("any printable text");
    let body =
        format!(r#"{{"note":{HOSTILE:?},"api_key":"{SECRET}","nested":[{{"Authorization":"Bearer {SECRET}"}}]}}"#);
    FreshClaim {
        key: DedupKey::of(&bulk(), &tenant, &id),
        instance: Uuid::from_u128(number),
        token: Uuid::from_u128(number),
        lane: bulk(),
        tenant,
        id,
        endpoint: crm(),
        published_at: now.minus(Duration::from_mins(5)),
        payload_sha256: [7; 32],
        payload: Payload { meta: format!(r#"{{"path":"/x?token={SECRET}"}}"#).into(), body: body.into() },
        identity: Identity::Stamped,
        redelivered: false,
        in_turn,
    }
}

fn attempt(now: Timestamp) -> AttemptRecord {
    AttemptRecord {
        generation: 1,
        attempt: 1,
        started_at: now.minus(Duration::from_mins(4)),
        duration_us: 210_000,
        class: "rate_limited".to_owned(),
        status: Some(429),
        detail: format!("{HOSTILE} password={SECRET}"),
        retry_after_ms: Some(60_000),
        rate_headers: vec![("x-ratelimit-remaining".to_owned(), HOSTILE.to_owned())],
        next: "retry".to_owned(),
        reason: "rate_limited".to_owned(),
        resume_at: Some(now.plus(Duration::from_mins(2))),
    }
}

/// Jobs 1 (waits after a 429), 2 (waits for its turn), 3 (dead), and letter 4 (never was a job, not JSON).
async fn fill(store: &SqliteStore, now: Timestamp) {
    let worker = store.register(HOSTILE, "bulk", now).await.expect("registered");
    let ctx = ClaimContext { worker, now, window: Duration::from_mins(10) };
    let claims = [claim(1, None, now), claim(2, Some(WaitReason::Budget), now), claim(3, None, now)];
    store.claim_fresh(ctx, &claims).await.expect("claimed");
    let settle = |claim: &FreshClaim, next| Settlement {
        key: claim.key,
        instance: claim.instance,
        token: claim.token,
        next,
        effect_possible: false,
        attempt: Some(Box::new(attempt(now))),
    };
    let resume_at = now.plus(Duration::from_mins(2));
    let waits = Next::Waiting { reason: WaitReason::RateLimited, resume_at, counted: true };
    let dies =
        Next::Dead { reason: DeadReason::Exhausted, detail: format!("{HOSTILE} token: {SECRET}"), counted: true };
    store.settle(now, &[settle(&claims[0], waits), settle(&claims[2], dies)]).await.expect("settled");
    let letter = Letter {
        instance: Uuid::from_u128(4),
        lane: bulk(),
        tenant: None,
        id: Some(HOSTILE.to_owned()),
        endpoint: Some(HOSTILE.to_owned()),
        reason: DeadReason::Undecodable,
        detail: HOSTILE.to_owned(),
        published_at: None,
        died_at: now,
        attempts: 0,
        generation: 1,
        copies: 1,
        raw: true,
        body_bytes: 3,
    };
    let body = format!("plain text, {HOSTILE}");
    store
        .bury(&[RawLetter { letter, payload: Payload { meta: "{}".into(), body: body.into() } }])
        .await
        .expect("buried");
    let series =
        |measure, subject: &str| Series { measure, bucket: 2, subject: subject.to_owned(), part: String::new() };
    let of_bulk = [Measure::Succeeded, Measure::Exhausted, Measure::Waited, Measure::Died, Measure::Duration];
    let of_crm = [Measure::Calls, Measure::RateLimited, Measure::Took, Measure::Retries];
    for minutes in [2, 3, 20, 24 * 60 + 30] {
        let lane = of_bulk.map(|measure| {
            // few enough that nothing needs a person
            let count = if matches!(measure, Measure::Exhausted | Measure::Died) { 1 } else { 7 };
            (series(measure, "bulk"), Count { count, total: 9_000_000 })
        });
        let endpoint = of_crm.map(|measure| {
            let count = if measure == Measure::RateLimited { 1 } else { 11 };
            (series(measure, "crm"), Count { count, total: 22_000_000 })
        });
        let hostile = [(series(Measure::Calls, HOSTILE), Count { count: 1, total: 0 })];
        let counts = [&lane[..], &endpoint, &hostile].concat();
        store.add_history(now.minus(Duration::from_mins(minutes)), &counts).await.expect("counted");
    }
}

async fn bench(access: Access, read_only: bool) -> Bench {
    bench_at(access, read_only, Place::default()).await
}

async fn bench_at(access: Access, read_only: bool, place: Place) -> Bench {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", dir.path().join("lanes.db").display());
    let store = SqliteStore::new(lanes::db::open_sqlite(&url).await.expect("opened"));
    let clock = SystemClock::new();
    fill(&store, clock.now()).await;
    let budgets = Budgets { endpoints: HashMap::from([(crm(), EndpointBudget::default())]), ..Budgets::default() };
    let scope = Scope {
        lanes: vec![bulk()],
        concurrency: [(bulk(), 8)].into(),
        lease: Duration::from_secs(15),
        budgets,
        recent: Recent::with_charts(),
    };
    let (store, shared): (Arc<dyn Store>, SharedClock) = (Arc::new(store), Arc::new(clock.clone()));
    let source = Arc::new(Watched { scope, store, broker: MemoryBroker::new(), clock, looks: AtomicUsize::new(0) });
    let stop = CancellationToken::new();
    let outlet = Arc::new(Published::default());
    let parts = Parts {
        source: source.clone(),
        outlet: outlet.clone(),
        settings: settings(),
        access,
        read_only,
        place,
        clock: shared,
    };
    Bench { router: dash::router(parts, &stop), source, outlet, stop, _dir: dir }
}

impl Bench {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        self.router.clone().oneshot(request).await.expect("the router never fails")
    }

    async fn get(&self, path: &str, token: &str) -> Response<Body> {
        self.ask("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    async fn page(&self, path: &str, token: &str) -> String {
        let response = self.get(path, token).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        text(response).await
    }
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("read").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn filled(path: &str) -> String {
    path.replace("{lane}", "bulk")
        .replace("{operation}", &Uuid::from_u128(9).to_string())
        .replace("{job}", &Uuid::from_u128(3).to_string())
        .replace("{name}", "x.css")
}

#[tokio::test]
async fn every_route_takes_its_role_and_says_what_browsers_may_do() {
    let bench = bench(tokens(), false).await;
    for route in ROUTES {
        // its stream does not end
        let path = filled(route.path);
        let stranger = bench.ask(route.method, &path, &[], "").await;
        match route.least {
            Some(_) => assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED, "{} {path}", route.method),
            None => {
                assert!(
                    ["/login", "/logout", "/assets/{name}", "/favicon.ico"].contains(&route.path),
                    "{path} is open"
                );
            }
        }
        assert!(
            route.method == "GET" || route.least.is_none() || route.least >= Some(Role::Operator),
            "{path} changes something"
        );
        let viewer = bench.ask(route.method, &path, &[("authorization", &format!("Bearer {VICTOR}"))], "").await;
        if route.least > Some(Role::Viewer) {
            assert_eq!(viewer.status(), StatusCode::FORBIDDEN, "{} {path}", route.method);
        }
        for (who, response) in [("stranger", &stranger), ("viewer", &viewer)] {
            let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().expect("text"));
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{who} {path}");
            assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{who} {path}");
            assert_eq!(header("x-content-type-options"), "nosniff", "{who} {path}");
            let kept = header("cache-control");
            assert_eq!(kept, "no-store", "{who} {path}");
        }
        let foreign = [("authorization", format!("Bearer {ALICE}")), ("sec-fetch-site", "cross-site".to_owned())];
        let foreign: Vec<_> = foreign.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if route.method != "GET" {
            assert_eq!(bench.ask(route.method, &path, &foreign, "").await.status(), StatusCode::FORBIDDEN, "{path}");
        }
    }
    assert_eq!(bench.ask("POST", "/jobs", &[("authorization", &format!("Bearer {ALICE}"))], "").await.status(), 405);
    assert_eq!(bench.get("/nothing", ALICE).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn read_only_makes_viewers_of_all() {
    let bench = bench(tokens(), true).await;
    let body = format!("/jobs/{}/body", Uuid::from_u128(3));
    assert_eq!(bench.get(&body, ALICE).await.status(), StatusCode::FORBIDDEN);
    assert!(bench.page("/", ALICE).await.contains("viewer"));
}

#[tokio::test]
async fn whatever_comes_from_outside_is_only_text() {
    let bench = bench(tokens(), false).await;
    let tenant: String = url::form_urlencoded::byte_serialize(&HOSTILE.as_bytes()[..60]).collect();
    let hostile: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let mut pages: Vec<String> = [
        "/",
        "/lanes",
        "/lanes/bulk",
        "/jobs",
        "/limits",
        "/limits?endpoint=crm",
        "/dead",
        "/workers",
        "/audit",
        "/settings",
        "/help",
    ]
    .map(str::to_owned)
    .to_vec();
    pages.extend((1..=4).map(|number| format!("/jobs/{}", Uuid::from_u128(number))));
    pages.push(format!("/tenant?name={tenant}"));
    for name in ["state", "lane", "endpoint", "tenant", "reason", "id", "after"] {
        pages.push(format!("/jobs?{name}={hostile}"));
    }
    pages.push(format!("/dead?reason={hostile}"));
    pages.push(format!("/audit?actor={hostile}&action={hostile}&target={hostile}&before=1"));
    pages.push(format!("/?done={hostile}"));
    for page in ["/jobs", "/dead"] {
        pages.push(format!("{page}?q=state%3A{hostile}"));
    }
    pages.push(format!("/limits?endpoint={hostile}&tenant={hostile}"));
    let mut seen = 0;
    for path in pages {
        for token in [VICTOR, ALICE] {
            let page = bench.page(&path, token).await;
            html::check(&path, &page);
            assert!(!page.contains(SECRET), "{path} shows a secret");
            assert!(!page.contains("<script>"), "{path}");
            seen += usize::from(page.contains("&lt;script&gt;alert"));
        }
    }
    assert!(seen > 15, "the hostile text was shown on {seen} pages only");
}

#[tokio::test]
async fn a_job_is_told_in_words_and_its_payload_is_masked() {
    let bench = bench(tokens(), false).await;
    let page = bench.page(&format!("/jobs/{}", Uuid::from_u128(1)), VICTOR).await;
    for part in [
        "answered 429 after 0.21 s",
        "is longer than the 1m that the API asked for (Retry-After)",
        "waits (rate_limited), goes on in",
        "•••",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let raw = format!("/jobs/{}", Uuid::from_u128(4));
    assert!(!bench.page(&raw, VICTOR).await.contains("plain text"), "not JSON: only size and hash");
    assert!(bench.page(&raw, ALICE).await.contains("plain text"));
    let body = bench.get(&format!("{raw}/body"), ALICE).await;
    assert_eq!(body.headers()["content-type"], "application/octet-stream");
    assert!(body.headers()["content-disposition"].to_str().expect("text").starts_with("attachment"));
    let unknown = bench.get(&format!("/jobs/{}", Uuid::from_u128(99)), VICTOR).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let by_id = bench.get("/jobs/contact-42", VICTOR).await;
    assert_eq!(by_id.headers()["location"], "/jobs?id=contact-42");
}

#[tokio::test]
async fn a_token_that_is_typed_in_opens_the_pages_until_somebody_leaves() {
    let bench = bench(tokens(), false).await;
    let wrong = bench.ask("POST", "/login", &[], "token=wrong").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let right = bench.ask("POST", "/login", &[("sec-fetch-site", "same-origin")], &format!("token={ALICE}")).await;
    assert_eq!(right.status(), StatusCode::SEE_OTHER);
    let cookie = right.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains(ALICE), "{cookie}");
    let session = cookie.split(';').next().expect("a pair");
    let page = bench.ask("GET", "/", &[("cookie", session)], "").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(text(page).await.contains("alice"));
    let left = bench.ask("POST", "/logout", &[("cookie", session)], "").await;
    assert!(left.headers()["set-cookie"].to_str().expect("text").contains("Max-Age=0"));
}

#[tokio::test]
async fn a_proxy_is_believed_by_where_it_is() {
    let proxy = Proxy {
        header: hyper::header::HeaderName::from_static("x-forwarded-user"),
        from: vec!["10.0.0.1".parse().expect("an address")],
        others: Role::Viewer,
        users: HashMap::new(),
    };
    let bench = bench(Access::Proxy(proxy), false).await;
    for (peer, status) in [("10.0.0.1:1", 200), ("10.0.0.2:1", 401)] {
        let peer: SocketAddr = peer.parse().expect("an address");
        let request = Request::get("/").header("x-forwarded-user", "bob").extension(ConnectInfo(peer));
        let response = bench.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(response.expect("answered").status(), status);
    }
}

/// The next event of a stream as text; `None` = it has ended.
async fn event(body: &mut Body) -> Option<String> {
    let frame = body.frame().await?.expect("a frame");
    Some(String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8"))
}

#[tokio::test]
async fn fifty_tabs_are_one_reader_and_end_with_the_server() {
    let bench = bench(tokens(), false).await;
    let mut tabs = Vec::new();
    for _ in 0..50 {
        let response = bench.get("/events?view=overview", VICTOR).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        tabs.push(response.into_body());
    }
    for _ in 0..2 {
        for tab in &mut tabs {
            let event = event(tab).await.expect("an event");
            let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
            assert!(
                event.contains("event: page\n") && event.contains("id: ") && event.contains("retry: 2000\n"),
                "{event}"
            );
            html::check("/events", data);
            assert!(data.contains("id=\"health\"") && data.contains("id=\"live\""), "{data}");
        }
    }
    let looks = bench.source.looks.load(Ordering::SeqCst);
    assert!(looks <= 4, "{looks} looks for a hundred events");
    bench.stop.cancel();
    for tab in &mut tabs {
        while event(tab).await.is_some() {}
    }
    assert_eq!(bench.get("/events?view=nothing", VICTOR).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn fifty_probes_are_one_look_that_shows_no_secret() {
    let bench = bench(tokens(), false).await;
    let probes = futures_util::future::join_all((0..50).map(|_| bench.get("/healthz/deep", VICTOR))).await;
    for probe in probes {
        assert_eq!(probe.status(), StatusCode::OK, "the lane has a worker");
        assert_eq!(probe.headers()["content-type"], "application/json");
        let document: serde_json::Value = serde_json::from_str(&text(probe).await).expect("JSON");
        assert_eq!((&document["healthy"], &document["broker"]["reachable"]), (&true.into(), &true.into()));
    }
    assert_eq!(bench.source.looks.load(Ordering::SeqCst), 1, "one look for all of them");
}

#[tokio::test]
async fn assets_are_kept_for_ever_and_pages_name_them() {
    let bench = bench(tokens(), false).await;
    let page = bench.page("/", VICTOR).await;
    let names: Vec<&str> = page.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in names {
        let asset = bench.ask("GET", name, &[], "").await;
        assert_eq!(asset.status(), StatusCode::OK, "{name}");
        assert_eq!(asset.headers()["cache-control"], "public, max-age=31536000, immutable");
    }
}
