//! The same for programs: JSON in and out, problems as RFC 9457 tells them.

pub(super) mod acts;
pub(super) mod operations;
pub(super) mod reads;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::acts::Refused;
use super::{Shared, Unreadable};

/// Where all of it is.
pub(super) const PREFIX: &str = "/api/";
const PROBLEM: &str = "application/problem+json";

/// Why something was not answered or done, as a document: `detail` is what is wrong, `help` what to do.
pub(super) fn problem(refused: &Refused) -> Response {
    let title = refused.status.canonical_reason().unwrap_or("Error");
    let document = json!({
        "type": "about:blank", "title": title, "status": refused.status.as_u16(), "detail": refused.why,
        "help": refused.help,
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM))];
    (refused.status, kind, document.to_string()).into_response()
}

/// A document, or why there is none.
type Answer = Result<Document, Failed>;

/// What a program is told.
pub(super) struct Document(Value);

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0.to_string()).into_response()
    }
}

/// Why it is not told.
pub(super) struct Failed(Refused);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        problem(&self.0)
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self(refused)
    }
}

impl From<Unreadable> for Failed {
    fn from(Unreadable(why): Unreadable) -> Self {
        Self(Refused::new(StatusCode::SERVICE_UNAVAILABLE, why, "Ask again in a moment."))
    }
}

/// A body of JSON; none at all is an empty object.
pub(super) struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequest<Shared> for Asked<T> {
    type Rejection = Response;

    async fn from_request(request: Request, dash: &Shared) -> Result<Self, Response> {
        let refuse = |status, why: String, help: &str| problem(&Refused::new(status, why, help));
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = content_type.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let body = Bytes::from_request(request, dash)
            .await
            .map_err(|rejection| refuse(rejection.status(), "the body could not be read".to_owned(), "Send less."))?;
        match media.as_deref() {
            Some("application/json") => {}
            None if body.is_empty() => {}
            _ => {
                let help = "Send content-type: application/json.";
                return Err(refuse(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "the body is not said to be JSON".to_owned(),
                    help,
                ));
            }
        }
        let text = if body.is_empty() { &b"{}"[..] } else { &body };
        let wrong = |why| {
            let help = "Correct it: nothing was changed. The README tells the fields.";
            refuse(StatusCode::BAD_REQUEST, why, help)
        };
        // a list would be taken for the values of the fields, in their order
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(wrong("the body is no JSON object".to_owned()));
        }
        serde_json::from_slice(text).map(Self).map_err(|error| wrong(error.to_string()))
    }
}

/// What a query may hold.
pub(super) trait Fields: DeserializeOwned {
    /// The names of its fields.
    const NAMES: &'static [&'static str];
}

/// A query; fields that there are not are refused, because a filter that is only misspelt would show everything.
pub(super) struct Filter<T>(T);

impl<T: Fields> FromRequestParts<Shared> for Filter<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, dash: &Shared) -> Result<Self, Response> {
        let text = parts.uri.query().unwrap_or_default();
        let unknown = url::form_urlencoded::parse(text.as_bytes()).find(|(name, _)| !T::NAMES.contains(&&**name));
        if let Some((name, _)) = unknown {
            let help = match T::NAMES {
                [] => "This takes no query.".to_owned(),
                names => format!("There are: {}.", names.join(", ")),
            };
            return Err(problem(&Refused::new(
                StatusCode::BAD_REQUEST,
                format!("the query has no field {name:?}"),
                help,
            )));
        }
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, dash).await;
        query.map(|Query(filter)| Self(filter)).map_err(|rejection| {
            let help = "Correct the query. The README tells its fields.";
            problem(&Refused::new(StatusCode::BAD_REQUEST, rejection.body_text(), help))
        })
    }
}
