//! `[[endpoints.X.limits]]` and `[tenants.X]`: what APIs allow, and what is different for one tenant.

use std::collections::HashSet;
use std::time::Duration;

use super::document::Node;
use super::problem::similar;
use super::reader::{Fault, Reader};
use super::specs::TenantSpec;
use super::value::{Word, duration, integer, number, word};
use crate::job::{EndpointName, Tenant};
use crate::policy::pacing::{HEADROOM, LIMITS_MAX, Limit, Scope};

const YEAR: Duration = Duration::from_hours(24 * 366);
const MILLI: Duration = Duration::from_millis(1);
/// What a limit counts, as it is written.
const SCOPES: &[(&str, Scope)] = &[("tenant", Scope::Tenant), ("endpoint", Scope::Endpoint)];

/// The limits of one endpoint.
pub fn of_endpoint(table: &Reader<'_>) -> Vec<Limit> {
    let limits: Vec<Limit> = table.tables("limits", limit).into_iter().flatten().collect();
    if let Some(problem) = problem_of(&limits, |limit| Some(limit.scope)) {
        table.problem("limits", &problem, Some("keep the stricter one"));
    }
    limits
}

fn limit(table: &Reader<'_>) -> Option<Limit> {
    let requests = table.required("requests", "how many calls: requests = 100", integer(0..=u32::MAX));
    let per = table.required("per", "in which time: per = \"1m\"", duration(MILLI..=YEAR));
    let burst = table.get("burst", integer(0..=u32::MAX));
    let scope = table.get_or("scope", Word { word: "tenant", value: Scope::Tenant }, word(SCOPES)).value;
    let headroom = table.get_or("headroom", HEADROOM, number(0.01..=1.0));
    let limit = Limit { requests: requests?, per: per?, burst, scope, headroom };
    if headroom < 1.0 && limit.most_in_window() > f64::from(limit.requests).max(1.0) {
        table
            .warn("burst", "is, together with the pace (requests x headroom), more than the limit: it can be exceeded");
    }
    Some(limit)
}

/// `counted`: what tells two limits of the same time apart.
fn problem_of(limits: &[Limit], counted: impl Fn(&Limit) -> Option<Scope>) -> Option<String> {
    if limits.len() > LIMITS_MAX {
        return Some(format!("are {}, at most {LIMITS_MAX} are possible", limits.len()));
    }
    let mut seen = HashSet::new();
    let twice = limits.iter().find(|limit| !seen.insert((limit.per, counted(limit))));
    twice.map(|limit| format!("say twice what is allowed per {:?}, for the same calls", limit.per))
}

/// `[tenants.X]`
pub fn tenants(root: &Reader<'_>) -> Vec<TenantSpec> {
    let endpoints = root.names("endpoints");
    root.named_tables("tenants", |name, table| tenant(name, table, &endpoints)).into_iter().flatten().collect()
}

fn tenant(name: &str, table: &Reader<'_>, endpoints: &[&str]) -> Option<TenantSpec> {
    let weight = table.get_or("weight", 1, integer(1..=1_000));
    let limits = table.optional_free_table("limits", |limits| {
        limits.free_keys().filter_map(|(endpoint, node)| one(limits, endpoint, node, endpoints)).collect()
    });
    let name = Tenant::new(name).map_err(|error| table.table_problem(&error.to_string(), "rename the tenant"));
    Some(TenantSpec { name: name.ok()?, weight, limits: limits.unwrap_or_default() })
}

fn one<'a>(
    limits: &Reader<'a>,
    endpoint: &str,
    node: &'a Node,
    endpoints: &[&str],
) -> Option<(EndpointName, Vec<Limit>)> {
    if !endpoints.contains(&endpoint) {
        let fault = Fault::new("there is no such endpoint");
        let help = similar(endpoint, endpoints.iter().copied()).map(|near| format!("did you mean {near:?}?"));
        limits.fault(endpoint, node, help.into_iter().fold(fault, Fault::help));
    }
    let own: Vec<Limit> = limits.free_tables(endpoint, node, limit).into_iter().flatten().collect();
    // for its tenant alone, whatever the scope
    if let Some(problem) = problem_of(&own, |_| None) {
        limits.problem(endpoint, &problem, Some("keep the stricter one"));
    }
    EndpointName::new(endpoint).ok().map(|name| (name, own))
}
