//! Dead letters: taken, listed, discarded, forgotten.

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::retention::CHUNK;
use super::{begin, controls};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::verdict::DeadReason;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::store::fault::{Answer, free_text, length, limit, signed};
use crate::store::letter::{
    FullLetterRecord, GroupRecord, LetterRecord, full_letter_columns, letter_columns, readable,
};
use crate::store::{AuditEntry, LIST_MAX, Letter, LetterFilter, LetterGroup, RawLetter};

const BURY: &str = "\
    INSERT INTO letters (published_at, died_at, body_bytes, attempts, generation, takeovers, copies, raw,
        effect_possible, instance, lane, tenant, id, endpoint, reason, detail, payload_sha256, meta, body)
    VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13, ?14, NULL, ?15, ?16)
    ON CONFLICT (instance) DO UPDATE SET copies = copies + excluded.copies, died_at = max(died_at, excluded.died_at)";
const LIST: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM letters WHERE (?1 IS NULL OR lane = ?1) AND (?2 IS NULL OR tenant = ?2) AND (?3 IS NULL OR endpoint = ?3)
        AND (?4 IS NULL OR reason = ?4) AND (?5 IS NULL OR (died_at, instance) < (?5, ?6))
    ORDER BY died_at DESC, instance DESC LIMIT ?7"
);
const FULL: &str = concat!("SELECT ", full_letter_columns!(), " FROM letters WHERE instance = ?1");
const REMOVE: &str = "DELETE FROM letters WHERE instance = ?1";
/// As it was read: one that died again meanwhile stays.
const REMOVE_SEEN: &str = "DELETE FROM letters WHERE instance = ?1 AND died_at = ?2 AND copies = ?3";
const GROUPS: &str = "\
    SELECT endpoint, reason, tenant, count(*) AS letters, min(died_at) AS first_at, max(died_at) AS last_at FROM letters
    GROUP BY endpoint, reason, tenant ORDER BY letters DESC, coalesce(endpoint, ''), reason, coalesce(tenant, '') LIMIT ?1";
const COUNTS: &str = "SELECT lane, count(*) FROM letters GROUP BY lane ORDER BY lane";
const PURGE: &str = "\
    DELETE FROM letters WHERE instance IN (SELECT instance FROM letters WHERE died_at < ?1 ORDER BY died_at LIMIT ?2)
    RETURNING instance";
/// The journal of a job goes when neither its row nor its letter is left.
const FORGET: &str = "\
    DELETE FROM attempts WHERE instance IN (SELECT unhex(value) FROM json_each(?1))
        AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.instance = attempts.instance)
        AND NOT EXISTS (SELECT 1 FROM letters AS l WHERE l.instance = attempts.instance)";

pub async fn bury(db: &Sqlite, letters: &[RawLetter]) -> Answer<()> {
    let mut tx = begin(db).await?;
    for RawLetter { letter, payload } in letters {
        sqlx::query(BURY)
            .bind(letter.published_at.map(Timestamp::as_micros))
            .bind(letter.died_at.as_micros())
            .bind(length(payload.body.len()))
            .bind(signed(letter.attempts))
            .bind(signed(letter.generation))
            .bind(signed(letter.copies.max(1)))
            .bind(letter.raw)
            .bind(letter.instance)
            .bind(letter.lane.as_str())
            .bind(letter.tenant.as_ref().map(Tenant::as_str))
            .bind(letter.id.as_deref().map(free_text))
            .bind(letter.endpoint.as_deref().map(free_text))
            .bind(letter.reason.as_str())
            .bind(free_text(&letter.detail))
            .bind(&payload.meta[..])
            .bind(&payload.body[..])
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

pub async fn list(db: &Sqlite, filter: &LetterFilter) -> Answer<Vec<Letter>> {
    let records: Vec<LetterRecord> = sqlx::query_as(LIST)
        .bind(filter.lane.as_ref().map(LaneName::as_str))
        .bind(filter.tenant.as_ref().map(Tenant::as_str))
        .bind(filter.endpoint.as_ref().map(EndpointName::as_str))
        .bind(filter.reason.map(DeadReason::as_str))
        .bind(filter.after.map(|(at, _)| at.as_micros()))
        .bind(filter.after.map(|(_, instance)| instance))
        .bind(limit(filter.limit.min(LIST_MAX)))
        .fetch_all(&db.read)
        .await?;
    Ok(readable(records))
}

/// One whole letter, in a transaction.
pub async fn full(db: &mut SqliteConnection, instance: Uuid) -> Answer<Option<FullLetterRecord>> {
    Ok(sqlx::query_as(FULL).bind(instance).fetch_optional(db).await?)
}

pub async fn get(db: &Sqlite, instance: Uuid) -> Answer<Option<RawLetter>> {
    let record: Option<FullLetterRecord> = sqlx::query_as(FULL).bind(instance).fetch_optional(&db.read).await?;
    record.map(FullLetterRecord::raw_letter).transpose()
}

/// Removes a letter, in a transaction; the journal stays.
pub async fn remove(db: &mut SqliteConnection, instance: Uuid) -> Answer<bool> {
    Ok(sqlx::query(REMOVE).bind(instance).execute(db).await?.rows_affected() == 1)
}

/// The same, unless it died again since it was read: an equal message is the same letter.
pub async fn remove_seen(
    db: &mut SqliteConnection,
    instance: Uuid,
    (died_at, copies): (Timestamp, u32),
) -> Answer<bool> {
    let query = sqlx::query(REMOVE_SEEN).bind(instance).bind(died_at.as_micros()).bind(signed(copies));
    Ok(query.execute(db).await?.rows_affected() == 1)
}

/// Removes the journals of `instances` whose row and letter are both gone.
pub async fn forget(db: &mut SqliteConnection, instances: &[Uuid]) -> Answer<()> {
    if !instances.is_empty() {
        let hex: Vec<String> = instances.iter().map(|instance| instance.simple().to_string()).collect();
        sqlx::query(FORGET).bind(serde_json::to_string(&hex)?).execute(db).await?;
    }
    Ok(())
}

pub async fn discard(
    db: &Sqlite,
    instance: Uuid,
    seen: Option<(Timestamp, u32)>,
    line: Option<&AuditEntry>,
) -> Answer<bool> {
    let mut tx = begin(db).await?;
    let removed = match seen {
        Some(seen) => remove_seen(&mut tx, instance, seen).await?,
        None => remove(&mut tx, instance).await?,
    };
    forget(&mut tx, &[instance]).await?;
    if let Some(line) = line.filter(|_| removed) {
        controls::log(&mut tx, line).await?;
    }
    tx.commit().await?;
    Ok(removed)
}

pub async fn counts(db: &Sqlite) -> Answer<Vec<(LaneName, u64)>> {
    let counts: Vec<(String, i64)> = sqlx::query_as(COUNTS).fetch_all(&db.read).await?;
    counts.into_iter().map(|(lane, count)| Ok((LaneName::new(&lane)?, u64::try_from(count).unwrap_or(0)))).collect()
}

pub async fn groups(db: &Sqlite, most: usize) -> Answer<Vec<LetterGroup>> {
    let groups: Vec<GroupRecord> = sqlx::query_as(GROUPS).bind(limit(most.min(LIST_MAX))).fetch_all(&db.read).await?;
    groups.into_iter().map(GroupRecord::group).collect()
}

pub async fn purge(db: &Sqlite, before: Timestamp, rows: usize) -> Answer<u64> {
    let mut gone = 0;
    while gone < rows {
        let asked = CHUNK.min(rows - gone);
        let chunk = purge_chunk(db, before, asked).await?;
        gone += chunk;
        if chunk < asked {
            break;
        }
    }
    Ok(gone as u64)
}

async fn purge_chunk(db: &Sqlite, before: Timestamp, rows: usize) -> Answer<usize> {
    let mut tx = begin(db).await?;
    let gone: Vec<Uuid> =
        sqlx::query_scalar(PURGE).bind(before.as_micros()).bind(limit(rows)).fetch_all(&mut *tx).await?;
    forget(&mut tx, &gone).await?;
    tx.commit().await?;
    Ok(gone.len())
}
