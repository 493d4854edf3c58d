//! May an owned job be called now? If not: wait until when, or end why.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::job::JobMeta;
use crate::job::verdict::{DeadReason, WaitReason};

/// When a job is a suspect, and whether one is being called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Takeovers that make a dead letter of a job.
    pub poison_after: u32,
    /// A suspect is being called.
    pub is_running: bool,
}

impl Suspicion {
    /// Whether the next death would quarantine a job with so many takeovers.
    pub fn falls_on(self, takeovers: u32) -> bool {
        takeovers > 0 && takeovers + 1 >= self.poison_after
    }
}

/// How long a suspect waits while another one runs.
const SUSPECT_WAIT: Duration = Duration::from_secs(1);

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Call it.
    Go,
    /// Park it; no attempt is spent.
    Wait {
        /// Why.
        reason: WaitReason,
        /// Until when.
        until: Timestamp,
    },
    /// It ends without this call.
    Dead {
        /// Why.
        reason: DeadReason,
        /// For a person.
        detail: String,
    },
}

/// Decides about a job whose claim counted it as `attempt` of at most `max_attempts`.
///
/// A job that was running when workers died may be what killed them. One that the next death would quarantine is a
/// suspect, and suspects run one at a time: then only the poisonous one can reach `poison_after`, and no neighbour that
/// was near it by chance. The others go on side by side, so that one crash does not serialize a whole lane.
pub fn admit(
    meta: &JobMeta,
    attempt: u32,
    max_attempts: u32,
    takeovers: u32,
    suspicion: Suspicion,
    now: Timestamp,
) -> Admission {
    if let Some(at) = meta.expires_at.filter(|at| *at <= now) {
        return Admission::Dead { reason: DeadReason::Expired, detail: format!("its time to live ended at {at}") };
    }
    if attempt > max_attempts {
        let detail = format!("all {max_attempts} attempts were begun; {takeovers} of its workers died");
        return Admission::Dead { reason: DeadReason::Exhausted, detail };
    }
    if let Some(until) = meta.not_before.filter(|at| *at > now) {
        return Admission::Wait { reason: WaitReason::NotBefore, until };
    }
    if suspicion.falls_on(takeovers) && suspicion.is_running {
        return Admission::Wait { reason: WaitReason::Suspect, until: now.plus(SUSPECT_WAIT) };
    }
    Admission::Go
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn check(meta: &JobMeta, attempt: u32, takeovers: u32, suspect_is_running: bool, expect: &str) {
        let suspicion = Suspicion { poison_after: 3, is_running: suspect_is_running };
        let answer = format!("{:?}", admit(meta, attempt, 3, takeovers, suspicion, NOW));
        assert!(answer.contains(expect), "{answer} lacks {expect}");
    }

    #[test]
    fn table() {
        let plain = JobMeta::default();
        let later = JobMeta { not_before: Some(Timestamp::from_secs(1_001)), ..JobMeta::default() };
        let passed = JobMeta { not_before: Some(NOW), ..JobMeta::default() };
        let expired = JobMeta { expires_at: Some(NOW), ..later.clone() };
        let fleeting = JobMeta { expires_at: Some(Timestamp::from_secs(1_001)), ..JobMeta::default() };
        check(&plain, 3, 0, true, "Go");
        check(&plain, 4, 1, false, "Exhausted");
        check(&later, 1, 0, false, "NotBefore");
        check(&passed, 1, 0, false, "Go");
        check(&expired, 1, 0, false, "Expired");
        check(&fleeting, 1, 0, false, "Go");
        check(&plain, 1, 1, true, "Go");
        check(&plain, 1, 2, true, "Suspect");
        check(&plain, 1, 2, false, "Go");
    }
}
