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
pub mod proto;

#[cfg(test)]
mod testing;

use axum::Router;
use tower::Layer;
use utoipa::{OpenApi, openapi};
use utoipa_axum::router::OpenApiRouter;

use http::{
    App, admission::AdmitLayer, docs, envelope::Routes, error::ApiError, grpc, guard::GuardLayer,
    health, layers, limits::LimitLayer, observe::ObserveLayer,
};
use state::AppState;

/// Everything the public listener answers, inside the whole stack of layers, and admission before it.
pub fn app(state: AppState, observe: ObserveLayer) -> App {
    let (router, document) = documented(&state);
    let admit = AdmitLayer::new(
        state.http.clone(),
        Routes::of(&document),
        state.admission.clone(),
        &observe,
    );
    let guard = guard(&state);
    let router = router
        .merge(docs::routes(&document))
        .merge(health::routes())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(state);
    admit.layer(layers::around(router, observe, guard))
}

/// Everything the gRPC listener answers, inside the same layers.
pub fn rpc_app(state: AppState, observe: ObserveLayer) -> App {
    let observe = observe.of_rpcs();
    let rpcs = features::rpcs(&state);
    let (_, document) = documented(&state);
    let admit = AdmitLayer::new(
        state.http.clone(),
        Routes::of_rpcs(&rpcs.list, &Routes::of(&document)),
        state.admission.clone(),
        &observe,
    );
    let guard = guard(&state);
    let reflection = match state.grpc.reflection {
        true => grpc::reflection(),
        false => Router::new(),
    };
    let router = rpcs
        .router
        .layer(limits(&state))
        .merge(grpc::health::routes(state, rpcs.services))
        .merge(reflection)
        .fallback(grpc::unimplemented)
        .method_not_allowed_fallback(grpc::unimplemented);
    admit.layer(layers::around_rpcs(router, observe, guard))
}

/// The features below `/v1`, and what the document says of them.
fn documented(state: &AppState) -> (Router<AppState>, openapi::OpenApi) {
    OpenApiRouter::with_openapi(docs::ApiDoc::openapi())
        .nest("/v1", features::routes().layer(limits(state)))
        .split_for_parts()
}

fn limits(state: &AppState) -> LimitLayer {
    LimitLayer {
        limits: state.limits.clone(),
        cookie: state.session_cookie,
        trusted_hops: state.http.trusted_hops,
    }
}

fn guard(state: &AppState) -> GuardLayer {
    GuardLayer {
        config: state.http.clone(),
        tokenizer: state.tokenizer.clone(),
    }
}
