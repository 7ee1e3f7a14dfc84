//! The whole stack every admitted request passes, outermost first, each line with its reason. Before it, and before the router,
//! stands only [`super::admission`].
//!
//! One `ServiceBuilder`, applied by one `Router::layer` call: every further call would box the service once more.

use axum::Router;
use tower::ServiceBuilder;
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer, Predicate,
        predicate::{NotForContentType, SizeAbove},
    },
};

use super::{guard::GuardLayer, observe::ObserveLayer};

/// Puts the stack around `router`.
pub fn around(router: Router, observe: ObserveLayer, guard: GuardLayer) -> Router {
    // A stream is sent as it comes; compressed it would be held back.
    let worth_it = SizeAbove::new(guard.config.compress_bytes_min)
        .and(NotForContentType::GRPC)
        .and(NotForContentType::IMAGES)
        .and(NotForContentType::SSE);
    let stack = ServiceBuilder::new()
        // Outermost, because it changes the body's type and everything below is simpler with axum's own.
        // Level 1 of each algorithm: higher ones cost two to five times the CPU for a few per cent of the bytes.
        .layer(
            CompressionLayer::new()
                .quality(CompressionLevel::Precise(1))
                .compress_when(worth_it),
        )
        // Sees every answer, also those of the layers below: one span, one log line, one sample per request.
        .layer(observe)
        // Innermost, so that a deadline or a panic is an answer like any other when it is observed.
        .layer(guard);
    router.layer(stack)
}

/// The same for RPCs: compression is a matter of their messages, and not of what carries them.
pub fn around_rpcs(router: Router, observe: ObserveLayer, guard: GuardLayer) -> Router {
    router.layer(ServiceBuilder::new().layer(observe).layer(guard))
}
