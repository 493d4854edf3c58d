//! From a url to a backend: the one place where their names stand.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::AppError;
use crate::broker::memory::MemoryBroker;
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::sqlite::{DEFAULT_LEASE, SqliteBroker};
use crate::broker::{Broker, BrokerLimits};
use crate::clock::SharedClock;
use crate::db::{self, DbError, PgPoolUse, Sqlite};
use crate::store::Store;
use crate::store::postgres::PgStore;
use crate::store::sqlite::SqliteStore;

/// SQLite files that this process has open: broker and store of one file share its one writer.
static OPEN_FILES: Mutex<Vec<(String, Sqlite)>> = Mutex::const_new(Vec::new());

async fn sqlite(url: &str) -> Result<Sqlite, DbError> {
    let mut open = OPEN_FILES.lock().await;
    open.retain(|(_, db)| !db.write.is_closed());
    if let Some((_, db)) = open.iter().find(|(known, _)| known == url) {
        return Ok(db.clone());
    }
    let db = db::open_sqlite(url).await?;
    open.push((url.to_owned(), db.clone()));
    Ok(db)
}

/// The broker at a url. Does not wait for it to be reachable.
pub(crate) async fn broker_at(url: &str, clock: &SharedClock) -> Result<Arc<dyn Broker>, AppError> {
    Ok(match scheme(url) {
        "sqlite" => Arc::new(SqliteBroker::new(sqlite(url).await?, Arc::clone(clock), DEFAULT_LEASE)),
        "amqp" | "amqps" => Arc::new(RabbitMq::new(url, BrokerLimits::default(), Arc::clone(clock))?),
        "memory" => Arc::new(MemoryBroker::new()),
        other => {
            return Err(AppError::Url(format!("broker.url: {other:?} is no broker; use sqlite:, amqp:// or amqps://")));
        }
    })
}

fn scheme(url: &str) -> &str {
    url.split_once(':').map_or(url, |(scheme, _)| scheme)
}

/// Where handles to the store come from; each with connections of its own.
pub(super) enum Stores {
    Sqlite(Sqlite),
    Postgres(String),
}

impl Stores {
    pub(super) async fn open(url: &str) -> Result<Self, AppError> {
        match scheme(url) {
            "sqlite" => Ok(Self::Sqlite(sqlite(url).await?)),
            "postgres" | "postgresql" => Ok(Self::Postgres(url.to_owned())),
            other => Err(AppError::Url(format!("store.url: {other:?} is no store; use sqlite: or postgres://"))),
        }
    }

    pub(super) fn handle(&self, name: &'static str, connections: u32) -> Result<Arc<dyn Store>, AppError> {
        Ok(match self {
            Self::Sqlite(db) => Arc::new(SqliteStore::new(db.clone())),
            Self::Postgres(url) => {
                let pool = db::open_postgres(url, PgPoolUse { name, connections })?;
                Arc::new(PgStore::new(pool, &db::redact(url)))
            }
        })
    }

    /// A handle whose reads keep nobody else's waiting, also where a file is all there is.
    pub(super) fn handle_apart(&self, name: &'static str, connections: u32) -> Result<Arc<dyn Store>, AppError> {
        match self {
            Self::Sqlite(db) => Ok(Arc::new(SqliteStore::new(db.with_readers(connections)))),
            Self::Postgres(_) => self.handle(name, connections),
        }
    }

    pub(super) async fn migrate(&self) -> Result<(), AppError> {
        match self {
            Self::Sqlite(_) => Ok(()), // done when the file was opened
            Self::Postgres(url) => {
                let pool = db::open_postgres(url, PgPoolUse { name: "migrate", connections: 1 })?;
                let migrated = db::migrate_postgres(url, &pool).await;
                pool.close().await;
                Ok(migrated?)
            }
        }
    }
}
