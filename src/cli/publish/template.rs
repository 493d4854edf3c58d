//! What the options say about every job of one call: defaults, checked against the configuration once.

use std::collections::HashSet;

use bytes::Bytes;

use super::PublishArgs;
use crate::cli::error::{CliError, Exit};
use crate::cli::names;
use crate::clock::Timestamp;
use crate::config::Specs;
use crate::config::problem::similar;
use crate::job::{EndpointName, JobMeta, LaneName, Tenant};
use crate::publish::NewJob;

/// Most bytes that are ever read as one body; the configuration may allow less.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// The defaults of jobs, and what they may name.
#[derive(Debug, Clone)]
pub struct Template {
    /// Where they go.
    pub lane: LaneName,
    /// Whose they are.
    pub tenant: Tenant,
    /// What travels with them.
    pub meta: JobMeta,
    /// When the command began: what delays count from.
    pub now: Timestamp,
    endpoint: Option<EndpointName>,
    endpoints: HashSet<EndpointName>,
    body_bytes_max: usize,
}

impl Template {
    /// The template of a call that began at `now`. An error when lane or endpoint are not configured.
    pub fn new(specs: &Specs, args: &PublishArgs, now: Timestamp) -> Result<Self, CliError> {
        let lane = names::lane(specs, &args.lane, Exit::Failed)?;
        if let Some(endpoint) = &args.endpoint {
            names::endpoint(specs, endpoint, Exit::Failed)?;
        }
        let meta = JobMeta {
            method: args.method.clone(),
            path: args.path.clone(),
            content_type: args.content_type.clone(),
            ordering_key: args.ordering_key.clone(),
            not_before: args.not_before.or(args.delay.map(|delay| now.plus(delay))),
            expires_at: args.expires_in.map(|time| now.plus(time)),
            max_attempts: args.max_attempts,
            ..JobMeta::default()
        };
        Ok(Self {
            lane: lane.name.clone(),
            tenant: args.tenant.clone().unwrap_or_else(Tenant::unnamed),
            meta,
            now,
            endpoint: args.endpoint.clone().or_else(|| lane.default_endpoint.clone()),
            endpoints: specs.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
            body_bytes_max: usize::try_from(specs.worker.max_message_bytes).unwrap_or(usize::MAX),
        })
    }

    /// A job without id and body; `endpoint` wins over the default. An error says which endpoint is missing or unknown.
    pub fn job(&self, endpoint: Option<&str>) -> Result<NewJob, String> {
        let endpoint = match endpoint {
            Some(name) => self.known(name)?,
            None => self.endpoint.clone().ok_or_else(|| format!("no endpoint is named for lane {}", self.lane))?,
        };
        Ok(NewJob {
            lane: self.lane.clone(),
            endpoint,
            tenant: self.tenant.clone(),
            id: None,
            meta: self.meta.clone(),
            body: Bytes::new(),
        })
    }

    /// Refuses what a worker would refuse.
    pub fn check_body(&self, bytes: usize) -> Result<(), String> {
        let most = self.body_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        Err(format!("the body has {bytes} bytes, at most {most} are accepted (worker.max_message_bytes)"))
    }

    fn known(&self, name: &str) -> Result<EndpointName, String> {
        let endpoint = EndpointName::new(name).map_err(|error| error.to_string())?;
        if self.endpoints.contains(&endpoint) {
            return Ok(endpoint);
        }
        let meant = similar(name, self.endpoints.iter().map(EndpointName::as_str));
        let meant = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
        Err(format!("endpoint {name:?} is not configured{meant}"))
    }
}
