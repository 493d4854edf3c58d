//! What people and metrics look at.

use sqlx::PgPool;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::job::{DedupKey, EndpointName, JobId, LaneName, Tenant};
use crate::store::fault::{Answer, free_text, limit};
use crate::store::letter::{AttemptRow, attempt_columns};
use crate::store::record::{CountRecord, HeldRecord, JobRecord, job_columns};
use crate::store::{AttemptRecord, HeldCount, JobFilter, JobRow, LIST_MAX, Payload, State, StateCount};

const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const SETTINGS: &str =
    "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')";
/// Standbys, and those of them whose commits are waited for; null when this user may not see that.
const STANDBYS: &str = "\
    SELECT count(*), CASE WHEN count(sync_state) = count(*) THEN count(*) FILTER (WHERE sync_state <> 'async') END
    FROM pg_stat_replication";
/// Each part is found by a partial index: the other rows of these tables may be many millions.
const STATE_COUNTS: &str = "\
    SELECT lane, state, reason, count(*) AS jobs, min(published_at) AS oldest, min(resume_at) AS next FROM (
        SELECT lane, state, reason, published_at, resume_at FROM jobs WHERE resume_at IS NOT NULL
        UNION ALL SELECT lane, state, reason, published_at, resume_at FROM jobs WHERE released_at IS NOT NULL
        UNION ALL SELECT lane, state, reason, published_at, resume_at FROM jobs_side WHERE resume_at IS NOT NULL
        UNION ALL SELECT lane, state, reason, published_at, resume_at FROM jobs_side WHERE released_at IS NOT NULL)
        AS alive
    GROUP BY lane, state, reason ORDER BY lane, state, reason";
const JOBS: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs_all WHERE ($1::text IS NULL OR lane = $1) AND ($2::text IS NULL OR tenant = $2)
        AND ($3::text IS NULL OR endpoint = $3) AND ($4::int2 IS NULL OR state = $4)
        AND ($5::text IS NULL OR reason = $5) AND ($6::text IS NULL OR id = $6) AND ($7::uuid IS NULL OR key = $7)
        AND ($8::int8 IS NULL OR (published_at, instance) < ($8, $9::uuid))
    ORDER BY published_at DESC, instance DESC LIMIT $10"
);
const JOB: &str = concat!("SELECT ", job_columns!(), " FROM jobs_all WHERE instance = $1");
const PAYLOAD: &str = "SELECT meta, body FROM jobs_all WHERE instance = $1 AND meta IS NOT NULL AND body IS NOT NULL";
const ATTEMPTS: &str = concat!("SELECT ", attempt_columns!(), " FROM attempts WHERE instance = $1 ORDER BY seq");

/// Found by the index of turns alone.
const HELD: &str = "\
    SELECT lane, endpoint, tenant, count(*) AS jobs, min(published_at) AS oldest FROM jobs
    WHERE resume_at = 253402214400000000 GROUP BY lane, endpoint, tenant ORDER BY jobs DESC, lane, endpoint, tenant LIMIT $1";
const AHEAD: &str = "\
    SELECT count(*) FROM (
        SELECT 1 FROM jobs
        WHERE lane = $1 AND resume_at = 253402214400000000 AND endpoint = $2 AND tenant = $3 AND published_at < $4
        LIMIT $5) AS before";

pub async fn time(pool: &PgPool) -> Answer<Timestamp> {
    Ok(Timestamp::from_micros(sqlx::query_scalar(TIME).fetch_one(pool).await?))
}

pub async fn warnings(pool: &PgPool) -> Answer<Vec<String>> {
    let mut warnings = Vec::new();
    let (synchronous_commit, fsync, full_page_writes): (String, String, String) =
        sqlx::query_as(SETTINGS).fetch_one(pool).await?;
    if synchronous_commit == "off" {
        warnings.push(
            "synchronous_commit is off: a crash of the server can lose the last commits, and jobs with them".to_owned(),
        );
    }
    for (setting, value) in [("fsync", fsync), ("full_page_writes", full_page_writes)] {
        if value == "off" {
            warnings.push(format!("{setting} is off: a power failure can destroy the database"));
        }
    }
    let (standbys, synchronous): (i64, Option<i64>) = sqlx::query_as(STANDBYS).fetch_one(pool).await?;
    let waits_for_them = !matches!(&*synchronous_commit, "off" | "local");
    if standbys > 0 && (synchronous == Some(0) || !waits_for_them) {
        warnings.push(
            "the server's standbys are asynchronous: after a failover the last commits can be missing, and jobs that lay \
             wholly within them; set synchronous_standby_names"
                .to_owned(),
        );
    }
    Ok(warnings)
}

pub async fn state_counts(pool: &PgPool) -> Answer<Vec<StateCount>> {
    let counts: Vec<CountRecord> = sqlx::query_as(STATE_COUNTS).fetch_all(pool).await?;
    counts.into_iter().map(CountRecord::state_count).collect()
}

pub async fn jobs(pool: &PgPool, filter: &JobFilter) -> Answer<Vec<JobRow>> {
    let records: Vec<JobRecord> = sqlx::query_as(JOBS)
        .bind(filter.lane.as_ref().map(LaneName::as_str))
        .bind(filter.tenant.as_ref().map(Tenant::as_str))
        .bind(filter.endpoint.as_ref().map(EndpointName::as_str))
        .bind(filter.state.map(State::code))
        .bind(filter.reason.as_deref().map(free_text))
        .bind(filter.id.as_deref().map(free_text))
        .bind(key_of(filter))
        .bind(filter.after.map(|(at, _)| at.as_micros()))
        .bind(filter.after.map(|(_, instance)| instance))
        .bind(limit(filter.limit.min(LIST_MAX)))
        .fetch_all(pool)
        .await?;
    records.iter().map(JobRecord::job_row).collect()
}

/// The key, when the filter names all of it: then the rows are found by index.
fn key_of(filter: &JobFilter) -> Option<Uuid> {
    let (lane, tenant) = (filter.lane.as_ref()?, filter.tenant.as_ref()?);
    let id = JobId::new(filter.id.as_deref()?).ok()?;
    Some(Uuid::from_bytes(DedupKey::of(lane, tenant, &id).0))
}

pub async fn job(pool: &PgPool, instance: Uuid) -> Answer<Option<JobRow>> {
    let record: Option<JobRecord> = sqlx::query_as(JOB).bind(instance).fetch_optional(pool).await?;
    record.map(|record| record.job_row()).transpose()
}

pub async fn payload(pool: &PgPool, instance: Uuid) -> Answer<Option<Payload>> {
    let found: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as(PAYLOAD).bind(instance).fetch_optional(pool).await?;
    Ok(found.map(|(meta, body)| Payload { meta: meta.into(), body: body.into() }))
}

pub async fn attempts(pool: &PgPool, instance: Uuid) -> Answer<Vec<AttemptRecord>> {
    let rows: Vec<AttemptRow> = sqlx::query_as(ATTEMPTS).bind(instance).fetch_all(pool).await?;
    rows.into_iter().map(AttemptRow::record).collect()
}

pub async fn held(pool: &PgPool, most: usize) -> Answer<Vec<HeldCount>> {
    let counts: Vec<HeldRecord> = sqlx::query_as(HELD).bind(limit(most)).fetch_all(pool).await?;
    counts.into_iter().map(HeldRecord::count).collect()
}

pub async fn ahead(pool: &PgPool, job: &JobRow, most: usize) -> Answer<u64> {
    let before: i64 = sqlx::query_scalar(AHEAD)
        .bind(job.lane.as_str())
        .bind(job.endpoint.as_str())
        .bind(job.tenant.as_str())
        .bind(job.published_at.as_micros())
        .bind(limit(most))
        .fetch_one(pool)
        .await?;
    Ok(u64::try_from(before).unwrap_or(0))
}
