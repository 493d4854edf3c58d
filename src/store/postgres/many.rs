//! What a step of an operation does to many letters or jobs: a few statements for all of them, bodies never leave the server.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::{self, KeyRows, Table};
use super::{letters, operator};
use crate::clock::Timestamp;
use crate::job::DedupKey;
use crate::store::fault::{Answer, Fault};
use crate::store::letter::{FullLetterRecord, full_letter_columns, in_order};
use crate::store::record::{JobRecord, PlaceRecord, Progress, job_columns, key_of};
use crate::store::transition::{self, Row};
use crate::store::{CancelAnswer, RawLetter, Replayed};

const WHOLE: &str = concat!("SELECT ", full_letter_columns!(), " FROM letters WHERE instance = ANY($1)");
const REMOVE: &str = "DELETE FROM letters WHERE instance = ANY($1)";
const JOBS: &str = concat!("SELECT ", job_columns!(), " FROM jobs_all WHERE instance = ANY($1)");
macro_rules! restore_sql {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " AS j SET meta = l.meta, body = l.body FROM letters AS l WHERE l.instance = ANY($1) AND j.instance = l.instance"
        )
    };
}
const RESTORE_HOT: &str = restore_sql!("jobs");
const RESTORE_SIDE: &str = restore_sql!("jobs_side");

/// Changed rows of both tables.
#[derive(Default)]
struct Changes {
    hot: Vec<(DedupKey, Row)>,
    side: Vec<(DedupKey, Row)>,
}

impl Changes {
    fn push(&mut self, of_key: &KeyRows, key: DedupKey, after: Row) {
        match of_key.table_of(after.instance) {
            Table::Hot => self.hot.push((key, after)),
            Table::Side => self.side.push((key, after)),
        }
    }

    async fn write(&self, db: &mut PgConnection) -> Answer<()> {
        rows::write(&mut *db, Table::Hot, &self.hot).await?;
        rows::write(db, Table::Side, &self.side).await
    }
}

/// Whole letters, in the order of their places.
pub async fn whole(db: &mut PgConnection, places: &[PlaceRecord]) -> Answer<Vec<RawLetter>> {
    let records: Vec<FullLetterRecord> = sqlx::query_as(WHOLE).bind(instances(places)).fetch_all(db).await?;
    Ok(in_order(places, records))
}

fn instances(places: &[PlaceRecord]) -> Vec<Uuid> {
    places.iter().map(|place| place.instance).collect()
}

/// Deletes letters, which are locked.
pub async fn discard(db: &mut PgConnection, places: &[PlaceRecord]) -> Answer<Progress> {
    let instances = instances(places);
    sqlx::query(REMOVE).bind(&instances).execute(&mut *db).await?;
    letters::forget(db, &instances).await?;
    Ok(Progress { done: instances.len() as u64, ..Progress::default() })
}

/// Puts jobs of letters, which are locked, back to work.
pub async fn replay(db: &mut PgConnection, places: &[PlaceRecord], now: Timestamp) -> Answer<Progress> {
    let mut progress = Progress::default();
    let mut keys: HashMap<Uuid, DedupKey> = HashMap::new();
    for place in places {
        match key_of(place) {
            Ok(key) => drop(keys.insert(place.instance, key)),
            Err(why) => progress.fail(&why),
        }
    }
    let locked = rows::lock(db, keys.values().copied()).await?;
    let (mut changes, mut forgotten) = (Changes::default(), Vec::new());
    for (instance, key) in &keys {
        let Some(of_key) = locked.get(key) else { continue };
        let Some(row) = of_key.rows.iter().find(|row| row.instance == *instance) else {
            forgotten.push((*key, *instance));
            continue;
        };
        match transition::replay(row, now) {
            Some(after) => changes.push(of_key, *key, after),
            // a late copy of the message ran meanwhile: the letter is out of date
            None => progress.skipped += 1,
        }
    }
    changes.write(db).await?;
    for (sql, rows) in [(RESTORE_HOT, &changes.hot), (RESTORE_SIDE, &changes.side)] {
        if !rows.is_empty() {
            let instances: Vec<Uuid> = rows.iter().map(|(_, row)| row.instance).collect();
            sqlx::query(sql).bind(&instances).execute(&mut *db).await?;
            sqlx::query(REMOVE).bind(&instances).execute(&mut *db).await?;
            progress.done += instances.len() as u64;
        }
    }
    // their rows are long gone: rare, so one by one
    forgotten.sort_unstable();
    for (_, instance) in forgotten {
        match operator::replay_locked(db, instance, now).await {
            Ok(Replayed::Waiting(_)) => progress.done += 1,
            Ok(Replayed::Raw(_) | Replayed::NotFound) => progress.skipped += 1,
            // one that a newer version wrote must not keep the others; nothing was written yet
            Err(Fault::Unreadable(why)) => progress.fail(&format!("letter {instance}: {why}")),
            Err(fault) => return Err(fault),
        }
    }
    Ok(progress)
}

/// Cancels jobs.
pub async fn cancel(db: &mut PgConnection, instances: &[Uuid], now: Timestamp) -> Answer<Progress> {
    let mut progress = Progress::default();
    let found: Vec<JobRecord> = sqlx::query_as(JOBS).bind(instances).fetch_all(&mut *db).await?;
    let locked = rows::lock(db, found.iter().map(JobRecord::dedup_key)).await?;
    let mut changes = Changes::default();
    for record in &found {
        let of_key = locked.get(&record.dedup_key());
        let row =
            of_key.and_then(|of_key| Some((of_key, of_key.rows.iter().find(|row| row.instance == record.instance)?)));
        let Some((of_key, row)) = row else {
            progress.skipped += 1;
            continue;
        };
        let (answer, after) = transition::cancel(row, now);
        match answer {
            CancelAnswer::Cancelled => {
                progress.done += 1;
                progress.count_cancelled(&record.lane)?;
            }
            CancelAnswer::Running => progress.done += 1,
            CancelAnswer::Ended(_) | CancelAnswer::NotFound => progress.skipped += 1,
        }
        if let Some(after) = after {
            changes.push(of_key, record.dedup_key(), after);
        }
    }
    changes.write(db).await?;
    Ok(progress)
}
