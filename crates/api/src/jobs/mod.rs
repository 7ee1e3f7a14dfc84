//! Jobs, where they meet the rest of the service: on whose behalf they are enqueued, in which trace they run, and what operators
//! do with them. Which there are, the features say.

mod operations;
pub mod routes;

use telemetry::trace::{Incoming, Sampling};
use tracing::Span;
use worker::{Begun, Origin, Registry};

use crate::{features, http::Caller, state::AppState};

pub use operations::Operations;

/// Every kind of job, with spans that continue the traces of their enqueuers.
pub fn registry(state: &AppState, sampling: Sampling) -> Registry {
    let mut registry = features::jobs(state);
    registry.spans(move |begun| span(begun, sampling));
    registry
}

fn span(begun: &Begun<'_>, sampling: Sampling) -> Span {
    let incoming = Incoming::resume(begun.origin.traceparent.as_deref(), sampling);
    telemetry::request_span!(
        incoming,
        job.id = begun.id,
        job.kind = begun.kind,
        job.attempt = begun.attempt,
        job.criticality = begun.criticality.as_str(),
        tenant = begun.origin.tenant.as_deref(),
        otel.kind = "consumer",
        otel.name = %format_args!("job {}", begun.kind),
        otel.status_code = tracing::field::Empty,
    )
}

/// The caller of a request, for the jobs that come of it.
pub fn origin(caller: &Caller) -> Origin {
    Origin {
        traceparent: caller.trace.as_ref().map(Incoming::traceparent),
        tenant: caller.tenant.as_deref().map(str::to_owned),
    }
}
