//! Telling of incidents: workers that share a store, and a receiver that is there, fails, or is slow.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use lanes::clock::{Clock as _, ManualClock, Timestamp};
use lanes::dispatch::Post as _;
use lanes::dispatch::http::{HttpDispatch, Target};
use lanes::dispatch::signature::Signer;
use lanes::job::{EndpointName, LaneName};
use lanes::notices::{EVERY, Form, LOOKER_FOR, Parts, Receiver, Teller};
use lanes::observe::{Look, Picture};
use lanes::policy::health::{Incident, Kind, Severity};
use lanes::policy::notices::Sink;
use lanes::store::Store;
use lanes::telemetry::Telemetry;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use url::Url;

use super::store::{Bench, at, on_every_store};
use crate::flow::weather::{self, Weather};

on_every_store! {
    of_two_workers_one_tells_and_of_each_thing_once,
    a_sink_that_fails_is_told_later,
    whoever_goes_on_after_a_dead_teller_says_the_same_again,
    a_store_that_is_away_is_told_by_the_one_who_looked_last,
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Sees what the test says.
#[derive(Debug, Default)]
struct Eyes(Mutex<Vec<Incident>>);

#[async_trait]
impl Look for Eyes {
    async fn look(&self) -> Picture {
        let incidents = self.0.lock().expect("no panic").clone();
        Picture { incidents, ..Picture::unseen(Timestamp::EPOCH) }
    }
}

/// One notice as a receiver got it.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn status(&self) -> String {
        self.json()["status"].as_str().unwrap_or("slack").to_owned()
    }
}

/// A receiver on this machine: keeps what it gets, answers what it is told to, once its gate is open.
struct Mailbox {
    url: Url,
    got: Mutex<Vec<Got>>,
    answer: watch::Sender<(u16, bool)>,
    came: Notify,
}

impl Mailbox {
    async fn open() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("bound")).parse().expect("a url");
        let (answer, _) = watch::channel((200, true));
        let mailbox = Arc::new(Self { url, got: Mutex::default(), answer, came: Notify::new() });
        let router = Router::new().fallback(take).with_state(Arc::clone(&mailbox));
        tokio::spawn(async move { axum::serve(listener, router).await });
        mailbox
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().expect("no panic").clone()
    }

    /// Paths and statuses of all that came.
    fn told(&self) -> Vec<(String, String)> {
        self.got().iter().map(|got| (got.path.clone(), got.status())).collect()
    }
}

async fn take(State(mailbox): State<Arc<Mailbox>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut answer = mailbox.answer.subscribe();
    mailbox.got.lock().expect("no panic").push(Got { path: uri.path().to_owned(), headers, body });
    mailbox.came.notify_one();
    let (status, _) = *answer.wait_for(|(_, open)| *open).await.expect("the test goes on");
    StatusCode::from_u16(status).expect("a status")
}

struct Scene {
    bench: Bench,
    clock: ManualClock,
    eyes: Arc<Eyes>,
    mailbox: Arc<Mailbox>,
    telemetry: Telemetry,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
}

fn name(text: &str) -> EndpointName {
    EndpointName::new(text).expect("a name")
}

impl Scene {
    async fn new(bench: Bench) -> Self {
        let (telemetry, metrics) = Telemetry::prometheus();
        let (clock, eyes) = (ManualClock::new(at(0)), Arc::new(Eyes::default()));
        Self { bench, clock, eyes, mailbox: Mailbox::open().await, telemetry, metrics }
    }

    /// Two sinks: a signed webhook, and a chat that wants to hear of the worst only.
    fn teller(&self) -> Teller {
        self.teller_on(Arc::clone(&self.bench.store))
    }

    fn teller_on(&self, store: Arc<dyn Store>) -> Teller {
        let targets = ["hook", "chat"].map(|text| {
            let url = self.mailbox.url.join(text).expect("a path");
            Target { timeout: Duration::from_secs(60), ..Target::new(name(text), url) }
        });
        let clock = Arc::new(self.clock.clone());
        let sink = |text: &str, least| Sink { name: text.to_owned(), least, kinds: Vec::new(), repeat: None };
        let signer = Signer::new(&SECRET.into()).expect("a secret");
        Teller::new(Parts {
            eyes: self.eyes.clone(),
            store,
            dispatch: Arc::new(HttpDispatch::new(targets.to_vec(), clock.clone()).expect("usable")),
            receivers: vec![
                Receiver { name: name("hook"), sink: sink("hook", Severity::Info), form: Form::Webhook(Some(signer)) },
                Receiver { name: name("chat"), sink: sink("chat", Severity::Critical), form: Form::Slack },
            ],
            mask: lanes::dash::mask::text,
            public_url: Some("https://lanes.example.com/".parse().expect("a url")),
            telemetry: self.telemetry.clone(),
            clock,
        })
    }

    fn see(&self, severities: &[Severity]) {
        let incident = |severity: &Severity| Incident {
            kind: if *severity == Severity::Critical { Kind::NoWorker } else { Kind::LaneStuck },
            severity: *severity,
            lane: LaneName::new("bulk").ok(),
            endpoint: None,
            tenant: None,
            message: "bulk has called nothing & <!here> nobody works: 401 token=hunter2-is-secret.".to_owned(),
            step: lanes::policy::health::Step::Status,
            also: Vec::new(),
        };
        *self.eyes.0.lock().expect("no panic") = severities.iter().map(incident).collect();
    }

    /// Both have their round at the same time, so many times.
    async fn rounds(&self, a: &mut Teller, b: &mut Teller, times: usize) {
        for _ in 0..times {
            tokio::join!(a.round(), b.round());
            self.clock.advance(EVERY);
        }
    }
}

fn told(path: &str, status: &str) -> (String, String) {
    (path.to_owned(), status.to_owned())
}

async fn of_two_workers_one_tells_and_of_each_thing_once(bench: Bench) {
    let scene = Scene::new(bench).await;
    let (mut a, mut b) = (scene.teller(), scene.teller());
    scene.see(&[Severity::Warning]);
    scene.rounds(&mut a, &mut b, 1).await;
    assert_eq!(scene.mailbox.told(), [], "it may flap");
    scene.rounds(&mut a, &mut b, 5).await;
    assert_eq!(scene.mailbox.told(), [told("/hook", "opened")]);
    let got = scene.mailbox.got().remove(0);
    assert_eq!(got.header("content-type"), "application/json");
    let sent_at: i64 = got.header("webhook-timestamp").parse().expect("seconds");
    assert!(got.header("webhook-id").starts_with("msg_"));
    let signer = Signer::new(&SECRET.into()).expect("a secret");
    let headers = signer.headers(got.header("webhook-id"), Timestamp::from_secs(sent_at), &got.body);
    let signature = headers.iter().find(|(name, _)| name == "webhook-signature").expect("signed");
    assert_eq!(got.header("webhook-signature"), signature.1.to_str().expect("text"));
    let body = got.json();
    assert_eq!((&body["kind"], &body["severity"]), (&"lane_stuck".into(), &"warning".into()));
    assert_eq!((&body["opened_at"], &body["closed_at"]), (&at(0).to_string().into(), &Value::Null));
    assert_eq!(body["dashboard"], "https://lanes.example.com/");
    scene.see(&[Severity::Warning, Severity::Critical]);
    scene.rounds(&mut a, &mut b, 2).await;
    let now = scene.mailbox.told();
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(now.contains(&told("/chat", "slack")), "{now:?}");
    let chat = scene.mailbox.got().into_iter().find(|got| got.path == "/chat").expect("told").json();
    assert!(chat["text"].as_str().expect("a text").contains("nothing &amp; &lt;!here&gt; nobody"), "{chat}");
    // one of them ends, whichever it is: the other one goes on, and says nothing again
    drop(a);
    for _ in 0..8 {
        b.round().await;
        scene.clock.advance(EVERY);
    }
    assert_eq!(scene.mailbox.told().len(), 3);
    scene.see(&[]);
    for _ in 0..8 {
        b.round().await;
        scene.clock.advance(EVERY);
    }
    let all = scene.mailbox.told();
    let closed = all.iter().filter(|told| **told == ("/hook".to_owned(), "closed".to_owned())).count();
    assert_eq!((all.len(), closed), (6, 2), "{all:?}");
    let bodies: String =
        scene.mailbox.got().iter().map(|got| String::from_utf8_lossy(&got.body).into_owned()).collect();
    assert!(bodies.contains("401 token=") && !bodies.contains("hunter2"), "{bodies}");
    let metrics = scene.metrics.render();
    assert!(metrics.contains("lanes_notifications_total{sink=\"hook\",outcome=\"sent\"} 4"), "{metrics}");
    assert!(metrics.contains("lanes_notifications_total{sink=\"chat\",outcome=\"given_up\"} 0"), "{metrics}");
}

async fn a_sink_that_fails_is_told_later(bench: Bench) {
    let scene = Scene::new(bench).await;
    let (mut a, mut b) = (scene.teller(), scene.teller());
    scene.see(&[Severity::Warning]);
    scene.mailbox.answer.send_replace((503, true));
    scene.rounds(&mut a, &mut b, 6).await;
    let tries = scene.mailbox.got();
    assert!((2..=4).contains(&tries.len()), "later and later: {}", tries.len());
    assert!(tries.iter().all(|got| got.header("webhook-id") == tries[0].header("webhook-id")), "one name");
    scene.mailbox.answer.send_replace((200, true));
    scene.rounds(&mut a, &mut b, 20).await;
    assert_eq!(scene.mailbox.got().len(), tries.len() + 1, "told once");
    let metrics = scene.metrics.render();
    assert!(metrics.contains("lanes_notifications_total{sink=\"hook\",outcome=\"sent\"} 1"), "{metrics}");
    let failed = format!("lanes_notifications_total{{sink=\"hook\",outcome=\"failed\"}} {}", tries.len());
    assert!(metrics.contains(&failed), "{metrics}");
}

async fn whoever_goes_on_after_a_dead_teller_says_the_same_again(bench: Bench) {
    let scene = Scene::new(bench).await;
    let (mut first, mut second) = (scene.teller(), scene.teller());
    scene.see(&[Severity::Warning]);
    first.round().await;
    scene.clock.advance(EVERY);
    scene.mailbox.answer.send_replace((200, false));
    let dying = tokio::spawn(async move { first.round().await });
    scene.mailbox.came.notified().await;
    dying.abort();
    assert!(dying.await.is_err(), "it dies between saying and writing");
    second.round().await;
    assert_eq!(scene.mailbox.got().len(), 1, "the other one is not silent for long enough");
    scene.mailbox.answer.send_replace((200, true));
    scene.clock.advance(LOOKER_FOR);
    second.round().await;
    let got = scene.mailbox.got();
    assert_eq!(got.len(), 2, "nobody knows whether it was heard");
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"), "and its receiver can tell");
    scene.see(&[]);
    for _ in 0..4 {
        scene.clock.advance(EVERY);
        second.round().await;
    }
    assert_eq!(scene.mailbox.got().last().map(Got::status).as_deref(), Some("closed"));
}

async fn a_store_that_is_away_is_told_by_the_one_who_looked_last(bench: Bench) {
    let scene = Scene::new(bench).await;
    let storm = Weather::before(&scene.bench.store);
    let (mut a, mut b) = (scene.teller_on(storm.clone()), scene.teller_on(storm.clone()));
    scene.rounds(&mut a, &mut b, 2).await;
    storm.turns(Arc::new(|_| weather::ready(Err(weather::unavailable()))));
    *scene.eyes.0.lock().expect("no panic") = vec![Incident::unreachable_store("h: refused")];
    scene.rounds(&mut a, &mut b, 6).await;
    let mut opened = scene.mailbox.told();
    opened.sort();
    assert_eq!(opened, [told("/chat", "slack"), told("/hook", "opened")], "by one of them, once");
    storm.turns(weather::clear());
    scene.see(&[]);
    scene.rounds(&mut a, &mut b, 16).await;
    let all = scene.mailbox.told();
    assert_eq!(all.len(), 4, "and its end: {all:?}");
    assert!(all.contains(&told("/hook", "closed")), "{all:?}");
}

#[tokio::test]
async fn what_fails_does_not_tell_its_address() {
    let clock = Arc::new(ManualClock::new(at(0)));
    let url = "http://user:T0PSECRET@127.0.0.1:1/services/T0PSECRET?key=T0PSECRET".parse().expect("a url");
    let target = Target::new(name("chat"), url);
    let dispatch = HttpDispatch::new(vec![target.clone()], clock.clone()).expect("usable");
    let outcome = dispatch.post(&name("chat"), Vec::new(), Bytes::from_static(b"{}")).await;
    let texts = format!("{outcome:?} {dispatch:?}");
    assert!(!texts.contains("T0PSECRET"), "{texts}");
    assert_eq!(outcome.started_at, clock.now());
    for forbidden in ["http://169.254.169.254/latest", "http://metadata.google.internal/"] {
        let target = Target::new(name("chat"), forbidden.parse().expect("a url"));
        assert!(HttpDispatch::new(vec![target], clock.clone()).is_err(), "{forbidden}");
    }
}
