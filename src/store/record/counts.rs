//! Counts by time, as both databases store them.

use std::time::Duration;

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::job::history::{Count, Measure, Series, Step};
use crate::store::Piece;

/// A sum over a stretch of time.
#[derive(Debug, FromRow)]
pub struct SumRecord {
    pub measure: String,
    pub bucket: i16,
    pub subject: String,
    pub part: String,
    pub count: i64,
    pub total: i64,
}

impl SumRecord {
    /// What was counted; `None` for a measure of a newer version.
    pub fn counted(self) -> Option<(Series, Count)> {
        let measure = Measure::parse(&self.measure)?;
        let bucket = u8::try_from(self.bucket).ok()?;
        let count = Count { count: self.count.unsigned_abs(), total: self.total.unsigned_abs() };
        Some((Series { measure, bucket, subject: self.subject, part: self.part }, count))
    }
}

/// A sum of one piece of time.
#[derive(Debug, FromRow)]
pub struct PieceRecord {
    pub start: i64,
    #[sqlx(flatten)]
    pub sum: SumRecord,
}

impl PieceRecord {
    /// What was counted; `None` for a measure of a newer version.
    pub fn piece(self) -> Option<Piece> {
        let (series, count) = self.sum.counted()?;
        Some((Timestamp::from_micros(self.start), series, count))
    }
}

/// A length of time as it is stored; never 0, because one divides by it.
pub fn micros_of(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// A count as it is stored.
pub fn count_of(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A step's length as it is stored.
pub fn seconds_of(step: Step) -> i16 {
    i16::try_from(step.length().as_secs()).unwrap_or(i16::MAX)
}

/// The beginning of the step that holds this moment.
pub fn step_of(step: Step, at: Timestamp) -> Timestamp {
    let length = i64::try_from(step.length().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().div_euclid(length).saturating_mul(length))
}
