//! `[[endpoints.X.limits]]` and `[tenants.X]`: what APIs allow, and what is different for one tenant.

use std::collections::HashSet;
use std::time::Duration;

use super::budgets::{self, Named};
use super::document::Node;
use super::problem::similar;
use super::reader::{Fault, Reader};
use super::specs::TenantSpec;
use super::value::{Word, duration, duration_text, integer, number, word};
use crate::job::{EndpointName, Tenant};
use crate::policy::limit::{HEADROOM, LIMITS_MAX, Limit, Scope};

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

/// `[tenants.X]`; `budgets` are those of all endpoints.
pub fn tenants(root: &Reader<'_>, budgets: &Named) -> Vec<TenantSpec> {
    root.named_tables("tenants", |name, table| tenant(name, table, budgets)).into_iter().flatten().collect()
}

fn tenant(name: &str, table: &Reader<'_>, budgets: &Named) -> Option<TenantSpec> {
    let weight = table.get_or("weight", 1, integer(1..=1_000));
    let limits = table.optional_free_table("limits", |limits| {
        limits.free_keys().filter_map(|(endpoint, node)| one(limits, endpoint, node, budgets)).collect()
    });
    let name = Tenant::new(name).map_err(|error| table.table_problem(&error.to_string(), "rename the tenant"));
    Some(TenantSpec { name: name.ok()?, weight, limits: limits.unwrap_or_default() })
}

fn one<'a>(limits: &Reader<'a>, endpoint: &str, node: &'a Node, budgets: &Named) -> Option<(EndpointName, Vec<Limit>)> {
    if !budgets.contains_key(endpoint) {
        let fault = Fault::new("there is no such endpoint");
        let help = similar(endpoint, budgets.keys().map(String::as_str)).map(|near| format!("did you mean {near:?}?"));
        limits.fault(endpoint, node, help.into_iter().fold(fault, Fault::help));
    }
    let dearest = budgets::dearest(budgets, endpoint);
    let checked = |table: &Reader<'_>| {
        let limit = limit(table)?;
        if let Some((dearest, cost)) = dearest.filter(|(_, cost)| limit.requests > 0 && *cost > limit.requests) {
            let allowed = format!("{} per {}", limit.requests, duration_text(limit.per));
            let message = format!("is {allowed}, but a call of {dearest:?} costs {cost}: it can never be called");
            table.problem("requests", &message, Some("one call costs at most what each limit allows in its time"));
        }
        Some(limit)
    };
    let own: Vec<Limit> = limits.free_tables(endpoint, node, checked).into_iter().flatten().collect();
    // for its tenant alone, whatever the scope
    if let Some(problem) = problem_of(&own, |_| None) {
        limits.problem(endpoint, &problem, Some("keep the stricter one"));
    }
    if let Some(owner) = budgets.get(endpoint).and_then(|budget| budget.shares.as_ref()) {
        // windows are named after the owner: these would never be looked at, or count beside the owner's
        let message = format!("counts in the budget of {:?}, and has no limits of its own", owner.as_str());
        let help = format!("write them for that one, they are for both: limits = {{ {owner} = [...] }}");
        limits.problem(endpoint, &message, Some(&help));
    }
    EndpointName::new(endpoint).ok().map(|name| (name, own))
}
