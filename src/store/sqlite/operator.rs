//! What an operator asks for: replay a dead letter, hurry jobs that wait, cancel a job.

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{begin, controls, letters, rows};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::job::DedupKey;
use crate::job::verdict::WaitReason;
use crate::store::fault::Answer;
use crate::store::transition::Reason;
use crate::store::{AuditEntry, CancelAnswer, Hastened, Replayed, transition};

pub async fn replay(db: &Sqlite, instance: Uuid, now: Timestamp, line: Option<&AuditEntry>) -> Answer<Replayed> {
    let mut tx = begin(db).await?;
    let answer = replay_in(&mut tx, instance, now).await?;
    if let (Replayed::Waiting(_), Some(line)) = (&answer, line) {
        controls::log(&mut tx, line).await?;
    }
    tx.commit().await?;
    Ok(answer)
}

/// In a transaction.
pub async fn replay_in(db: &mut SqliteConnection, instance: Uuid, now: Timestamp) -> Answer<Replayed> {
    let Some(letter) = letters::full(&mut *db, instance).await? else { return Ok(Replayed::NotFound) };
    if letter.shown.raw {
        return Ok(Replayed::Raw(Box::new(letter.raw_letter()?)));
    }
    let (died, job) = letter.job()?;
    let kept = rows::get(&mut *db, instance).await?.map(|record| record.row()).transpose()?;
    let Some(after) = transition::replay(kept.as_ref().unwrap_or(&died), now) else {
        // its row was forgotten, then a late copy of the message ran: the letter is out of date, discard is all that is left
        return Ok(Replayed::NotFound);
    };
    if kept.is_some() {
        rows::write(&mut *db, &after).await?;
        rows::restore(&mut *db, instance, &job.payload.meta, &job.payload.body).await?;
    } else {
        let parts = rows::JobParts {
            key: DedupKey::of(&job.lane, &job.tenant, &job.id),
            lane: job.lane.as_str(),
            tenant: job.tenant.as_str(),
            id: job.id.as_str(),
            endpoint: job.endpoint.as_str(),
            meta: &job.payload.meta,
            body: &job.payload.body,
        };
        rows::insert(&mut *db, &after, parts).await?;
    }
    letters::remove(db, instance).await?;
    Ok(Replayed::Waiting(after.generation))
}

pub async fn hasten(db: &Sqlite, instances: &[Uuid], now: Timestamp, line: &AuditEntry) -> Answer<Vec<Hastened>> {
    let mut tx = begin(db).await?;
    let mut answers = Vec::with_capacity(instances.len());
    let mut hurried = 0;
    for instance in instances {
        let Some(record) = rows::get(&mut tx, *instance).await? else {
            answers.push(Hastened::NotFound);
            continue;
        };
        let row = record.row()?;
        let (answer, after) = transition::hasten(&row, now);
        if let Some(after) = after {
            rows::write(&mut tx, &after).await?;
            if row.reason == Reason::Wait(WaitReason::NotBefore) {
                rows::forget_not_before(&mut tx, *instance).await?;
            }
            hurried += 1;
        }
        answers.push(answer);
    }
    if hurried > 0 {
        controls::log(&mut tx, &line.of_jobs(hurried)).await?;
        tx.commit().await?;
    }
    Ok(answers)
}

pub async fn cancel(db: &Sqlite, instance: Uuid, now: Timestamp, line: Option<&AuditEntry>) -> Answer<CancelAnswer> {
    let mut tx = begin(db).await?;
    let Some(record) = rows::get(&mut tx, instance).await? else { return Ok(CancelAnswer::NotFound) };
    let (answer, after) = transition::cancel(&record.row()?, now);
    if let Some(after) = after {
        rows::write(&mut tx, &after).await?;
        if let Some(line) = line {
            controls::log(&mut tx, line).await?;
        }
        tx.commit().await?;
    }
    Ok(answer)
}
