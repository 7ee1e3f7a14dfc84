//! Who is asking: the session cookie, the extractors [`Session`] and [`Staff`], and the check that a write that carries
//! the cookie was made by our own pages. A program may send the cookie's value as `Authorization: Bearer …` instead, which no
//! browser adds by itself, so that there is nothing to check.

use std::{str::FromStr, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use data::sessions::{SessionId, Sessions};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ApiError, ApiResult, Config, consistency::Seen, cookie::Cookie, extract::deadline_of,
    limits::Ticket,
};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    /// Buys.
    Customer,
    /// Keeps the catalogue as well.
    Staff,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Staff => "staff",
        }
    }
}

impl FromStr for Role {
    type Err = ApiError;

    fn from_str(role: &str) -> Result<Self, ApiError> {
        match role {
            "customer" => Ok(Self::Customer),
            "staff" => Ok(Self::Staff),
            _ => Err(ApiError::internal("a session has an unknown role")),
        }
    }
}

/// The caller's session. A handler that takes it answers 401 to everyone without one.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub user_id: Uuid,
    pub role: Role,
}

impl<S> FromRequestParts<S> for Session
where
    S: Send + Sync,
    Sessions: FromRef<S>,
    SessionCookie: FromRef<S>,
    Arc<Config>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let presented = PresentedSession::from_request_parts(parts, state).await?;
        let id = presented.0.ok_or(ApiError::Unauthenticated)?;
        let ticket = parts.extensions.get::<Ticket>();
        let session = Sessions::from_ref(state)
            .find(&id, ticket.map(Ticket::quota), deadline_of(parts))
            .await?;
        let session = session.ok_or(ApiError::Unauthenticated)?;
        if let (Some(ticket), Some(taken)) = (ticket, &session.taken) {
            ticket.settle(taken)?;
        }
        if let Some(seen) = parts.extensions.get::<Seen>() {
            seen.join(&id, &session);
        }
        Ok(Self {
            id,
            user_id: session.user_id,
            role: session.role.parse()?,
        })
    }
}

/// A session of staff. A handler that takes it answers 403 to customers.
#[derive(Debug)]
pub struct Staff(pub Session);

impl<S> FromRequestParts<S> for Staff
where
    S: Send + Sync,
    Session: FromRequestParts<S, Rejection = ApiError>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let session = Session::from_request_parts(parts, state).await?;
        match session.role {
            Role::Staff => Ok(Self(session)),
            Role::Customer => {
                tracing::warn!(target: "audit", event = "access_denied", user.id = %session.user_id, needed = "staff");
                Err(ApiError::Forbidden("only staff may do this"))
            }
        }
    }
}

/// The session id a client sent, which may be of a session long over.
pub struct PresentedSession(pub Option<SessionId>);

impl<S> FromRequestParts<S> for PresentedSession
where
    S: Send + Sync,
    SessionCookie: FromRef<S>,
    Arc<Config>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        if let Some(id) = bearer(&parts.headers) {
            return Ok(Self(Some(id)));
        }
        let id = SessionCookie::from_ref(state).read(&parts.headers);
        if id.is_some()
            && !parts.method.is_safe()
            && !is_our_own(&parts.headers, &Arc::<Config>::from_ref(state))
        {
            tracing::warn!(target: "audit", event = "cross_site_request_refused");
            return Err(ApiError::Forbidden(
                "a write with a session cookie must say that it is not cross-site: send Sec-Fetch-Site or Origin",
            ));
        }
        Ok(Self(id))
    }
}

/// Whether a browser says that our own page, or the user by hand, made this request; otherwise its origin must be ours or one
/// of the allowed. Browsers add both headers by themselves, and a page cannot change them.
pub(crate) fn is_our_own(headers: &HeaderMap, config: &Config) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let site = text("sec-fetch-site");
    if matches!(site, Some("same-origin" | "none")) {
        return true;
    }
    let Some(origin) = text("origin") else {
        return false;
    };
    if config
        .allowed_origins
        .iter()
        .any(|allowed| allowed == origin)
    {
        return true;
    }
    // A browser that does not send Sec-Fetch-Site; one that does has said above that the origin is another.
    let host = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    site.is_none() && host.is_some() && host == text("host")
}

/// A bearer token that has the form of a session id. One that has not is somebody else's, such as a gateway's.
fn bearer(headers: &HeaderMap) -> Option<SessionId> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = scheme.eq_ignore_ascii_case("bearer").then_some(token)?;
    SessionId::parse(token.trim())
}

/// The cookie that carries the session id.
#[derive(Clone, Copy, Debug)]
pub struct SessionCookie(Cookie);

impl SessionCookie {
    pub fn new(secure: bool) -> Self {
        Self(Cookie::new("sid", secure))
    }

    /// Hands the id to the client. It ends with the browser, or earlier with the session.
    pub fn set(self, id: &SessionId) -> HeaderValue {
        self.0.set(id.expose(), "")
    }

    /// Takes it back.
    pub fn clear(self) -> HeaderValue {
        self.0.set("", "; Max-Age=0")
    }

    /// The id that a client sent, in whichever way.
    pub fn presented(self, headers: &HeaderMap) -> Option<SessionId> {
        bearer(headers).or_else(|| self.read(headers))
    }

    /// The id in the cookie, if it has the form of one.
    pub fn read(self, headers: &HeaderMap) -> Option<SessionId> {
        SessionId::parse(self.0.read(headers)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(pairs: &[(&'static str, &'static str)]) -> bool {
        let headers = pairs.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let config = Config {
            allowed_origins: vec!["https://shop.example".to_owned()],
            ..Config::default()
        };
        is_our_own(&headers.collect(), &config)
    }

    #[test]
    fn our_own_pages_and_allowed_origins_may_write() {
        assert!(ours(&[("sec-fetch-site", "same-origin")]));
        assert!(ours(&[("sec-fetch-site", "none")]));
        assert!(ours(&[
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://shop.example")
        ]));
        assert!(ours(&[
            ("host", "api.example:8080"),
            ("origin", "http://api.example:8080")
        ]));
    }

    #[test]
    fn everyone_else_may_not() {
        assert!(!ours(&[]));
        assert!(!ours(&[("sec-fetch-site", "same-site")]));
        assert!(!ours(&[
            ("sec-fetch-site", "cross-site"),
            ("host", "a"),
            ("origin", "https://a")
        ]));
        assert!(!ours(&[
            ("host", "api.example"),
            ("origin", "https://evil.example")
        ]));
        assert!(!ours(&[("origin", "null")]));
        assert!(!ours(&[("origin", "https://shop.example.evil.example")]));
    }

    #[test]
    fn a_bearer_token_is_a_session_only_in_the_form_of_one() {
        let id = format!("{}A", "k".repeat(42));
        let sent = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            bearer(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };

        let read = sent(&format!("bearer {id}")).map(|id| id.expose());

        assert_eq!(read, Some(id.clone()));
        for other in [
            "Bearer eyJhbGciOi.eyJzdWIi.c2ln",
            &format!("Basic {id}"),
            &id,
            "",
        ] {
            assert!(sent(other).is_none(), "{other}");
        }
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_other_hosts_and_plain_http() {
        let cleared = SessionCookie::new(true).clear();

        assert_eq!(
            cleared,
            "__Host-sid=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
        );
        assert!(cleared.is_sensitive());
    }
}
