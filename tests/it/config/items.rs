//! Variables that name an item of a list: what they change, how that is shown, and what they cannot reach.

use std::time::Duration;

use lanes::config::{self, Loaded};
use lanes::policy::limit::{Limit, Scope};

use super::budgets::SHARED;
use super::{Env, check_env, loaded};

/// As `lanes config show` has it.
#[track_caller]
fn shown(loaded: &Loaded, key: &str) -> (serde_json::Value, String) {
    let setting = loaded.settings.iter().find(|setting| setting.path.join(".") == key);
    let setting = setting.unwrap_or_else(|| panic!("{key} is not shown: {}", config::show(loaded)));
    (setting.value.clone(), setting.origin.clone())
}

#[test]
fn variables_change_items_of_lists() {
    let env: Env<'_> = &[
        ("LANES_ENDPOINTS__CRM__LIMITS__0__REQUESTS", " 50 "),
        ("LANES_ENDPOINTS__CRM__LIMITS__0__HEADROOM", "0.5"),
        ("LANES_ENDPOINTS__CRM__LIMITS__1", "{ requests = 70, per = \"2s\" }"),
        ("LANES_TENANTS__ACME__LIMITS__CRM__0__REQUESTS", "0"),
        ("LANES_TENANTS__ACME__LIMITS__CRM__0__SCOPE", "endpoint"),
    ];
    let all = loaded(SHARED, env);
    let limit = |requests, per, scope, headroom| Limit { requests, per, burst: None, scope, headroom };
    let expect =
        [limit(50, Duration::from_mins(1), Scope::Tenant, 0.5), limit(70, Duration::from_secs(2), Scope::Tenant, 0.8)];
    assert_eq!(all.specs.endpoints[0].budget.limits, expect);
    assert_eq!(all.specs.tenants[0].limits[0].1, [limit(0, Duration::from_mins(1), Scope::Endpoint, 0.8)]);
    let (value, origin) = shown(&all, "endpoints.crm.limits");
    let expect = serde_json::json!([
        { "requests": 50, "per": "1m", "headroom": 0.5 },
        { "requests": 70, "per": "2s" },
    ]);
    assert_eq!(value, expect);
    assert_eq!(
        origin,
        "lanes.toml:4, LANES_ENDPOINTS__CRM__LIMITS__0__HEADROOM, LANES_ENDPOINTS__CRM__LIMITS__0__REQUESTS, \
         LANES_ENDPOINTS__CRM__LIMITS__1"
    );
    let (_, origin) = shown(&all, "tenants.acme.limits.crm");
    assert_eq!(
        origin,
        "lanes.toml:16, LANES_TENANTS__ACME__LIMITS__CRM__0__REQUESTS, LANES_TENANTS__ACME__LIMITS__CRM__0__SCOPE"
    );
    let again = loaded(&config::show(&all), &[]);
    assert_eq!(again.specs.endpoints[0].budget, all.specs.endpoints[0].budget);
    assert_eq!(again.specs.tenants, all.specs.tenants);
}

#[test]
fn a_variable_changes_one_word_of_a_list() {
    let text = "[lanes.a]\n[endpoints.crm]\nurl = \"http://x\"\nallow_methods = [\"PUT\", \"PATCH\"]\n";
    let all = loaded(text, &[("LANES_ENDPOINTS__CRM__ALLOW_METHODS__1", "DELETE")]);
    assert_eq!(all.specs.endpoints[0].allow_methods, ["PUT", "DELETE"]);
    let origin = "lanes.toml:4, LANES_ENDPOINTS__CRM__ALLOW_METHODS__1";
    assert_eq!(shown(&all, "endpoints.crm.allow_methods"), (serde_json::json!(["PUT", "DELETE"]), origin.to_owned()));
}

#[test]
fn a_variable_sets_a_list_and_another_one_an_item_of_it() {
    let env: Env<'_> = &[
        ("LANES_ENDPOINTS__IMPORT__COST", "1"),
        ("LANES_ENDPOINTS__CRM__LIMITS", "[{ requests = 5, per = \"1s\" }]"),
        ("LANES_ENDPOINTS__CRM__LIMITS__0__REQUESTS", "6"),
    ];
    let all = loaded(SHARED, env);
    assert_eq!(all.specs.endpoints[0].budget.limits[0].requests, 6);
    let (_, origin) = shown(&all, "endpoints.crm.limits");
    assert_eq!(origin, "LANES_ENDPOINTS__CRM__LIMITS, LANES_ENDPOINTS__CRM__LIMITS__0__REQUESTS");
}

#[test]
fn variables_that_miss_an_item_are_told_what_there_is() {
    check_env(
        SHARED,
        &[
            ("LANES_ENDPOINTS__CRM__LIMITS__2__REQUESTS", "1"),
            ("LANES_ENDPOINTS__CRM__LIMITS__99999999999999999999999", "1"),
            ("LANES_ENDPOINTS__CRM__LIMITS__REQUESTS", "1"),
            ("LANES_ENDPOINTS__CRM__LIMITS__-1__REQUESTS", "1"),
            ("LANES_ENDPOINTS__IMPORT__LIMITS__0__REQUESTS", "1"),
            ("LANES_TENANTS__ACME__LIMITS__CRM__1__REQUESTS", "1"),
            ("LANES_TENANTS__ACME__LIMITS__CRN__0__REQUESTS", "1"),
        ],
        r#"
LANES_ENDPOINTS__CRM__LIMITS__-1__REQUESTS: endpoints.crm.limits is a list, which has no "-1"
  = help: say which item by its number, from 0 on: LANES_ENDPOINTS__CRM__LIMITS__0

LANES_ENDPOINTS__CRM__LIMITS__2__REQUESTS: endpoints.crm.limits has no item 2: there are 2, items 0 to 1
  = help: to add an item, set the whole list: LANES_ENDPOINTS__CRM__LIMITS

LANES_ENDPOINTS__CRM__LIMITS__99999999999999999999999: endpoints.crm.limits has no item 99999999999999999999999: there are 2, items 0 to 1
  = help: to add an item, set the whole list: LANES_ENDPOINTS__CRM__LIMITS

LANES_ENDPOINTS__CRM__LIMITS__REQUESTS: endpoints.crm.limits is a list, which has no "requests"
  = help: say which item by its number, from 0 on: LANES_ENDPOINTS__CRM__LIMITS__0

LANES_ENDPOINTS__IMPORT__LIMITS__0__REQUESTS: endpoints.import.limits has no item 0: there is none
  = help: to add an item, set the whole list: LANES_ENDPOINTS__IMPORT__LIMITS

LANES_ENDPOINTS__IMPORT__LIMITS__0__REQUESTS: endpoints.import.limits: is not possible beside budget
  = help: remove it, or write it under [endpoints.crm], whose budget is shared

LANES_TENANTS__ACME__LIMITS__CRM__1__REQUESTS: tenants.acme.limits.crm has no item 1: there is 1, item 0
  = help: to add an item, set the whole list: LANES_TENANTS__ACME__LIMITS__CRM

LANES_TENANTS__ACME__LIMITS__CRN__0__REQUESTS: tenants.acme.limits.crn has no item 0: there is none
  = help: to add an item, set the whole list: LANES_TENANTS__ACME__LIMITS__CRN

LANES_TENANTS__ACME__LIMITS__CRN__0__REQUESTS: tenants.acme.limits.crn: there is no such endpoint
  = help: did you mean "crm"?

9 problems in the configuration
"#,
    );
}

#[test]
fn what_a_variable_puts_into_a_list_is_checked() {
    check_env(
        SHARED,
        &[
            ("LANES_ENDPOINTS__CRM__LIMITS__0__REQUEST", "1"),
            ("LANES_ENDPOINTS__CRM__LIMITS__0__PER", "60"),
            ("LANES_ENDPOINTS__CRM__LIMITS__0__BURST__X", "60"),
            ("LANES_ENDPOINTS__CRM__LIMITS__1", "many"),
            ("LANES_TENANTS__ACME__LIMITS__CRM__0__REQUESTS", "9"),
        ],
        r#"
LANES_ENDPOINTS__CRM__LIMITS__0__BURST__X: endpoints.crm.limits.burst: expected a whole number, found a table

LANES_ENDPOINTS__CRM__LIMITS__0__PER: endpoints.crm.limits.per: a duration needs a unit
  = help: did you mean "60s"? units are ms, s, m, h, d

LANES_ENDPOINTS__CRM__LIMITS__0__REQUEST: endpoints.crm.limits.request is not a setting
  = help: did you mean LANES_ENDPOINTS__CRM__LIMITS__0__REQUESTS?

LANES_ENDPOINTS__CRM__LIMITS__1: endpoints.crm.limits: expected a table, found text

LANES_TENANTS__ACME__LIMITS__CRM__0__REQUESTS: tenants.acme.limits.crm.requests: is 9 per 1m, but a call of "import" costs 10: it can never be called
  = help: one call costs at most what each limit allows in its time

5 problems in the configuration
"#,
    );
    check_env(
        SHARED,
        &[
            ("LANES_ENDPOINTS__IMPORT__CIRCUIT", "{ failure = 3 }"),
            ("LANES_ENDPOINTS__CRM__LIMITS__1", "{ requests = 20 }"),
            ("LANES_ENDPOINTS__CRM__LIMITS__0__REQUESTS", "9"),
            ("LANES_ENDPOINTS__CRM__BUDGET", "import"),
        ],
        r#"
lanes.toml:4:1: endpoints.crm.limits: is not possible beside budget
  |
4 | [[endpoints.crm.limits]]
  | ^^^^^^^^^^^^^^^^^^^^^^^^
  = help: remove it, or write it under [endpoints.import], whose budget is shared

lanes.toml:13:10: endpoints.import.budget: "crm" has no budget of its own, it shares that of "import"
   |
13 | budget = "crm"
   |          ^^^^^
  = help: remove budget of one of them: that one has the limits for both

lanes.toml:16:18: tenants.acme.limits.crm: counts in the budget of "import", and has no limits of its own
   |
16 | limits = { crm = [{ requests = 500, per = "1m" }] }
   |                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: write them for that one, they are for both: limits = { import = [...] }

LANES_ENDPOINTS__CRM__BUDGET: endpoints.crm.budget: "import" has no budget of its own, it shares that of "crm"
  = help: remove budget of one of them: that one has the limits for both

LANES_ENDPOINTS__CRM__LIMITS__1: endpoints.crm.limits.per: is missing
  = help: in which time: per = "1m"

LANES_ENDPOINTS__IMPORT__CIRCUIT: endpoints.import.circuit.failure is not a setting
  = help: did you mean "failures"?

6 problems in the configuration
"#,
    );
}
