//! The fake API's HTTP side: a rate-limited service on a port of its own, as a third party would run it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::book::{Answer, Book, Call, Contact, burst};
use crate::clock::{self, SharedClock};

/// How long a call takes, refused or not: from the first of these to the second.
const WORK_MS: (u64, u64) = (12, 28);

/// The API while it runs.
#[derive(Debug, Clone)]
pub struct Api {
    book: Arc<Mutex<Book>>,
    clock: SharedClock,
    per_minute: u64,
}

impl Api {
    /// An API that allows each tenant `per_minute` calls a minute.
    pub fn new(per_minute: u64, clock: SharedClock) -> Self {
        Self { book: Arc::new(Mutex::new(Book::new(per_minute))), clock, per_minute }
    }

    /// Looks into the book.
    pub fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens a port of the loopback address and serves until `stop`; answers where it listens.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn serve(self, stop: CancellationToken) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/contacts", post(contact)).with_state(self);
        tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the demo's API stopped");
            }
        });
        Ok(address)
    }
}

async fn contact(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    let contact: Contact = match serde_json::from_slice(&body) {
        Ok(contact) => contact,
        // somebody's own job, sent by hand: any JSON is welcome
        Err(_) => Contact { email: "unknown@example.com".to_owned(), ..Contact::default() },
    };
    let call = Call {
        lane: text(&headers, "lanes-lane"),
        tenant: text(&headers, "lanes-tenant"),
        job: text(&headers, "lanes-job-id"),
        idempotency_key: text(&headers, "idempotency-key"),
        contact,
    };
    let answer = api.write(|book| book.arrive(&call, api.clock.now()));
    let call = InFlight { api: &api, call };
    clock::sleep(&*api.clock, work(&call.call.job)).await;
    respond(api.per_minute, answer)
}

/// Counted as in flight until dropped, so a caller that hangs up is not counted for ever.
struct InFlight<'a> {
    api: &'a Api,
    call: Call,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.api.write(|book| book.leave(&self.call));
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// The same job always takes the same time.
fn work(job: &str) -> Duration {
    let spread = job.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Duration::from_millis(WORK_MS.0 + spread % (WORK_MS.1 - WORK_MS.0))
}

/// Tells its limit as a bucket: so many calls at once, refilled in that time.
fn respond(per_minute: u64, answer: Answer) -> Response {
    let seconds = (60 / per_minute.max(1)).max(1);
    let (status, remaining, reset, body) = match answer {
        Answer::Ok { remaining } => (StatusCode::OK, remaining, 1, r#"{"status":"updated"}"#),
        Answer::Refused { remaining } => {
            (StatusCode::UNPROCESSABLE_ENTITY, remaining, 1, r#"{"error":"email is not an address"}"#)
        }
        Answer::Limited { retry_after } => {
            (StatusCode::TOO_MANY_REQUESTS, 0, retry_after.as_secs(), r#"{"error":"rate limit exceeded"}"#)
        }
        Answer::Unavailable => {
            return (StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"temporarily unavailable"}"#).into_response();
        }
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    let limit = format!("{};w={seconds}", burst(per_minute));
    headers.insert("x-ratelimit-limit", HeaderValue::try_from(limit).expect("digits"));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(reset));
    if let Answer::Limited { retry_after } = answer {
        headers.insert("retry-after", HeaderValue::from(retry_after.as_secs()));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let response = respond(6_000, Answer::Limited { retry_after: Duration::from_secs(2) });
        assert_eq!(response.status(), 429);
        let header = |name| text(response.headers(), name);
        assert_eq!((header("retry-after"), header("x-ratelimit-remaining")), ("2".to_owned(), "0".to_owned()));
        assert_eq!(header("x-ratelimit-limit"), "100;w=1");
    }

    #[test]
    fn a_call_takes_some_milliseconds() {
        for job in ["contact-1", "contact-2", ""] {
            let took = work(job);
            assert!((WORK_MS.0..WORK_MS.1).contains(&u64::try_from(took.as_millis()).expect("small")), "{took:?}");
        }
    }
}
