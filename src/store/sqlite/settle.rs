//! Settling: claimed rows leave state run, guarded by their tokens, with journal and letters.

use super::{begin, rows};
use crate::clock::Timestamp;
use crate::db::Sqlite;
use crate::store::fault::Answer;
use crate::store::transition::{self, Settle};
use crate::store::{Next, Settled, Settlement};

pub async fn settle(db: &Sqlite, now: Timestamp, settlements: &[Settlement]) -> Answer<Vec<Settled>> {
    let mut tx = begin(db).await?;
    let mut keys = rows::load(&mut tx, settlements.iter().map(|settlement| settlement.key)).await?;
    let mut answers = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let of_key = keys.entry(settlement.key).or_default();
        let Some(row) = of_key.iter_mut().find(|row| row.instance == settlement.instance) else {
            answers.push(Settled::Lost);
            continue;
        };
        let settle = transition::settle(row, settlement.token, &settlement.next, settlement.effect_possible, now);
        if let Settle::Write(after) = settle {
            *row = after;
            match &settlement.next {
                Next::Dead { detail, .. } => rows::bury(&mut tx, row, detail, now).await?,
                Next::Done | Next::Waiting { .. } => rows::write(&mut tx, row).await?,
            }
            if let Some(attempt) = &settlement.attempt {
                rows::journal(&mut tx, row.instance, attempt).await?;
            }
        }
        answers.push(settle.answer());
    }
    tx.commit().await?;
    Ok(answers)
}
