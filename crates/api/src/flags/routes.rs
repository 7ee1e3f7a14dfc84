//! The flags on the admin listener: how each is and why, and for operators to set for the whole fleet, with a reason and
//! an end.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, put},
};
use garde::Validate;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    ByHand, Flags,
    keep::{Change, Set},
    list::Flag,
};
use crate::http::{
    ApiError, ApiResult, Body, Path,
    admin::{AdminState, Operator},
    error::FieldError,
    text::line,
};

pub fn routes() -> Router<AdminState> {
    Router::new()
        .route("/flags", get(list_flags))
        .route("/flags/{name}", put(set_flag).delete(unset_flag))
}

/// What is set by hand.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
struct NewOverride {
    #[garde(skip)]
    value: bool,
    /// For whoever finds it so: 1 to 500 characters.
    #[garde(length(chars, min = 1, max = 500), custom(line))]
    reason: String,
    /// Whom to ask: 1 to 100 characters. The token says that it is an operator, and not which.
    #[garde(length(chars, min = 1, max = 100), custom(line))]
    changed_by: String,
    /// For how long, such as `2h`.
    #[serde(with = "humantime_serde")]
    #[garde(skip)]
    ttl: Duration,
}

/// How one flag is.
#[derive(Serialize)]
struct FlagView {
    name: &'static str,
    value: bool,
    reason: &'static str,
    origin: &'static str,
    default: bool,
    owner: &'static str,
    switches: &'static str,
    expires: String,
    #[serde(rename = "override")]
    by_hand: Option<OverrideView>,
}

#[derive(Serialize)]
struct OverrideView {
    value: bool,
    reason: String,
    changed_by: String,
    #[serde(with = "time::serde::rfc3339")]
    changed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

impl FlagView {
    fn of(flags: &Flags, flag: Flag) -> Self {
        let (standing, declared) = (flags.standing(flag), flag.declared());
        let by_hand = |set: ByHand| OverrideView {
            value: set.value,
            reason: set.reason,
            changed_by: set.changed_by,
            changed_at: set.changed_at,
            expires_at: set.expires_at,
        };
        Self {
            name: declared.name,
            value: standing.is_on,
            reason: standing.reason.as_str(),
            origin: standing.origin.as_str(),
            default: declared.default,
            owner: declared.owner,
            switches: declared.switches,
            expires: declared.expires.to_string(),
            by_hand: flags.by_hand(flag).map(by_hand),
        }
    }
}

/// Every flag, as this process goes by it.
async fn list_flags(State(flags): State<Flags>) -> Json<Vec<FlagView>> {
    let views = Flag::ALL.map(|flag| FlagView::of(&flags, flag));
    Json(views.into())
}

/// Sets a flag for the whole fleet, in place of what was set before.
async fn set_flag(
    _: Operator,
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Body(new): Body<NewOverride>,
) -> ApiResult<Json<FlagView>> {
    let flags = &state.app.flags;
    let ttl_max = flags.config().override_max;
    if new.ttl.is_zero() || new.ttl > ttl_max {
        return Err(ApiError::unprocessable(vec![FieldError {
            field: "ttl".to_owned(),
            detail: format!("must be above 0 and at most {ttl_max:?}"),
        }]));
    }
    let set = Set {
        value: new.value,
        reason: new.reason,
        changed_by: new.changed_by,
        ttl: new.ttl,
    };
    change(&state, &name, Some(set)).await
}

/// Leaves a flag to the code, or whoever else decides it.
async fn unset_flag(
    _: Operator,
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> ApiResult<Json<FlagView>> {
    change(&state, &name, None).await
}

async fn change(state: &AdminState, name: &str, set: Option<Set>) -> ApiResult<Json<FlagView>> {
    let flag = Flag::named(name).ok_or(ApiError::NotFound)?;
    let deadline = Instant::now() + state.app.http.write_deadline;
    let flags = &state.app.flags;
    let change = Change { flag, set };
    let made = flags.order(change.clone(), deadline).await;
    let set = change.set.as_ref();
    tracing::info!(
        target: "audit",
        event = "flag_change",
        flag = name,
        made = made.is_ok(),
        value = set.map(|set| set.value),
        reason = set.map(|set| &*set.reason),
        changed_by = set.map(|set| &*set.changed_by),
        ttl_s = set.map(|set| set.ttl.as_secs()),
    );
    made?;
    Ok(Json(FlagView::of(flags, flag)))
}
