//! What an operator asks for: replay a dead letter, hurry jobs that wait, cancel a job.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::rows::{self, Table};
use super::{begin, controls, end, letters};
use crate::clock::Timestamp;
use crate::job::DedupKey;
use crate::job::verdict::WaitReason;
use crate::store::fault::{Answer, Fault};
use crate::store::transition::{self, Reason};
use crate::store::{AuditEntry, CancelAnswer, Hastened, Replayed};

pub async fn replay(pool: &PgPool, instance: Uuid, now: Timestamp, line: Option<&AuditEntry>) -> Answer<Replayed> {
    let mut tx = begin(pool).await?;
    let mut answer = replay_locked(&mut tx, instance, now).await;
    if let (Ok(Replayed::Waiting(_)), Some(line)) = (&answer, line)
        && let Err(fault) = controls::log(&mut tx, line).await
    {
        answer = Err(fault);
    }
    end(tx, answer).await
}

/// In a transaction.
pub async fn replay_locked(db: &mut PgConnection, instance: Uuid, now: Timestamp) -> Answer<Replayed> {
    let Some(letter) = letters::full(db, instance).await? else { return Ok(Replayed::NotFound) };
    if letter.shown.raw {
        return Ok(Replayed::Raw(Box::new(letter.raw_letter()?)));
    }
    let (died, job) = letter.job()?;
    let key = DedupKey::of(&job.lane, &job.tenant, &job.id);
    let of_key = rows::lock(db, [key]).await?.remove(&key).unwrap_or_default();
    let kept = of_key.rows.iter().find(|row| row.instance == instance);
    let Some(after) = transition::replay(kept.unwrap_or(&died), now) else {
        // its row was forgotten, then a late copy of the message ran: the letter is out of date, discard is all that is left
        return Ok(Replayed::NotFound);
    };
    if kept.is_some() {
        let table = of_key.table_of(instance);
        rows::write(db, table, &[(key, after)]).await?;
        rows::restore(db, table, instance, &job.payload.meta, &job.payload.body).await?;
    } else {
        let table = if of_key.hot.is_none() { Table::Hot } else { Table::Side };
        let parts = rows::JobParts {
            key,
            lane: job.lane.as_str(),
            tenant: job.tenant.as_str(),
            id: job.id.as_str(),
            endpoint: job.endpoint.as_str(),
            meta: &job.payload.meta,
            body: &job.payload.body,
        };
        if !rows::insert(db, table, &after, parts).await? {
            return Err(Fault::Contended);
        }
    }
    letters::remove(db, instance).await?;
    Ok(Replayed::Waiting(after.generation))
}

pub async fn hasten(pool: &PgPool, instances: &[Uuid], now: Timestamp, line: &AuditEntry) -> Answer<Vec<Hastened>> {
    let mut tx = begin(pool).await?;
    let answer = hasten_locked(&mut tx, instances, now, line).await;
    end(tx, answer).await
}

async fn hasten_locked(
    db: &mut PgConnection,
    instances: &[Uuid],
    now: Timestamp,
    line: &AuditEntry,
) -> Answer<Vec<Hastened>> {
    let keys = rows::keys_of(db, instances).await?;
    let mut locked = rows::lock(db, keys.values().copied()).await?;
    let (mut hot, mut side, mut timed) = (Vec::new(), Vec::new(), Vec::new());
    let mut answers = Vec::with_capacity(instances.len());
    for instance in instances {
        let of_key = keys.get(instance).and_then(|key| Some((*key, locked.get_mut(key)?)));
        let found = of_key.and_then(|(key, of_key)| {
            let table = of_key.table_of(*instance);
            Some((key, table, of_key.rows.iter_mut().find(|row| row.instance == *instance)?))
        });
        let Some((key, table, row)) = found else {
            answers.push(Hastened::NotFound);
            continue;
        };
        let (answer, after) = transition::hasten(row, now);
        if let Some(after) = after {
            if row.reason == Reason::Wait(WaitReason::NotBefore) {
                timed.push(*instance);
            }
            *row = after; // named twice, it is due the second time
            if table == Table::Hot { &mut hot } else { &mut side }.push((key, after));
        }
        answers.push(answer);
    }
    rows::write(db, Table::Hot, &hot).await?;
    rows::write(db, Table::Side, &side).await?;
    rows::forget_not_before(db, &timed).await?;
    if !hot.is_empty() || !side.is_empty() {
        controls::log(db, &line.of_jobs(hot.len() + side.len())).await?;
    }
    Ok(answers)
}

pub async fn cancel(pool: &PgPool, instance: Uuid, now: Timestamp, line: Option<&AuditEntry>) -> Answer<CancelAnswer> {
    let mut tx = begin(pool).await?;
    let answer = cancel_locked(&mut tx, instance, now, line).await;
    end(tx, answer).await
}

async fn cancel_locked(
    db: &mut PgConnection,
    instance: Uuid,
    now: Timestamp,
    line: Option<&AuditEntry>,
) -> Answer<CancelAnswer> {
    let Some(key) = rows::key_of(db, instance).await? else { return Ok(CancelAnswer::NotFound) };
    let of_key = rows::lock(db, [key]).await?.remove(&key).unwrap_or_default();
    let Some(row) = of_key.rows.iter().find(|row| row.instance == instance) else {
        return Ok(CancelAnswer::NotFound);
    };
    let (answer, after) = transition::cancel(row, now);
    if let Some(after) = after {
        rows::write(db, of_key.table_of(instance), &[(key, after)]).await?;
        if let Some(line) = line {
            controls::log(db, line).await?;
        }
    }
    Ok(answer)
}
