//! How rows of either database become what operators said, and lines of the audit log.

use sqlx::FromRow;

use crate::clock::Timestamp;
use crate::job::control::{Concurrency, Pause, Source, Target};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::store::fault::{Answer, Fault};
use crate::store::{AuditEntry, AuditRow, ConcurrencyRow, ControlRow};

/// A pause.
#[derive(Debug, FromRow)]
pub struct ControlRecord {
    pub version: i64,
    pub set_at: i64,
    pub paused_until: Option<i64>,
    pub lane: String,
    pub endpoint: String,
    pub tenant: String,
    pub author: String,
    pub note: String,
}

impl ControlRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn row(self) -> Answer<ControlRow> {
        let lane = (!self.lane.is_empty()).then(|| LaneName::new(&self.lane)).transpose()?;
        let endpoint = (!self.endpoint.is_empty()).then(|| EndpointName::new(&self.endpoint)).transpose()?;
        let tenant = (!self.tenant.is_empty()).then(|| Tenant::new(&self.tenant)).transpose()?;
        let target = Target::of_parts(lane, endpoint, tenant);
        Ok(ControlRow {
            target: target.ok_or_else(|| Fault::Unreadable("a control of nothing".to_owned()))?,
            version: self.version,
            pause: Pause {
                until: self.paused_until.map(Timestamp::from_micros),
                author: self.author,
                note: self.note,
                set_at: Timestamp::from_micros(self.set_at),
            },
        })
    }
}

/// How many calls a lane makes at a time.
#[derive(Debug, FromRow)]
pub struct ConcurrencyRecord {
    pub version: i64,
    pub set_at: i64,
    pub ends_at: Option<i64>,
    pub calls: i64,
    pub lane: String,
    pub author: String,
    pub note: String,
}

impl ConcurrencyRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn row(self) -> Answer<ConcurrencyRow> {
        let calls = u32::try_from(self.calls);
        Ok(ConcurrencyRow {
            lane: LaneName::new(&self.lane)?,
            version: self.version,
            concurrency: Concurrency {
                calls: calls.map_err(|_| Fault::Unreadable(format!("{} calls at a time", self.calls)))?,
                until: self.ends_at.map(Timestamp::from_micros),
                author: self.author,
                note: self.note,
                set_at: Timestamp::from_micros(self.set_at),
            },
        })
    }
}

/// The parts of a target as they are stored: lane, endpoint, tenant. No name is empty.
pub fn target_texts(target: &Target) -> [&str; 3] {
    let (lane, endpoint, tenant) = target.parts();
    [lane.map_or("", LaneName::as_str), endpoint.map_or("", EndpointName::as_str), tenant.map_or("", Tenant::as_str)]
}

/// A line of the audit log.
#[derive(Debug, FromRow)]
pub struct AuditRecord {
    pub id: i64,
    pub at: i64,
    pub actor: String,
    pub source: String,
    pub action: String,
    pub target: String,
    pub value_before: String,
    pub value_after: String,
    pub note: String,
}

impl AuditRecord {
    /// As the seam tells it.
    ///
    /// # Errors
    /// [`Fault::Unreadable`] when the row was not written by this program.
    pub fn row(self) -> Answer<AuditRow> {
        let source = Source::parse(&self.source);
        Ok(AuditRow {
            id: self.id,
            entry: AuditEntry {
                at: Timestamp::from_micros(self.at),
                actor: self.actor,
                source: source.ok_or_else(|| Fault::Unreadable(format!("source {:?}", self.source)))?,
                action: self.action,
                target: self.target,
                before: self.value_before,
                after: self.value_after,
                note: self.note,
            },
        })
    }
}
