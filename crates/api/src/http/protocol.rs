//! The two ways in which a listener of ours is asked, and where the layers around both have to know which.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tonic::Code;

use super::{RequestId, context::REQUEST_ID, grpc};

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// With a status of HTTP, and a problem when it is a refusal.
    Http,
    /// With a status of gRPC in the trailers, or in the head when there is nothing else.
    Grpc,
}

/// What became of a request, in the words of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Http(StatusCode),
    Grpc(Code),
}

impl Status {
    /// The same in HTTP's words.
    pub fn in_http(self) -> StatusCode {
        match self {
            Self::Http(status) => status,
            Self::Grpc(code) => grpc::status::in_http(code),
        }
    }
}

impl Protocol {
    /// The status of an answer, as far as its head says.
    pub fn status_of(self, response: &Response) -> Status {
        match self {
            Self::Http => Status::Http(response.status()),
            Self::Grpc => Status::Grpc(grpc::status::of_head(response.headers())),
        }
    }

    /// The whole answer to a request for which there is no capacity, and what it counts as.
    pub fn overloaded(self, id: &RequestId, retry_after_seconds: u64) -> (Response, Status) {
        let (mut response, status) = match self {
            Self::Http => (Response::new(problem(id)), StatusCode::SERVICE_UNAVAILABLE),
            Self::Grpc => (Response::default(), StatusCode::OK),
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
        if let Ok(id) = HeaderValue::from_str(id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        match self {
            Self::Http => insert_all(headers, &PROBLEM),
            Self::Grpc => {
                insert_all(headers, &grpc::status::OVERLOADED);
                grpc::status::push_back(headers, retry_after_seconds * 1000);
            }
        }
        let status = self.status_of(&response);
        (response, status)
    }
}

fn insert_all(headers: &mut HeaderMap, fields: &[(HeaderName, &'static str)]) {
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

const PROBLEM: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "application/problem+json"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// The problem, with the only thing in it that differs from one to the next.
fn problem(id: &RequestId) -> Body {
    const BEGINNING: &str = concat!(
        r#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","#,
        r#""title":"Service Unavailable","status":503,"code":"overloaded","#,
        r#""detail":"there is no capacity at the moment: retry after the time Retry-After says","request_id":""#
    );
    Body::from([BEGINNING, id.as_str(), r#""}"#].concat())
}
