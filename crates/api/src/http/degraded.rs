//! Says on an answer that it is second best, and why: never silently.

use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

/// The header that says so.
pub const DEGRADED: HeaderName = HeaderName::from_static("degraded");

/// Marks an answer made of data past its time, because nothing newer can be had. No cache on its way may keep it and so
/// make it older still.
pub fn stale(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(DEGRADED, HeaderValue::from_static("stale"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
