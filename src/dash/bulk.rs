//! What people do to everything that matches a filter: planned first, started, and ended before it is done.

use axum::Extension;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use uuid::Uuid;

use super::access::{Role, User};
use super::acts::{Refused, handle, speaker};
use super::forms::{Fields, named};
use super::place::link;
use super::{Dash, Shared, Unreadable, pages};
use crate::clock::Timestamp;
use crate::governor::operations::{self, Manner, Plan};
use crate::governor::operator::OperatorError;
use crate::job::control::{Source, Speaker};
use crate::job::operation::{Action, NewOperation, Operation, Selection};
use crate::job::{EndpointName, LaneName, Tenant};
use crate::observe::words::parse_pace;

/// What somebody wants done to which.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub action: Action,
    pub lane: Option<LaneName>,
    pub endpoint: Option<EndpointName>,
    pub tenant: Option<Tenant>,
    pub reason: Option<String>,
    /// As of when: what came later than the plan is not part of it.
    pub until: Option<Timestamp>,
    /// The handle of what is begun: asking twice begins it once.
    pub id: Option<Uuid>,
}

impl Wish {
    /// As a form or a query has it. Cancelling takes a condition: everything that waits is nobody's wish.
    pub fn read(fields: &Fields) -> Result<Self, Refused> {
        let action = Action::parse(fields.get("action"));
        let action = action.ok_or_else(|| Refused::wrong("action is one of retry, discard, cancel"))?;
        let reason = Some(fields.get("reason").to_owned()).filter(|reason| !reason.is_empty());
        let wish = Self {
            action,
            lane: named(fields.get("lane"), LaneName::new)?,
            endpoint: named(fields.get("endpoint"), EndpointName::new)?,
            tenant: named(fields.get("tenant"), Tenant::new)?,
            reason,
            until: number(fields.get("until"))?.map(Timestamp::from_micros),
            id: Some(fields.get("id")).filter(|id| !id.is_empty()).map(handle).transpose()?,
        };
        wish.check()
    }

    /// The same, or why not.
    pub fn check(self) -> Result<Self, Refused> {
        let is_bounded = self.lane.is_some() || self.endpoint.is_some() || self.tenant.is_some();
        if self.action == Action::Cancel && !is_bounded {
            return Err(Refused::wrong("say of which lane, endpoint or tenant the waiting jobs are to be cancelled"));
        }
        Ok(self)
    }

    /// As fields of a form.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let text = |value: Option<String>| value.unwrap_or_default();
        let all = [
            ("action", self.action.as_str().to_owned()),
            ("lane", text(self.lane.as_ref().map(ToString::to_string))),
            ("endpoint", text(self.endpoint.as_ref().map(ToString::to_string))),
            ("tenant", text(self.tenant.as_ref().map(ToString::to_string))),
            ("reason", text(self.reason.clone())),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    fn selection(&self, now: Timestamp) -> Selection {
        let until = self.until.unwrap_or(now).min(now);
        let Self { lane, endpoint, tenant, reason, .. } = self.clone();
        Selection { lane, endpoint, tenant, reason, ..Selection::all(until) }
    }
}

/// The least role that may do it.
pub(super) const fn least(action: Action) -> Role {
    match action {
        Action::Retry | Action::Cancel => Role::Operator,
        Action::Discard => Role::Admin,
    }
}

impl Dash {
    /// What would be done now. Writes nothing.
    pub async fn plan(&self, wish: &Wish) -> Result<Plan, Refused> {
        let scope = self.source.scope();
        let lanes: Vec<String> = scope.lanes.iter().map(ToString::to_string).collect();
        let endpoints: Vec<String> = scope.budgets.endpoints.keys().map(ToString::to_string).collect();
        let known = |all: Vec<String>| move |name: &str| all.iter().any(|one| one == name);
        let planned = self
            .read(async |store| {
                let selection = wish.selection(store.time().await?);
                operations::plan(&*store, wish.action, selection, known(lanes), known(endpoints)).await
            })
            .await?;
        Ok(planned)
    }

    /// Starts it, for somebody who may.
    pub async fn start(
        &self,
        wish: &Wish,
        per_second: Option<f64>,
        user: &User,
        by: &Speaker,
    ) -> Result<(Plan, NewOperation), Refused> {
        let least = least(wish.action);
        if user.role < least {
            let why = format!("to {} takes the role {}", wish.action.as_str(), least.as_str());
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                why,
                "Roles are given in the configuration, in [http.auth].",
            ));
        }
        let plan = self.plan(wish).await?;
        if plan.eligible == 0 {
            return Err(Refused::unknown(
                format!("there is nothing to {}", wish.action.as_str()),
                "The plan tells what matches, and what is left alone.",
            ));
        }
        let store = self.source.store().await.map_err(Unreadable)?;
        let now = store.time().await.map_err(OperatorError::from)?;
        let manner = Manner { id: wish.id.unwrap_or_else(Uuid::new_v4), per_second, claim: None };
        let new = operations::start(&*store, wish.action, &plan, manner, by, now).await?;
        tracing::info!(actor = %by.author, source = by.source.as_str(), id = %new.id, "an operation begins");
        Ok((plan, new))
    }

    /// Ends one before it is done.
    pub async fn end_operation(&self, id: Uuid, user: &User, by: &Speaker) -> Result<Operation, Refused> {
        let store = self.source.store().await.map_err(Unreadable)?;
        let found = store.operation(id).await.map_err(OperatorError::from)?;
        let unknown =
            || Refused::unknown(format!("no operation has the handle {id}"), "The list shows those that there are.");
        let operation = found.ok_or_else(unknown)?;
        if user.role < least(operation.begun.action) {
            let help = "Roles are given in the configuration, in [http.auth].";
            return Err(Refused::new(StatusCode::FORBIDDEN, "you may not begin it, so you may not end it", help));
        }
        let now = store.time().await.map_err(OperatorError::from)?;
        if !operations::cancel(&*store, &operation, by, now).await.map_err(OperatorError::from)? {
            let why = format!("it had ended already: {}", operation.phase.as_str());
            return Err(Refused::new(StatusCode::CONFLICT, why, "Nothing was changed."));
        }
        let after = store.operation(id).await.map_err(OperatorError::from)?;
        Ok(after.unwrap_or(operation))
    }
}

/// A number of a form; empty = none.
fn number(text: &str) -> Result<Option<i64>, Refused> {
    let given = Some(text).filter(|text| !text.is_empty());
    given.map(|text| text.parse().map_err(|_| Refused::wrong("until is a number of microseconds"))).transpose()
}

/// The pace of a form; empty = as fast as it goes.
pub(super) fn pace(text: &str) -> Result<Option<f64>, Refused> {
    Some(text).filter(|text| !text.is_empty()).map(parse_pace).transpose().map_err(Refused::wrong)
}

/// `POST /ops`
pub(super) async fn start(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    fields: Fields,
) -> Response {
    let by = speaker(&user, Source::Page, fields.get("note"));
    let wish = Wish::read(&fields).and_then(|wish| Ok((wish, pace(fields.get("pace"))?)));
    let begun = match wish {
        Ok((wish, per_second)) => dash.start(&wish, per_second, &user, &by).await,
        Err(wrong) => Err(wrong),
    };
    match begun {
        Ok((_, new)) => Redirect::to(&link(format!("/ops/{}?done=begun", new.id))).into_response(),
        Err(refused) => pages::refused(&refused),
    }
}

/// `POST /ops/{operation}/cancel`
pub(super) async fn cancel(
    Extract(dash): Extract<Shared>,
    Extension(user): Extension<User>,
    Path(operation): Path<String>,
    fields: Fields,
) -> Response {
    let by = speaker(&user, Source::Page, fields.get("note"));
    let ended = match handle(&operation) {
        Ok(id) => dash.end_operation(id, &user, &by).await,
        Err(wrong) => Err(wrong),
    };
    match ended {
        Ok(operation) => Redirect::to(&link(format!("/ops/{}?done=ended", operation.begun.id))).into_response(),
        Err(refused) => pages::refused(&refused),
    }
}
