//! The fields that tell a client where it stands (draft-ietf-httpapi-ratelimit-headers-11).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use resilience::{Rate, Standing};

use super::Policy;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What a policy allows.
pub fn of_policy(policy: Policy, rate: &Rate) -> HeaderValue {
    let (name, quota, window) = (policy.name(), rate.quota, whole_seconds(rate.window));
    value(format!(r#""{name}";q={quota};w={window}"#))
}

/// Says which policy decided, and how much is left of it until when: all of it then, if some is left now, or else the first.
pub fn write(headers: &mut HeaderMap, of_policy: &HeaderValue, policy: Policy, standing: Standing) {
    let (name, left) = (policy.name(), standing.left);
    let until = match left {
        0 => standing.wait,
        _ => standing.whole_in,
    };
    let until = whole_seconds(until);
    headers.insert(RATELIMIT_POLICY, of_policy.clone());
    headers.insert(RATELIMIT, value(format!(r#""{name}";r={left};t={until}"#)));
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("a name and numbers are visible ASCII")
}

/// Rounded up: whoever waits as long as told must not be early.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
