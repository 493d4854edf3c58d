//! The HTTP target: as small as a server can be, it counts calls and answers by mode.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lanes::clock::{Clock, SystemClock, Timestamp, sleep};
use tokio::sync::watch;

/// How it answers.
#[derive(Clone, Copy)]
pub enum Mode {
    /// 200 at once.
    Fast,
    /// 200 after a time for the lane `bulk`, at once otherwise.
    SlowBulk(Duration),
    /// 429 to the first two calls of a job, then 200.
    LimitTwice,
}

#[derive(Clone)]
pub struct Sink {
    pub url: String,
    mode: Mode,
    clock: SystemClock,
    count: Arc<watch::Sender<usize>>,
    calls: Arc<Mutex<HashMap<String, Vec<Timestamp>>>>,
}

impl Sink {
    pub async fn start(mode: Mode) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let sink = Self { url, mode, clock: SystemClock::new(), count: Arc::default(), calls: Arc::default() };
        let server = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = server.clone();
                let service = service_fn(move |request| {
                    let sink = sink.clone();
                    async move { Ok::<_, Infallible>(sink.answer(request).await) }
                });
                stream.set_nodelay(true).expect("a socket option");
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        sink
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let header =
            |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let status = match self.mode {
            Mode::SlowBulk(_) if header("lanes-lane") != "bulk" => {
                self.note(header("lanes-job-id"));
                200
            }
            Mode::SlowBulk(time) => {
                sleep(&self.clock, time).await;
                200
            }
            Mode::LimitTwice if self.note(header("lanes-job-id")) <= 2 => 429,
            Mode::Fast | Mode::LimitTwice => 200,
        };
        request.into_body().collect().await.expect("a whole request");
        self.count.send_modify(|count| *count += 1);
        Response::builder().status(status).body(Full::default()).expect("a legal answer")
    }

    fn note(&self, id: String) -> usize {
        let mut calls = self.calls.lock().expect("not poisoned");
        let of_job = calls.entry(id).or_default();
        of_job.push(self.clock.now());
        of_job.len()
    }

    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    pub async fn until(&self, calls: usize) {
        self.count.subscribe().wait_for(|count| *count >= calls).await.expect("the sink lives");
    }

    /// When the job was first called.
    pub async fn until_called(&self, id: &str) -> Timestamp {
        let mut count = self.count.subscribe();
        loop {
            if let Some(at) = self.calls.lock().expect("not poisoned").get(id).and_then(|calls| calls.first()) {
                return *at;
            }
            count.changed().await.expect("the sink lives");
        }
    }

    /// Calls that came sooner after the one before than they should.
    pub fn early(&self, gaps: [Duration; 2]) -> usize {
        let calls = self.calls.lock().expect("not poisoned");
        let early =
            |at: &Vec<Timestamp>| at.windows(2).zip(gaps).filter(|(pair, gap)| pair[1].since(pair[0]) < *gap).count();
        calls.values().map(early).sum()
    }
}
