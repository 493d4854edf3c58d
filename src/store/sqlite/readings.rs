//! What people and metrics look at.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::{EndpointName, LaneName, Tenant};
use crate::store::fault::{Answer, free_text, limit};
use crate::store::letter::{AttemptRow, attempt_columns};
use crate::store::record::{CountRecord, HeldRecord, JobRecord, job_columns};
use crate::store::{AttemptRecord, HeldCount, JobFilter, JobRow, LIST_MAX, Payload, State, StateCount};

const TIME: &str = "SELECT CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)";
const JOURNAL_MODE: &str = "PRAGMA journal_mode";
const SYNCHRONOUS: &str = "PRAGMA synchronous";
const STATE_COUNTS: &str = "\
    SELECT lane, state, reason, count(*) AS jobs, min(published_at) AS oldest, min(resume_at) AS next FROM (
        SELECT lane, state, reason, published_at, resume_at FROM jobs WHERE resume_at IS NOT NULL
        UNION ALL SELECT lane, state, reason, published_at, resume_at FROM jobs WHERE released_at IS NOT NULL)
    GROUP BY lane, state, reason ORDER BY lane, state, reason";
const JOBS: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE (?1 IS NULL OR lane = ?1) AND (?2 IS NULL OR tenant = ?2) AND (?3 IS NULL OR endpoint = ?3)
        AND (?4 IS NULL OR state = ?4) AND (?5 IS NULL OR reason = ?5) AND (?6 IS NULL OR id = ?6)
        AND (?7 IS NULL OR (published_at, instance) < (?7, ?8))
    ORDER BY published_at DESC, instance DESC LIMIT ?9"
);
const JOB: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE instance = ?1");
const PAYLOAD: &str = "SELECT meta, body FROM jobs WHERE instance = ?1 AND meta IS NOT NULL AND body IS NOT NULL";
const ATTEMPTS: &str = concat!("SELECT ", attempt_columns!(), " FROM attempts WHERE instance = ?1 ORDER BY seq");

/// Found by the index of turns alone.
const HELD: &str = "\
    SELECT lane, endpoint, tenant, count(*) AS jobs, min(published_at) AS oldest FROM jobs
    WHERE resume_at = 253402214400000000 GROUP BY lane, endpoint, tenant ORDER BY jobs DESC, lane, endpoint, tenant LIMIT ?1";
const AHEAD: &str = "\
    SELECT count(*) FROM (
        SELECT 1 FROM jobs
        WHERE lane = ?1 AND resume_at = 253402214400000000 AND endpoint = ?2 AND tenant = ?3 AND published_at < ?4
        LIMIT ?5)";

pub async fn time(db: &Sqlite) -> Answer<Timestamp> {
    Ok(Timestamp::from_micros(sqlx::query_scalar(TIME).fetch_one(&db.read).await?))
}

pub async fn warnings(db: &Sqlite) -> Answer<Vec<String>> {
    let mut warnings = Vec::new();
    let mode: String = sqlx::query_scalar(JOURNAL_MODE).fetch_one(&db.write).await?;
    if mode != "wal" {
        warnings.push(format!(
            "the file can't use a write-ahead log (journal mode {mode}): readers and writers will wait for each other"
        ));
    }
    let synchronous: i64 = sqlx::query_scalar(SYNCHRONOUS).fetch_one(&db.write).await?;
    if synchronous < 2 {
        warnings.push("synchronous is below FULL: a power failure can lose the last commits".to_owned());
    }
    Ok(warnings)
}

pub async fn state_counts(db: &Sqlite) -> Answer<Vec<StateCount>> {
    let counts: Vec<CountRecord> = sqlx::query_as(STATE_COUNTS).fetch_all(&db.read).await?;
    counts.into_iter().map(CountRecord::state_count).collect()
}

pub async fn jobs(db: &Sqlite, filter: &JobFilter) -> Answer<Vec<JobRow>> {
    let records: Vec<JobRecord> = sqlx::query_as(JOBS)
        .bind(filter.lane.as_ref().map(LaneName::as_str))
        .bind(filter.tenant.as_ref().map(Tenant::as_str))
        .bind(filter.endpoint.as_ref().map(EndpointName::as_str))
        .bind(filter.state.map(State::code))
        .bind(filter.reason.as_deref().map(free_text))
        .bind(filter.id.as_deref().map(free_text))
        .bind(filter.after.map(|(at, _)| at.as_micros()))
        .bind(filter.after.map(|(_, instance)| instance))
        .bind(limit(filter.limit.min(LIST_MAX)))
        .fetch_all(&db.read)
        .await?;
    records.iter().map(JobRecord::job_row).collect()
}

pub async fn job(db: &Sqlite, instance: Uuid) -> Answer<Option<JobRow>> {
    let record: Option<JobRecord> = sqlx::query_as(JOB).bind(instance).fetch_optional(&db.read).await?;
    record.map(|record| record.job_row()).transpose()
}

pub async fn payload(db: &Sqlite, instance: Uuid) -> Answer<Option<Payload>> {
    let found: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as(PAYLOAD).bind(instance).fetch_optional(&db.read).await?;
    Ok(found.map(|(meta, body)| Payload { meta: meta.into(), body: body.into() }))
}

pub async fn attempts(db: &Sqlite, instance: Uuid) -> Answer<Vec<AttemptRecord>> {
    let rows: Vec<AttemptRow> = sqlx::query_as(ATTEMPTS).bind(instance).fetch_all(&db.read).await?;
    rows.into_iter().map(AttemptRow::record).collect()
}

pub async fn held(db: &Sqlite, most: usize) -> Answer<Vec<HeldCount>> {
    let counts: Vec<HeldRecord> = sqlx::query_as(HELD).bind(limit(most)).fetch_all(&db.read).await?;
    counts.into_iter().map(HeldRecord::count).collect()
}

pub async fn ahead(db: &Sqlite, job: &JobRow, most: usize) -> Answer<u64> {
    let before: i64 = sqlx::query_scalar(AHEAD)
        .bind(job.lane.as_str())
        .bind(job.endpoint.as_str())
        .bind(job.tenant.as_str())
        .bind(job.published_at.as_micros())
        .bind(limit(most))
        .fetch_one(&db.read)
        .await?;
    Ok(u64::try_from(before).unwrap_or(0))
}
