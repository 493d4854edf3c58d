//! Rows of jobs as the protocol reads and writes them: those of a key under its lock, changed rows, and the letters that
//! dead ones become.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::DedupKey;
use crate::store::fault::{Answer, free_text, signed};
use crate::store::letter::AttemptRow;
use crate::store::record::{JobRecord, StoredRecord, job_columns, without_not_before};
use crate::store::transition::Row;
use crate::store::{AttemptRecord, JobRow, StoredJob};

/// The rows of a key, under its lock.
#[derive(Debug, Default)]
pub struct KeyRows {
    /// All of them.
    pub rows: Vec<Row>,
    /// The instance of the one in `jobs`.
    pub hot: Option<Uuid>,
}

impl KeyRows {
    /// The table that holds the row of `instance`.
    pub fn table_of(&self, instance: Uuid) -> Table {
        if self.hot == Some(instance) { Table::Hot } else { Table::Side }
    }
}

/// One of the two tables of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `jobs`.
    Hot,
    /// `jobs_side`.
    Side,
}

/// Locks in the order of keys, so that no two transactions wait for each other.
const LOCK: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE key = ANY($1) ORDER BY key FOR UPDATE");
const SIDE: &str = concat!("SELECT ", job_columns!(), " FROM jobs_side WHERE key = ANY($1)");
const KEY_OF: &str = "SELECT key FROM jobs_all WHERE instance = $1";
const KEYS_OF: &str = "SELECT instance, key FROM jobs_all WHERE instance = ANY($1)";
const METAS: &str = "SELECT instance, meta FROM jobs_all WHERE instance = ANY($1) AND meta IS NOT NULL";
const SHOWN: &str = concat!("SELECT ", job_columns!(), " FROM jobs_all WHERE instance = $1");
const STORED: &str = concat!("SELECT ", job_columns!(), ", meta, body FROM jobs WHERE instance = ANY($1)");

/// The columns that the protocol changes, as parallel arrays from $1 on: see [`write`].
macro_rules! write_sql {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " AS j SET resume_at = w.resume_at, released_at = w.released_at, ended_at = w.ended_at, worker = w.worker,
                attempt = w.attempt, generation = w.generation, takeovers = w.takeovers, state = w.state,
                effect_possible = w.effect_possible, cancel_requested = w.cancel_requested, holds_key = w.holds_key,
                token = w.token, reason = coalesce(w.reason, j.reason), held_since = w.held_since,
                meta = CASE WHEN w.alive THEN j.meta END, body = CASE WHEN w.alive THEN j.body END
            FROM unnest($1::uuid[], $2::uuid[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int4[], $8::int4[],
                $9::int4[], $10::int2[], $11::bool[], $12::bool[], $13::bool[], $14::uuid[], $15::text[], $16::bool[], $17::int8[])
                AS w(key, instance, resume_at, released_at, ended_at, worker, attempt, generation, takeovers, state,
                    effect_possible, cancel_requested, holds_key, token, reason, alive, held_since)
            WHERE j.key = w.key AND j.instance = w.instance"
        )
    };
}
const WRITE_HOT: &str = write_sql!("jobs");
const WRITE_SIDE: &str = write_sql!("jobs_side");

macro_rules! insert_sql {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (published_at, resume_at, released_at, ended_at, worker, attempt, generation, takeovers, state,
                effect_possible, cancel_requested, holds_key, key, instance, token, lane, tenant, id, endpoint, reason,
                payload_sha256, meta, body, held_since)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                $22, $23, $24)
            ON CONFLICT DO NOTHING"
        )
    };
}
const INSERT_HOT: &str = insert_sql!("jobs");
const INSERT_SIDE: &str = insert_sql!("jobs_side");

/// The row in `jobs` goes to `jobs_side` (what is displaced holds its key no more), one of `jobs_side` takes its place: an
/// update in place, because the row in `jobs` is the key's lock that others may be waiting for.
const SWAP: &str = "\
    WITH displaced AS (
        INSERT INTO jobs_side (published_at, resume_at, released_at, ended_at, worker, attempt, generation, takeovers,
            state, effect_possible, cancel_requested, holds_key, key, instance, token, lane, tenant, id, endpoint,
            reason, payload_sha256, meta, body, held_since)
        SELECT published_at, resume_at, released_at, ended_at, worker, attempt, generation, takeovers,
            state, effect_possible, cancel_requested, false, key, instance, token, lane, tenant, id, endpoint,
            reason, payload_sha256, meta, body, held_since
        FROM jobs WHERE key = $1),
    taken AS (DELETE FROM jobs_side WHERE instance = $2 RETURNING *)
    UPDATE jobs AS j SET published_at = t.published_at, resume_at = t.resume_at, released_at = t.released_at,
        ended_at = t.ended_at, worker = t.worker, attempt = t.attempt, generation = t.generation,
        takeovers = t.takeovers, state = t.state, effect_possible = t.effect_possible,
        cancel_requested = t.cancel_requested, holds_key = t.holds_key, instance = t.instance, token = t.token,
        lane = t.lane, tenant = t.tenant, id = t.id, endpoint = t.endpoint, reason = t.reason,
        payload_sha256 = t.payload_sha256, meta = t.meta, body = t.body,
        held_since = t.held_since
    FROM taken AS t WHERE j.key = $1";
const RESTORE_HOT: &str = "UPDATE jobs SET meta = $2, body = $3 WHERE instance = $1";
const RESTORE_SIDE: &str = "UPDATE jobs_side SET meta = $2, body = $3 WHERE instance = $1";

macro_rules! put_meta_sql {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " AS j SET meta = w.meta FROM unnest($1::uuid[], $2::bytea[]) AS w(instance, meta)
            WHERE j.instance = w.instance"
        )
    };
}
const PUT_META_HOT: &str = put_meta_sql!("jobs");
const PUT_META_SIDE: &str = put_meta_sql!("jobs_side");

macro_rules! bury_sql {
    ($table:literal) => {
        concat!(
            "INSERT INTO letters AS l (published_at, died_at, body_bytes, attempts, generation, takeovers, copies, raw,
                effect_possible, instance, lane, tenant, id, endpoint, reason, detail, payload_sha256, meta, body)
            SELECT j.published_at, $1, length(j.body), w.attempt, w.generation, w.takeovers, 1, false,
                w.effect_possible, j.instance, j.lane, j.tenant, j.id, j.endpoint, w.reason, w.detail,
                j.payload_sha256, j.meta, j.body
            FROM unnest($2::uuid[], $3::uuid[], $4::int4[], $5::int4[], $6::int4[], $7::bool[], $8::text[], $9::text[])
                AS w(key, instance, attempt, generation, takeovers, effect_possible, reason, detail)
            JOIN ",
            $table,
            " AS j ON j.key = w.key AND j.instance = w.instance
            ON CONFLICT (instance) DO UPDATE SET died_at = excluded.died_at, body_bytes = excluded.body_bytes,
                attempts = excluded.attempts, generation = excluded.generation, takeovers = excluded.takeovers,
                effect_possible = excluded.effect_possible, reason = excluded.reason, detail = excluded.detail,
                meta = excluded.meta, body = excluded.body"
        )
    };
}
const BURY_HOT: &str = bury_sql!("jobs");
const BURY_SIDE: &str = bury_sql!("jobs_side");

const JOURNAL: &str = "\
    INSERT INTO attempts (instance, started_at, duration_us, retry_after_ms, resume_at, generation, attempt, status,
        class, detail, rate_headers, next, reason)
    SELECT * FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int4[], $7::int4[], $8::int4[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])";

/// Locks `keys` and answers their rows.
pub async fn lock(
    db: &mut PgConnection,
    keys: impl IntoIterator<Item = DedupKey>,
) -> Answer<HashMap<DedupKey, KeyRows>> {
    let mut rows: HashMap<DedupKey, KeyRows> = keys.into_iter().map(|key| (key, KeyRows::default())).collect();
    let keys: Vec<Uuid> = rows.keys().map(|key| Uuid::from_bytes(key.0)).collect();
    let hot: Vec<JobRecord> = sqlx::query_as(LOCK).bind(&keys).fetch_all(&mut *db).await?;
    for record in &hot {
        let of_key = rows.entry(record.dedup_key()).or_default();
        of_key.rows.push(record.row()?);
        of_key.hot = Some(record.instance);
    }
    // a statement of its own: its snapshot holds what was committed while the locks were waited for
    let side: Vec<JobRecord> = sqlx::query_as(SIDE).bind(&keys).fetch_all(db).await?;
    for record in &side {
        rows.entry(record.dedup_key()).or_default().rows.push(record.row()?);
    }
    Ok(rows)
}

/// The key of a job; `None` when it has no row.
pub async fn key_of(db: &mut PgConnection, instance: Uuid) -> Answer<Option<DedupKey>> {
    let key: Option<Uuid> = sqlx::query_scalar(KEY_OF).bind(instance).fetch_optional(db).await?;
    Ok(key.map(|key| DedupKey(key.into_bytes())))
}

/// The keys of jobs, of those that have a row.
pub async fn keys_of(db: &mut PgConnection, instances: &[Uuid]) -> Answer<HashMap<Uuid, DedupKey>> {
    let keys: Vec<(Uuid, Uuid)> = sqlx::query_as(KEYS_OF).bind(instances).fetch_all(db).await?;
    Ok(keys.into_iter().map(|(instance, key)| (instance, DedupKey(key.into_bytes()))).collect())
}

/// One row as shown to people; it has to exist.
pub async fn shown(db: &mut PgConnection, instance: Uuid) -> Answer<JobRow> {
    sqlx::query_as::<_, JobRecord>(SHOWN).bind(instance).fetch_one(db).await?.job_row()
}

/// What rows of `jobs` hold, by instance.
pub async fn stored(db: &mut PgConnection, instances: &[Uuid]) -> Answer<HashMap<Uuid, StoredJob>> {
    let records: Vec<StoredRecord> = sqlx::query_as(STORED).bind(instances).fetch_all(db).await?;
    records.into_iter().map(|record| Ok((record.job.instance, record.stored()?))).collect()
}

/// What a new row holds beside what the protocol writes.
#[derive(Debug, Clone, Copy)]
pub struct JobParts<'a> {
    pub key: DedupKey,
    pub lane: &'a str,
    pub tenant: &'a str,
    pub id: &'a str,
    pub endpoint: &'a str,
    pub meta: &'a [u8],
    pub body: &'a [u8],
}

/// A new row; false = its key has one in `jobs` already, or its instance one in `jobs_side`.
pub async fn insert(db: &mut PgConnection, table: Table, row: &Row, job: JobParts<'_>) -> Answer<bool> {
    let done = sqlx::query(if table == Table::Hot { INSERT_HOT } else { INSERT_SIDE })
        .bind(row.published_at.as_micros())
        .bind(row.resume_at.map(Timestamp::as_micros))
        .bind(row.released_at.map(Timestamp::as_micros))
        .bind(row.ended_at.map(Timestamp::as_micros))
        .bind(row.worker.map(|worker| worker.0))
        .bind(signed(row.attempt))
        .bind(signed(row.generation))
        .bind(signed(row.takeovers))
        .bind(row.state.code())
        .bind(row.effect_possible)
        .bind(row.cancel_requested)
        .bind(row.holds_key)
        .bind(Uuid::from_bytes(job.key.0))
        .bind(row.instance)
        .bind(row.token)
        .bind(job.lane)
        .bind(job.tenant)
        .bind(job.id)
        .bind(job.endpoint)
        .bind(row.reason.as_str())
        .bind(&row.payload_sha256[..])
        .bind(job.meta)
        .bind(job.body)
        .bind(row.held_since.map(Timestamp::as_micros))
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Moves the row of `instance` from `jobs_side` to `jobs`, and the one it finds there the other way.
pub async fn swap(db: &mut PgConnection, key: DedupKey, instance: Uuid) -> Answer<()> {
    sqlx::query(SWAP).bind(Uuid::from_bytes(key.0)).bind(instance).execute(db).await?;
    Ok(())
}

/// Writes changed rows of one table; their payload goes when they have ended.
pub async fn write(db: &mut PgConnection, table: Table, rows: &[(DedupKey, Row)]) -> Answer<()> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(if table == Table::Hot { WRITE_HOT } else { WRITE_SIDE })
        .bind(rows.iter().map(|(key, _)| Uuid::from_bytes(key.0)).collect::<Vec<_>>())
        .bind(all(rows, |row| row.instance))
        .bind(all(rows, |row| row.resume_at.map(Timestamp::as_micros)))
        .bind(all(rows, |row| row.released_at.map(Timestamp::as_micros)))
        .bind(all(rows, |row| row.ended_at.map(Timestamp::as_micros)))
        .bind(all(rows, |row| row.worker.map(|worker| worker.0)))
        .bind(all(rows, |row| signed(row.attempt)))
        .bind(all(rows, |row| signed(row.generation)))
        .bind(all(rows, |row| signed(row.takeovers)))
        .bind(all(rows, |row| row.state.code()))
        .bind(all(rows, |row| row.effect_possible))
        .bind(all(rows, |row| row.cancel_requested))
        .bind(all(rows, |row| row.holds_key))
        .bind(all(rows, |row| row.token))
        .bind(all(rows, |row| row.reason.stored()))
        .bind(all(rows, |row| row.state.is_alive()))
        .bind(all(rows, |row| row.held_since.map(Timestamp::as_micros)))
        .execute(db)
        .await?;
    Ok(())
}

fn all<T>(rows: &[(DedupKey, Row)], column: impl Fn(&Row) -> T) -> Vec<T> {
    rows.iter().map(|(_, row)| column(row)).collect()
}

/// Gives a row its payload back, from its letter.
pub async fn restore(db: &mut PgConnection, table: Table, instance: Uuid, meta: &[u8], body: &[u8]) -> Answer<()> {
    let sql = if table == Table::Hot { RESTORE_HOT } else { RESTORE_SIDE };
    sqlx::query(sql).bind(instance).bind(meta).bind(body).execute(db).await?;
    Ok(())
}

/// These jobs, whose keys are locked, may be called from now on, whatever they were published with.
pub async fn forget_not_before(db: &mut PgConnection, instances: &[Uuid]) -> Answer<()> {
    if instances.is_empty() {
        return Ok(());
    }
    let metas: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(METAS).bind(instances).fetch_all(&mut *db).await?;
    let found: Vec<Uuid> = metas.iter().map(|(instance, _)| *instance).collect();
    let metas: Vec<Vec<u8>> = metas.iter().map(|(_, meta)| without_not_before(meta)).collect::<Answer<_>>()?;
    for statement in [PUT_META_HOT, PUT_META_SIDE] {
        sqlx::query(statement).bind(&found).bind(&metas).execute(&mut *db).await?;
    }
    Ok(())
}

/// A row that has just died, and what its letter says.
#[derive(Debug)]
pub struct Death {
    pub key: DedupKey,
    pub row: Row,
    pub detail: String,
}

/// Writes rows of one table that have just died, their payload moved into letters; it never leaves the server.
pub async fn bury(db: &mut PgConnection, table: Table, deaths: &[Death], now: Timestamp) -> Answer<()> {
    if deaths.is_empty() {
        return Ok(());
    }
    sqlx::query(if table == Table::Hot { BURY_HOT } else { BURY_SIDE })
        .bind(now.as_micros())
        .bind(deaths.iter().map(|death| Uuid::from_bytes(death.key.0)).collect::<Vec<_>>())
        .bind(deaths.iter().map(|death| death.row.instance).collect::<Vec<_>>())
        .bind(deaths.iter().map(|death| signed(death.row.attempt)).collect::<Vec<_>>())
        .bind(deaths.iter().map(|death| signed(death.row.generation)).collect::<Vec<_>>())
        .bind(deaths.iter().map(|death| signed(death.row.takeovers)).collect::<Vec<_>>())
        .bind(deaths.iter().map(|death| death.row.effect_possible).collect::<Vec<_>>())
        .bind(deaths.iter().map(|death| death.row.reason.as_str()).collect::<Vec<_>>())
        .bind(deaths.iter().map(|death| free_text(&death.detail)).collect::<Vec<_>>())
        .execute(&mut *db)
        .await?;
    let rows: Vec<(DedupKey, Row)> = deaths.iter().map(|death| (death.key, death.row)).collect();
    write(db, table, &rows).await
}

/// Writes entries of the journal.
pub async fn journal(db: &mut PgConnection, entries: &[(Uuid, &AttemptRecord)]) -> Answer<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let rows: Vec<AttemptRow> = entries.iter().map(|(_, record)| AttemptRow::of(record)).collect::<Answer<_>>()?;
    sqlx::query(JOURNAL)
        .bind(entries.iter().map(|(instance, _)| *instance).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.started_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.duration_us).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.retry_after_ms).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.resume_at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.generation).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.attempt).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.status).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.class.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.detail.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.rate_headers.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.next.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.reason.as_str()).collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(())
}
