//! A forecast as people and programs see it.

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::text::{Table, clean_line, count};
use crate::plan::{BudgetForecast, Forecast, LaneForecast, Load, Setup, pace, span};

/// Writes it.
pub fn show(
    ctx: &mut Context,
    setup: &Setup,
    loads: &[Load],
    forecast: &Forecast,
    notes: &[String],
) -> Result<(), CliError> {
    if ctx.out.is_json() {
        ctx.out.document(&document(setup, loads, forecast, notes))?;
        ctx.out.flush()?;
        return Ok(());
    }
    let [lanes, budgets] = [lanes(forecast), budgets(forecast)];
    for table in [lanes, budgets] {
        if !table.is_empty() {
            ctx.out.table(&table)?;
            ctx.out.line("")?;
        }
    }
    for finding in &forecast.findings {
        let mark = if finding.kind.is_unmet() { "!" } else { "-" };
        ctx.out.line(format_args!("{mark} {}", clean_line(&finding.message)))?;
    }
    if forecast.is_met() && !forecast.lanes.is_empty() {
        ctx.out.line("all of it can be met")?;
    }
    for note in notes {
        ctx.out.line(format_args!("  {}", clean_line(note)))?;
    }
    ctx.out.flush()?;
    Ok(())
}

fn lanes(forecast: &Forecast) -> Table {
    let columns = &[
        "LANE",
        ">BACKLOG",
        ">PUBLISHED",
        ">DRAINED AFTER",
        ">CALLS",
        ">WAIT P50",
        ">P95",
        ">P99",
        ">MAX",
        "HELD BACK BY",
    ];
    let mut table = Table::new(columns);
    for lane in &forecast.lanes {
        let drained = match lane.drained_after {
            Some(after) => format!("{}{}", if lane.is_estimate { "about " } else { "" }, span(after)),
            None if lane.backlog > 0 => "never".to_owned(),
            None => String::new(),
        };
        let held = lane.held_by.as_ref().map(|held| format!("{} ({})", held.what, percent(held.used)));
        table.row([
            lane.lane.to_string(),
            if lane.backlog > 0 { count(lane.backlog) } else { String::new() },
            if lane.rate > 0.0 { pace(lane.rate) } else { String::new() },
            drained,
            pace(lane.throughput),
            span(lane.wait.p50),
            span(lane.wait.p95),
            span(lane.wait.p99),
            span(lane.wait.max),
            held.unwrap_or_default(),
        ]);
    }
    table
}

fn budgets(forecast: &Forecast) -> Table {
    let mut table = Table::new(&["BUDGET", "OF", ">MAY BE USED", ">USED OF IT", ">OF THE LIMIT", "BY LANE"]);
    for budget in &forecast.budgets {
        let by_lane: Vec<String> =
            budget.by_lane.iter().map(|(lane, share)| format!("{lane} {}", percent(*share))).collect();
        table.row([
            format!("{} {}", budget.endpoint, budget.limit),
            whose(budget),
            pace(budget.pace),
            percent(budget.used_of_pace),
            budget.used_of_limit.map(percent).unwrap_or_default(),
            by_lane.join(", "),
        ]);
    }
    table
}

fn whose(budget: &BudgetForecast) -> String {
    match (&budget.tenant, budget.scope) {
        (Some(tenant), _) => format!("tenant {tenant}"),
        (None, "tenant") if budget.tenants == 1 => "each tenant".to_owned(),
        (None, "tenant") => format!("each of {} tenants", budget.tenants),
        _ => "all tenants".to_owned(),
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        share if share > 0.0 && share < 1.0 => "<1 %".to_owned(),
        share => format!("{share:.0} %"),
    }
}

/// The document of `--json`. Times are in seconds, paces in calls a second, shares from 0 to 1 (a burst may make them more).
///
/// `schema` 1: `met`; `simulated_seconds`, `calls`, `is_cut`; `workers`; `loads` as they were understood; `lanes`, `budgets`
/// and `findings` as people see them, each finding with a stable `kind` and the `changes` of which each by itself is enough;
/// `notes`: what was taken for granted.
fn document(setup: &Setup, loads: &[Load], forecast: &Forecast, notes: &[String]) -> Value {
    let load = |load: &Load| {
        json!({
            "lane": load.lane, "endpoint": load.endpoint, "tenants": load.tenants.len(),
            "tenant": if load.tenants.len() == 1 { json!(load.tenants[0]) } else { Value::Null },
            "backlog": load.backlog, "rate": load.rate,
        })
    };
    let budget = |budget: &BudgetForecast| {
        let by_lane: serde_json::Map<String, Value> =
            budget.by_lane.iter().map(|(lane, share)| (lane.to_string(), json!(share))).collect();
        json!({
            "endpoint": budget.endpoint, "limit": budget.limit, "scope": budget.scope, "tenant": budget.tenant,
            "tenants": budget.tenants, "pace": budget.pace, "used_of_pace": budget.used_of_pace,
            "used_of_limit": budget.used_of_limit, "by_lane": by_lane,
        })
    };
    let finding = |finding: &crate::plan::Finding| {
        let change =
            |change: &crate::plan::Change| json!({ "setting": change.setting, "of": change.of, "to": change.to });
        json!({
            "kind": finding.kind.as_str(), "unmet": finding.kind.is_unmet(), "lanes": finding.lanes,
            "message": finding.message, "changes": finding.changes.iter().map(change).collect::<Vec<_>>(),
        })
    };
    json!({
        "schema": 1, "met": forecast.is_met(), "simulated_seconds": forecast.simulated.as_secs_f64(),
        "calls": forecast.calls, "is_cut": forecast.is_cut, "workers": setup.workers,
        "loads": loads.iter().map(load).collect::<Vec<_>>(),
        "lanes": forecast.lanes.iter().map(lane).collect::<Vec<_>>(),
        "budgets": forecast.budgets.iter().map(budget).collect::<Vec<_>>(),
        "findings": forecast.findings.iter().map(finding).collect::<Vec<_>>(),
        "notes": notes,
    })
}

fn lane(lane: &LaneForecast) -> Value {
    json!({
        "lane": lane.lane, "backlog": lane.backlog, "rate": lane.rate,
        "drained_after_seconds": lane.drained_after.map(|after| after.as_secs_f64()), "is_estimate": lane.is_estimate,
        "left": lane.left, "throughput": lane.throughput,
        "wait_seconds": {
            "p50": lane.wait.p50.as_secs_f64(), "p95": lane.wait.p95.as_secs_f64(),
            "p99": lane.wait.p99.as_secs_f64(), "max": lane.wait.max.as_secs_f64(),
        },
        "held_by": lane.held_by.as_ref().map(|held| json!({ "kind": held.kind, "what": held.what, "used": held.used })),
    })
}
