//! Costs, shared budgets, what is learnt, circuits and calls in flight: what is read, and what is refused.

use std::collections::HashSet;
use std::time::Duration;

use lanes::clock::Timestamp;
use lanes::job::{LaneName, Tenant};
use lanes::policy::circuit::CircuitRules;
use lanes::policy::limit::{Limit, Scope};
use lanes::policy::pacing::{Budgets, EndpointBudget, Fit, Known, Learn};

use super::{EVERYTHING_ENV, check, everything, loaded};

/// Two endpoints of one API, and a tenant with limits of its own.
pub const SHARED: &str = r#"[lanes.a]
[endpoints.crm]
url = "http://x"
[[endpoints.crm.limits]]
requests = 100
per = "1m"
[[endpoints.crm.limits]]
requests = 1000
per = "1h"
scope = "endpoint"
[endpoints.import]
url = "http://x/import"
budget = "crm"
cost = 10
[tenants.acme]
limits = { crm = [{ requests = 500, per = "1m" }] }
"#;

#[track_caller]
fn endpoint(settings: &str) -> EndpointBudget {
    let text = format!("[lanes.a]\n[endpoints.crm]\nurl = \"http://x\"\n{settings}");
    loaded(&text, &[]).specs.endpoints.remove(0).budget
}

#[test]
fn without_settings_an_endpoint_has_the_usual_budget() {
    assert_eq!(endpoint(""), EndpointBudget::default());
}

#[test]
fn everything_of_a_budget_is_read() {
    let budget = endpoint(
        r#"cost = 3
learn = "off"
circuit = { failures = 0, open = "100ms", open_max = "1d" }
max_concurrency = 20
max_concurrency_per_tenant = 5
limits = [{ requests = 3, per = "1s" }]
"#,
    );
    let circuit = CircuitRules { failures: 0, open: Duration::from_millis(100), open_max: Duration::from_hours(24) };
    let limits =
        vec![Limit { requests: 3, per: Duration::from_secs(1), burst: None, scope: Scope::Tenant, headroom: 0.8 }];
    let expect = EndpointBudget {
        limits,
        cost: 3,
        shares: None,
        learn: Learn::Off,
        circuit,
        max_concurrency: Some(20),
        max_concurrency_per_tenant: Some(5),
    };
    assert_eq!(budget, expect);
}

#[test]
fn no_cap_is_written_as_0() {
    let budget = endpoint("max_concurrency = 0\nmax_concurrency_per_tenant = 5\n");
    assert_eq!((budget.max_concurrency, budget.max_concurrency_per_tenant), (None, Some(5)));
    let text = "[lanes.a]\n[lanes.b]\nglobal_concurrency = 0\n[lanes.c]\nglobal_concurrency = 15\n";
    let all = loaded(text, &[]);
    assert!(all.warnings.iter().all(|warning| !warning.contains("concurrency")), "{:?}", all.warnings);
    let caps: Vec<_> = all.specs.lanes.iter().map(|lane| lane.global_concurrency).collect();
    assert_eq!(caps, [None, None, Some(15)]);
}

#[test]
fn what_is_learnt_follows_the_scopes_unless_it_is_said() {
    let limits = |scopes: &[&str]| -> String {
        let limit =
            |(at, scope): (usize, &&str)| format!("{{ requests = 9, per = \"{}s\", scope = \"{scope}\" }}", at + 1);
        format!("limits = [{}]\n", scopes.iter().enumerate().map(limit).collect::<Vec<_>>().join(", "))
    };
    let table = [
        (String::new(), Learn::Tenant),
        (limits(&[]), Learn::Tenant),
        (limits(&["tenant"]), Learn::Tenant),
        (limits(&["endpoint"]), Learn::Endpoint),
        (limits(&["endpoint", "endpoint"]), Learn::Endpoint),
        (limits(&["endpoint", "tenant"]), Learn::Tenant),
        (format!("learn = \"tenant\"\n{}", limits(&["endpoint"])), Learn::Tenant),
        (format!("learn = \"off\"\n{}", limits(&["endpoint"])), Learn::Off),
        ("learn = \"endpoint\"\n".to_owned(), Learn::Endpoint),
    ];
    for (settings, expect) in table {
        assert_eq!(endpoint(&settings).learn, expect, "{settings}");
    }
}

#[test]
fn values_of_budgets_have_a_range() {
    check(
        r#"[lanes.a]
global_concurrency = -1
[endpoints.crm]
url = "http://x"
cost = 0
learn = "tenants"
max_concurrency_per_tenant = 1000001
circuit = { failures = 10001, open = "50ms", open_max = "2d", closed = 1 }
[endpoints.b]
url = "http://x"
cost = 10001
circuit = 5
"#,
        r#"
lanes.toml:2:22: lanes.a.global_concurrency: must be 0 to 1000000, is -1
  |
2 | global_concurrency = -1
  |                      ^^

lanes.toml:5:8: endpoints.crm.cost: must be 1 to 10000, is 0
  |
5 | cost = 0
  |        ^

lanes.toml:6:9: endpoints.crm.learn: "tenants" is not known here
  |
6 | learn = "tenants"
  |         ^^^^^^^^^
  = help: did you mean "tenant"?

lanes.toml:7:30: endpoints.crm.max_concurrency_per_tenant: must be 0 to 1000000, is 1000001
  |
7 | max_concurrency_per_tenant = 1000001
  |                              ^^^^^^^

lanes.toml:8:24: endpoints.crm.circuit.failures: must be 0 to 10000, is 10001
  |
8 | circuit = { failures = 10001, open = "50ms", open_max = "2d", closed = 1 }
  |                        ^^^^^

lanes.toml:8:38: endpoints.crm.circuit.open: must be 100ms to 1d, is 50ms
  |
8 | circuit = { failures = 10001, open = "50ms", open_max = "2d", closed = 1 }
  |                                      ^^^^^^

lanes.toml:8:57: endpoints.crm.circuit.open_max: must be 100ms to 1d, is 2d
  |
8 | circuit = { failures = 10001, open = "50ms", open_max = "2d", closed = 1 }
  |                                                         ^^^^

lanes.toml:8:63: endpoints.crm.circuit.closed is not a setting
  |
8 | circuit = { failures = 10001, open = "50ms", open_max = "2d", closed = 1 }
  |                                                               ^^^^^^
  = help: known here: failures, open, open_max

lanes.toml:11:8: endpoints.b.cost: must be 1 to 10000, is 10001
   |
11 | cost = 10001
   |        ^^^^^

lanes.toml:12:11: endpoints.b.circuit: expected a table, found a whole number
   |
12 | circuit = 5
   |           ^

10 problems in the configuration
"#,
    );
}

#[test]
fn a_circuit_is_not_open_for_longer_than_its_most() {
    check(
        r#"[lanes.a]
[endpoints.a]
url = "http://x"
circuit = { open = "10m" }
[endpoints.b]
url = "http://x"
circuit = { open_max = "5s" }
"#,
        r#"
lanes.toml:4:20: endpoints.a.circuit.open: is longer than open_max, which is 5m
  |
4 | circuit = { open = "10m" }
  |                    ^^^^^
  = help: doubling starts at open and ends at open_max

lanes.toml:7:24: endpoints.b.circuit.open_max: is shorter than open, which is 10s
  |
7 | circuit = { open_max = "5s" }
  |                        ^^^^
  = help: doubling starts at open and ends at open_max

2 problems in the configuration
"#,
    );
}

#[test]
fn a_budget_is_shared_with_an_endpoint_that_has_one() {
    let endpoints = loaded(SHARED, &[]).specs.endpoints;
    assert_eq!(endpoints[0].budget.shares, None);
    let import = &endpoints[1].budget;
    assert_eq!(import.shares.as_ref(), Some(&endpoints[0].name));
    assert_eq!((import.limits.len(), import.cost), (0, 10));
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
budget = "crm"
[endpoints.a]
url = "http://x"
budget = "crn"
[endpoints.b]
url = "http://x"
budget = "zzzzzz"
"#,
        r#"
lanes.toml:4:10: endpoints.crm.budget: is this endpoint itself
  |
4 | budget = "crm"
  |          ^^^^^
  = help: remove it: an endpoint has its own budget without it

lanes.toml:7:10: endpoints.a.budget: there is no endpoint "crn"
  |
7 | budget = "crn"
  |          ^^^^^
  = help: did you mean "crm"?

lanes.toml:10:10: endpoints.b.budget: there is no endpoint "zzzzzz"
   |
10 | budget = "zzzzzz"
   |          ^^^^^^^^
  = help: add a table [endpoints.zzzzzz]

3 problems in the configuration
"#,
    );
}

#[test]
fn budgets_are_not_shared_through_others() {
    check(
        r#"[lanes.a]
[endpoints.crm]
[endpoints.a]
url = "http://x"
budget = "crm"
[endpoints.b]
url = "http://x"
budget = "a"
[endpoints.c]
url = "http://x"
budget = "d"
[endpoints.d]
url = "http://x"
budget = "c"
"#,
        r#"
lanes.toml:2:12: endpoints.crm.url: is missing
  |
2 | [endpoints.crm]
  |            ^^^
  = help: say where it is: url = "https://api.example.com/path"

lanes.toml:8:10: endpoints.b.budget: "a" has no budget of its own, it shares that of "crm"
  |
8 | budget = "a"
  |          ^^^
  = help: share that one: budget = "crm"

lanes.toml:11:10: endpoints.c.budget: "d" has no budget of its own, it shares that of "c"
   |
11 | budget = "d"
   |          ^^^
  = help: remove budget of one of them: that one has the limits for both

lanes.toml:14:10: endpoints.d.budget: "c" has no budget of its own, it shares that of "d"
   |
14 | budget = "c"
   |          ^^^
  = help: remove budget of one of them: that one has the limits for both

4 problems in the configuration
"#,
    );
}

#[test]
fn who_shares_a_budget_has_no_limits_of_its_own() {
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
[endpoints.b]
url = "http://x"
budget = "crm"
learn = "off"
[[endpoints.b.limits]]
requests = 3
per = "1s"
[tenants.acme]
limits = { crm = [{ requests = 3, per = "1s" }], b = [{ requests = 3, per = "1s" }] }
"#,
        r#"
lanes.toml:7:9: endpoints.b.learn: is not possible beside budget
  |
7 | learn = "off"
  |         ^^^^^
  = help: remove it, or write it under [endpoints.crm], whose budget is shared

lanes.toml:8:1: endpoints.b.limits: is not possible beside budget
  |
8 | [[endpoints.b.limits]]
  | ^^^^^^^^^^^^^^^^^^^^^^
  = help: remove it, or write it under [endpoints.crm], whose budget is shared

lanes.toml:12:54: tenants.acme.limits.b: counts in the budget of "crm", and has no limits of its own
   |
12 | limits = { crm = [{ requests = 3, per = "1s" }], b = [{ requests = 3, per = "1s" }] }
   |                                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: write them for that one, they are for both: limits = { crm = [...] }

3 problems in the configuration
"#,
    );
}

#[test]
fn a_call_costs_at_most_what_is_allowed() {
    endpoint("cost = 3\nlimits = [{ requests = 3, per = \"1s\", burst = 1 }, { requests = 0, per = \"1m\" }]\n");
    check(
        r#"[lanes.a]
[endpoints.crm]
url = "http://x"
cost = 4
limits = [{ requests = 3, per = "1s" }, { requests = 1, per = "1m30s" }, { requests = 0, per = "1h" }]
[endpoints.b]
url = "http://x"
budget = "crm"
cost = 5
[tenants.acme]
limits = { crm = [{ requests = 4, per = "1s" }] }
[tenants.globex]
limits = { crm = [{ requests = 5, per = "1s" }, { requests = 0, per = "1m" }] }
"#,
        r#"
lanes.toml:4:8: endpoints.crm.cost: is 4, but a limit is 1 request per 1m30s: it can never be called
  |
4 | cost = 4
  |        ^
  = help: one call costs at most what each limit allows in its time

lanes.toml:9:8: endpoints.b.cost: is 5, but the limit of "crm", whose budget it shares, is 1 request per 1m30s: it can never be called
  |
9 | cost = 5
  |        ^
  = help: one call costs at most what each limit allows in its time

lanes.toml:11:32: tenants.acme.limits.crm.requests: is 4 per 1s, but a call of "b" costs 5: it can never be called
   |
11 | limits = { crm = [{ requests = 4, per = "1s" }] }
   |                                ^
  = help: one call costs at most what each limit allows in its time

3 problems in the configuration
"#,
    );
}

#[test]
fn shared_budgets_have_windows_of_different_names() {
    for text in [SHARED, &everything()] {
        let specs = loaded(text, EVERYTHING_ENV).specs;
        let budgets = Budgets {
            endpoints: specs.endpoints.iter().map(|one| (one.name.clone(), one.budget.clone())).collect(),
            overrides: specs
                .tenants
                .iter()
                .flat_map(|one| one.limits.iter().map(|(to, limits)| ((one.name.clone(), to.clone()), limits.clone())))
                .collect(),
            reserves: specs.lanes.iter().map(|lane| (lane.name.clone(), lane.reserve)).collect(),
            ..Budgets::default()
        };
        let lane = LaneName::new("other").expect("a name");
        for tenant in ["acme", "zeta"].map(|name| Tenant::new(name).expect("a name")) {
            let names = specs.endpoints.iter().map(|endpoint| {
                let fit = budgets.fit(&lane, &endpoint.name, &tenant, Known::default(), 1.0, Timestamp::EPOCH);
                let Fit::Windows(windows) = fit else { panic!("{fit:?}") };
                let names: HashSet<_> = windows.iter().map(|window| window.key.clone()).collect();
                assert_eq!(names.len(), windows.len(), "{windows:?}");
                names
            });
            let names: Vec<_> = names.collect();
            assert!(names[0] == names[1] && !names[0].is_empty(), "{names:?}");
        }
    }
}
