//! `[endpoints.X]`: where it is, what is sent, what its answers mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use url::{Host, Url};

use super::budgets::{self, Named};
use super::document::{Node, Value};
use super::reader::{Fault, Reader};
use super::secret::{self, is_sensitive};
use super::specs::EndpointSpec;
use super::value::{Shown, anything, duration, flag, list, method, pointer, text};
use super::{lanes, later};
use crate::job::EndpointName;
use crate::policy::classify::{BodyRule, EndpointRules, StatusRange};
use crate::policy::pacing::EndpointBudget;

/// Headers that belong to the connection or that lanes writes itself.
const OWN_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];
/// Names by which clouds answer for their metadata.
const METADATA_NAMES: [&str; 4] =
    ["metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(169, 254, 170, 2), Ipv4Addr::new(100, 100, 100, 200)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);

/// All endpoints, in the order of the file, and the budget of each name.
pub fn read(root: &Reader<'_>) -> (Vec<EndpointSpec>, Named) {
    lanes::check_alike(root, "endpoints");
    if root.names("endpoints").is_empty() {
        root.warn("endpoints", "there is none, so every job that names one becomes a dead letter");
    }
    let names = root.names("endpoints");
    let read = root.named_tables("endpoints", |name, table| {
        let (spec, budget) = endpoint(name, table, &names);
        (spec, (name.to_owned(), budget))
    });
    let (specs, by_name): (Vec<_>, Named) = read.into_iter().unzip();
    budgets::check(root, &by_name);
    (specs.into_iter().flatten().collect(), by_name)
}

/// The endpoint if it can be called, and its budget anyway: others may share it.
fn endpoint(name: &str, table: &Reader<'_>, endpoints: &[&str]) -> (Option<EndpointSpec>, EndpointBudget) {
    let secret = table.required(
        "url",
        "say where it is: url = \"https://api.example.com/path\"",
        secret::url(table.session, |url| check_url(url).map(|_| ())),
    );
    let default_method = table.get_or("default_method", Method::POST, method);
    let allow_methods = table.get_or("allow_methods", Vec::new(), list(method));
    let allow_paths = table.get_or("allow_paths", Vec::new(), list(path_pattern));
    let timeout = table.get_or("timeout", Duration::from_secs(30), timeout());
    let connect_timeout = table.get_or("connect_timeout", Duration::from_secs(5).min(timeout), self::timeout());
    if connect_timeout > timeout {
        table.problem("connect_timeout", "is longer than timeout, which covers the whole call", None);
    }
    let headers = table.optional_free_table("headers", headers).unwrap_or_default();
    let rules = rules(table);
    let allow_metadata = table.get_or("allow_metadata", false, flag);
    let http1_only = table.get_or("http1_only", false, flag);
    let budget = budgets::read(name, table, endpoints);
    later::endpoint(table);
    let name = EndpointName::new(name).map_err(|error| table.table_problem(&error.to_string(), "rename the endpoint"));
    let url = secret.and_then(|secret| check_url(secret.expose()).ok());
    if !allow_metadata && url.as_ref().is_some_and(is_metadata) {
        let help = "set allow_metadata = true if jobs really may read this machine's cloud credentials";
        table.problem("url", "is the address of a cloud's metadata service", Some(help));
    }
    let spec = name.ok().zip(url).map(|(name, url)| EndpointSpec {
        name,
        url,
        default_method,
        allow_methods,
        allow_paths,
        timeout,
        connect_timeout,
        headers,
        rules,
        allow_metadata,
        http1_only,
        budget: budget.clone(),
    });
    (spec, budget)
}

fn timeout() -> impl Fn(&Node) -> Result<Duration, Fault> {
    duration(Duration::from_millis(1)..=Duration::from_hours(1))
}

/// Where calls may go.
pub fn check_url(text: &str) -> Result<Url, Fault> {
    let url = Url::parse(text).map_err(|error| {
        Fault::new(format!("is not a url: {error}")).help("write it like \"https://api.example.com/path\"")
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Fault::new("must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("must not hold a user or password")
            .help("put them into a header: headers = { authorization = \"Basic env:NAME\" }"));
    }
    if url.fragment().is_some() {
        return Err(Fault::new("has a fragment (#...), which is never sent"));
    }
    Ok(url)
}

/// Whether a cloud hands out credentials there.
pub fn is_metadata(url: &Url) -> bool {
    let address = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => ip == METADATA_V6,
    };
    match url.host() {
        Some(Host::Domain(name)) => METADATA_NAMES.contains(&name.trim_end_matches('.').to_ascii_lowercase().as_str()),
        Some(Host::Ipv4(ip)) => address(ip.into()),
        Some(Host::Ipv6(ip)) => address(ip.into()),
        None => false,
    }
}

fn path_pattern(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    if !text.starts_with('/') {
        return Err(Fault::new(format!("{text:?} does not begin with '/'")));
    }
    if text.contains(['?', '#', '\\']) || text.split('/').any(|part| part == "..") || text.chars().any(char::is_control)
    {
        return Err(Fault::new(format!("{text:?} is not a path"))
            .help("no query, no '..'; '*' stands for anything in a segment"));
    }
    Ok(text)
}

fn headers(table: &Reader<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let one = |(key, node): (&str, &Node)| match header(table, key, node) {
        Ok((name, value, shown)) => {
            table.record(key, shown, Some(node));
            Some((name, value))
        }
        Err(fault) => {
            table.fault(key, node, fault);
            None
        }
    };
    table.free_keys().filter_map(one).collect()
}

fn header(table: &Reader<'_>, key: &str, node: &Node) -> Result<(HeaderName, HeaderValue, serde_json::Value), Fault> {
    let name = HeaderName::try_from(key).map_err(|_| Fault::new("is not a header's name"))?;
    if OWN_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("lanes-") {
        return Err(Fault::new("is written by lanes itself").help("remove it"));
    }
    let secret = if is_sensitive(key) {
        secret::reference_only(table.session)(node)?
    } else {
        secret::reference_or_text(table.session)(node)?
    };
    let fault = |_| Fault::new("has a character that a header can't carry");
    let mut value = HeaderValue::try_from(secret.expose()).map_err(fault)?;
    value.set_sensitive(true);
    Ok((name, value, secret.shown()))
}

fn rules(table: &Reader<'_>) -> EndpointRules {
    let usual = EndpointRules::default();
    let (status, body) = table.table("rate_limited", |table| {
        let default: Vec<StatusRange> = usual.rate_limited_status.iter().map(|&status| status.into()).collect();
        let status = table.get_or("status", default, list(statuses));
        let body = table.optional_table("body", body_rule).flatten();
        (status, body)
    });
    let transient_status = table.get_or("transient", usual.transient_status, list(statuses));
    EndpointRules {
        rate_limited_status: status.iter().flat_map(|range| range.first..=range.last).collect(),
        rate_limited_body: body,
        transient_status,
        retry_unknown: table.get_or("retry_unknown", usual.retry_unknown, flag),
    }
}

fn body_rule(table: &Reader<'_>) -> Option<BodyRule> {
    let pointer = table.required("pointer", "a place in the body: pointer = \"/error/code\"", pointer);
    let equals = table.required("equals", "what is there: equals = \"THROTTLED\"", anything);
    Some(BodyRule { pointer: pointer?, equals: equals? })
}

impl Shown for StatusRange {
    fn shown(&self) -> serde_json::Value {
        if self.first == self.last { self.first.into() } else { format!("{}-{}", self.first, self.last).into() }
    }
}

/// `429`, `"5xx"` or `"500-503"`, of failures only.
fn statuses(node: &Node) -> Result<StatusRange, Fault> {
    let fault = || Fault::new("expected a status: 503, \"5xx\" or \"500-503\"");
    let range = match &node.value {
        Value::Integer(number) => number.and_then(|number| u16::try_from(number).ok()).map(StatusRange::from),
        Value::Text(text) | Value::Variable(text) => status_range(text.trim()),
        _ => None,
    };
    let range = range.ok_or_else(fault)?;
    if range.first < 300 || range.last > 599 || range.first > range.last {
        let help =
            if range.first < 300 { "a 2xx can be told apart by its body: see rate_limited.body" } else { "300 to 599" };
        return Err(Fault::new("is not the status of a failure").help(help));
    }
    Ok(range)
}

fn status_range(text: &str) -> Option<StatusRange> {
    if let Some(class) = text.strip_suffix("xx") {
        let first = class.parse::<u16>().ok().filter(|class| *class < 10)? * 100;
        return Some(StatusRange { first, last: first + 99 });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(StatusRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
}
