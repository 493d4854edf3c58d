//! Who is alive.

use super::{begin, slots};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::store::fault::{Answer, free_text};
use crate::store::record::WorkerRecord;
use crate::store::{WorkerId, WorkerRow};

const REGISTER: &str =
    "INSERT INTO workers (started_at, heartbeat_at, name, lanes) VALUES (?1, ?1, ?2, ?3) RETURNING id";
const HEARTBEAT: &str = "UPDATE workers SET heartbeat_at = max(heartbeat_at, ?2) WHERE id = ?1";
const DEREGISTER: &str = "DELETE FROM workers WHERE id = ?1";
const BURY: &str = "DELETE FROM workers WHERE heartbeat_at < ?1 AND id <> ?2";
const LIST: &str = "SELECT id, started_at, heartbeat_at, name, lanes FROM workers ORDER BY id";

pub async fn register(db: &Sqlite, name: &str, lanes: &str, now: Timestamp) -> Answer<WorkerId> {
    let id: i64 = sqlx::query_scalar(REGISTER)
        .bind(now.as_micros())
        .bind(free_text(name))
        .bind(free_text(lanes))
        .fetch_one(&db.write)
        .await?;
    Ok(WorkerId(id))
}

pub async fn heartbeat(db: &Sqlite, worker: WorkerId, now: Timestamp) -> Answer<bool> {
    let done = sqlx::query(HEARTBEAT).bind(worker.0).bind(now.as_micros()).execute(&db.write).await?;
    Ok(done.rows_affected() == 1)
}

pub async fn deregister(db: &Sqlite, worker: WorkerId) -> Answer<()> {
    sqlx::query(DEREGISTER).bind(worker.0).execute(&db.write).await?;
    Ok(())
}

pub async fn bury(db: &Sqlite, before: Timestamp, except: WorkerId) -> Answer<u64> {
    let mut tx = begin(db).await?;
    let buried = sqlx::query(BURY).bind(before.as_micros()).bind(except.0).execute(&mut *tx).await?.rows_affected();
    slots::purge(&mut tx).await?;
    tx.commit().await?;
    Ok(buried)
}

pub async fn list(db: &Sqlite) -> Answer<Vec<WorkerRow>> {
    let rows: Vec<WorkerRecord> = sqlx::query_as(LIST).fetch_all(&db.read).await?;
    Ok(rows.into_iter().map(WorkerRow::from).collect())
}
