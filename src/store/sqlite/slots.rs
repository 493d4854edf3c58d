//! Slots: who holds how many, decided key by key in one transaction.

use sqlx::SqliteConnection;

use super::begin;
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::store::fault::Answer;
use crate::store::record::{HoldingRecord, SlotUseRecord};
use crate::store::slots::{self, Holding};
use crate::store::{Holder, SlotAsk, SlotUse};

const READ: &str = "\
    SELECT s.key, s.worker, s.lane, s.held, s.in_use, s.wanted, s.renewed_at, s.kept_until, w.id IS NOT NULL AS alive
    FROM slots AS s LEFT JOIN workers AS w ON w.id = s.worker WHERE s.key = ?1";
const KEEP: &str = "\
    INSERT INTO slots (key, worker, lane, held, in_use, wanted, renewed_at, kept_until)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
    WHERE EXISTS (SELECT 1 FROM workers AS w WHERE w.id = ?2)
    ON CONFLICT (key, worker, lane) DO UPDATE SET held = excluded.held, in_use = excluded.in_use,
        wanted = excluded.wanted, renewed_at = excluded.renewed_at, kept_until = excluded.kept_until";
const REMOVE: &str = "DELETE FROM slots WHERE key = ?1 AND worker = ?2 AND lane = ?3";
const CUT: &str = "UPDATE slots SET held = in_use WHERE key = ?1 AND kept_until < ?2 AND held > in_use";
const USES: &str = "\
    SELECT ?1 AS key, coalesce(sum(s.in_use), 0) AS in_use, coalesce(sum(s.held), 0) AS held,
        coalesce(sum(s.wanted), 0) AS wanted
    FROM slots AS s JOIN workers AS w ON w.id = s.worker WHERE s.key = ?1";
const PURGE: &str = "\
    DELETE FROM slots AS s WHERE NOT EXISTS (SELECT 1 FROM workers AS w WHERE w.id = s.worker)";

pub async fn renew(db: &Sqlite, holder: &Holder, now: Timestamp, asks: &[SlotAsk]) -> Answer<Vec<u32>> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = begin(db).await?;
    let mut rows: Vec<HoldingRecord> = Vec::new();
    for ask in asks {
        rows.extend(sqlx::query_as(READ).bind(&ask.slot.key).fetch_all(&mut *tx).await?);
    }
    let rows = rows.into_iter().map(HoldingRecord::holding).collect::<Answer<Vec<Holding>>>()?;
    let plan = slots::plan(holder, now, asks, rows);
    for row in &plan.kept {
        if !keep(&mut tx, row).await? {
            return Ok(vec![0; asks.len()]); // nothing was written
        }
    }
    for row in &plan.removed {
        remove(&mut tx, row).await?;
    }
    for key in &plan.lapsed {
        sqlx::query(CUT).bind(key).bind(now.as_micros()).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(plan.granted)
}

/// Writes a row of the holder; false = its worker is not registered.
async fn keep(db: &mut SqliteConnection, row: &Holding) -> Answer<bool> {
    let kept = sqlx::query(KEEP)
        .bind(&row.key)
        .bind(row.worker.0)
        .bind(row.lane.as_str())
        .bind(i64::from(row.held))
        .bind(i64::from(row.in_use))
        .bind(i64::from(row.wanted))
        .bind(row.renewed_at.as_micros())
        .bind(row.kept_until.as_micros())
        .execute(db)
        .await?;
    Ok(kept.rows_affected() > 0)
}

async fn remove(db: &mut SqliteConnection, row: &Holding) -> Answer<()> {
    sqlx::query(REMOVE).bind(&row.key).bind(row.worker.0).bind(row.lane.as_str()).execute(db).await?;
    Ok(())
}

pub async fn uses(db: &Sqlite, keys: &[String]) -> Answer<Vec<SlotUse>> {
    let mut connection = db.read.acquire().await?;
    let mut uses = Vec::with_capacity(keys.len());
    for key in keys {
        let of_key: SlotUseRecord = sqlx::query_as(USES).bind(key).fetch_one(&mut *connection).await?;
        uses.push(of_key.into());
    }
    Ok(uses)
}

/// Removes the rows of workers that are gone. They count for nobody; this is so that none stays for ever.
pub async fn purge(db: &mut SqliteConnection) -> Answer<()> {
    sqlx::query(PURGE).execute(db).await?;
    Ok(())
}
