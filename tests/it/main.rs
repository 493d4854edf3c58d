//! The integration tests, one binary.

mod app;
mod arch;
mod browser;
mod cli;
mod compose;
mod config;
mod crash;
mod dash;
mod demo;
mod deps;
mod dispatch;
mod docs;
mod flow;
mod foreign;
mod history;
mod http;
mod library;
mod model;
mod observability;
mod plan;
mod services;
mod suite;
mod telemetry;
