//! The shop's features: the one list of them. A new one is a folder and two lines here.

pub mod orders;
pub mod products;
pub mod sessions;

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .nest("/v1/orders", orders::routes())
        .nest("/v1/products", products::routes())
        .merge(sessions::routes())
}
