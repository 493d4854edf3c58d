//! Rows of slots.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::job::LaneName;
use crate::store::fault::{Answer, unsigned};
use crate::store::slots::Holding;
use crate::store::{SlotUse, WorkerId};

/// What one holder has of a slot's key.
#[derive(Debug, FromRow)]
pub struct HoldingRecord {
    pub key: String,
    pub worker: i64,
    pub lane: String,
    pub held: i64,
    pub in_use: i64,
    pub wanted: i64,
    pub renewed_at: i64,
    pub kept_until: i64,
    pub alive: bool,
}

impl HoldingRecord {
    /// As the arithmetic reads it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn holding(self) -> Answer<Holding> {
        Ok(Holding {
            key: self.key,
            worker: WorkerId(self.worker),
            lane: LaneName::new(&self.lane)?,
            held: unsigned(self.held)?,
            in_use: unsigned(self.in_use)?,
            wanted: unsigned(self.wanted)?,
            renewed_at: Timestamp::from_micros(self.renewed_at),
            kept_until: Timestamp::from_micros(self.kept_until),
            alive: self.alive,
        })
    }
}

/// What all holders have of a slot's key.
#[derive(Debug, FromRow)]
pub struct SlotUseRecord {
    pub key: String,
    pub in_use: i64,
    pub held: i64,
    pub wanted: i64,
}

impl From<SlotUseRecord> for SlotUse {
    fn from(record: SlotUseRecord) -> Self {
        let sum = |sum: i64| u32::try_from(sum).unwrap_or(u32::MAX);
        Self { key: record.key, in_use: sum(record.in_use), held: sum(record.held), wanted: sum(record.wanted) }
    }
}
