//! The shop's features: the one list of them. A new one is a folder and two lines here.

pub mod events;
pub mod live;
pub mod orders;
pub mod products;
pub mod recommendations;
pub mod sessions;

use utoipa_axum::router::OpenApiRouter;
use worker::Registry;

use crate::{http::grpc::Rpcs, state::AppState};

/// Everything below `/v1`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .nest("/events", events::routes())
        .nest("/live", live::routes())
        .nest("/orders", orders::routes())
        .nest("/products", products::routes())
        .merge(recommendations::routes())
        .merge(sessions::routes())
}

/// Everything that is done in the background, in the processes that run jobs.
pub fn jobs(state: &AppState) -> Registry {
    let mut registry = Registry::default();
    events::register(&mut registry);
    orders::register(&mut registry);
    products::register(&mut registry, &state.products);
    registry
}

/// Every RPC.
pub fn rpcs(state: &AppState) -> Rpcs {
    Rpcs::default()
        .merge(orders::rpcs(state))
        .merge(products::rpcs(state))
}
