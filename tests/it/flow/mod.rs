//! The flow from publish to ack, as a user would describe it, on every backend.

pub mod rig;
pub mod weather;
mod batches;
mod budgets;
mod counted;
mod dedup;
mod faults;
mod forgetting;
mod governor;
mod lanes_apart;
mod liveness;
mod operations;
mod operators;
mod outage;
mod pausing;
mod retry;
mod stopping;
mod traces;

/// Runs each test on the embedded default and on RabbitMQ with PostgreSQL, with identical expectations.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::flow::rig::Backend::Sqlite).await; })*
        }
        mod rabbit_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(crate::flow::rig::Backend::Rabbit).await; })*
        }
    };
}
pub(crate) use on_every_backend;
