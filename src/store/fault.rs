//! What can go wrong inside a store and how the caller is told; numbers and texts as they may be stored.

use std::fmt::Display;

use super::StoreError;
use crate::clock::{self, TimedOut};
use crate::db;
use crate::job::NameError;

/// Longest text of a journal entry or a letter's detail, in bytes.
const DETAIL_BYTES_MAX: usize = 4 * 1024;

/// What can go wrong inside a store, before it is told to the caller.
#[derive(Debug)]
pub enum Fault {
    /// The database said no, or nothing.
    Sql(sqlx::Error),
    /// A row holds something that this program never writes.
    Unreadable(String),
    /// An entry that can never be stored beside what is there.
    Rejected(String),
    /// Others changed the same keys again and again; sending the call again is safe.
    Contended,
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<NameError> for Fault {
    fn from(error: NameError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(format!("JSON: {error}"))
    }
}

/// Short form of an answer inside a store.
pub type Answer<T> = Result<T, Fault>;

/// Bounds a call in time and tells its fault as the seam does.
///
/// # Errors
/// [`StoreError`] as the fault is.
pub async fn bounded<T>(
    address: &str,
    what: &'static str,
    call: impl Future<Output = Answer<T>> + Send,
) -> Result<T, StoreError> {
    let unavailable = |why: String| StoreError::Unavailable { address: address.to_owned(), why };
    let rejected = |why: String| StoreError::Rejected { address: address.to_owned(), why };
    match clock::within(db::STATEMENT_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Fault::Contended)) => Err(unavailable(format!("{what}: others changed the same keys at the same time"))),
        Ok(Err(Fault::Unreadable(why))) => {
            Err(StoreError::Failed { address: address.to_owned(), why: format!("{what}: a row can't be read: {why}") })
        }
        Ok(Err(Fault::Sql(error))) if db::may_pass(&error) => Err(unavailable(format!("{what}: {error}"))),
        Ok(Err(Fault::Rejected(why))) => Err(rejected(format!("{what}: {why}"))),
        Ok(Err(Fault::Sql(error))) if db::refuses_data(&error) => Err(rejected(format!("{what}: {error}"))),
        Ok(Err(Fault::Sql(error))) => {
            Err(StoreError::Failed { address: address.to_owned(), why: format!("{what}: {}", db::explain(&error)) })
        }
        Err(TimedOut(limit)) => Err(unavailable(format!("{what}: no answer within {limit:?}"))),
    }
}

/// A stored count or number as the seam's unsigned type.
pub fn unsigned(number: impl TryInto<u32> + Display + Copy) -> Answer<u32> {
    number.try_into().map_err(|_| Fault::Unreadable(format!("{number} is no count")))
}

/// A count as the databases store it. Counts of attempts stay far below the bound.
pub fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A length as the databases store it.
pub fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A chunk's size as the databases take it.
pub fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Free text that came from outside, as it may be stored: bounded, without NUL (PostgreSQL refuses it).
pub fn free_text(text: &str) -> String {
    let end = text.floor_char_boundary(DETAIL_BYTES_MAX.min(text.len()));
    text[..end].replace('\0', "\u{fffd}")
}
