//! lanes: a durable queue worker with priority lanes for calling rate-limited third-party HTTP APIs.

pub mod clock;
pub mod message;
pub mod job;
pub mod policy;
pub mod config;
pub mod broker;
pub mod db;
pub mod store;
pub mod plan;
pub mod governor;
pub mod observe;
pub mod dispatch;
pub mod telemetry;
pub mod publish;
pub mod engine;
pub mod notices;
pub mod http;
pub mod dash;
pub mod app;

pub mod cli;

pub use app::library::{HANDLER_ENDPOINT, Lane, Worker};
pub use dispatch::handler::{HandlerError, JobContext};
pub use publish::{NewJob, Published, Publisher};
