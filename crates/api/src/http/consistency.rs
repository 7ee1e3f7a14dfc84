//! Read-your-writes across requests: a response after a write carries a token, and a request that brings it back sees that
//! write, whichever process and replica it reaches. Clients that keep cookies need to do nothing.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use axum::response::Response;
use data::{
    postgres::{Consistency, Tokens},
    sessions::{SessionId, Sessions},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;

use super::cookie::Cookie;

/// Carries a token in and out.
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// Signs and checks the tokens of responses and requests.
#[derive(Clone)]
pub struct Tokenizer {
    tokens: Tokens,
    sessions: Sessions,
    cookie: Cookie,
}

/// What a request has to see, and whose session is to remember what it wrote. In the request's extensions.
#[derive(Clone, Default)]
pub struct Seen {
    pub consistency: Consistency,
    session: Arc<OnceLock<SessionId>>,
}

impl Seen {
    /// From now on the session takes part: what it has seen, and what it will.
    pub fn join(&self, id: &SessionId, session: &data::sessions::Session) {
        self.consistency.require(&session.seen);
        // A second one can only be the same: a request carries one session.
        let _ = self.session.set(id.clone());
    }
}

impl Tokenizer {
    pub fn new(tokens: Tokens, sessions: Sessions, cookie_secure: bool) -> Self {
        Self {
            tokens,
            sessions,
            cookie: Cookie::new("consistency", cookie_secure),
        }
    }

    /// What the client says that it has seen. A token that is not ours or has ended counts for nothing.
    pub fn read(&self, headers: &HeaderMap) -> Seen {
        let seen = Seen::default();
        let header = headers
            .get(&CONSISTENCY_TOKEN)
            .and_then(|value| value.to_str().ok());
        for token in [header, self.cookie.read(headers)].into_iter().flatten() {
            if let Some(positions) = self.tokens.verify(token, SystemTime::now()) {
                seen.consistency.require(&positions);
            }
        }
        seen
    }

    /// Hands on what the request wrote, or saw on the primary: to the client, and to its session, which other devices may share.
    pub async fn hand_on(&self, seen: &Seen, response: &mut Response, deadline: Instant) {
        let Some(positions) = seen.consistency.to_hand_on() else {
            return;
        };
        let token = self.tokens.sign(&positions, SystemTime::now());
        let ttl = self.tokens.ttl();
        let cookie = self
            .cookie
            .set(&token, format_args!("; Max-Age={}", ttl.as_secs()));
        let headers = response.headers_mut();
        headers.append(header::SET_COOKIE, cookie);
        headers.insert(
            CONSISTENCY_TOKEN,
            HeaderValue::try_from(token).expect("a token is base64url"),
        );
        if let Some(id) = seen.session.get()
            && let Err(error) = self.sessions.remember(id, &positions, ttl, deadline).await
        {
            // The client has the token all the same.
            tracing::debug!(%error, "the session could not remember what it wrote");
        }
    }
}
