//! Loads and latencies as they are written on the command line.

use std::time::Duration;

use super::{PlanArgs, endpoint_of, tenants};
use crate::cli::error::{CliError, Exit};
use crate::cli::names;
use crate::cli::text::parse_duration;
use crate::config::Specs;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::plan::Load;

/// Most jobs of a backlog.
const BACKLOG_MAX: u64 = 1_000_000_000;
/// Most jobs a second.
const RATE_MAX: f64 = 1e6;
/// Fewest: one in a year.
const RATE_MIN: f64 = 1.0 / (366.0 * 86_400.0);
/// Units of a rate, in seconds.
const UNITS: [(&str, f64); 7] =
    [("s", 1.0), ("sec", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0), ("day", 86_400.0)];

/// One load as it was written.
#[derive(Debug, Clone)]
pub struct LoadArg {
    lane: LaneName,
    backlog: u64,
    rate: f64,
    endpoint: Option<EndpointName>,
    tenant: Option<Tenant>,
}

/// `bulk=35000`, `bulk=35000@crm`, `bulk=35000@crm/acme`.
pub fn backlog(text: &str) -> Result<LoadArg, String> {
    let wrong = || format!("{text:?} is not a backlog: write it like bulk=35000, or bulk=35000@crm/acme");
    let (load, much) = parts(text, wrong)?;
    let digits: String = much.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    let backlog = digits.parse().map_err(|_| wrong())?;
    if backlog > BACKLOG_MAX {
        return Err(format!("{text:?}: at most {BACKLOG_MAX} jobs"));
    }
    Ok(LoadArg { backlog, ..load })
}

/// `realtime=2/s`, `bulk=100/min`, `bulk=5000/h@crm`.
pub fn rate(text: &str) -> Result<LoadArg, String> {
    let wrong =
        || format!("{text:?} is not a rate: write it like realtime=2/s, 100/min or 5000/h, or realtime=2/s@crm/acme");
    let (load, much) = parts(text, wrong)?;
    let (number, unit) = much.split_once('/').ok_or_else(wrong)?;
    let per = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?.1;
    let rate = number.trim().parse::<f64>().map_err(|_| wrong())? / per;
    if !(RATE_MIN..=RATE_MAX).contains(&rate) {
        return Err(format!("{text:?}: a rate is at least one job in a year, and at most 1000000/s"));
    }
    Ok(LoadArg { rate, ..load })
}

fn parts(text: &str, wrong: impl Fn() -> String) -> Result<(LoadArg, &str), String> {
    let (lane, rest) = text.split_once('=').ok_or_else(&wrong)?;
    let (much, whose) = rest.split_once('@').map_or((rest, None), |(much, whose)| (much, Some(whose)));
    let (endpoint, tenant) = match whose.map(|whose| whose.split_once('/').unwrap_or((whose, ""))) {
        Some((endpoint, tenant)) => (Some(EndpointName::new(endpoint).map_err(|error| error.to_string())?), tenant),
        None => (None, ""),
    };
    let tenant = match tenant {
        "" => None,
        tenant => Some(Tenant::new(tenant).map_err(|error| error.to_string())?),
    };
    let lane = LaneName::new(lane).map_err(|error| error.to_string())?;
    Ok((LoadArg { lane, backlog: 0, rate: 0.0, endpoint, tenant }, much.trim()))
}

/// `200ms`, `crm=300ms`.
pub fn latency(text: &str) -> Result<(Option<EndpointName>, Duration), String> {
    let (endpoint, time) = match text.split_once('=') {
        Some((endpoint, time)) => (Some(EndpointName::new(endpoint).map_err(|error| error.to_string())?), time),
        None => (None, text),
    };
    Ok((endpoint, parse_duration(time)?))
}

/// What the command line asks for.
pub fn loads(specs: &Specs, args: &PlanArgs) -> Result<Vec<Load>, CliError> {
    let load = |arg: &LoadArg| {
        let lane = names::lane(specs, &arg.lane, Exit::Usage)?;
        let endpoint = endpoint_of(specs, args, lane, arg.endpoint.as_ref())?;
        let tenants = arg.tenant.clone().map_or_else(|| tenants(args), |tenant| vec![tenant]);
        Ok(Load { lane: arg.lane.clone(), endpoint, tenants, backlog: arg.backlog, rate: arg.rate })
    };
    args.backlog.iter().chain(&args.rate).map(load).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_read_as_people_write_them() {
        let load = backlog("bulk=35_000@crm/acme/eu").expect("a backlog");
        assert_eq!((load.lane.as_str(), load.backlog), ("bulk", 35_000));
        let whose = (load.endpoint.as_ref().map(EndpointName::as_str), load.tenant.as_ref().map(Tenant::as_str));
        assert_eq!(whose, (Some("crm"), Some("acme/eu")));
        let per_second = |text| rate(text).expect("a rate").rate;
        assert!(
            (per_second("realtime=90/min") - 1.5).abs() < 1e-9 && (per_second("realtime=0.5/s@crm") - 0.5).abs() < 1e-9
        );
        for bad in ["bulk", "bulk=", "bulk=x", "bulk=-1", "b u=1", "bulk=1@", "bulk=1@crm/\u{1}", "bulk=9999999999"] {
            assert!(backlog(bad).is_err(), "{bad}");
        }
        for bad in ["bulk=2", "bulk=2/w", "bulk=x/s", "bulk=0/s", "bulk=-1/s", "bulk=NaN/s", "bulk=inf/s", "=1/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(latency("250ms"), Ok((None, Duration::from_millis(250))));
        assert!(latency("crm=1s").is_ok_and(|(endpoint, _)| endpoint.is_some()) && latency("crm=").is_err());
    }
}
