//! Calls HTTP endpoints: one client per lane and endpoint, one request per call, bounded in time and bytes, facts only.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use ::http::Method;
use ::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use super::address::{self, Lookup};
use super::answer::{self, Body};
use super::clients::Clients;
pub use super::clients::LANE_CLIENTS_MAX;
use super::path::PathRules;
use super::request::{Template, is_reserved};
use super::{Call, Dispatch, Post};
use crate::clock::SharedClock;
use crate::job::EndpointName;
use crate::job::outcome::{Answer, HttpAnswer, Outcome};

/// What endpoints see as the caller, unless their configuration says otherwise.
const USER_AGENT_TEXT: &str = concat!("lanes/", env!("CARGO_PKG_VERSION"));

/// One endpoint that can be called.
#[derive(Clone)]
pub struct Target {
    /// Its name in jobs.
    pub name: EndpointName,
    /// Where it is; a query stays part of every call.
    pub url: Url,
    /// The method of jobs that ask for none.
    pub default_method: Method,
    /// Methods that jobs may ask for, beside the default.
    pub allow_methods: Vec<Method>,
    /// Patterns of paths that jobs may ask for (`*` within a segment, `**` for segments); empty = the url's own only.
    pub allow_paths: Vec<String>,
    /// Most time for a whole call.
    pub timeout: Duration,
    /// Most time to get a connection, name lookup and TLS included.
    pub connect_timeout: Duration,
    /// Sent with every call; their values never show up in logs or errors.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Keep the body of 2xx answers, because a rule looks at it.
    pub keep_body_of_2xx: bool,
    /// Allow addresses of cloud metadata services.
    pub allow_metadata: bool,
    /// Never HTTP/2.
    pub http1_only: bool,
    /// Most unused connections that are kept, for each lane.
    pub connections_idle_max: usize,
}

impl Target {
    /// A target with the defaults of `lanes.toml`.
    pub fn new(name: EndpointName, url: Url) -> Self {
        Self {
            name,
            url,
            default_method: Method::POST,
            allow_methods: Vec::new(),
            allow_paths: Vec::new(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            headers: Vec::new(),
            keep_body_of_2xx: false,
            allow_metadata: false,
            http1_only: false,
            connections_idle_max: 64,
        }
    }
}

impl fmt::Debug for Target {
    /// Origin and path only: user info, query and headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = format!("{}{}", self.url.origin().ascii_serialization(), self.url.path());
        f.debug_struct("Target").field("name", &self.name).field("url", &url).finish_non_exhaustive()
    }
}

/// Why an endpoint cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("endpoint {endpoint}: {why}")]
pub struct DispatchError {
    endpoint: EndpointName,
    why: String,
}

/// Calls HTTP endpoints.
pub struct HttpDispatch {
    endpoints: HashMap<EndpointName, Endpoint>,
    clock: SharedClock,
}

struct Endpoint {
    clients: Clients,
    template: Template,
    timeout: Duration,
    keep_body_of_2xx: bool,
}

impl fmt::Debug for HttpDispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDispatch").field("endpoints", &self.endpoints.keys()).finish_non_exhaustive()
    }
}

impl HttpDispatch {
    /// Prepares every target; names are looked up by the system. A lane's own connections are made at its first call.
    ///
    /// # Errors
    /// [`DispatchError`] for the first target that cannot be used, with what to change.
    pub fn new(targets: Vec<Target>, clock: SharedClock) -> Result<Self, DispatchError> {
        Self::with_lookup(targets, clock, &address::system_lookup())
    }

    /// The same with another way to look names up.
    ///
    /// # Errors
    /// As [`HttpDispatch::new`].
    pub fn with_lookup(targets: Vec<Target>, clock: SharedClock, lookup: &Lookup) -> Result<Self, DispatchError> {
        install_crypto();
        let mut endpoints = HashMap::with_capacity(targets.len());
        for target in targets {
            let name = target.name.clone();
            let endpoint =
                Endpoint::new(target, lookup).map_err(|why| DispatchError { endpoint: name.clone(), why })?;
            if endpoints.insert(name.clone(), endpoint).is_some() {
                return Err(DispatchError { endpoint: name, why: "is configured twice".to_owned() });
            }
        }
        Ok(Self { endpoints, clock })
    }
}

#[async_trait]
impl Dispatch for HttpDispatch {
    async fn call(&self, call: Call) -> Outcome {
        let started_at = self.clock.now();
        let answer = match self.endpoints.get(&call.job.endpoint) {
            Some(endpoint) => endpoint.answer(&call).await,
            None => Answer::Impossible(format!("endpoint {} is not configured", call.job.endpoint)),
        };
        Outcome { started_at, ended_at: self.clock.now(), answer }
    }
}

#[async_trait]
impl Post for HttpDispatch {
    async fn post(&self, to: &EndpointName, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> Outcome {
        let started_at = self.clock.now();
        let answer = match self.endpoints.get(to) {
            Some(endpoint) => endpoint.post(headers, body).await,
            None => Answer::Impossible(format!("{to} is not configured")),
        };
        Outcome { started_at, ended_at: self.clock.now(), answer }
    }
}

/// Makes ring the process's TLS provider unless there is one already. May be called any number of times.
fn install_crypto() {
    // Err = somebody was first; any provider will do
    drop(rustls::crypto::ring::default_provider().install_default());
}

impl Endpoint {
    fn new(target: Target, lookup: &Lookup) -> Result<Self, String> {
        if !matches!(target.url.scheme(), "http" | "https") || !target.url.has_host() {
            return Err(format!("url must be http:// or https:// with a host, is {}://...", target.url.scheme()));
        }
        if !target.allow_metadata {
            address::check_literal(&target.url).map_err(|forbidden| forbidden.to_string())?;
        }
        let clients = Clients::new(&target, lookup)?;
        let paths = PathRules::new(target.url.path(), target.url.query(), &target.allow_paths)?;
        let (url, headers) = base(clients.spare(), &target)?;
        let template =
            Template { method: target.default_method, allow_methods: target.allow_methods, url, paths, headers };
        Ok(Self { clients, template, timeout: target.timeout, keep_body_of_2xx: target.keep_body_of_2xx })
    }

    async fn answer(&self, call: &Call) -> Answer {
        let mut request = match self.template.request(call) {
            Ok(request) => request,
            Err(why) => return Answer::Impossible(why),
        };
        let timeout = call.timeout.min(self.timeout);
        *request.timeout_mut() = Some(timeout);
        let client = match self.clients.of(&call.job.lane) {
            Ok(client) => client,
            Err(why) => return Answer::NotSent(why),
        };
        match client.execute(request).await {
            Ok(response) => self.read(response, timeout).await,
            Err(error) => failure(error, timeout),
        }
    }

    async fn post(&self, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> Answer {
        let mut request = reqwest::Request::new(Method::POST, self.template.url.clone());
        *request.headers_mut() = self.template.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().extend(headers);
        *request.body_mut() = Some(body.into());
        *request.timeout_mut() = Some(self.timeout);
        match self.clients.spare().execute(request).await {
            Ok(response) => self.read(response, self.timeout).await,
            Err(error) => failure(error, self.timeout),
        }
    }

    /// The status has come, so the endpoint has decided. A body that breaks off changes that only where it is needed.
    async fn read(&self, mut response: reqwest::Response, timeout: Duration) -> Answer {
        let status = response.status();
        let keep = !status.is_success() || self.keep_body_of_2xx;
        let headers = answer::rate_headers(response.headers());
        let body = match answer::read_body(&mut response, keep).await {
            Body::Read(body) => body,
            Body::Broken { error, .. } if status.is_success() && keep => return failure(error, timeout),
            Body::Broken { start, .. } => start,
        };
        let body = if keep { body } else { Bytes::new() };
        Answer::Http(HttpAnswer { status: status.as_u16(), headers, body })
    }
}

/// URL and headers of every request; credentials in the URL become a header.
fn base(client: &reqwest::Client, target: &Target) -> Result<(Url, HeaderMap), String> {
    let made = client
        .request(target.default_method.clone(), target.url.clone())
        .build()
        .map_err(|error| format!("url cannot be called: {}", describe(error)))?;
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
    if let Some(basic) = made.headers().get(AUTHORIZATION) {
        headers.insert(AUTHORIZATION, basic.clone());
    }
    for (name, value) in &target.headers {
        if is_reserved(name) {
            return Err(format!("header {name} is set by lanes itself; remove it from the endpoint's headers"));
        }
        let mut value = value.clone();
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let mut url = made.url().clone();
    url.set_fragment(None);
    Ok((url, headers))
}

fn failure(error: reqwest::Error, timeout: Duration) -> Answer {
    if error.is_connect() {
        Answer::NotSent(describe(error))
    } else if error.is_builder() {
        Answer::Impossible(describe(error))
    } else if error.is_timeout() {
        Answer::NoAnswer(format!("no complete answer within {timeout:?}"))
    } else {
        Answer::NoAnswer(describe(error))
    }
}

/// The causes of an error, outermost first, without its URL, whose query may hold a secret.
pub(super) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
