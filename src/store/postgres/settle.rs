//! Settling: claimed rows leave state run, guarded by their tokens, with journal and letters.

use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::begin;
use super::rows::{self, Death, Table};
use crate::clock::Timestamp;
use crate::db;
use crate::job::DedupKey;
use crate::store::fault::{Answer, Fault};
use crate::store::transition::{self, Row, Settle};
use crate::store::{Next, Settled, Settlement, State};

/// Most times that a batch is sent that others' locks get in the way of.
const DEADLOCK_TRIES: usize = 3;

/// What nearly every job ends with: a HOT update, found by the primary key. The row keeps its token.
const DONE: &str = "\
    UPDATE jobs AS j SET state = 4, ended_at = $1, worker = NULL, effect_possible = j.effect_possible OR s.effect,
        meta = NULL, body = NULL
    FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::bool[]) AS s(key, instance, token, effect)
    WHERE j.key = s.key AND j.instance = s.instance AND j.token = s.token AND j.state = 1
    RETURNING j.key, j.token";

pub async fn settle(pool: &PgPool, now: Timestamp, settlements: &[Settlement]) -> Answer<Vec<Settled>> {
    let plain = |settlement: &Settlement| settlement.next == Next::Done && settlement.attempt.is_none();
    // one UPDATE can take only one of two settlements of a key, and not a chosen one
    if !settlements.iter().all(plain) || repeats_a_key(settlements) {
        return settle_mixed(pool, now, settlements).await;
    }
    let done = settle_done_again(pool, now, settlements).await?;
    let is_done = |settlement: &Settlement| done.contains(&(Uuid::from_bytes(settlement.key.0), settlement.token));
    if settlements.iter().all(is_done) {
        return Ok(vec![Settled::Applied(State::Done); settlements.len()]);
    }
    // zero rows for some: their rows say whether they were settled before or belong to somebody else
    settle_mixed(pool, now, settlements).await
}

fn repeats_a_key(settlements: &[Settlement]) -> bool {
    let mut keys: Vec<DedupKey> = settlements.iter().map(|settlement| settlement.key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

/// The plain statement locks in the order that its plan finds rows in (a lock in the order of keys would cost a second
/// write per row), so it may meet a transaction that locks another way round. That one goes on; this one is sent again.
async fn settle_done_again(pool: &PgPool, now: Timestamp, settlements: &[Settlement]) -> Answer<HashSet<(Uuid, Uuid)>> {
    for _ in 1..DEADLOCK_TRIES {
        match settle_done(pool, now, settlements).await {
            Err(Fault::Sql(error)) if db::is_deadlock(&error) => {}
            answer => return answer,
        }
    }
    settle_done(pool, now, settlements).await
}

async fn settle_done(pool: &PgPool, now: Timestamp, settlements: &[Settlement]) -> Answer<HashSet<(Uuid, Uuid)>> {
    let mut settlements: Vec<&Settlement> = settlements.iter().collect();
    settlements.sort_by_key(|settlement| settlement.key);
    let done: Vec<(Uuid, Uuid)> = sqlx::query_as(DONE)
        .bind(now.as_micros())
        .bind(settlements.iter().map(|settlement| Uuid::from_bytes(settlement.key.0)).collect::<Vec<_>>())
        .bind(settlements.iter().map(|settlement| settlement.instance).collect::<Vec<_>>())
        .bind(settlements.iter().map(|settlement| settlement.token).collect::<Vec<_>>())
        .bind(settlements.iter().map(|settlement| settlement.effect_possible).collect::<Vec<_>>())
        .fetch_all(pool)
        .await?;
    Ok(done.into_iter().collect())
}

/// Settles whatever it is under the locks of its keys. What was settled before answers so: nothing is written twice.
async fn settle_mixed(pool: &PgPool, now: Timestamp, settlements: &[Settlement]) -> Answer<Vec<Settled>> {
    let mut tx = begin(pool).await?;
    let mut keys = rows::lock(&mut tx, settlements.iter().map(|settlement| settlement.key)).await?;
    let mut writes = Writes::default();
    let mut answers = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let of_key = keys.entry(settlement.key).or_default();
        let Some(row) = of_key.rows.iter_mut().find(|row| row.instance == settlement.instance) else {
            answers.push(Settled::Lost);
            continue;
        };
        let settle = transition::settle(row, settlement.token, &settlement.next, settlement.effect_possible, now);
        if let Settle::Write(after) = settle {
            *row = after;
            writes.add(settlement, after);
        }
        answers.push(settle.answer());
    }
    writes.send(&mut tx, now).await?;
    tx.commit().await?;
    Ok(answers)
}

/// What a batch writes. A row in state run holds its key, so it is in the hot table.
#[derive(Default)]
struct Writes<'a> {
    rows: Vec<(DedupKey, Row)>,
    deaths: Vec<Death>,
    journal: Vec<(Uuid, &'a crate::store::AttemptRecord)>,
}

impl<'a> Writes<'a> {
    fn add(&mut self, settlement: &'a Settlement, row: Row) {
        match &settlement.next {
            Next::Dead { detail, .. } => {
                self.deaths.push(Death { key: settlement.key, row, detail: detail.clone() });
            }
            Next::Done | Next::Waiting { .. } => self.rows.push((settlement.key, row)),
        }
        self.journal.extend(settlement.attempt.as_deref().map(|attempt| (row.instance, attempt)));
    }

    async fn send(&self, db: &mut PgConnection, now: Timestamp) -> Answer<()> {
        rows::write(db, Table::Hot, &self.rows).await?;
        rows::bury(db, Table::Hot, &self.deaths, now).await?;
        rows::journal(db, &self.journal).await
    }
}
