//! The edge of RPCs: from a request of HTTP/2 to a handler's message, and back. They pass the same layers as every other request,
//! which is admission, limits, observation and deadline, and their handlers take the same extractors.
//!
//! A feature's RPCs stand in its `rpc.rs`. What is not in the list that it returns is not served.

mod call;
mod config;
pub mod health;
pub mod status;

#[cfg(test)]
mod http_tests;

use std::convert::Infallible;

use axum::{Router, extract::Request, response::IntoResponse};
use resilience::Criticality;
use tonic::server::NamedService;
use tower::Service;

pub use call::{Call, kept, mark, timestamp};
pub use config::Config;

use super::{ApiError, Config as HttpConfig};
use crate::proto;

/// An RPC, as it is known before any call.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// `/package.Service/Method`.
    pub path: String,
    pub criticality: Criticality,
    /// Whether it changes nothing, so that it has a reader's deadline and quota.
    pub is_read: bool,
}

/// Some RPCs and who answers them.
#[derive(Default)]
pub struct Rpcs {
    pub router: Router,
    pub list: Vec<Rpc>,
    /// `package.Service` of each.
    pub services: Vec<&'static str>,
}

impl Rpcs {
    /// Those methods of `service` that are listed.
    pub fn of<S>(service: &S, methods: impl IntoIterator<Item = Method>) -> Self
    where
        S: Service<Request, Response: IntoResponse, Error = Infallible, Future: Send>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let mut rpcs = Self {
            services: vec![S::NAME],
            ..Self::default()
        };
        for method in methods {
            let path = format!("/{}/{}", S::NAME, method.name);
            rpcs.router = rpcs.router.route_service(&path, service.clone());
            rpcs.list.push(Rpc {
                path,
                criticality: method.criticality,
                is_read: method.is_read,
            });
        }
        rpcs
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.list.extend(other.list);
        self.services.extend(other.services);
        self
    }
}

/// One method of a service, and how much it matters.
pub struct Method {
    name: &'static str,
    criticality: Criticality,
    is_read: bool,
}

/// One that changes nothing.
pub fn reads(name: &'static str, criticality: Criticality) -> Method {
    Method {
        name,
        criticality,
        is_read: true,
    }
}

/// One that changes something.
pub fn writes(name: &'static str, criticality: Criticality) -> Method {
    Method {
        name,
        criticality,
        is_read: false,
    }
}

/// What tells developers' tools of all there is.
pub fn reflection() -> Router {
    let service = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were written together");
    let path = format!("/{}/{{method}}", name_of(&service));
    Router::new().route_service(&path, service)
}

fn name_of<S: NamedService>(_: &S) -> &'static str {
    S::NAME
}

/// The answer to a call of what is not there.
pub async fn unimplemented() -> ApiError {
    ApiError::invalid(
        http::StatusCode::NOT_IMPLEMENTED,
        "unimplemented",
        "there is no such RPC here",
    )
}

impl Config {
    /// The listener's settings: the public one's, but for what is its own.
    pub fn listener(&self, public: &HttpConfig) -> HttpConfig {
        HttpConfig {
            listen: self.listen,
            connections_max: self.connections_max,
            ..public.clone()
        }
    }
}
