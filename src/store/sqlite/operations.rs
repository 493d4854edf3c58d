//! Operations on many: a step acts on some of them and moves the operation on in one transaction.

use async_trait::async_trait;
use sqlx::query::{QueryAs, QueryScalar};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite as Dialect, SqliteConnection};
use uuid::Uuid;

use super::{SqliteStore, begin, controls, letters, many, rows};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::operation::{Action, Group, NewOperation, Operation, Selection};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::store::fault::{Answer, free_text, limit as rows_limit};
use crate::store::record::{OperationRecord, PlaceRecord, PlanRecord, Progress, names, operation_columns, run_of};
use crate::store::{
    AuditEntry, BATCH_BYTES_MAX, Claim, LIST_MAX, OPERATIONS_RUNNING_MAX, OperationStore, RAW_MAX, RawAnswer, StepWish,
    Stepped, StoreResult, transition,
};

/// The conditions of a selection, from ?1 to ?7 (?5 and ?6: not those).
macro_rules! selected {
    ($until:literal) => {
        concat!(
            " (?1 IS NULL OR lane = ?1) AND (?2 IS NULL OR endpoint = ?2) AND (?3 IS NULL OR tenant = ?3)
            AND (?4 IS NULL OR reason = ?4) AND lane NOT IN (SELECT value FROM json_each(?5))
            AND (endpoint IS NULL OR endpoint NOT IN (SELECT value FROM json_each(?6))) AND ",
            $until,
            " <= ?7"
        )
    };
}
const PLAN_LETTERS: &str = concat!(
    "SELECT lane, endpoint, reason, count(*) AS items, count(*) FILTER (WHERE raw) AS raw,
        count(*) FILTER (WHERE effect_possible) AS effect_possible
    FROM letters WHERE",
    selected!("died_at"),
    " GROUP BY lane, endpoint, reason ORDER BY items DESC, lane, coalesce(endpoint, ''), reason LIMIT ?8"
);
/// Rows that wait or are queued, each found by its partial index.
macro_rules! waiting {
    () => {
        "(SELECT instance, lane, endpoint, tenant, reason, published_at, effect_possible FROM jobs
            WHERE resume_at IS NOT NULL
        UNION ALL SELECT instance, lane, endpoint, tenant, reason, published_at, effect_possible FROM jobs
            WHERE released_at IS NOT NULL) AS w WHERE"
    };
}
const PLAN_JOBS: &str = concat!(
    "SELECT lane, endpoint, reason, count(*) AS items, 0 AS raw,
        count(*) FILTER (WHERE effect_possible) AS effect_possible FROM ",
    waiting!(),
    selected!("published_at"),
    " GROUP BY lane, endpoint, reason ORDER BY items DESC, lane, endpoint, reason LIMIT ?8"
);
const NEXT_JOBS: &str = concat!("SELECT instance FROM ", waiting!(), selected!("published_at"), " LIMIT ?8");
const NEXT_LETTERS: &str = concat!(
    "SELECT died_at, body_bytes, raw, instance, lane, tenant, id FROM letters WHERE",
    selected!("died_at"),
    " AND (?9 IS NULL OR (died_at, instance) > (?9, ?10)) ORDER BY died_at, instance LIMIT ?8"
);
const RUNNING: &str = "SELECT count(*) FROM operations WHERE ended_at IS NULL";
const START: &str = "\
    INSERT INTO operations (started_at, until_at, interval_us, planned, done, skipped, failed, next_at, claimed_until, id,
        token, action, phase, lane, endpoint, tenant, reason, not_lanes, not_endpoints, actor, source, note, problem)
    VALUES (?1, ?2, ?3, ?4, 0, 0, 0, ?1, ?5, ?6, ?7, ?8, 'running', ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, '')
    ON CONFLICT DO NOTHING";
const LIST: &str = concat!("SELECT ", operation_columns!(), " FROM operations ORDER BY started_at DESC, id LIMIT ?1");
const ONE: &str = concat!("SELECT ", operation_columns!(), " FROM operations WHERE id = ?1");
const CLAIM: &str = concat!(
    "UPDATE operations SET token = ?1, claimed_until = ?2
    WHERE id = (SELECT id FROM operations
        WHERE ended_at IS NULL AND next_at <= ?3 AND (claimed_until IS NULL OR claimed_until <= ?3)
        ORDER BY started_at LIMIT 1)
    RETURNING ",
    operation_columns!()
);
const MINE: &str =
    concat!("SELECT ", operation_columns!(), " FROM operations WHERE id = ?1 AND token = ?2 AND ended_at IS NULL");
const WRITE: &str = "\
    UPDATE operations SET done = ?2, skipped = ?3, failed = ?4, problem = ?5, next_at = ?6, claimed_until = ?7, phase = ?8,
        ended_at = ?9, cursor_at = coalesce(?10, cursor_at), cursor_instance = coalesce(?11, cursor_instance)
    WHERE id = ?1";
const LEAVE: &str = "UPDATE operations SET claimed_until = NULL WHERE id = ?1 AND token = ?2";
const CANCEL: &str = "\
    UPDATE operations SET phase = 'cancelled', ended_at = ?2, claimed_until = NULL, token = NULL
    WHERE id = ?1 AND ended_at IS NULL";
const PURGE: &str = "DELETE FROM operations WHERE ended_at < ?1";

/// A query with the conditions of a selection and a limit.
trait Selects: Sized {
    fn selection(self, selection: &Selection, limit: usize) -> Answer<Self>;
}

macro_rules! selects {
    ($query:ty) => {
        impl<T> Selects for $query {
            fn selection(self, selection: &Selection, limit: usize) -> Answer<Self> {
                Ok(self
                    .bind(selection.lane.as_ref().map(|lane| lane.as_str().to_owned()))
                    .bind(selection.endpoint.as_ref().map(|endpoint| endpoint.as_str().to_owned()))
                    .bind(selection.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()))
                    .bind(selection.reason.as_deref().map(free_text))
                    .bind(names(selection.not_lanes.iter().map(LaneName::as_str))?)
                    .bind(names(&selection.not_endpoints)?)
                    .bind(selection.until.as_micros())
                    .bind(rows_limit(limit)))
            }
        }
    };
}
selects!(QueryAs<'_, Dialect, T, SqliteArguments>);
selects!(QueryScalar<'_, Dialect, T, SqliteArguments>);

async fn plan(db: &Sqlite, action: Action, selection: &Selection) -> Answer<Vec<Group>> {
    let sql = if action.is_of_letters() { PLAN_LETTERS } else { PLAN_JOBS };
    let groups: Vec<PlanRecord> = sqlx::query_as(sql).selection(selection, LIST_MAX)?.fetch_all(&db.read).await?;
    groups.into_iter().map(PlanRecord::group).collect()
}

async fn start(db: &Sqlite, new: &NewOperation, claim: Option<Claim>, line: &AuditEntry) -> Answer<bool> {
    let mut tx = begin(db).await?;
    let answer = start_in(&mut tx, new, claim, line).await?;
    tx.commit().await?;
    Ok(answer)
}

async fn start_in(
    db: &mut SqliteConnection,
    new: &NewOperation,
    claim: Option<Claim>,
    line: &AuditEntry,
) -> Answer<bool> {
    if sqlx::query(ONE).bind(new.id).fetch_optional(&mut *db).await?.is_some() {
        return Ok(true);
    }
    let running: i64 = sqlx::query_scalar(RUNNING).fetch_one(&mut *db).await?;
    if running >= rows_limit(OPERATIONS_RUNNING_MAX) {
        return Ok(false);
    }
    let selection = &new.selection;
    let started = sqlx::query(START)
        .bind(new.started_at.as_micros())
        .bind(selection.until.as_micros())
        .bind(i64::try_from(new.interval.as_micros()).unwrap_or(i64::MAX))
        .bind(i64::try_from(new.planned).unwrap_or(i64::MAX))
        .bind(claim.map(|claim| claim.until.as_micros()))
        .bind(new.id)
        .bind(claim.map(|claim| claim.token))
        .bind(new.action.as_str())
        .bind(selection.lane.as_ref().map(LaneName::as_str))
        .bind(selection.endpoint.as_ref().map(EndpointName::as_str))
        .bind(selection.tenant.as_ref().map(Tenant::as_str))
        .bind(selection.reason.as_deref().map(free_text))
        .bind(names(selection.not_lanes.iter().map(LaneName::as_str))?)
        .bind(names(&selection.not_endpoints)?)
        .bind(free_text(&new.actor))
        .bind(new.source.as_str())
        .bind(free_text(&new.note))
        .execute(&mut *db)
        .await?;
    if started.rows_affected() == 1 {
        controls::log(db, line).await?;
    }
    Ok(true)
}

async fn list(db: &Sqlite, most: usize) -> Answer<Vec<Operation>> {
    let records: Vec<OperationRecord> =
        sqlx::query_as(LIST).bind(rows_limit(most.min(LIST_MAX))).fetch_all(&db.read).await?;
    records.into_iter().map(OperationRecord::operation).collect()
}

async fn one(db: &Sqlite, id: Uuid) -> Answer<Option<Operation>> {
    let record: Option<OperationRecord> = sqlx::query_as(ONE).bind(id).fetch_optional(&db.read).await?;
    record.map(OperationRecord::operation).transpose()
}

async fn claim_due(db: &Sqlite, claim: Claim, now: Timestamp) -> Answer<Option<Operation>> {
    let record: Option<OperationRecord> = sqlx::query_as(CLAIM)
        .bind(claim.token)
        .bind(claim.until.as_micros())
        .bind(now.as_micros())
        .fetch_optional(&db.write)
        .await?;
    record.map(OperationRecord::operation).transpose()
}

async fn step(db: &Sqlite, id: Uuid, wish: &StepWish) -> Answer<Option<Stepped>> {
    let mut tx = begin(db).await?;
    let answer = step_in(&mut tx, id, wish).await?;
    tx.commit().await?;
    Ok(answer)
}

async fn step_in(db: &mut SqliteConnection, id: Uuid, wish: &StepWish) -> Answer<Option<Stepped>> {
    let Some(mine) = mine(db, id, wish).await? else { return Ok(None) };
    let cursor = mine.cursor();
    let operation = mine.operation()?;
    let progress = match operation.begun.action {
        Action::Cancel => cancel_next(db, &operation.begun.selection, wish).await?,
        action => next_letters(db, action, &operation.begun.selection, cursor, wish).await?,
    };
    Ok(Some(write(db, operation, progress, wish).await?))
}

async fn mine(db: &mut SqliteConnection, id: Uuid, wish: &StepWish) -> Answer<Option<OperationRecord>> {
    Ok(sqlx::query_as(MINE).bind(id).bind(wish.claim.token).fetch_optional(db).await?)
}

async fn write(db: &mut SqliteConnection, before: Operation, progress: Progress, wish: &StepWish) -> Answer<Stepped> {
    let cursor = progress.cursor;
    let stepped = progress.apply(before, wish);
    let Operation { begun, phase, tally, problem, next_at, claimed_until, ended_at } = &stepped.operation;
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(WRITE)
        .bind(begun.id)
        .bind(signed(tally.done))
        .bind(signed(tally.skipped))
        .bind(signed(tally.failed))
        .bind(problem)
        .bind(next_at.as_micros())
        .bind(claimed_until.map(Timestamp::as_micros))
        .bind(phase.as_str())
        .bind(ended_at.map(Timestamp::as_micros))
        .bind(cursor.map(|(at, _)| at))
        .bind(cursor.map(|(_, instance)| instance))
        .execute(db)
        .await?;
    Ok(stepped)
}

async fn cancel_next(db: &mut SqliteConnection, selection: &Selection, wish: &StepWish) -> Answer<Progress> {
    let instances: Vec<Uuid> =
        sqlx::query_scalar(NEXT_JOBS).selection(selection, wish.most)?.fetch_all(&mut *db).await?;
    let mut progress = Progress { is_last: instances.len() < wish.most, ..Progress::default() };
    for instance in instances {
        let Some(record) = rows::get(&mut *db, instance).await? else { continue };
        // one writer: what was found to wait, waits
        let (_, after) = transition::cancel(&record.row()?, wish.now);
        let Some(after) = after else { continue };
        rows::write(&mut *db, &after).await?;
        progress.done += 1;
        progress.count_cancelled(&record.lane)?;
    }
    Ok(progress)
}

async fn next_letters(
    db: &mut SqliteConnection,
    action: Action,
    selection: &Selection,
    cursor: Option<(i64, Uuid)>,
    wish: &StepWish,
) -> Answer<Progress> {
    let mut places: Vec<PlaceRecord> = sqlx::query_as(NEXT_LETTERS)
        .selection(selection, wish.most)?
        .bind(cursor.map(|(at, _)| at))
        .bind(cursor.map(|(_, instance)| instance))
        .fetch_all(&mut *db)
        .await?;
    let found = places.len();
    let (is_raw, run) = run_of(&places, action == Action::Retry, RAW_MAX, BATCH_BYTES_MAX);
    places.truncate(run);
    if is_raw {
        return Ok(Progress::of_raw(&places, many::whole(db, &places).await?));
    }
    let mut progress = match action {
        Action::Retry => many::replay(db, &places, wish.now).await?,
        Action::Discard | Action::Cancel => many::discard(db, &places).await?,
    };
    progress.cursor = places.last().map(|place| (place.died_at, place.instance));
    progress.is_last = run == found && found < wish.most;
    Ok(progress)
}

async fn tell_raw(db: &Sqlite, id: Uuid, wish: &StepWish, answers: &[RawAnswer]) -> Answer<Option<Operation>> {
    let mut tx = begin(db).await?;
    let answer = tell_raw_in(&mut tx, id, wish, answers).await?;
    tx.commit().await?;
    Ok(answer)
}

async fn tell_raw_in(
    db: &mut SqliteConnection,
    id: Uuid,
    wish: &StepWish,
    answers: &[RawAnswer],
) -> Answer<Option<Operation>> {
    let mine = mine(db, id, wish).await?;
    let mut progress = Progress::default();
    for answer in answers {
        match &answer.outcome {
            Ok(()) => {
                letters::remove_seen(db, answer.instance, (answer.died_at, answer.copies)).await?;
                progress.done += 1;
            }
            Err(why) => progress.fail(why),
        }
        progress.cursor = Some((answer.died_at.as_micros(), answer.instance));
    }
    // what was published is so, also for an operation that has ended meanwhile
    let Some(mine) = mine else { return Ok(None) };
    let operation = mine.operation()?;
    Ok(Some(write(db, operation, progress, wish).await?.operation))
}

async fn leave(db: &Sqlite, id: Uuid, token: Uuid) -> Answer<()> {
    sqlx::query(LEAVE).bind(id).bind(token).execute(&db.write).await?;
    Ok(())
}

async fn cancel(db: &Sqlite, id: Uuid, line: &AuditEntry) -> Answer<bool> {
    let mut tx = begin(db).await?;
    let answer = cancel_in(&mut tx, id, line).await?;
    tx.commit().await?;
    Ok(answer)
}

async fn cancel_in(db: &mut SqliteConnection, id: Uuid, line: &AuditEntry) -> Answer<bool> {
    let cancelled = sqlx::query(CANCEL).bind(id).bind(line.at.as_micros()).execute(&mut *db).await?;
    if cancelled.rows_affected() == 1 {
        controls::log(db, line).await?;
    }
    Ok(cancelled.rows_affected() == 1)
}

async fn purge(db: &Sqlite, before: Timestamp) -> Answer<u64> {
    Ok(sqlx::query(PURGE).bind(before.as_micros()).execute(&db.write).await?.rows_affected())
}

#[async_trait]
impl OperationStore for SqliteStore {
    async fn plan(&self, action: Action, selection: &Selection) -> StoreResult<Vec<Group>> {
        self.run("plan an operation", plan(&self.db, action, selection)).await
    }

    async fn start_operation(&self, new: &NewOperation, claim: Option<Claim>, line: &AuditEntry) -> StoreResult<bool> {
        self.run("start an operation", start(&self.db, new, claim, line)).await
    }

    async fn operations(&self, limit: usize) -> StoreResult<Vec<Operation>> {
        self.run("operations", list(&self.db, limit)).await
    }

    async fn operation(&self, id: Uuid) -> StoreResult<Option<Operation>> {
        self.run("operation", one(&self.db, id)).await
    }

    async fn claim_operation(&self, claim: Claim, now: Timestamp) -> StoreResult<Option<Operation>> {
        self.run("claim an operation", claim_due(&self.db, claim, now)).await
    }

    async fn step_operation(&self, id: Uuid, wish: &StepWish) -> StoreResult<Option<Stepped>> {
        self.run("make a step of an operation", step(&self.db, id, wish)).await
    }

    async fn tell_raw(&self, id: Uuid, wish: &StepWish, answers: &[RawAnswer]) -> StoreResult<Option<Operation>> {
        self.run("make a step of an operation", tell_raw(&self.db, id, wish, answers)).await
    }

    async fn leave_operation(&self, id: Uuid, token: Uuid) -> StoreResult<()> {
        self.run("leave an operation", leave(&self.db, id, token)).await
    }

    async fn cancel_operation(&self, id: Uuid, line: &AuditEntry) -> StoreResult<bool> {
        self.run("cancel an operation", cancel(&self.db, id, line)).await
    }

    async fn purge_operations(&self, before: Timestamp) -> StoreResult<u64> {
        self.run("purge operations", purge(&self.db, before)).await
    }
}
