//! What a store keeps of what people were told of incidents.

use std::fmt;

use async_trait::async_trait;

use super::StoreResult;
use crate::clock::Timestamp;

/// What people were told of incidents, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticesRow {
    /// Higher with each write.
    pub version: i64,
    /// What.
    pub state: String,
}

/// What people were told of incidents, opaque here, in one row: a write names the version it was made from, so that of all
/// workers one tells.
#[async_trait]
pub trait NoticeStore: Send + Sync + fmt::Debug {
    /// What is known; `None` when nobody was told anything yet.
    async fn notices(&self) -> StoreResult<Option<NoticesRow>>;

    /// Writes what is known over the version `seen` (0 = there was none), as one higher; false = somebody else has written
    /// meanwhile. When the answer was lost, read again.
    async fn put_notices(&self, seen: i64, state: &str, now: Timestamp) -> StoreResult<bool>;
}
