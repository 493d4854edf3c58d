//! `lanes publish`: one job from options, or a file of jobs.

mod batch;
mod checkpoint;
mod import;
mod line;
mod progress;
mod reader;
mod template;
mod wait;

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, Exit};
use super::out::note;
use super::text::{clean, parse_duration, parse_time};
use super::view;
use crate::clock::{Clock as _, Timestamp};
use crate::job::{EndpointName, JobId, LaneName, Tenant};
use crate::publish::NewJob;
use template::Template;

/// What `--data` says where a file or stdin is meant.
const STDIN: &str = "-";

/// Arguments of `lanes publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The lane
    #[arg(value_parser = LaneName::new)]
    pub lane: LaneName,
    /// The endpoint to call, by its name in lanes.toml [default: the lane's default_endpoint]
    #[arg(long, short, value_parser = EndpointName::new)]
    pub endpoint: Option<EndpointName>,
    /// Whose job it is [default: default]
    #[arg(long, short, value_parser = Tenant::new)]
    pub tenant: Option<Tenant>,
    /// Deduplication id: the same one within the window is called once
    #[arg(long, value_parser = JobId::new, conflicts_with = "from")]
    pub id: Option<JobId>,
    /// The body: JSON, @FILE, or - for stdin
    #[arg(long, short, value_name = "JSON|@FILE|-", conflicts_with = "from")]
    pub data: Option<String>,
    /// Type of the body; needed when it is not JSON
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// HTTP method, where the endpoint allows to choose
    #[arg(long)]
    pub method: Option<String>,
    /// HTTP path, where the endpoint allows to choose
    #[arg(long)]
    pub path: Option<String>,
    /// Not called before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "delay")]
    pub not_before: Option<Timestamp>,
    /// Not called before this much time has passed (10s, 5m, 2h)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub delay: Option<Duration>,
    /// Not called any more after this much time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub expires_in: Option<Duration>,
    /// Jobs of one key belong in order
    #[arg(long, value_name = "KEY")]
    pub ordering_key: Option<String>,
    /// Most calls, at most what the lane allows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_attempts: Option<u32>,
    /// Check everything, send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the job has ended; exit 1 when it did not succeed
    #[arg(long, conflicts_with_all = ["from", "dry_run"])]
    pub wait: bool,
    /// Longest wait for the end
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5m", requires = "wait")]
    pub wait_timeout: Duration,
    /// Exit 6 when the job turns out to be a duplicate
    #[arg(long, requires = "wait")]
    pub fail_on_duplicate: bool,
    /// Publish a file (- for stdin), one JSON object per line: endpoint, body or body_text, id, tenant, method, path, ...
    #[arg(long, value_name = "FILE.ndjson|-")]
    pub from: Option<PathBuf>,
    /// Go on where an interrupted run of the same file ended
    #[arg(long, requires = "from", conflicts_with_all = ["restart", "dry_run"])]
    pub resume: bool,
    /// Start over, although an earlier run of the same file was interrupted
    #[arg(long, requires = "from")]
    pub restart: bool,
    /// Lines without an id get one made of this and their place [default: the file's path; for stdin no id is made]
    #[arg(long, value_name = "KEY", requires = "from")]
    pub resume_key: Option<String>,
}

/// Runs it.
pub async fn run(ctx: Context, args: PublishArgs) -> Result<Exit, CliError> {
    let template = Template::new(&ctx.specs, &args, ctx.clock.now())?;
    match &args.from {
        Some(from) => import::run(ctx, &args, from, template).await,
        None => single(ctx, args, &template).await,
    }
}

async fn single(mut ctx: Context, args: PublishArgs, template: &Template) -> Result<Exit, CliError> {
    let (body, content_type) = body(&args)?;
    template.check_body(body.len()).map_err(CliError::failed)?;
    let mut job = template.job(None).map_err(|error| {
        CliError::usage(error).help("name one with --endpoint, or give the lane a default_endpoint")
    })?;
    job.id = args.id;
    job.body = body;
    job.meta.content_type = job.meta.content_type.or(content_type);
    if args.dry_run {
        let document = described(&job, None);
        if ctx.out.is_json() {
            ctx.out.document(&document)?;
        } else {
            ctx.out.line(format_args!("would publish to lane {}:\n{document:#}", job.lane))?;
        }
        ctx.out.flush()?;
        return Ok(Exit::Ok);
    }
    let published = ctx.publisher().await?.publish_one(job.clone()).await?;
    if args.wait {
        let watched = wait::Watched { job: &job, published: &published };
        return wait::run(ctx, watched, args.wait_timeout, args.fail_on_duplicate).await;
    }
    job.id = Some(published.id);
    if ctx.out.is_json() {
        ctx.out.document(&described(&job, Some(published.instance)))?;
    } else {
        let id = job.id.as_ref().map_or("", JobId::as_str);
        ctx.out.line(format_args!("published {} to lane {} (id {})", published.instance, job.lane, clean(id)))?;
    }
    ctx.out.flush()?;
    Ok(Exit::Ok)
}

/// A job as a JSON document.
fn described(job: &NewJob, handle: Option<uuid::Uuid>) -> Value {
    let mut document = json!({
        "schema": 1, "status": if handle.is_some() { "published" } else { "dry_run" },
        "lane": job.lane, "endpoint": job.endpoint, "tenant": job.tenant, "id": job.id,
        "method": job.meta.method, "path": job.meta.path, "content_type": job.meta.content_type,
        "ordering_key": job.meta.ordering_key, "max_attempts": job.meta.max_attempts,
        "not_before": view::time(job.meta.not_before), "expires_at": view::time(job.meta.expires_at),
        "body_bytes": job.body.len(),
    });
    if let Some(handle) = handle {
        document["handle"] = handle.to_string().into();
    }
    document
}

/// Bytes as a person gives them: as they are, `@FILE`, or `-` for stdin.
pub fn given(data: &str) -> Result<Vec<u8>, CliError> {
    if data == STDIN {
        let mut bytes = Vec::new();
        let limit = template::BODY_BYTES_MAX as u64 + 1;
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
        read.map_err(|error| CliError::failed(format!("cannot read stdin: {error}")))?;
        Ok(bytes)
    } else if let Some(file) = data.strip_prefix('@') {
        std::fs::read(file).map_err(|error| CliError::failed(format!("cannot read {file}: {error}")))
    } else {
        Ok(data.to_owned().into_bytes())
    }
}

/// The body and what it is.
fn body(args: &PublishArgs) -> Result<(Bytes, Option<String>), CliError> {
    let Some(data) = &args.data else { return Ok((Bytes::new(), None)) };
    let bytes = given(data)?;
    if args.content_type.is_some() {
        return Ok((bytes.into(), None));
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        Ok(_) => Ok((bytes.into(), Some("application/json".to_owned()))),
        Err(error) => Err(CliError::usage(format!("the body is not JSON: {error}"))
            .help("say what it is with --content-type, for example text/plain")),
    }
}

/// Tells about an outage that is being waited out.
fn waiting_for_broker(why: &str) {
    note(format_args!("the broker cannot be reached, trying again: {why}"));
}
