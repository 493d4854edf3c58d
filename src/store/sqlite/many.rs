//! What a step of an operation does to many letters: one by one, in its transaction.

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{letters, operator};
use crate::clock::Timestamp;
use crate::store::fault::{Answer, Fault};
use crate::store::letter::in_order;
use crate::store::record::{PlaceRecord, Progress, key_of};
use crate::store::{RawLetter, Replayed};

/// Whole letters, in the order of their places.
pub async fn whole(db: &mut SqliteConnection, places: &[PlaceRecord]) -> Answer<Vec<RawLetter>> {
    let mut records = Vec::with_capacity(places.len());
    for place in places {
        records.extend(letters::full(&mut *db, place.instance).await?);
    }
    Ok(in_order(places, records))
}

/// Deletes letters.
pub async fn discard(db: &mut SqliteConnection, places: &[PlaceRecord]) -> Answer<Progress> {
    for place in places {
        letters::remove(&mut *db, place.instance).await?;
    }
    let instances: Vec<Uuid> = places.iter().map(|place| place.instance).collect();
    letters::forget(db, &instances).await?;
    Ok(Progress { done: instances.len() as u64, ..Progress::default() })
}

/// Puts jobs of letters back to work.
pub async fn replay(db: &mut SqliteConnection, places: &[PlaceRecord], now: Timestamp) -> Answer<Progress> {
    let mut progress = Progress::default();
    for place in places {
        if let Err(why) = key_of(place) {
            progress.fail(&why);
            continue;
        }
        match operator::replay_in(&mut *db, place.instance, now).await {
            Ok(Replayed::Waiting(_)) => progress.done += 1,
            // a late copy of the message ran meanwhile: the letter is out of date
            Ok(Replayed::Raw(_) | Replayed::NotFound) => progress.skipped += 1,
            // one that a newer version wrote must not keep the others; nothing was written yet
            Err(Fault::Unreadable(why)) => progress.fail(&format!("letter {}: {why}", place.instance)),
            Err(fault) => return Err(fault),
        }
    }
    Ok(progress)
}
