//! Conditional requests (RFC 9110, section 13): answers that need not be sent again, and writes that must not overwrite
//! what their author has not seen.

use axum::{
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// A strong entity tag, quotes included, as it is sent. A clone shares its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(HeaderValue);

impl ETag {
    /// The tag of a thing that counts its changes.
    pub fn version(version: i64) -> Self {
        Self::new(format!("\"{version}\""))
    }

    /// The tag of a body that has no version of its own.
    pub fn body(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self::new(format!(
            "\"{:016x}\"",
            u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
        ))
    }

    fn new(tag: String) -> Self {
        Self(HeaderValue::try_from(tag).expect("a tag is quotes, digits and letters"))
    }

    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// The tags a client already holds.
pub struct IfNoneMatch(Vec<String>);

impl IfNoneMatch {
    /// The answer in JSON, or 304 if the client holds it already. Clients and proxies may keep it as `cache_control` says.
    pub fn respond(
        &self,
        etag: &ETag,
        cache_control: &'static str,
        body: impl Into<Body>,
    ) -> Response {
        let head = [
            (header::ETAG, etag.header()),
            (
                header::CACHE_CONTROL,
                HeaderValue::from_static(cache_control),
            ),
        ];
        // Weak comparison: a proxy that compressed an answer may have made its tag weak.
        let held = self
            .0
            .iter()
            .any(|tag| tag == "*" || etag.0 == tag.trim_start_matches("W/"));
        if held {
            return (StatusCode::NOT_MODIFIED, head).into_response();
        }
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        (head, content_type, body.into()).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(tags(&parts.headers, &header::IF_NONE_MATCH)))
    }
}

/// The versions a writer has seen, from `If-Match`. A write without the header is refused with 428: its author might
/// overwrite a change without knowing of it.
#[derive(Debug, PartialEq)]
pub enum Versions {
    /// `*`: whichever it is.
    Any,
    /// One of these. Empty if no tag in the header was one of ours.
    Listed(Vec<i64>),
}

impl Versions {
    /// The versions for an SQL array, `None` for any.
    pub fn listed(&self) -> Option<&[i64]> {
        match self {
            Self::Any => None,
            Self::Listed(versions) => Some(versions),
        }
    }

    /// 412: what is there is none of the versions the writer has seen.
    pub fn mismatch() -> ApiError {
        ApiError::invalid(
            StatusCode::PRECONDITION_FAILED,
            "version_mismatch",
            "it has changed since you read it: read it again and send its ETag as If-Match",
        )
    }
}

impl<S: Sync> FromRequestParts<S> for Versions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        if !parts.headers.contains_key(header::IF_MATCH) {
            return Err(ApiError::invalid(
                StatusCode::PRECONDITION_REQUIRED,
                "precondition_required",
                "send the ETag of what you read as If-Match",
            ));
        }
        let tags = tags(&parts.headers, &header::IF_MATCH);
        if tags.iter().any(|tag| tag == "*") {
            return Ok(Self::Any);
        }
        // Strong comparison: a weak tag keeps its `W/` and so is no version.
        let version = |tag: &String| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
        Ok(Self::Listed(tags.iter().filter_map(version).collect()))
    }
}

/// Tags the client may list in one request; the rest are not looked at.
const TAGS_MAX: usize = 32;

/// Our tags hold no comma, so splitting at one cannot make a tag of ours out of somebody else's.
fn tags(headers: &HeaderMap, name: &header::HeaderName) -> Vec<String> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().to_owned())
        .take(TAGS_MAX)
        .collect()
}

/// The bytes of a body that must be known before its tag is.
pub fn json(body: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(body).map_err(ApiError::internal)
}
