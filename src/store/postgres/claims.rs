//! Claiming: fresh messages and wake-ups against the rows of their keys, the usual case in one statement per batch.

use std::collections::{HashMap, HashSet};

use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::begin;
use super::rows::{self, Death, KeyRows, Table};
use crate::clock::Timestamp;
use crate::db;
use crate::job::DedupKey;
use crate::job::verdict::WaitReason;
use crate::store::decide::Verb;
use crate::store::fault::{Answer, Fault, unsigned};
use crate::store::record::StoredRecord;
use crate::store::step::{self, Step};
use crate::store::{ClaimContext, Claimed, FreshClaim, Granted, WokenClaim};

/// Most times that a batch starts again because another worker inserted one of its keys in between.
const TRIES_MAX: usize = 5;

/// No row of the key in `jobs` means no row of it anywhere: the primary key decides alone. What it refuses is looked at.
const RUN_NEW: &str = "\
    INSERT INTO jobs (published_at, worker, attempt, generation, takeovers, state, effect_possible, cancel_requested,
        holds_key, key, instance, token, lane, tenant, id, endpoint, reason, payload_sha256, meta, body)
    SELECT c.published_at, $1, 1, 1, 0, 1, false, false,
        true, c.key, c.instance, c.token, $2, c.tenant, c.id, c.endpoint, '', c.payload_sha256, c.meta, c.body
    FROM unnest($3::int8[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::bytea[],
            $11::bytea[], $12::bytea[])
        AS c(published_at, key, instance, token, tenant, id, endpoint, payload_sha256, meta, body)
    ON CONFLICT (key) DO NOTHING
    RETURNING key";

/// The same for jobs that wait for their turn from the start.
const WAIT_NEW: &str = "\
    INSERT INTO jobs (published_at, resume_at, held_since, attempt, generation, takeovers, state, effect_possible,
        cancel_requested, holds_key, key, instance, token, lane, tenant, id, endpoint, reason, payload_sha256, meta, body)
    SELECT c.published_at, 253402214400000000, $1, 0, 1, 0, 2, false,
        false, true, c.key, c.instance, c.token, $2, c.tenant, c.id, c.endpoint, c.reason, c.payload_sha256, c.meta, c.body
    FROM unnest($3::int8[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::bytea[],
            $11::bytea[], $12::bytea[], $13::text[])
        AS c(published_at, key, instance, token, tenant, id, endpoint, payload_sha256, meta, body, reason)
    ON CONFLICT (key) DO NOTHING
    RETURNING key";

/// A released row that holds its key runs whatever the other rows say.
const RUN_QUEUED: &str = "\
    WITH due AS (
        SELECT j.key, j.released_at, c.token
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS c(key, instance, token)
        JOIN jobs AS j ON j.key = c.key
        WHERE j.instance = c.instance AND j.state = 3 AND j.holds_key
        ORDER BY j.key FOR UPDATE OF j)
    UPDATE jobs AS j SET state = 1, reason = '', attempt = j.attempt + 1, token = due.token, worker = $4,
        released_at = NULL
    FROM due WHERE j.key = due.key
    RETURNING due.released_at AS was_released_at, j.published_at, j.resume_at, j.released_at, j.ended_at, j.held_since, j.worker,
        j.attempt, j.generation, j.takeovers, j.state, j.effect_possible, j.cancel_requested, j.holds_key, j.key,
        j.instance, j.token, j.lane, j.tenant, j.id, j.endpoint, j.reason, j.payload_sha256, j.meta, j.body";

/// A claim of either kind, as the slow path handles it.
trait Claim {
    fn key(&self) -> DedupKey;
    fn step(&self, ctx: &ClaimContext, of_key: &KeyRows) -> Step;
    /// What a new row holds; `None` for a wake-up, which never makes one.
    fn parts(&self) -> Option<rows::JobParts<'_>>;
}

impl Claim for FreshClaim {
    fn key(&self) -> DedupKey {
        self.key
    }

    fn step(&self, ctx: &ClaimContext, of_key: &KeyRows) -> Step {
        step::fresh(ctx, self, &of_key.rows)
    }

    fn parts(&self) -> Option<rows::JobParts<'_>> {
        Some(rows::JobParts {
            key: self.key,
            lane: self.lane.as_str(),
            tenant: self.tenant.as_str(),
            id: self.id.as_str(),
            endpoint: self.endpoint.as_str(),
            meta: &self.payload.meta,
            body: &self.payload.body,
        })
    }
}

impl Claim for WokenClaim {
    fn key(&self) -> DedupKey {
        self.key
    }

    fn step(&self, ctx: &ClaimContext, of_key: &KeyRows) -> Step {
        step::woken(ctx, self, &of_key.rows)
    }

    fn parts(&self) -> Option<rows::JobParts<'_>> {
        None
    }
}

pub async fn fresh(pool: &PgPool, ctx: &ClaimContext, claims: &[FreshClaim]) -> Answer<Vec<Claimed>> {
    // one statement for those that run, one for those that wait: usually a batch has only one kind
    let (waits, runs): (Vec<_>, Vec<_>) =
        first_of_each_key(claims).into_iter().partition(|claim| claim.in_turn.is_some());
    let running = or_none(insert_new(pool, ctx, &runs, false).await)?;
    let mut waiting = or_none(insert_new(pool, ctx, &waits, true).await)?;
    let answer = |claim: &FreshClaim| match (claim.key, claim.token) {
        claimed if running.contains(&claimed) => Some(Claimed::Run(new_run(claim.instance))),
        // the same claim again finds a row that waits
        claimed if waiting.remove(&claimed) => Some(Claimed::InTurn),
        _ => None,
    };
    let mut answers: Vec<Option<Claimed>> = claims.iter().map(answer).collect();
    decide_rest(pool, ctx, claims, &mut answers).await?;
    all_answered(answers)
}

pub async fn woken(pool: &PgPool, ctx: &ClaimContext, claims: &[WokenClaim]) -> Answer<Vec<Claimed>> {
    let mut granted = run_queued(pool, ctx, &first_of_each_key(claims)).await?;
    let mut answers: Vec<Option<Claimed>> =
        claims.iter().map(|claim| granted.remove(&(claim.key, claim.token)).map(Claimed::Run)).collect();
    decide_rest(pool, ctx, claims, &mut answers).await?;
    all_answered(answers)
}

fn all_answered(answers: Vec<Option<Claimed>>) -> Answer<Vec<Claimed>> {
    answers.into_iter().collect::<Option<_>>().ok_or(Fault::Contended)
}

/// The claims that one statement can decide, in the order of keys: batches of two workers must not lock crosswise.
fn first_of_each_key<C: Claim>(claims: &[C]) -> Vec<&C> {
    let mut first: Vec<&C> = claims.iter().collect();
    first.sort_by_key(|claim| claim.key()); // stable: of equal keys the first one comes first
    first.dedup_by_key(|claim| claim.key());
    first
}

fn new_run(instance: Uuid) -> Granted {
    Granted {
        instance,
        attempt: 1,
        generation: 1,
        takeovers: 0,
        effect_possible: false,
        released_at: None,
        held_since: None,
        stored: None,
    }
}

/// A statement that met another transaction crosswise has inserted nothing: its claims are looked at one by one.
fn or_none(inserted: Answer<HashSet<(DedupKey, Uuid)>>) -> Answer<HashSet<(DedupKey, Uuid)>> {
    match inserted {
        Err(Fault::Sql(error)) if db::is_deadlock(&error) => Ok(HashSet::new()),
        inserted => inserted,
    }
}

/// Inserts those whose key has no row; answers which.
async fn insert_new(
    pool: &PgPool,
    ctx: &ClaimContext,
    claims: &[&FreshClaim],
    in_turn: bool,
) -> Answer<HashSet<(DedupKey, Uuid)>> {
    let Some(lane) = claims.first().map(|claim| claim.lane.as_str()) else { return Ok(HashSet::new()) };
    let (statement, first) = if in_turn { (WAIT_NEW, ctx.now.as_micros()) } else { (RUN_NEW, ctx.worker.0) };
    let mut query = sqlx::query_scalar(statement)
        .bind(first)
        .bind(lane)
        .bind(claims.iter().map(|claim| claim.published_at.as_micros()).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| Uuid::from_bytes(claim.key.0)).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.instance).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.token).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.tenant.as_str()).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.id.as_str()).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.endpoint.as_str()).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| &claim.payload_sha256[..]).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| &claim.payload.meta[..]).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| &claim.payload.body[..]).collect::<Vec<_>>());
    if in_turn {
        query = query.bind(claims.iter().map(|claim| claim.in_turn.map_or("", WaitReason::as_str)).collect::<Vec<_>>());
    }
    let inserted: Vec<Uuid> = query.fetch_all(pool).await?;
    let inserted: HashSet<Uuid> = inserted.into_iter().collect();
    let ours = claims.iter().filter(|claim| inserted.contains(&Uuid::from_bytes(claim.key.0)));
    Ok(ours.map(|claim| (claim.key, claim.token)).collect())
}

#[derive(Debug, FromRow)]
struct TakenRecord {
    was_released_at: Option<i64>,
    #[sqlx(flatten)]
    row: StoredRecord,
}

/// Takes those whose row is queued and holds its key; answers which.
async fn run_queued(
    pool: &PgPool,
    ctx: &ClaimContext,
    claims: &[&WokenClaim],
) -> Answer<HashMap<(DedupKey, Uuid), Granted>> {
    let taken: Vec<TakenRecord> = sqlx::query_as(RUN_QUEUED)
        .bind(claims.iter().map(|claim| Uuid::from_bytes(claim.key.0)).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.instance).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.token).collect::<Vec<_>>())
        .bind(ctx.worker.0)
        .fetch_all(pool)
        .await?;
    let mut granted = HashMap::with_capacity(taken.len());
    for TakenRecord { was_released_at, row } in taken {
        let job = &row.job;
        let claim = (job.dedup_key(), job.token.unwrap_or_default());
        let grant = Granted {
            attempt: unsigned(job.attempt)?,
            generation: unsigned(job.generation)?,
            takeovers: unsigned(job.takeovers)?,
            effect_possible: job.effect_possible,
            released_at: was_released_at.map(Timestamp::from_micros),
            held_since: job.held_since.map(Timestamp::from_micros),
            ..new_run(job.instance)
        };
        granted.insert(claim, Granted { stored: Some(Box::new(row.stored()?)), ..grant });
    }
    Ok(granted)
}

/// Decides about the claims that have no answer yet, in one transaction that starts again when a key appears in between.
async fn decide_rest<C: Claim>(
    pool: &PgPool,
    ctx: &ClaimContext,
    claims: &[C],
    answers: &mut [Option<Claimed>],
) -> Answer<()> {
    let rest: Vec<usize> = (0..claims.len()).filter(|&at| answers[at].is_none()).collect();
    if rest.is_empty() {
        return Ok(());
    }
    for _ in 0..TRIES_MAX {
        let mut tx = begin(pool).await?;
        match decide_locked(&mut tx, ctx, claims, &rest).await {
            Err(Fault::Contended) => tx.rollback().await?,
            // the other one goes on
            Err(Fault::Sql(error)) if db::is_deadlock(&error) => tx.rollback().await?,
            Err(fault) => return Err(fault),
            Ok(decided) => {
                tx.commit().await?;
                for (at, answer) in rest.iter().zip(decided) {
                    answers[*at] = Some(answer);
                }
                return Ok(());
            }
        }
    }
    Err(Fault::Contended)
}

async fn decide_locked<C: Claim>(
    db: &mut PgConnection,
    ctx: &ClaimContext,
    claims: &[C],
    rest: &[usize],
) -> Answer<Vec<Claimed>> {
    let mut keys = rows::lock(db, rest.iter().map(|&at| claims[at].key())).await?;
    let mut answers = Vec::with_capacity(rest.len());
    for &at in rest {
        let claim = &claims[at];
        let of_key = keys.entry(claim.key()).or_default();
        let step = claim.step(ctx, of_key);
        let answer = match claim.parts() {
            Some(parts) => {
                insert(db, of_key, &step, parts).await?;
                step.claimed().expect("only a wake-up is superseded")
            }
            None => wake(db, ctx, of_key, claim.key(), &step).await?,
        };
        step.apply(&mut of_key.rows);
        answers.push(answer);
    }
    Ok(answers)
}

/// Carries out what was decided about a fresh message: its row is new, or names another worker, or nothing is written.
async fn insert(db: &mut PgConnection, of_key: &mut KeyRows, step: &Step, parts: rows::JobParts<'_>) -> Answer<()> {
    let Some(own) = &step.writes.own else { return Ok(()) };
    if step.before.is_some() {
        return rows::write(db, of_key.table_of(own.instance), &[(parts.key, *own)]).await;
    }
    let table = if of_key.hot.is_none() { Table::Hot } else { Table::Side };
    if !rows::insert(db, table, own, parts).await? {
        return Err(match table {
            Table::Hot => Fault::Contended,
            // all rows of this key are known and locked: the one in the way has another key
            Table::Side => Fault::Rejected(format!("instance {} is that of a job with another id", own.instance)),
        });
    }
    if of_key.hot.is_none() {
        of_key.hot = Some(own.instance);
    } else if own.holds_key {
        rows::swap(db, parts.key, own.instance).await?;
        of_key.hot = Some(own.instance);
    }
    Ok(())
}

/// Carries out what was decided about a wake-up.
async fn wake(
    db: &mut PgConnection,
    ctx: &ClaimContext,
    of_key: &mut KeyRows,
    key: DedupKey,
    step: &Step,
) -> Answer<Claimed> {
    if let Some(own) = step.writes.own {
        let table = of_key.table_of(own.instance);
        if let Verb::Superseded { by } = step.verb {
            let death = Death { key, row: own, detail: step::superseded_by(by) };
            rows::bury(db, table, &[death], ctx.now).await?;
            return Ok(Claimed::Superseded { by, row: rows::shown(db, own.instance).await? });
        }
        if own.holds_key && table == Table::Side {
            rows::swap(db, key, own.instance).await?;
            of_key.hot = Some(own.instance);
        }
        rows::write(db, of_key.table_of(own.instance), &[(key, own)]).await?;
    }
    let mut claimed = step.claimed().expect("a superseded row was handled above");
    if let Claimed::Run(granted) = &mut claimed {
        let stored = rows::stored(db, &[granted.instance]).await?.remove(&granted.instance);
        granted.stored = stored.map(Box::new);
    }
    Ok(claimed)
}
