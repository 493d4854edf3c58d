//! Reduces an HTTP answer to the facts that may be looked at: status, rate headers, a bounded body.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::job::outcome::{ANSWER_BODY_BYTES_MAX, ANSWER_HEADERS_MAX};

/// Longest header value that is kept; a longer one is dropped, because its start could be misread.
const HEADER_VALUE_BYTES_MAX: usize = 256;

/// Names that say something about rates, beside everything that holds one of [`RATE_PARTS`]. Lower case.
const RATE_NAMES: [&str; 6] = [
    "date",
    "sforce-limit-info",
    "x-shopify-shop-api-call-limit",
    "stripe-rate-limited-reason",
    "x-should-retry",
    "x-app-usage",
];
const RATE_PARTS: [&str; 3] = ["ratelimit", "rate-limit", "retry-after"];
const RATE_PREFIX: &str = "x-rate";

/// True for a header (lower-case name) that tells about rates and retries: never a cookie or a credential.
pub fn is_rate_header(name: &str) -> bool {
    RATE_NAMES.contains(&name) || name.starts_with(RATE_PREFIX) || RATE_PARTS.iter().any(|part| name.contains(part))
}

/// The rate headers as sent, bounded in number and length; what is not UTF-8 is dropped.
pub fn rate_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, value)| is_rate_header(name.as_str()) && value.len() <= HEADER_VALUE_BYTES_MAX)
        .filter_map(|(name, value)| {
            let value = std::str::from_utf8(value.as_bytes()).ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        })
        .take(ANSWER_HEADERS_MAX)
        .collect()
}

/// How reading a body ended.
#[derive(Debug)]
pub enum Body {
    /// It was read to its end, or to the bound.
    Read(Bytes),
    /// It broke off.
    Broken {
        /// What had come until then.
        start: Bytes,
        /// Why.
        error: reqwest::Error,
    },
}

/// Reads at most [`ANSWER_BODY_BYTES_MAX`] bytes and keeps them if asked to; the rest is dropped with its connection.
///
/// A body that nobody wants is read too: only then can its connection be used again.
pub async fn read_body(response: &mut reqwest::Response, keep: bool) -> Body {
    let mut kept = BytesMut::new();
    let mut seen = 0;
    while seen < ANSWER_BODY_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = (ANSWER_BODY_BYTES_MAX - seen).min(chunk.len());
                seen += chunk.len();
                if keep {
                    kept.extend_from_slice(&chunk[..room]);
                }
            }
            Ok(None) => break,
            Err(error) => return Body::Broken { start: kept.freeze(), error },
        }
    }
    Body::Read(kept.freeze())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_rate_headers_are_kept() {
        for name in [
            "retry-after",
            "retry-after-ms",
            "x-ms-retry-after-ms",
            "date",
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-remaining",
            "x-rate-limit-reset",
            "x-ratelimit-remaining-tokens",
            "anthropic-ratelimit-requests-reset",
            "x-hubspot-ratelimit-daily-remaining",
            "sforce-limit-info",
            "x-shopify-shop-api-call-limit",
            "stripe-rate-limited-reason",
        ] {
            assert!(is_rate_header(name), "{name}");
        }
        for name in
            ["set-cookie", "authorization", "www-authenticate", "x-api-key", "location", "content-type", "server"]
        {
            assert!(!is_rate_header(name), "{name}");
        }
    }

    #[test]
    fn headers_are_bounded_and_text() {
        let mut headers = HeaderMap::new();
        headers.append("ratelimit", HeaderValue::from_bytes(&[0xff, 0xfe]).expect("opaque bytes are legal"));
        headers.append("ratelimit", HeaderValue::from_str(&"x".repeat(257)).expect("legal"));
        assert!(rate_headers(&headers).is_empty());
        for _ in 0..100 {
            headers.append("x-ratelimit-remaining", HeaderValue::from_static("1"));
        }
        assert_eq!(rate_headers(&headers).len(), ANSWER_HEADERS_MAX);
    }
}
