//! Dead letters: taken, listed, discarded, forgotten.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{begin, controls};
use crate::clock::Timestamp;
use crate::job::verdict::DeadReason;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::store::fault::{Answer, free_text, length, limit, signed};
use crate::store::letter::{
    FullLetterRecord, GroupRecord, LetterRecord, full_letter_columns, letter_columns, readable,
};
use crate::store::{AuditEntry, LIST_MAX, Letter, LetterFilter, LetterGroup, Payload, RawLetter};

const BURY: &str = "\
    INSERT INTO letters AS l (published_at, died_at, body_bytes, attempts, generation, takeovers, copies, raw,
        effect_possible, instance, lane, tenant, id, endpoint, reason, detail, payload_sha256, meta, body)
    SELECT published_at, died_at, body_bytes, attempts, generation, 0, copies, raw, false, instance, lane, tenant, id,
        endpoint, reason, detail, NULL, meta, body
    FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int4[], $5::int4[], $6::int4[], $7::bool[], $8::uuid[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bytea[], $16::bytea[])
        AS c(published_at, died_at, body_bytes, attempts, generation, copies, raw, instance, lane, tenant, id, endpoint,
            reason, detail, meta, body)
    ON CONFLICT (instance) DO UPDATE SET copies = l.copies + excluded.copies,
        died_at = greatest(l.died_at, excluded.died_at)";
const LIST: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM letters WHERE ($1::text IS NULL OR lane = $1) AND ($2::text IS NULL OR tenant = $2)
        AND ($3::text IS NULL OR endpoint = $3) AND ($4::text IS NULL OR reason = $4)
        AND ($5::int8 IS NULL OR (died_at, instance) < ($5, $6))
    ORDER BY died_at DESC, instance DESC LIMIT $7"
);
const FULL: &str = concat!("SELECT ", full_letter_columns!(), " FROM letters WHERE instance = $1");
const LOCK: &str = concat!("SELECT ", full_letter_columns!(), " FROM letters WHERE instance = $1 FOR UPDATE");
const REMOVE: &str = "DELETE FROM letters WHERE instance = $1";
/// As it was read: one that died again meanwhile stays.
const REMOVE_SEEN: &str = "DELETE FROM letters WHERE instance = $1 AND died_at = $2 AND copies = $3";
const GROUPS: &str = "\
    SELECT endpoint, reason, tenant, count(*) AS letters, min(died_at) AS first_at, max(died_at) AS last_at FROM letters
    GROUP BY endpoint, reason, tenant ORDER BY letters DESC, coalesce(endpoint, ''), reason, coalesce(tenant, '') LIMIT $1";
const COUNTS: &str = "SELECT lane, count(*) FROM letters GROUP BY lane ORDER BY lane";
const PURGE: &str = "\
    DELETE FROM letters WHERE instance IN (SELECT instance FROM letters WHERE died_at < $1 ORDER BY died_at LIMIT $2
            FOR UPDATE SKIP LOCKED)
    RETURNING instance";
/// The journal of a job goes when neither its row nor its letter is left.
const FORGET: &str = "\
    DELETE FROM attempts AS a WHERE instance = ANY($1)
        AND NOT EXISTS (SELECT 1 FROM jobs_all AS j WHERE j.instance = a.instance)
        AND NOT EXISTS (SELECT 1 FROM letters AS l WHERE l.instance = a.instance)";

pub async fn bury(pool: &PgPool, letters: &[RawLetter]) -> Answer<()> {
    let merged = one_per_instance(letters);
    sqlx::query(BURY)
        .bind(all(&merged, |letter| letter.published_at.map(Timestamp::as_micros)))
        .bind(all(&merged, |letter| letter.died_at.as_micros()))
        .bind(merged.iter().map(|(_, payload)| length(payload.body.len())).collect::<Vec<_>>())
        .bind(all(&merged, |letter| signed(letter.attempts)))
        .bind(all(&merged, |letter| signed(letter.generation)))
        .bind(all(&merged, |letter| signed(letter.copies)))
        .bind(all(&merged, |letter| letter.raw))
        .bind(all(&merged, |letter| letter.instance))
        .bind(all(&merged, |letter| letter.lane.as_str().to_owned()))
        .bind(all(&merged, |letter| letter.tenant.as_ref().map(|tenant| tenant.as_str().to_owned())))
        .bind(all(&merged, |letter| letter.id.as_deref().map(free_text)))
        .bind(all(&merged, |letter| letter.endpoint.as_deref().map(free_text)))
        .bind(all(&merged, |letter| letter.reason.as_str()))
        .bind(all(&merged, |letter| free_text(&letter.detail)))
        .bind(merged.iter().map(|(_, payload)| &payload.meta[..]).collect::<Vec<_>>())
        .bind(merged.iter().map(|(_, payload)| &payload.body[..]).collect::<Vec<_>>())
        .execute(pool)
        .await?;
    Ok(())
}

fn all<T>(merged: &[(Letter, &Payload)], column: impl Fn(&Letter) -> T) -> Vec<T> {
    merged.iter().map(|(letter, _)| column(letter)).collect()
}

/// One statement writes a letter once, and two batches must not wait for each other: copies are counted here, and all go
/// in the order of instances.
fn one_per_instance(letters: &[RawLetter]) -> Vec<(Letter, &Payload)> {
    let mut merged: BTreeMap<Uuid, (Letter, &Payload)> = BTreeMap::new();
    for RawLetter { letter, payload } in letters {
        let copies = letter.copies.max(1);
        merged
            .entry(letter.instance)
            .and_modify(|(first, _)| {
                first.copies = first.copies.saturating_add(copies);
                first.died_at = first.died_at.max(letter.died_at);
            })
            .or_insert_with(|| (Letter { copies, ..letter.clone() }, payload));
    }
    merged.into_values().collect()
}

pub async fn list(pool: &PgPool, filter: &LetterFilter) -> Answer<Vec<Letter>> {
    let records: Vec<LetterRecord> = sqlx::query_as(LIST)
        .bind(filter.lane.as_ref().map(LaneName::as_str))
        .bind(filter.tenant.as_ref().map(Tenant::as_str))
        .bind(filter.endpoint.as_ref().map(EndpointName::as_str))
        .bind(filter.reason.map(DeadReason::as_str))
        .bind(filter.after.map(|(at, _)| at.as_micros()))
        .bind(filter.after.map(|(_, instance)| instance))
        .bind(limit(filter.limit.min(LIST_MAX)))
        .fetch_all(pool)
        .await?;
    Ok(readable(records))
}

/// One whole letter, locked, in a transaction.
pub async fn full(db: &mut PgConnection, instance: Uuid) -> Answer<Option<FullLetterRecord>> {
    Ok(sqlx::query_as(LOCK).bind(instance).fetch_optional(db).await?)
}

pub async fn get(pool: &PgPool, instance: Uuid) -> Answer<Option<RawLetter>> {
    let record: Option<FullLetterRecord> = sqlx::query_as(FULL).bind(instance).fetch_optional(pool).await?;
    record.map(FullLetterRecord::raw_letter).transpose()
}

/// Removes a letter, in a transaction; the journal stays.
pub async fn remove(db: &mut PgConnection, instance: Uuid) -> Answer<bool> {
    Ok(sqlx::query(REMOVE).bind(instance).execute(db).await?.rows_affected() == 1)
}

/// The same, unless it died again since it was read: an equal message is the same letter.
pub async fn remove_seen(db: &mut PgConnection, instance: Uuid, (died_at, copies): (Timestamp, u32)) -> Answer<bool> {
    let query = sqlx::query(REMOVE_SEEN).bind(instance).bind(died_at.as_micros()).bind(signed(copies));
    Ok(query.execute(db).await?.rows_affected() == 1)
}

/// Removes the journals of `instances` whose row and letter are both gone.
pub async fn forget(db: &mut PgConnection, instances: &[Uuid]) -> Answer<()> {
    if !instances.is_empty() {
        sqlx::query(FORGET).bind(instances).execute(db).await?;
    }
    Ok(())
}

pub async fn discard(
    pool: &PgPool,
    instance: Uuid,
    seen: Option<(Timestamp, u32)>,
    line: Option<&AuditEntry>,
) -> Answer<bool> {
    let mut tx = begin(pool).await?;
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

pub async fn counts(pool: &PgPool) -> Answer<Vec<(LaneName, u64)>> {
    let counts: Vec<(String, i64)> = sqlx::query_as(COUNTS).fetch_all(pool).await?;
    counts.into_iter().map(|(lane, count)| Ok((LaneName::new(&lane)?, u64::try_from(count).unwrap_or(0)))).collect()
}

pub async fn groups(pool: &PgPool, most: usize) -> Answer<Vec<LetterGroup>> {
    let groups: Vec<GroupRecord> = sqlx::query_as(GROUPS).bind(limit(most.min(LIST_MAX))).fetch_all(pool).await?;
    groups.into_iter().map(GroupRecord::group).collect()
}

pub async fn purge(pool: &PgPool, before: Timestamp, rows: usize) -> Answer<u64> {
    let mut tx = begin(pool).await?;
    let gone: Vec<Uuid> =
        sqlx::query_scalar(PURGE).bind(before.as_micros()).bind(limit(rows)).fetch_all(&mut *tx).await?;
    forget(&mut tx, &gone).await?;
    tx.commit().await?;
    Ok(gone.len() as u64)
}
