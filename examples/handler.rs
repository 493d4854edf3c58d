//! A worker whose jobs are handled by an async function of your own: `cargo run --example handler`.
//!
//! It publishes ten jobs to an SQLite file in a temporary directory and ends when all of them are done. One of them is
//! rate limited at first, and one of them is published twice.

#![allow(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanes::job::{EndpointName, JobId, JobMeta, LaneName, Tenant};
use lanes::policy::backoff::RetryPolicy;
use lanes::{HandlerError, JobContext, Lane, NewJob, Worker};
use tokio::sync::Notify;

const JOBS: usize = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("lanes-handler-{}.db", std::process::id()));
    let url = format!("sqlite:{}", file.display());
    let retry = RetryPolicy { first_delay: Duration::from_millis(200), ..RetryPolicy::default() };
    let (done, all_done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, last) = (Arc::clone(&done), Arc::clone(&all_done));

    let worker = Worker::builder()
        .url(&url)
        .lane(Lane::new("realtime")?.concurrency(4).retry(retry))
        .handler(move |job: JobContext| {
            let (count, last) = (Arc::clone(&count), Arc::clone(&last));
            async move {
                if job.id().as_str() == "contact-3" && job.attempt() == 1 {
                    return Err(HandlerError::rate_limited(Duration::from_millis(300)));
                }
                println!("{} (attempt {}, key {})", job.id(), job.attempt(), job.idempotency_key());
                if count.fetch_add(1, Ordering::SeqCst) + 1 == JOBS {
                    last.notify_one();
                }
                Ok(())
            }
        })
        .build()
        .await?;

    let publisher = worker.publisher();
    for n in (0..JOBS).chain([0]) {
        let job = NewJob {
            lane: LaneName::new("realtime")?,
            endpoint: EndpointName::new(lanes::HANDLER_ENDPOINT)?,
            tenant: Tenant::new("acme")?,
            id: Some(JobId::new(&format!("contact-{n}"))?),
            meta: JobMeta::default(),
            body: "{}".into(),
        };
        publisher.publish_one(job).await?;
    }
    worker.run_until(async move { all_done.notified().await }).await?;
    println!("{} jobs done, each once", done.load(Ordering::SeqCst));
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", file.display())).unwrap_or_default();
    }
    Ok(())
}
