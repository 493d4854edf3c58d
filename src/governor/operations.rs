//! What operators do to everything that matches a filter: planned, started and cancelled alike from terminal, page and program.

use uuid::Uuid;

use super::operator::OperatorError;
use crate::clock::Timestamp;
use crate::job::control::Speaker;
use crate::job::operation::{Action, NewOperation, Operation, Selection};
use crate::policy::operation;
pub use crate::policy::operation::{Plan, interval};
use crate::store::{AuditEntry, Claim, LIST_MAX, OPERATIONS_RUNNING_MAX, Store, StoreResult};

/// Looks what `action` would do, of what `knows_lane` and `knows_endpoint` say is configured. Writes nothing.
///
/// # Errors
/// The store did not answer.
pub async fn plan(
    store: &dyn Store,
    action: Action,
    selection: Selection,
    knows_lane: impl Fn(&str) -> bool + Send,
    knows_endpoint: impl Fn(&str) -> bool + Send,
) -> StoreResult<Plan> {
    let groups = store.plan(action, &selection).await?;
    let mut plan = operation::plan(action, selection, &groups, knows_lane, knows_endpoint);
    if groups.len() >= LIST_MAX {
        let why = format!(
            "there are more than {LIST_MAX} kinds of them: only the largest are counted here, all are acted on"
        );
        plan.warnings.insert(0, why);
    }
    Ok(plan)
}

/// How an operation is to be carried out.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Its handle, made by the caller: starting it twice starts it once.
    pub id: Uuid,
    /// At most so many a second; `None` = as fast as it goes. Calls keep to their budgets in any case.
    pub per_second: Option<f64>,
    /// Who works on it from the start; `None` = whichever worker looks first.
    pub claim: Option<Claim>,
}

/// Starts what was planned; workers carry it out.
///
/// # Errors
/// The pace makes no sense, too many operations run already, or the store did not answer.
pub async fn start(
    store: &dyn Store,
    action: Action,
    plan: &Plan,
    manner: Manner,
    by: &Speaker,
    now: Timestamp,
) -> Result<NewOperation, OperatorError> {
    let interval = manner.per_second.map(interval).transpose().map_err(OperatorError::Wrong)?;
    let new = NewOperation {
        id: manner.id,
        action,
        selection: plan.selection.clone(),
        planned: plan.eligible,
        interval: interval.unwrap_or_default(),
        actor: by.author.clone(),
        source: by.source,
        note: by.note.clone(),
        started_at: now,
    };
    let target = format!("{}s of {}", action.thing(), new.selection.text());
    let after = format!("operation {} begins", new.id);
    let line = entry(by, action.as_str(), target, format!("{} planned", new.planned), after, now);
    if store.start_operation(&new, manner.claim, &line).await? {
        return Ok(new);
    }
    Err(OperatorError::Wrong(format!(
        "{OPERATIONS_RUNNING_MAX} operations run already: wait until one has ended, or cancel one (lanes ops list)"
    )))
}

/// Ends an operation before it is done: what was done stays done. False = it had ended already.
///
/// # Errors
/// The store did not answer.
pub async fn cancel(store: &dyn Store, operation: &Operation, by: &Speaker, now: Timestamp) -> StoreResult<bool> {
    let (begun, tally) = (&operation.begun, operation.tally);
    let before = format!("{} of {} looked at, {} done", tally.looked_at(), begun.planned, tally.done);
    let line = entry(by, "cancel_operation", format!("operation {}", begun.id), before, "cancelled".to_owned(), now);
    store.cancel_operation(begun.id, &line).await
}

fn entry(by: &Speaker, action: &str, target: String, before: String, after: String, now: Timestamp) -> AuditEntry {
    AuditEntry {
        at: now,
        actor: by.author.clone(),
        source: by.source,
        action: action.to_owned(),
        target,
        before,
        after,
        note: by.note.clone(),
    }
}
