//! Settings that are read and checked, but that this version does not act on; each use says so.

use std::time::Duration;

use super::document::{Node, Value};
use super::lanes::known_endpoint;
use super::problem::similar;
use super::reader::{Fault, Reader};
use super::secret;
use super::value::{Word, anything, duration, flag, integer, list, pointer, size, some_text, text, word};

/// Signing and batches of one endpoint.
pub fn endpoint(table: &Reader<'_>) {
    table.optional_table("signing", |signing| {
        signing.required("scheme", "scheme = \"standard-webhooks\"", word(&[("standard-webhooks", ())]));
        signing.required("secret", "secret = \"env:NAME\"", secret::reference_only(signing.session));
    });
    table.optional_table("batch", batch);
    table.not_yet("signing");
    table.not_yet("batch");
}

fn batch(table: &Reader<'_>) {
    table.required("max_records", "how many records at most: max_records = 100", integer(1..=10_000));
    table.get_or("max_wait", Duration::from_millis(50), duration(Duration::ZERO..=Duration::from_mins(10)));
    table.get("max_bytes", size(1024..=1 << 30));
    table.get_or("body", "array".into(), batch_body);
    table.get("record_id", pointer);
    table.optional_table("results", |results| {
        for key in ["at", "id", "status", "error"] {
            results.get(key, pointer);
        }
    });
}

/// `"array"`, `"ndjson"` or `{ wrap = "/inputs" }`.
fn batch_body(node: &Node) -> Result<serde_json::Value, Fault> {
    match &node.value {
        Value::Table(table) if table.len() == 1 && table.contains_key("wrap") => {
            let wrap = &table["wrap"];
            pointer(wrap).map_err(|fault| fault.at(wrap))?;
        }
        Value::Table(_) => return Err(Fault::new("expected { wrap = \"/inputs\" }")),
        _ => {
            word(&[("array", ()), ("ndjson", ())])(node)?;
        }
    }
    anything(node)
}

/// `[schedules.X]`
pub fn schedules(root: &Reader<'_>) {
    const DAY: Duration = Duration::from_hours(24);
    let (lanes, endpoints) = (root.names("lanes"), root.names("endpoints"));
    root.named_tables("schedules", |_, table| {
        table.required("cron", "cron = \"0 2 * * *\"", cron);
        table.get_or("timezone", "UTC".to_owned(), some_text);
        if let Some(lane) = table.required("lane", "lane = \"bulk\"", text)
            && !lanes.contains(&lane.as_str())
        {
            let help = similar(&lane, lanes.iter().copied()).map(|near| format!("did you mean {near:?}?"));
            table.problem("lane", &format!("there is no lane {lane:?}"), help.as_deref());
        }
        known_endpoint(table, "endpoint", &endpoints);
        table.get("tenants", list(some_text));
        table.get("body", anything);
        table.get_or("stagger", Duration::ZERO, duration(Duration::ZERO..=DAY));
        table.get_or("singleton", false, flag);
        table.get_or("missed", Word { word: "latest", value: () }, word(&[("latest", ()), ("skip", ())]));
        table.table_not_yet();
    });
}

/// Five fields, or six with seconds.
fn cron(node: &Node) -> Result<String, Fault> {
    let text = some_text(node)?;
    match text.split_whitespace().count() {
        5 | 6 => Ok(text),
        count => Err(Fault::new(format!("has {count} fields"))
            .help("five (minute hour day month weekday), or six with seconds first")),
    }
}
