//! Slots: who holds how many, decided key by key under locks.

use sqlx::{PgConnection, PgPool};

use super::begin;
use crate::clock::Timestamp;
use crate::store::fault::Answer;
use crate::store::record::{HoldingRecord, SlotUseRecord};
use crate::store::slots::{self, Holding};
use crate::store::{Holder, SlotAsk, SlotUse};

/// Locks the keys, also those without rows, in the order of their locks, until the commit.
///
/// The commit does not wait for the disk, so that a hot key is locked for as short as possible. A crash of the server may
/// forget the grants of its last moments: until their calls have ended, there can be more in flight than slots.
const LOCK: &str = "\
    WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS setting),
    locks AS MATERIALIZED (
        SELECT DISTINCT hashtextextended('lanes.slots.' || w.key, 0) AS lock
        FROM quick, unnest($1::text[]) AS w(key) WHERE quick.setting = 'off'
        ORDER BY lock)
    SELECT pg_advisory_xact_lock(lock) FROM locks";
const READ: &str = "\
    SELECT s.key, s.worker, s.lane, s.held, s.in_use, s.wanted, s.renewed_at, s.kept_until, w.id IS NOT NULL AS alive
    FROM slots AS s LEFT JOIN workers AS w ON w.id = s.worker WHERE s.key = ANY($1)";
const KEEP: &str = "\
    INSERT INTO slots (key, worker, lane, held, in_use, wanted, renewed_at, kept_until)
    SELECT k.key, $2, $3, k.held, k.in_use, k.wanted, k.renewed_at, k.kept_until
    FROM unnest($1::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[])
        AS k(key, held, in_use, wanted, renewed_at, kept_until)
    WHERE EXISTS (SELECT FROM workers AS w WHERE w.id = $2)
    ON CONFLICT (key, worker, lane) DO UPDATE SET held = excluded.held, in_use = excluded.in_use,
        wanted = excluded.wanted, renewed_at = excluded.renewed_at, kept_until = excluded.kept_until";
const REMOVE: &str = "\
    DELETE FROM slots AS s USING unnest($1::text[], $2::int8[], $3::text[]) AS r(key, worker, lane)
    WHERE s.key = r.key AND s.worker = r.worker AND s.lane = r.lane";
const CUT: &str = "UPDATE slots SET held = in_use WHERE key = ANY($1) AND kept_until < $2 AND held > in_use";
const USES: &str = "\
    SELECT k.key, coalesce(sum(s.in_use), 0)::int8 AS in_use, coalesce(sum(s.held), 0)::int8 AS held,
        coalesce(sum(s.wanted), 0)::int8 AS wanted
    FROM unnest($1::text[]) WITH ORDINALITY AS k(key, at)
    LEFT JOIN (slots AS s JOIN workers AS w ON w.id = s.worker) ON s.key = k.key
    GROUP BY k.at, k.key ORDER BY k.at";
/// Skips what a renewal is about to remove: it removes the rows of its own keys.
const PURGE: &str = "\
    DELETE FROM slots WHERE (key, worker, lane) IN (
        SELECT s.key, s.worker, s.lane FROM slots AS s
        WHERE NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker) FOR UPDATE OF s SKIP LOCKED)";

pub async fn renew(pool: &PgPool, holder: &Holder, now: Timestamp, asks: &[SlotAsk]) -> Answer<Vec<u32>> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<&str> = asks.iter().map(|ask| ask.slot.key.as_str()).collect();
    let mut tx = begin(pool).await?;
    sqlx::query(LOCK).bind(&keys).execute(&mut *tx).await?;
    let rows: Vec<HoldingRecord> = sqlx::query_as(READ).bind(&keys).fetch_all(&mut *tx).await?;
    let rows = rows.into_iter().map(HoldingRecord::holding).collect::<Answer<Vec<Holding>>>()?;
    let plan = slots::plan(holder, now, asks, rows);
    if !plan.kept.is_empty() && !keep(&mut tx, holder, &plan.kept).await? {
        return Ok(vec![0; asks.len()]); // nothing was written
    }
    if !plan.removed.is_empty() {
        remove(&mut tx, &plan.removed).await?;
    }
    if !plan.lapsed.is_empty() {
        sqlx::query(CUT).bind(&plan.lapsed).bind(now.as_micros()).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(plan.granted)
}

/// Writes the holder's rows; false = its worker is not registered.
async fn keep(db: &mut PgConnection, holder: &Holder, rows: &[Holding]) -> Answer<bool> {
    let numbers = |of: fn(&Holding) -> i64| rows.iter().map(of).collect::<Vec<i64>>();
    let kept = sqlx::query(KEEP)
        .bind(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
        .bind(holder.worker.0)
        .bind(holder.lane.as_str())
        .bind(numbers(|row| row.held.into()))
        .bind(numbers(|row| row.in_use.into()))
        .bind(numbers(|row| row.wanted.into()))
        .bind(numbers(|row| row.renewed_at.as_micros()))
        .bind(numbers(|row| row.kept_until.as_micros()))
        .execute(db)
        .await?;
    Ok(kept.rows_affected() > 0)
}

async fn remove(db: &mut PgConnection, rows: &[Holding]) -> Answer<()> {
    sqlx::query(REMOVE)
        .bind(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.worker.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.lane.as_str()).collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(())
}

pub async fn uses(pool: &PgPool, keys: &[String]) -> Answer<Vec<SlotUse>> {
    let uses: Vec<SlotUseRecord> = sqlx::query_as(USES).bind(keys).fetch_all(pool).await?;
    Ok(uses.into_iter().map(SlotUse::from).collect())
}

/// Removes the rows of workers that are gone. They count for nobody; this is so that none stays for ever.
pub async fn purge(db: &mut PgConnection) -> Answer<()> {
    sqlx::query(PURGE).execute(db).await?;
    Ok(())
}
