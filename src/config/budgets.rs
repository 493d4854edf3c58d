//! What a call of an endpoint counts as and where: its cost, whose budget, what is learnt, its circuit, calls in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lanes::known_endpoint;
use super::limits;
use super::reader::Reader;
use super::value::{Word, duration, duration_text, integer, word};
use crate::job::EndpointName;
use crate::policy::circuit::CircuitRules;
use crate::policy::limit::{Limit, Scope};
use crate::policy::pacing::{EndpointBudget, Learn};

/// Most tokens of one call.
const COST_MAX: u32 = 10_000;
/// Most calls in flight over all workers.
const CAP_MAX: u32 = 1_000_000;
/// Most failures that a circuit waits for.
const FAILURES_MAX: u32 = 10_000;
const OPEN_MIN: Duration = Duration::from_millis(100);
const OPEN_MAX: Duration = Duration::from_hours(24);
/// Whose limits are learnt, as it is written.
const LEARN: &[(&str, Learn)] = &[("tenant", Learn::Tenant), ("endpoint", Learn::Endpoint), ("off", Learn::Off)];

/// The budgets of all endpoints by their names, also of those that something else is wrong with.
pub type Named = BTreeMap<String, EndpointBudget>;

/// The budget of the endpoint `name`; `endpoints` are the names of all.
pub fn read(name: &str, table: &Reader<'_>, endpoints: &[&str]) -> EndpointBudget {
    let cost = table.get_or("cost", 1, integer(1..=COST_MAX));
    let shares = shares(name, table, endpoints);
    let limits = limits::of_endpoint(table);
    let learn = learn(table, &limits);
    let circuit = table.table("circuit", circuit);
    let max_concurrency = cap(table, "max_concurrency");
    let max_concurrency_per_tenant = cap(table, "max_concurrency_per_tenant");
    if let (Some(all), Some(each)) = (max_concurrency, max_concurrency_per_tenant)
        && each > all
    {
        let message =
            format!("is more than max_concurrency, which is {all} for all tenants together: it has no effect");
        table.warn("max_concurrency_per_tenant", &message);
    }
    EndpointBudget { limits, cost, shares, learn, circuit, max_concurrency, max_concurrency_per_tenant }
}

/// Most calls in flight over all workers; 0 is written for no cap.
pub fn cap(table: &Reader<'_>, key: &'static str) -> Option<u32> {
    let most = table.get_or(key, 0, integer(0..=CAP_MAX));
    (most > 0).then_some(most)
}

/// The endpoint whose budget this one shares.
fn shares(name: &str, table: &Reader<'_>, endpoints: &[&str]) -> Option<EndpointName> {
    let owner = known_endpoint(table, "budget", endpoints);
    if owner.as_ref().is_some_and(|owner| owner.as_str() == name) {
        let help = "remove it: an endpoint has its own budget without it";
        table.problem("budget", "is this endpoint itself", Some(help));
        return None;
    }
    for key in ["limits", "learn"].into_iter().filter(|key| table.is_set("budget") && table.is_set(key)) {
        let help = match &owner {
            Some(owner) => format!("remove it, or write it under [endpoints.{owner}], whose budget is shared"),
            None => "remove it, or remove budget".to_owned(),
        };
        table.problem(key, "is not possible beside budget", Some(&help));
    }
    owner
}

/// Where all limits are those of all tenants together, they have one account at the API, and its answers tell of that.
fn learn(table: &Reader<'_>, limits: &[Limit]) -> Learn {
    let one_account = !limits.is_empty() && limits.iter().all(|limit| limit.scope == Scope::Endpoint);
    let value = if one_account { Learn::Endpoint } else { Learn::Tenant };
    if table.is_set("budget") {
        // not shown as in effect: the owner's is
        return table.get("learn", word(LEARN)).map_or(value, |word| word.value);
    }
    let usual = Word { word: if one_account { "endpoint" } else { "tenant" }, value };
    table.get_or("learn", usual, word(LEARN)).value
}

fn circuit(table: &Reader<'_>) -> CircuitRules {
    let usual = CircuitRules::default();
    let failures = table.get_or("failures", usual.failures, integer(0..=FAILURES_MAX));
    let open = table.get_or("open", usual.open, duration(OPEN_MIN..=OPEN_MAX));
    let open_max = table.get_or("open_max", usual.open_max, duration(OPEN_MIN..=OPEN_MAX));
    if open > open_max {
        let help = Some("doubling starts at open and ends at open_max");
        if table.is_set("open") {
            table.problem("open", &format!("is longer than open_max, which is {}", duration_text(open_max)), help);
        } else {
            table.problem("open_max", &format!("is shorter than open, which is {}", duration_text(open)), help);
        }
    }
    CircuitRules { failures, open, open_max }
}

/// What the budget of one endpoint says of another one.
pub fn check(root: &Reader<'_>, budgets: &Named) {
    root.look_again("endpoints", |name, table| {
        let Some(budget) = budgets.get(name) else { return };
        let owner = budget.shares.as_ref().map_or(name, EndpointName::as_str);
        let Some(shared) = budgets.get(owner) else { return };
        if let (Some(_), Some(other)) = (&budget.shares, &shared.shares) {
            let message = format!("{owner:?} has no budget of its own, it shares that of {:?}", other.as_str());
            let help = if other.as_str() == name {
                "remove budget of one of them: that one has the limits for both".to_owned()
            } else {
                format!("share that one: budget = {:?}", other.as_str())
            };
            table.problem("budget", &message, Some(&help));
        } else if let Some(limit) = too_strict(&shared.limits, budget.cost) {
            let whose = match &budget.shares {
                Some(owner) => format!("the limit of {:?}, whose budget it shares,", owner.as_str()),
                None => "a limit".to_owned(),
            };
            let (cost, allowed) = (budget.cost, allowed(limit));
            let message = format!("is {cost}, but {whose} is {allowed}: it can never be called");
            table.problem("cost", &message, Some("one call costs at most what each limit allows in its time"));
        }
    });
}

/// The strictest limit that has no room for one call of this cost.
fn too_strict(limits: &[Limit], cost: u32) -> Option<&Limit> {
    let strict = limits.iter().filter(|limit| limit.requests > 0 && limit.requests < cost);
    strict.min_by_key(|limit| limit.requests)
}

/// `5 requests per 1m`
fn allowed(limit: &Limit) -> String {
    let requests = if limit.requests == 1 { "request" } else { "requests" };
    format!("{} {requests} per {}", limit.requests, duration_text(limit.per))
}

/// The dearest call that counts in the budget of `owner`: the endpoint and its cost.
pub fn dearest<'a>(budgets: &'a Named, owner: &str) -> Option<(&'a str, u32)> {
    let counted = budgets
        .iter()
        .filter(|(name, budget)| budget.shares.as_ref().map_or(name.as_str(), EndpointName::as_str) == owner);
    counted.map(|(name, budget)| (name.as_str(), budget.cost)).max_by_key(|(_, cost)| *cost)
}
