//! Users and their sessions: register, sign in, who am I, sign out here, sign out everywhere.
//!
//! Signing in and out is written to the log under the target `audit`, with the user's id and never with what was typed.

mod hasher;
mod model;
mod passwords;
mod store;
mod throttle;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod throttle_http_tests;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use data::sessions::Sessions;
use garde::Validate;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use passwords::Passwords;
pub use throttle::Throttle;

use self::{
    model::{Credentials, NewUser, User},
    passwords::Verdict,
};
use crate::{
    http::{
        ApiError, ApiResult, Body, Db,
        client_address::ClientAddress,
        session::{PresentedSession, Session, SessionCookie},
    },
    state::AppState,
};

/// Sessions, their cookie and the hashing of passwords: `sessions.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the cookie is `__Host-sid` and travels over https only. False only where the service is reached by plain http.
    #[garde(skip)]
    pub cookie_secure: bool,
    /// How long sessions live, and how many a user may have.
    #[garde(dive)]
    pub store: data::sessions::Config,
    /// What a password's hash costs.
    #[garde(dive)]
    pub passwords: passwords::Config,
    /// How often one may guess.
    #[garde(dive)]
    pub throttle: throttle::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cookie_secure: true,
            store: data::sessions::Config::default(),
            passwords: passwords::Config::default(),
            throttle: throttle::Config::default(),
        }
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create_user))
        .routes(routes!(create_session, get_session, delete_session))
        .routes(routes!(delete_sessions))
}

/// Registers a customer.
#[utoipa::path(post, path = "/users", tag = "sessions", extensions(("x-criticality" = json!("critical"))),
    request_body = NewUser,
    responses((status = 201, body = User), (status = 409), (status = 422), (status = 503)))]
async fn create_user(
    State(passwords): State<Passwords>,
    db: Db,
    Body(new): Body<NewUser>,
) -> ApiResult<(StatusCode, Body<User>)> {
    let hash = passwords.hash(new.password, db.deadline()).await?;
    let user = store::insert(&db.write(), &new.email, &hash)
        .await
        .map_err(email_taken)?;

    tracing::info!(target: "audit", event = "user_registered", user.id = %user.id);
    Ok((StatusCode::CREATED, Body(user)))
}

/// Signs in: answers with the user and a new session's cookie. A session that the client still had is over.
#[utoipa::path(post, path = "/session", tag = "sessions", extensions(("x-criticality" = json!("critical"))),
    request_body = Credentials,
    responses((status = 201, body = User), (status = 401), (status = 422), (status = 429), (status = 503)))]
async fn create_session(
    State(state): State<AppState>,
    presented: PresentedSession,
    client: ClientAddress,
    db: Db,
    Body(credentials): Body<Credentials>,
) -> ApiResult<Response> {
    let begun = state
        .throttle
        .begin(&credentials.email, client, db.deadline());
    let attempt = begun.await?;
    let user = authenticate(&state.passwords, &db, credentials).await?;

    // Sent together, so that the second costs no round trip.
    let create = state
        .sessions
        .create(user.id, user.role.as_str(), db.deadline());
    let (id, ()) = tokio::join!(create, attempt.was_right());
    let id = id?;
    if let Some(old) = presented.0 {
        state.sessions.remove(&old, db.deadline()).await?;
    }
    tracing::info!(target: "audit", event = "login_succeeded", user.id = %user.id);
    Ok((
        StatusCode::CREATED,
        private(state.session_cookie.set(&id)),
        Body(user),
    )
        .into_response())
}

/// Says who is signed in.
#[utoipa::path(get, path = "/session", tag = "sessions", extensions(("x-criticality" = json!("critical"))),
    responses((status = 200, body = User), (status = 401), (status = 503)))]
async fn get_session(session: Session, db: Db) -> ApiResult<Body<User>> {
    let mut user = store::find(&db.read(), session.user_id).await?;
    if user.is_none() {
        // A replica that is behind does not know who has just registered.
        user = store::find(&db.write().reader(), session.user_id).await?;
    }
    user.map(Body).ok_or(ApiError::Unauthenticated)
}

/// Signs out.
#[utoipa::path(delete, path = "/session", tag = "sessions", extensions(("x-criticality" = json!("critical"))),
    responses((status = 204), (status = 401), (status = 403), (status = 503)))]
async fn delete_session(
    session: Session,
    State(sessions): State<Sessions>,
    State(cookie): State<SessionCookie>,
    db: Db,
) -> ApiResult<Response> {
    sessions.remove(&session.id, db.deadline()).await?;

    tracing::info!(target: "audit", event = "logout", user.id = %session.user_id);
    Ok((StatusCode::NO_CONTENT, private(cookie.clear())).into_response())
}

/// Signs out everywhere: ends every session of the user.
#[utoipa::path(delete, path = "/sessions", tag = "sessions", extensions(("x-criticality" = json!("critical"))),
    responses((status = 204), (status = 401), (status = 403), (status = 503)))]
async fn delete_sessions(
    session: Session,
    State(sessions): State<Sessions>,
    State(cookie): State<SessionCookie>,
    db: Db,
) -> ApiResult<Response> {
    let ended = sessions.remove_all(session.user_id, db.deadline()).await?;

    tracing::info!(target: "audit", event = "logout_everywhere", user.id = %session.user_id, sessions = ended);
    Ok((StatusCode::NO_CONTENT, private(cookie.clear())).into_response())
}

/// The user, if the password is right. An unknown email and a wrong password take the same time and get the same answer.
async fn authenticate(passwords: &Passwords, db: &Db, credentials: Credentials) -> ApiResult<User> {
    let account = store::find_account(&db.write().reader(), &credentials.email).await?;
    let stored = account
        .as_ref()
        .map(|account| account.password_hash.clone());
    let verdict = passwords
        .verify(credentials.password, stored, db.deadline())
        .await?;

    match (account, verdict) {
        (Some(account), Verdict::Right { stronger }) => {
            if let Some(new) = stronger {
                store::update_password_hash(
                    &db.write(),
                    account.user.id,
                    &account.password_hash,
                    &new,
                )
                .await?;
            }
            Ok(account.user)
        }
        (account, _) => {
            let user_id = account.map(|account| account.user.id.to_string());
            tracing::warn!(target: "audit", event = "login_failed", user.id = user_id);
            let detail = "the email or the password is wrong";
            Err(ApiError::invalid(
                StatusCode::UNAUTHORIZED,
                "wrong_credentials",
                detail,
            ))
        }
    }
}

/// What hands out or takes back a cookie is nobody else's to keep.
fn private(cookie: HeaderValue) -> [(HeaderName, HeaderValue); 2] {
    [
        (header::SET_COOKIE, cookie),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}

fn email_taken(error: data::Error) -> ApiError {
    match error.constraint() {
        Some("users_email_key") => {
            ApiError::conflict("email_taken", "there is an account with this email")
        }
        _ => error.into(),
    }
}
