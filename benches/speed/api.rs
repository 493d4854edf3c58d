//! A fake API with exact limiters of its own: it answers 429 to what they refuse, tells its limits, and notes every call.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lanes::clock::{Clock, SystemClock, Timestamp, sleep, within};
use tokio::sync::watch;

use super::limiter::{Limiter, Standing};

/// What answers tell of the limits. Every 429 has a `Retry-After` as well.
#[derive(Clone, Copy, PartialEq)]
pub enum Tells {
    Nothing,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds of the epoch).
    XRateLimit,
    /// `RateLimit` and `RateLimit-Policy` of the IETF's latest draft.
    Ietf,
}

/// How the API behaves.
pub struct Rules {
    /// A call has to fit all of them; the first one is told in headers.
    pub limiters: Vec<Limiter>,
    pub tells: Tells,
    /// How long an answer takes.
    pub takes: Duration,
}

/// One call as it came in.
#[derive(Clone)]
pub struct Call {
    pub at: Timestamp,
    pub job: String,
    pub tenant: String,
    /// What the worker's configuration lets it send as `x-worker`.
    pub worker: String,
    pub status: u16,
}

#[derive(Clone)]
pub struct Api {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    clock: SystemClock,
    state: Mutex<State>,
    count: watch::Sender<usize>,
}

struct State {
    rules: Rules,
    broken: Option<u16>,
    calls: Vec<Call>,
}

const TOO_MANY_REQUESTS: u16 = 429;
const OK: u16 = 200;

impl Api {
    pub async fn start(rules: Rules) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let state = Mutex::new(State { rules, broken: None, calls: Vec::new() });
        let shared = Arc::new(Shared { clock: SystemClock::new(), state, count: watch::Sender::default() });
        let server = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&server);
                let service = service_fn(move |request| {
                    let server = Arc::clone(&server);
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                stream.set_nodelay(true).expect("a socket option");
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, shared }
    }

    /// Changes the number of calls that every limiter allows.
    pub fn set_requests(&self, requests: u32) {
        self.shared.lock().rules.limiters.iter_mut().for_each(|limiter| limiter.set_requests(requests));
    }

    /// Answers this to everything; `None` = works again.
    pub fn breaks(&self, status: Option<u16>) {
        self.shared.lock().broken = status;
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// What each limiter refused.
    pub fn refused(&self) -> Vec<(&'static str, usize)> {
        self.shared.lock().rules.limiters.iter().map(|limiter| (limiter.name(), limiter.refused)).collect()
    }

    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Waits for so many calls in all. False when they did not come in time.
    pub async fn until(&self, calls: usize, patience: Duration) -> bool {
        let mut count = self.shared.count.subscribe();
        within(patience, count.wait_for(|count| *count >= calls)).await.is_ok()
    }

    /// When a job was called first; `None` when it was not, in time.
    pub async fn until_called(&self, job: &str, patience: Duration) -> Option<Timestamp> {
        let mut count = self.shared.count.subscribe();
        let called = async {
            let mut seen = 0;
            loop {
                let found = {
                    let state = self.shared.lock();
                    let found = state.calls[seen..].iter().find(|call| call.job == job).map(|call| call.at);
                    seen = state.calls.len();
                    found
                };
                if let Some(at) = found {
                    return at;
                }
                count.changed().await.expect("the API lives");
            }
        };
        within(patience, called).await.ok()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let header =
            |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let call = Call {
            at: self.clock.now(),
            job: header("lanes-job-id"),
            tenant: header("lanes-tenant"),
            worker: header("x-worker"),
            status: OK,
        };
        let (takes, answer) = self.lock().decide(call);
        self.count.send_modify(|count| *count += 1);
        // a worker that is killed breaks off
        drop(request.into_body().collect().await);
        if !takes.is_zero() {
            sleep(&self.clock, takes).await;
        }
        answer
    }
}

impl State {
    fn decide(&mut self, mut call: Call) -> (Duration, Response<Full<Bytes>>) {
        let (now, tenant) = (call.at, &call.tenant);
        let mut answer = Response::builder();
        if let Some(status) = self.broken {
            call.status = status;
        } else {
            let mut longest = Duration::ZERO;
            for limiter in &mut self.rules.limiters {
                if let Some(wait) = limiter.wait(tenant, now) {
                    limiter.refused += 1;
                    longest = longest.max(wait);
                }
            }
            if longest.is_zero() {
                self.rules.limiters.iter_mut().for_each(|limiter| limiter.take(tenant, now));
            } else {
                call.status = TOO_MANY_REQUESTS;
                answer = answer.header("retry-after", whole_seconds(longest));
            }
            if let Some(first) = self.rules.limiters.first_mut() {
                answer = tell(answer, self.rules.tells, first.standing(tenant, now), now);
            }
        }
        let answer = answer.status(call.status).body(Full::default()).expect("a legal answer");
        self.calls.push(call);
        (self.rules.takes, answer)
    }
}

fn tell(
    answer: hyper::http::response::Builder,
    tells: Tells,
    standing: Standing,
    now: Timestamp,
) -> hyper::http::response::Builder {
    let Standing { limit, per, remaining, reset_in } = standing;
    match tells {
        Tells::Nothing => answer,
        Tells::XRateLimit => {
            let reset_at = now.plus(reset_in).as_micros().unsigned_abs().div_ceil(1_000_000);
            answer
                .header("x-ratelimit-limit", limit)
                .header("x-ratelimit-remaining", remaining)
                .header("x-ratelimit-reset", reset_at)
        }
        Tells::Ietf => answer
            .header("ratelimit-policy", format!("\"default\";q={limit};w={}", per.as_secs()))
            .header("ratelimit", format!("\"default\";r={remaining};t={}", whole_seconds(reset_in))),
    }
}

/// Rounded up, as these headers have whole seconds.
fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros().div_ceil(1_000_000)).expect("a short time")
}
