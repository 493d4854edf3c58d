//! The part of a request that is ready before the first call, and what each job adds to it.

use std::fmt::Write as _;

use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, header};
use reqwest::{Body, Request};
use url::Url;

use super::Call;
use super::path::PathRules;
use crate::job::Job;

static JOB_ID: HeaderName = HeaderName::from_static("lanes-job-id");
static ATTEMPT: HeaderName = HeaderName::from_static("lanes-attempt");
static LANE: HeaderName = HeaderName::from_static("lanes-lane");
static TENANT: HeaderName = HeaderName::from_static("lanes-tenant");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Headers that lanes adds to those configured: room made once per request.
const OWN_HEADERS: usize = 10;

/// A request without its job.
pub(super) struct Template {
    pub method: Method,
    pub allow_methods: Vec<Method>,
    pub url: Url,
    pub paths: PathRules,
    pub headers: HeaderMap,
}

/// True for a header that lanes or the HTTP client sets itself, so an endpoint's configuration must not.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    [&IDEMPOTENCY_KEY, &TRACEPARENT, &TRACESTATE].contains(&name)
        || name.as_str().starts_with("lanes-")
        || [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
            header::TE,
            header::TRAILER,
            header::EXPECT,
        ]
        .contains(name)
}

impl Template {
    /// The request for one call.
    ///
    /// # Errors
    /// A sentence for a person: why the endpoint can't be called as the job asks.
    pub fn request(&self, call: &Call) -> Result<Request, String> {
        let job = &*call.job;
        let mut request = Request::new(self.method(job)?, self.url(job)?);
        *request.headers_mut() = self.headers(call)?;
        if !job.body.is_empty() {
            *request.body_mut() = Some(Body::from(job.body.clone()));
        }
        Ok(request)
    }

    fn method(&self, job: &Job) -> Result<Method, String> {
        let Some(wanted) = &job.meta.method else { return Ok(self.method.clone()) };
        let known = std::iter::once(&self.method).chain(&self.allow_methods);
        known.clone().find(|method| method.as_str().eq_ignore_ascii_case(wanted)).cloned().ok_or_else(|| {
            let mut allowed: Vec<_> = known.map(Method::as_str).collect();
            allowed.sort_unstable();
            allowed.dedup();
            let shown: String = wanted.chars().take(32).collect();
            format!("method {shown:?} is not allowed; endpoint {} allows {}", job.endpoint, allowed.join(", "))
        })
    }

    fn url(&self, job: &Job) -> Result<Url, String> {
        let mut url = self.url.clone();
        let Some(wanted) = &job.meta.path else { return Ok(url) };
        let allowed = self.paths.check(wanted).map_err(|why| format!("endpoint {}: {why}", job.endpoint))?;
        url.set_path(allowed.path);
        match (self.url.query(), allowed.query) {
            (Some(own), Some(more)) => url.set_query(Some(&format!("{own}&{more}"))),
            (None, Some(more)) => url.set_query(Some(more)),
            (_, None) => {}
        }
        Ok(url)
    }

    fn headers(&self, call: &Call) -> Result<HeaderMap, String> {
        let job = &*call.job;
        let mut headers = HeaderMap::with_capacity(self.headers.len() + OWN_HEADERS);
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        if let Some(content_type) = &job.meta.content_type {
            let value = HeaderValue::from_str(content_type)
                .map_err(|_| format!("content type {content_type:?} is not legal in a header"))?;
            headers.insert(CONTENT_TYPE, value);
        }
        headers.insert(&JOB_ID, text_value(job.id.as_str()));
        headers.insert(&TENANT, text_value(job.tenant.as_str()));
        headers.insert(&LANE, text_value(job.lane.as_str()));
        headers.insert(&ATTEMPT, HeaderValue::from(call.attempt));
        headers.insert(&IDEMPOTENCY_KEY, text_value(&job.idempotency_key(call.generation)));
        // a broken trace context is ignored, as W3C asks; it is no reason not to call
        let own = call.trace.map(|trace| trace.to_string());
        let traceparent = own.as_ref().or(job.meta.traceparent.as_ref());
        for (name, text) in [(&TRACEPARENT, traceparent), (&TRACESTATE, job.meta.tracestate.as_ref())] {
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
                headers.insert(name, value);
            }
        }
        Ok(headers)
    }
}

/// Text as a header value: what a header cannot hold, and `%` itself, is percent-encoded, so decoding gives it back.
fn text_value(text: &str) -> HeaderValue {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%')
        && let Ok(value) = HeaderValue::from_str(text)
    {
        return value;
    }
    let last = text.len().saturating_sub(1);
    let mut encoded = String::with_capacity(text.len() * 3);
    for (index, byte) in text.bytes().enumerate() {
        let inner_space = byte == b' ' && index != 0 && index != last;
        if (byte.is_ascii_graphic() && byte != b'%') || inner_space {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    HeaderValue::try_from(encoded).expect("only visible ASCII is left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_legal_header_values() {
        for (text, value) in [
            ("order-42", "order-42"),
            ("a b", "a b"),
            (" a ", "%20a%20"),
            ("caf\u{e9}", "caf%C3%A9"),
            ("100%", "100%25"),
            ("\u{2028}", "%E2%80%A8"),
        ] {
            assert_eq!(text_value(text), value, "{text:?}");
        }
    }

    #[test]
    fn headers_of_our_own_are_reserved() {
        for name in ["lanes-attempt", "lanes-anything", "idempotency-key", "content-length", "connection"] {
            assert!(is_reserved(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["authorization", "host", "content-type", "user-agent", "x-api-key"] {
            assert!(!is_reserved(&HeaderName::from_static(name)), "{name}");
        }
    }
}
