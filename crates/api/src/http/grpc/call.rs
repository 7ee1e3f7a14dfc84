//! A call on its way to a handler, and its answer on the way back.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use data::idempotency::Answer;
use garde::Validate;
use http::{Method, request::Parts};
use prost_types::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::status;
use crate::{
    http::{
        ApiError, ApiResult, Keyed,
        degraded::{Degradation, Degraded},
        extract,
        idempotency::Outcome,
    },
    state::AppState,
};

/// A message, and the rest of its request, from which a handler takes what it needs by the extractors of every other handler.
pub struct Call<T> {
    pub message: T,
    parts: Parts,
    state: AppState,
}

impl<T> Call<T> {
    pub fn of(request: Request<T>, state: &AppState) -> Self {
        let (metadata, extensions, message) = request.into_parts();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = Method::POST;
        parts.headers = metadata.into_headers();
        parts.extensions = extensions;
        Self {
            message,
            parts,
            state: state.clone(),
        }
    }

    pub async fn extract<E>(&mut self) -> ApiResult<E>
    where
        E: FromRequestParts<AppState>,
        ApiError: From<E::Rejection>,
    {
        Ok(E::from_request_parts(&mut self.parts, &self.state).await?)
    }

    /// What the service shares, as the extractor `State` has it.
    pub fn state<S: FromRef<AppState>>(&self) -> S {
        S::from_ref(&self.state)
    }

    /// What is asked for, as the route `operation` would have been asked in JSON: the same key is then the same request there.
    pub fn keyed<B>(&self, operation: &str, body: B) -> ApiResult<Keyed<B>>
    where
        B: Serialize + Validate<Context = ()>,
    {
        let body = extract::validated(body)?;
        let config = Arc::clone(&self.state.idempotency);
        Keyed::of_parts(&self.parts, operation, body, config)
    }
}

/// The answer that was kept, or is kept from now on: the JSON of an `M`, told as a message.
pub fn kept<M: DeserializeOwned, R: From<M>>(outcome: Outcome) -> Result<Response<R>, Status> {
    let headers = outcome.headers();
    let answer = outcome.answer.map_err(Status::from);
    let answer = answer.and_then(|answer| Ok(Response::new(R::from(read::<M>(&answer)?))));
    match answer {
        Ok(mut response) => {
            response.metadata_mut().as_mut().extend(headers);
            Ok(response)
        }
        Err(mut status) => {
            status.metadata_mut().as_mut().extend(headers);
            Err(status)
        }
    }
}

fn read<M: DeserializeOwned>(answer: &Answer) -> Result<M, Status> {
    if answer.status >= 400 {
        return Err(status::of_kept(answer)?);
    }
    Ok(serde_json::from_slice(&answer.body).map_err(ApiError::internal)?)
}

/// Says of an answer that it is second best, and why.
pub fn mark<T>(response: &mut Response<T>, degradation: Degradation) {
    let marked = response
        .extensions_mut()
        .get_or_insert_default::<Degraded>();
    marked.add(degradation);
}

/// A point in time, as messages have it.
pub fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: time.nanosecond().cast_signed(),
    }
}
