//! The service. Read it in this order: the roles a process can take, the settings it takes them with, the state its
//! requests share, the edge they pass, the features that answer them, and the flags that switch some of those off.

pub mod roles;

mod ladders;
pub mod settings;
pub mod state;

pub mod features;
pub mod flags;
pub mod http;
pub mod jobs;
mod ranges;

#[cfg(test)]
mod testing;

use tower::Layer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use http::{
    App, admission::AdmitLayer, docs, envelope::Routes, error::ApiError, guard::GuardLayer, health,
    layers, limits::LimitLayer, observe::ObserveLayer,
};
use state::AppState;

/// Everything the public listener answers, inside the whole stack of layers, and admission before it.
pub fn app(state: AppState, observe: ObserveLayer) -> App {
    let limited = LimitLayer {
        limits: state.limits.clone(),
        cookie: state.session_cookie,
        trusted_hops: state.http.trusted_hops,
    };
    let (router, document) = OpenApiRouter::with_openapi(docs::ApiDoc::openapi())
        .nest("/v1", features::routes().layer(limited))
        .split_for_parts();
    let admit = AdmitLayer::new(
        state.http.clone(),
        Routes::of(&document),
        state.admission.clone(),
        observe.metrics().clone(),
    );
    let guard = GuardLayer {
        config: state.http.clone(),
        tokenizer: state.tokenizer.clone(),
    };
    let router = router
        .merge(docs::routes(&document))
        .merge(health::routes())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(state);
    admit.layer(layers::around(router, observe, guard))
}
