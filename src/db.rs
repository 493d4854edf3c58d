//! Opens and migrates database pools; the one place that knows how a connection is set up.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Notify;

/// Longest wait for a free connection.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for one statement or transaction.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Readers of one SQLite file, per process.
const SQLITE_READERS: u32 = 4;

/// The schema of the PostgreSQL store.
pub static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");
/// The schema of the SQLite broker and store, which share a file.
pub static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Why a database could not be opened. The address is shown without its password.
#[derive(Debug, Clone, thiserror::Error)]
#[error("database {address}: {why}")]
pub struct DbError {
    /// Where.
    pub address: String,
    /// Why, and what to do.
    pub why: String,
}

/// An open SQLite file: one writer for the whole process (SQLite has one anyway), several readers.
#[derive(Debug, Clone)]
pub struct Sqlite {
    /// The file, as shown to people.
    pub address: Arc<str>,
    /// The path of the file; `None` in memory.
    pub path: Option<Arc<std::path::Path>>,
    /// The one writer. Begin with `BEGIN IMMEDIATE`.
    pub write: SqlitePool,
    /// Readers.
    pub read: SqlitePool,
    /// Notified after a commit of this process that a waiting consumer may want to see.
    pub wrote: Arc<Notify>,
}

impl Sqlite {
    /// The same file over readers of its own: who uses them keeps nobody else's reads waiting.
    #[must_use]
    pub fn with_readers(&self, connections: u32) -> Self {
        let Some(path) = &self.path else { return self.clone() };
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(STATEMENT_TIMEOUT).read_only(true);
        let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
        Self { read: pool.connect_lazy_with(options), ..self.clone() }
    }
}

/// Opens (and creates) the file of a `sqlite:PATH` url and brings its schema up to date.
///
/// # Errors
/// [`DbError`] when the url is malformed or in memory, the file cannot be opened or its schema is newer than this program.
pub async fn open_sqlite(url: &str) -> Result<Sqlite, DbError> {
    let fail = |why: String| DbError { address: redact(url), why };
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(fail(
            "a database in memory keeps nothing and can't be shared; name a file, as in sqlite:lanes.db".into(),
        ));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| fail(error.to_string()))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // a durable queue: NORMAL could lose the last commits on power loss
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(STATEMENT_TIMEOUT);
    let path = options.get_filename().to_owned();
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(STATEMENT_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await
        .map_err(|error| fail(format!("cannot open the file: {error}")))?;
    migrate_sqlite(&write).await.map_err(|error| fail(migration_failed(&error)))?;
    let read = SqlitePoolOptions::new()
        .max_connections(SQLITE_READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_with(options.read_only(true))
        .await
        .map_err(|error| fail(format!("cannot open the file for reading: {error}")))?;
    Ok(Sqlite { address: redact(url).into(), path: Some(path.into()), write, read, wrote: Arc::new(Notify::new()) })
}

/// In one transaction that has the write lock from its start: processes that open a new file together take turns.
async fn migrate_sqlite(write: &SqlitePool) -> Result<(), MigrateError> {
    let mut whole = write.begin_with("BEGIN IMMEDIATE").await?;
    // not `run`: its future is not Send for every lifetime
    SQLITE_MIGRATIONS.run_direct(None, &mut *whole, false).await?;
    Ok(whole.commit().await?)
}

/// What a PostgreSQL pool is for; each lane has its own, so that bulk never stands before real-time.
#[derive(Debug, Clone, Copy)]
pub struct PgPoolUse {
    /// Shown in `pg_stat_activity` after `lanes:`.
    pub name: &'static str,
    /// Most connections.
    pub connections: u32,
}

/// Opens a pool. Does not connect before the first use.
///
/// # Errors
/// [`DbError`] when the url is malformed.
pub fn open_postgres(url: &str, purpose: PgPoolUse) -> Result<PgPool, DbError> {
    let address = redact(url);
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| DbError { address, why: error.to_string() })?
        .application_name(&format!("lanes:{}", purpose.name))
        .options([
            ("statement_timeout", format!("{}ms", STATEMENT_TIMEOUT.as_millis())),
            ("idle_in_transaction_session_timeout", format!("{}ms", 2 * STATEMENT_TIMEOUT.as_millis())),
            ("tcp_keepalives_idle", "10".to_owned()),
            // a plan cached while a table was empty would go on scanning it when it is full; planning costs little per batch
            ("plan_cache_mode", "force_custom_plan".to_owned()),
            ("jit", "off".to_owned()),
            // the store locks first and reads then: every statement needs a snapshot of its own
            ("default_transaction_isolation", "read committed".to_owned()),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(purpose.connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// Brings the schema up to date; several workers may do it at once (advisory lock).
///
/// # Errors
/// [`DbError`] when the database cannot be reached or its schema is newer than this program.
pub async fn migrate_postgres(url: &str, pool: &PgPool) -> Result<(), DbError> {
    let fail = |why: String| DbError { address: redact(url), why };
    let unreachable = |error: sqlx::Error| fail(format!("cannot connect: {}", explain(&error)));
    // a connection of its own, closed afterwards: building an index on a large table takes its time
    let mut connection = pool.acquire().await.map_err(unreachable)?.detach();
    sqlx::query("SET statement_timeout = 0").execute(&mut connection).await.map_err(unreachable)?;
    let migrated = POSTGRES_MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| fail(migration_failed(&error)));
    let closed = sqlx::Connection::close(connection).await;
    migrated.and_then(|()| closed.map_err(unreachable))
}

fn migration_failed(error: &MigrateError) -> String {
    match error {
        MigrateError::VersionMissing(_) => {
            format!("its schema was made by a newer version of lanes ({error}); run that version")
        }
        MigrateError::VersionMismatch(_) => format!("its schema was made by another build of lanes ({error})"),
        error => format!("migration failed: {error}"),
    }
}

/// Whether sending the same statement again later may succeed: connection trouble, overload, a shutdown or failover, a
/// conflict with another transaction, a full disk.
pub fn may_pass(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, WorkerCrashed};
    match error {
        Io(_) | PoolTimedOut | PoolClosed | WorkerCrashed => true,
        sqlx::Error::Database(refusal) => match refusal.code() {
            Some(code) if refusal.try_downcast_ref::<PgDatabaseError>().is_some() => {
                // 08 connection, 53 resources, 57 operator intervention; serialization, deadlock, lock timeout; a standby
                ["08", "53", "57"].iter().any(|class| code.starts_with(class))
                    || ["40001", "40P01", "55P03", "25006"].contains(&&*code)
            }
            Some(code) => code.parse::<u32>().is_ok_and(|code| SQLITE_MAY_PASS.contains(&(code & 0xff))),
            None => false,
        },
        _ => false,
    }
}

/// SQLITE_BUSY, SQLITE_LOCKED, SQLITE_IOERR, SQLITE_FULL: primary result codes.
const SQLITE_MAY_PASS: [u32; 4] = [5, 6, 10, 13];

/// Whether the database refuses a value that it was given, whatever else is sent with it.
pub fn refuses_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(refusal) => match refusal.code() {
            Some(code) if refusal.try_downcast_ref::<PgDatabaseError>().is_some() => {
                // 22 data exception, 23 constraint, 54 program limit
                ["22", "23", "54"].iter().any(|class| code.starts_with(class))
            }
            Some(code) => code.parse::<u32>().is_ok_and(|code| SQLITE_REFUSES_DATA.contains(&(code & 0xff))),
            None => false,
        },
        _ => false,
    }
}

/// Whether PostgreSQL ended a statement because it and another one waited for each other.
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "40P01")
}

/// SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH: primary result codes.
const SQLITE_REFUSES_DATA: [u32; 3] = [18, 19, 20];

/// An error that will not pass by itself, with what to do about it.
pub fn explain(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    let advice = match &*code {
        "42P01" | "42703" | "42883" => "the schema is missing or older than this program: run `lanes migrate`",
        "42501" => "grant the user of the url the right to read and write the tables of lanes",
        "28000" | "28P01" => "check user and password of the url",
        "3D000" => "create the database, then run `lanes migrate`",
        "8" | "1032" | "14" => "check that the user of this process may write the file and its directory",
        "11" | "26" => "the file is damaged or not an SQLite database: restore it from a backup or name another",
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

/// What stands in for a secret.
const REDACTED: &str = "***";

/// A url as it may be shown: without the password and without any parameter that may hold a credential. A url that does
/// not say clearly what its password is is not shown at all. Showing a shown url again changes nothing.
pub fn redact(url: &str) -> String {
    if url.starts_with("sqlite:") {
        return match url.split_once('?') {
            Some((file, query)) if may_be_secret(query) => format!("{file}?{REDACTED}"),
            _ => url.to_owned(),
        };
    }
    let Ok(mut shown) = url::Url::parse(url) else { return "(malformed url)".to_owned() };
    // an @ behind the host: the password was not percent-encoded (`u:12/34@h`), or there is no `//` before the user
    let unclear = shown[url::Position::BeforePath..].contains('@');
    if unclear || !shown.has_authority() && !shown.path().is_empty() {
        return "(malformed url)".to_owned();
    }
    if shown.password().is_some() && shown.set_password(Some(REDACTED)).is_err() {
        return "(unprintable url)".to_owned();
    }
    let hide = |name: &str, value: &str| may_be_secret(name) || may_be_secret(value);
    if shown.query_pairs().any(|(name, value)| hide(&name, &value)) {
        let pairs: Vec<(String, String)> = shown.query_pairs().into_owned().collect();
        shown.query_pairs_mut().clear().extend_pairs(
            pairs.iter().map(|(name, value)| (name, if hide(name, value) { REDACTED } else { value.as_str() })),
        );
    }
    shown.set_fragment(None);
    shown.to_string()
}

/// Whether a parameter's name speaks of a credential, or its value holds another parameter that does.
fn may_be_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "key", "credential"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_holds_no_credential() {
        for (url, shown) in [
            ("postgres://u:p%40ss@h:5432/db", "postgres://u:***@h:5432/db"),
            ("postgres://u@h/db?password=hunter2&sslmode=require", "postgres://u@h/db?password=***&sslmode=require"),
            ("postgres://h/db?PassWord=a&sslpassword=b", "postgres://h/db?PassWord=***&sslpassword=***"),
            ("amqp://guest:guest@127.0.0.1:5672/%2f", "amqp://guest:***@127.0.0.1:5672/%2f"),
            ("postgres://u@h/db?sslmode=disable", "postgres://u@h/db?sslmode=disable"),
            ("sqlite:lanes.db", "sqlite:lanes.db"),
            ("sqlite:/a b/x@y.db?mode=rwc", "sqlite:/a b/x@y.db?mode=rwc"),
            ("sqlite:x.db?key=hunter2", "sqlite:x.db?***"),
            ("memory:", "memory:"),
            ("postgresql://:hunter2@h/db", "postgresql://:***@h/db"),
            ("postgres://h/db?%70assword=hunter2", "postgres://h/db?password=***"),
            ("postgres://h/db?a=b;password=hunter2", "postgres://h/db?a=***"),
            ("postgres:///db?host=/run&password=hunter2", "postgres:///db?host=%2Frun&password=***"),
            ("postgres:u:hunter2@h/db", "(malformed url)"),
            ("postgres:/u:hunter2@h/db", "(malformed url)"),
            ("postgres:hunter2", "(malformed url)"),
            ("postgres://u:12/hunter2@h/db", "(malformed url)"),
            ("postgres://u:12?hunter2@h/db", "(malformed url)"),
            ("postgres://u:12#hunter2@h/db", "(malformed url)"),
            ("host=h password=hunter2", "(malformed url)"),
            ("u:secret@h", "(malformed url)"),
            ("//u:secret@h", "(malformed url)"),
        ] {
            assert_eq!(redact(url), shown, "{url}");
            if shown.contains(':') {
                assert_eq!(redact(shown), shown, "shown again");
            }
        }
    }
}
