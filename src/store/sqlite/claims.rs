//! Claiming: fresh messages and wake-ups against the rows of their keys.

use sqlx::SqliteConnection;

use super::{begin, rows};
use crate::db::Sqlite;
use crate::store::decide::Verb;
use crate::store::fault::Answer;
use crate::store::step::{self, Step};
use crate::store::{ClaimContext, Claimed, FreshClaim, WokenClaim};

pub async fn fresh(db: &Sqlite, ctx: &ClaimContext, claims: &[FreshClaim]) -> Answer<Vec<Claimed>> {
    let mut tx = begin(db).await?;
    let mut keys = rows::load(&mut tx, claims.iter().map(|claim| claim.key)).await?;
    let mut answers = Vec::with_capacity(claims.len());
    for claim in claims {
        let of_key = keys.entry(claim.key).or_default();
        let step = step::fresh(ctx, claim, of_key);
        step.apply(of_key);
        if let Some(displaced) = &step.writes.displaced {
            rows::write(&mut tx, displaced).await?;
        }
        if let Some(own) = &step.writes.own {
            match step.before {
                Some(_) => rows::write(&mut tx, own).await?,
                None => rows::insert(&mut tx, own, parts(claim)).await?,
            }
        }
        answers.push(step.claimed().expect("only a wake-up is superseded"));
    }
    tx.commit().await?;
    Ok(answers)
}

fn parts(claim: &FreshClaim) -> rows::JobParts<'_> {
    rows::JobParts {
        key: claim.key,
        lane: claim.lane.as_str(),
        tenant: claim.tenant.as_str(),
        id: claim.id.as_str(),
        endpoint: claim.endpoint.as_str(),
        meta: &claim.payload.meta,
        body: &claim.payload.body,
    }
}

pub async fn woken(db: &Sqlite, ctx: &ClaimContext, claims: &[WokenClaim]) -> Answer<Vec<Claimed>> {
    let mut tx = begin(db).await?;
    let mut keys = rows::load(&mut tx, claims.iter().map(|claim| claim.key)).await?;
    let mut answers = Vec::with_capacity(claims.len());
    for claim in claims {
        let of_key = keys.entry(claim.key).or_default();
        let step = step::woken(ctx, claim, of_key);
        step.apply(of_key);
        answers.push(carry_out(&mut tx, ctx, &step).await?);
    }
    tx.commit().await?;
    Ok(answers)
}

async fn carry_out(db: &mut SqliteConnection, ctx: &ClaimContext, step: &Step) -> Answer<Claimed> {
    if let Some(displaced) = &step.writes.displaced {
        rows::write(db, displaced).await?;
    }
    if let (Verb::Superseded { by }, Some(own)) = (step.verb, &step.writes.own) {
        rows::bury(db, own, &step::superseded_by(by), ctx.now).await?;
        return Ok(Claimed::Superseded { by, row: rows::shown(db, own.instance).await? });
    }
    if let Some(own) = &step.writes.own {
        rows::write(db, own).await?;
    }
    let mut claimed = step.claimed().expect("a superseded row was handled above");
    if let Claimed::Run(granted) = &mut claimed {
        granted.stored = Some(Box::new(rows::stored(db, granted.instance).await?));
    }
    Ok(claimed)
}
