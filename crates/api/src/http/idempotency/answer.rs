//! Answers that are kept as they are sent, to be sent again byte for byte.

use std::time::SystemTime;

use axum::{body::Body, response::Response};
use data::idempotency::Answer;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use time::OffsetDateTime;

use crate::http::{ApiError, ApiResult, RequestId, conditional, error};

/// Says of an answer that it was given before.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Says until when the same key gets the same answer.
pub const IDEMPOTENCY_EXPIRES: HeaderName = HeaderName::from_static("idempotency-expires");

/// The headers that are part of an answer. All others are about one exchange: a cookie, a trace and a limit are not to come again.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];

/// An answer in JSON.
pub fn json(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    body: &impl Serialize,
) -> ApiResult<Answer> {
    let content_type = HeaderValue::from_static("application/json");
    let headers = headers
        .into_iter()
        .chain([(header::CONTENT_TYPE, content_type)]);
    Ok(Answer {
        status: status.as_u16(),
        headers: kept(headers)?,
        body: conditional::json(body)?.into(),
    })
}

/// A refusal, as the request of this id is told of it.
pub fn problem(refusal: &ApiError, id: &RequestId) -> Answer {
    let content_type = "application/problem+json".to_owned();
    Answer {
        status: refusal.status().as_u16(),
        headers: vec![(header::CONTENT_TYPE.as_str().to_owned(), content_type)],
        body: error::problem_json(refusal, id.as_str()).into(),
    }
}

/// The answer on its way out.
pub fn response(answer: Answer) -> ApiResult<Response> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(ApiError::internal)?;
    for (name, value) in answer.headers {
        let name = HeaderName::try_from(name).map_err(ApiError::internal)?;
        let value = HeaderValue::try_from(value).map_err(ApiError::internal)?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// As `Idempotency-Expires` says until when the answer is kept.
pub fn date(expires_at: OffsetDateTime) -> HeaderValue {
    let date = httpdate::fmt_http_date(SystemTime::from(expires_at));
    HeaderValue::try_from(date).expect("a date is letters and digits")
}

fn kept(
    headers: impl Iterator<Item = (HeaderName, HeaderValue)>,
) -> ApiResult<Vec<(String, String)>> {
    let text = |(name, value): (HeaderName, HeaderValue)| {
        let value = value.to_str().map_err(ApiError::internal)?;
        Ok((name.as_str().to_owned(), value.to_owned()))
    };
    headers
        .filter(|(name, _)| KEPT.contains(name))
        .map(text)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_exchange_is_no_part_of_an_answer() {
        let value = HeaderValue::from_static("x");
        let headers = [
            header::LOCATION,
            header::SET_COOKIE,
            header::ETAG,
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("ratelimit"),
        ];
        let headers = headers.map(|name| (name, value.clone()));

        let answer = json(StatusCode::CREATED, headers, &"body").unwrap();

        let names: Vec<&str> = answer
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["location", "etag", "content-type"]);
    }
}
