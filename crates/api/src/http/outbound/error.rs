//! How a call to another service can fail.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use resilience::{BreakerOpen, BulkheadFull};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It was not asked: it has failed too often.
    #[error(transparent)]
    Open(#[from] BreakerOpen),
    /// It was not asked: as many calls as may be are under way.
    #[error(transparent)]
    Full(#[from] BulkheadFull),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It could not be reached, or the connection was lost.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It says that it failed or has too much to do (5xx, 429).
    #[error("it answered {status}")]
    Failed {
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It understood and will not (4xx other than 429): the same call would be refused again.
    #[error("it refused with {0}")]
    Refused(StatusCode),
    /// Its answer is larger than any that was expected.
    #[error("its answer has more than {0} bytes")]
    TooLarge(usize),
    /// Its answer is not what was agreed on.
    #[error("its answer cannot be understood")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was not asked: what was to be sent is none that can be.
    #[error("the request cannot be sent")]
    Unsendable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CallError {
    /// Its name in metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Open(_) => "breaker_open",
            Self::Full(_) => "bulkhead_full",
            Self::Timeout(_) => "timeout",
            Self::Connection(_) => "connection",
            Self::Failed { .. } => "failed",
            Self::Refused(_) => "refused",
            Self::TooLarge(_) => "too_large",
            Self::Unreadable(_) => "unreadable",
            Self::Unsendable(_) => "unsendable",
        }
    }

    /// Whether another attempt, soon, may go better. 500 is a bug, and the same request meets it again.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Connection(_) => true,
            Self::Failed { status, .. } => *status != StatusCode::INTERNAL_SERVER_ERROR,
            Self::Open(_)
            | Self::Full(_)
            | Self::Refused(_)
            | Self::TooLarge(_)
            | Self::Unreadable(_)
            | Self::Unsendable(_) => false,
        }
    }

    /// When another call may go better, as far as that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Open(open) => Some(open.retry_after),
            Self::Failed { retry_after, .. } => *retry_after,
            Self::Full(_)
            | Self::Timeout(_)
            | Self::Connection(_)
            | Self::Refused(_)
            | Self::TooLarge(_)
            | Self::Unreadable(_)
            | Self::Unsendable(_) => None,
        }
    }
}

/// `Retry-After` in both of its forms: seconds, or a date (RFC 9110 section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = httpdate::parse_http_date(text).ok()?;
    Some(moment.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let read = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, value)]))
        };
        let soon = SystemTime::now() + Duration::from_secs(100);

        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let waits = read(&httpdate::fmt_http_date(soon)).unwrap().as_secs();
        assert!((90..=100).contains(&waits), "{waits}");
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }
}
