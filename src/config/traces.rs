//! `[telemetry]`: where calls are told as spans.

use url::Url;

use super::document::Node;
use super::reader::{Fault, Reader};
use super::specs::TelemetrySpec;
use super::value::text;

/// The variable that all OpenTelemetry programs know.
const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// `[telemetry]`
pub fn traces(root: &Reader<'_>) -> TelemetrySpec {
    root.table("telemetry", |table| {
        let set = table.get_or("otlp", String::new(), collector);
        let otlp = if table.is_set("otlp") { set } else { from_environment(table) };
        if !otlp.is_empty() && !cfg!(feature = "otlp") && table.is_set("otlp") {
            table.warn("otlp", "has no effect: this program was built without it; build with --features otlp");
        }
        TelemetrySpec { otlp: Some(otlp).filter(|url| !url.is_empty() && cfg!(feature = "otlp")) }
    })
}

/// What is set for all programs of this machine is no reason not to start.
fn from_environment(table: &Reader<'_>) -> String {
    let Some(url) = table.session.env.get(VARIABLE).filter(|url| !url.is_empty()) else { return String::new() };
    match check(url) {
        Ok(()) => url.clone(),
        Err(fault) => {
            table.warn("otlp", &format!("{VARIABLE} {}: no traces are sent", fault.message));
            String::new()
        }
    }
}

fn collector(node: &Node) -> Result<String, Fault> {
    let url = text(node)?;
    if url.is_empty() {
        return Ok(url);
    }
    check(&url)?;
    Ok(url)
}

fn check(url: &str) -> Result<(), Fault> {
    let help = "write it like \"http://127.0.0.1:4318\": /v1/traces is added";
    let parsed = Url::parse(url).map_err(|error| Fault::new(format!("is not a url: {error}")).help(help))?;
    let is_plain = parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none();
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() || !is_plain {
        return Err(Fault::new("is not the http or https url of a collector, without user and query").help(help));
    }
    Ok(())
}
