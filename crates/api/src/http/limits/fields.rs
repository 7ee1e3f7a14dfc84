//! The fields that tell a client where it stands (draft-ietf-httpapi-ratelimit-headers-11).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use resilience::{Rate, Standing};

use super::Policy;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Says which policy decided, and how much is left of it until when: all of it then, if some is left now, or else the first.
pub fn write(headers: &mut HeaderMap, policy: Policy, rate: &Rate, standing: Standing) {
    let name = policy.name();
    let (quota, window) = (rate.quota, whole_seconds(rate.window));
    let left = standing.left;
    let until = match left {
        0 => standing.wait,
        _ => standing.whole_in,
    };
    let until = whole_seconds(until);
    let fields = [
        (
            RATELIMIT_POLICY,
            format!(r#""{name}";q={quota};w={window}"#),
        ),
        (RATELIMIT, format!(r#""{name}";r={left};t={until}"#)),
    ];
    for (field, value) in fields {
        let value = HeaderValue::try_from(value).expect("a name and numbers are visible ASCII");
        headers.insert(field, value);
    }
}

/// Rounded up: whoever waits as long as told must not be early.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
