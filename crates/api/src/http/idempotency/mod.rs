//! `Idempotency-Key`: a request that is sent again gets the answer it had, and has no second effect.
//!
//! A handler takes [`Keyed`] in the place of `Body` and does its work in [`Keyed::once`]; the transaction that has the effect
//! also finishes the claim, with the answer. An RPC makes one of the same words that the route has, so that a key is the same for both. A refusal that follows from the request is kept as well. What may be different next
//! time (a limit, a failed dependency, a deadline, a bug) is not, and the key is free again.

mod answer;
mod key;

#[cfg(test)]
mod http_tests;

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequest, MatchedPath, OriginalUri, Request},
    response::{IntoResponse, Response},
};
use data::{
    idempotency::{Answer, Claim, Claimed, Config, claim},
    postgres::Db,
};
use garde::Validate;
use http::{HeaderMap, HeaderValue, StatusCode, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ApiError, ApiResult, RequestId,
    extract::{self, Received},
};

pub use answer::{IDEMPOTENCY_EXPIRES, IDEMPOTENT_REPLAYED, json, problem};
pub use key::{IDEMPOTENCY_KEY, IdempotencyKey};

/// A validated JSON body that came with an `Idempotency-Key`.
pub struct Keyed<T> {
    body: T,
    key: String,
    operation: String,
    fingerprint: [u8; 32],
    request_id: RequestId,
    config: Arc<Config>,
}

impl<S, T> FromRequest<S> for Keyed<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
    Arc<super::Config>: FromRef<S>,
    Arc<Config>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let key = key::key_of(request.headers())?;
        let Received {
            parts,
            bytes,
            value,
        } = extract::receive(request, &Arc::<super::Config>::from_ref(state)).await?;
        Ok(Self {
            body: value,
            key,
            operation: operation(&parts),
            fingerprint: fingerprint(&parts, &bytes),
            request_id: parts.extensions.get().cloned().unwrap_or_default(),
            config: Arc::from_ref(state),
        })
    }
}

/// Method and route, as the document names it: by that, work that nobody waits for any more is found.
fn operation(parts: &Parts) -> String {
    let route = parts.extensions.get().map_or("", MatchedPath::as_str);
    format!("{} {route}", parts.method)
}

/// Of all that makes it the same request. A line ends the target, which holds none itself.
fn fingerprint(parts: &Parts, body: &[u8]) -> [u8; 32] {
    // The one in the parts lacks what the routers above the handler's have taken off.
    let whole = parts.extensions.get::<OriginalUri>();
    let target = whole.map_or(&parts.uri, |OriginalUri(uri)| uri);
    digest(&format!("{} {target}", parts.method), body)
}

fn digest(line: &str, body: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(line)
        .chain_update("\n")
        .chain_update(body)
        .finalize()
        .into()
}

impl<T: Serialize> Keyed<T> {
    /// What the route `operation`, such as `POST /v1/orders`, would have been asked in plain JSON.
    pub fn of_parts(
        parts: &Parts,
        operation: &str,
        body: T,
        config: Arc<Config>,
    ) -> ApiResult<Self> {
        let bytes = serde_json::to_vec(&body).map_err(ApiError::internal)?;
        Ok(Self {
            body,
            key: key::key_of(&parts.headers)?,
            operation: operation.to_owned(),
            fingerprint: digest(operation, &bytes),
            request_id: parts.extensions.get().cloned().unwrap_or_default(),
            config,
        })
    }
}

impl<T> Keyed<T> {
    /// Does `work` if the caller has not been answered under this key before; else gives that answer again. The work is given
    /// a claim, which may stand at a point from which it is to be resumed.
    pub async fn once(
        self,
        db: &Db,
        caller: Uuid,
        work: impl AsyncFnOnce(T, &Claim) -> ApiResult<Answer>,
    ) -> ApiResult<Outcome> {
        let request = data::idempotency::Request {
            operation: &self.operation,
            caller,
            key: &self.key,
            fingerprint: self.fingerprint,
        };
        match claim(db, &self.config, &request).await? {
            Claimed::Ours(claim) => {
                let answer = work(self.body, &claim).await;
                Ok(conclude(db, &claim, &self.request_id, answer).await)
            }
            Claimed::Answered(answer, expires_at) => Ok(Outcome {
                answer: Ok(answer),
                expires_at: Some(expires_at),
                is_replayed: true,
            }),
            Claimed::Running => Err(ApiError::in_use()),
            Claimed::OtherRequest => Err(ApiError::invalid(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key was used for another request: send a new one",
            )),
        }
    }
}

/// What became of a request with a key.
#[derive(Debug)]
pub struct Outcome {
    pub answer: ApiResult<Answer>,
    /// Until when the same key gets the same answer; none where it is not kept.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether it was given before.
    pub is_replayed: bool,
}

impl Outcome {
    /// What goes with the answer.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(expires_at) = self.expires_at {
            headers.insert(IDEMPOTENCY_EXPIRES, answer::date(expires_at));
        }
        if self.is_replayed {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        headers
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let headers = self.headers();
        let response = self.answer.and_then(answer::response);
        let mut response = response.into_response();
        response.headers_mut().extend(headers);
        response
    }
}

/// Ends a claim whose work has not finished it: keeps a refusal that will be the same next time, and lets go of the key after
/// any other.
pub async fn conclude(
    db: &Db,
    claim: &Claim,
    id: &RequestId,
    answer: ApiResult<Answer>,
) -> Outcome {
    let is_kept = match &answer {
        Ok(_) => true,
        Err(refusal) => {
            let is_kept = is_final(refusal);
            let concluded = match is_kept {
                true => claim.answer(db, &problem(refusal, id)).await,
                false => claim.release(db).await,
            };
            if let Err(error) = &concluded {
                // Nothing has happened that is not recorded; the lease ends by itself.
                tracing::debug!(%error, "an idempotency key was left to its lease");
            }
            is_kept && concluded.is_ok()
        }
    };
    Outcome {
        answer,
        expires_at: is_kept.then(|| claim.expires_at()),
        is_replayed: false,
    }
}

/// Whether the same request is to be refused in the same way for as long as its key is remembered.
fn is_final(error: &ApiError) -> bool {
    match error {
        ApiError::Invalid(_) | ApiError::NotFound | ApiError::Conflict { .. } => true,
        ApiError::Unauthenticated
        | ApiError::Forbidden(_)
        | ApiError::TooMany { .. }
        | ApiError::Unavailable { .. }
        | ApiError::Timeout { .. }
        | ApiError::Internal(_) => false,
    }
}
