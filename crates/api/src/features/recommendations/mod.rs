//! What goes well with a product: asked of another service, and never missed when that does not answer.

mod model;
mod recommender;
mod store;

#[cfg(test)]
mod http_tests;

use std::collections::HashMap;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub use model::Config;
pub use recommender::Recommender;

use self::model::{Recommendation, Recommendations, Source};
use super::products::{self, ProductCache};
use crate::{
    http::{
        ApiError, ApiResult, Body, Caller, Db, Path,
        degraded::{self, Degradation},
    },
    state::AppState,
};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_recommendations))
}

/// What goes well with a product. Older recommendations, or else what sells best, when there are no current ones.
#[utoipa::path(get, path = "/products/{id}/recommendations", tag = "products", extensions(("x-criticality" = json!("sheddable"))),
    params(("id" = Uuid, Path)),
    responses((status = 200, body = Recommendations, headers(("degraded" = Option<String>,
        description = "`recommendations_fallback`: not what the recommender would say now, because it does not answer; \
                       `recommendations_off`: none at all, and whether the product is there was not looked at"))),
        (status = 404)))]
async fn list_recommendations(
    State(cache): State<ProductCache>,
    State(recommender): State<Recommender>,
    db: Db,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> ApiResult<Response> {
    if !recommender.is_on() {
        return Ok(switched_off());
    }
    cache.find(&db, id).await?.ok_or(ApiError::NotFound)?;
    let found = recommender.for_product(id, &caller).await?;

    let offers = match found.ids.as_slice() {
        [] => Vec::new(),
        ids => products::offers(&db.read(), ids).await?,
    };
    let mut offers: HashMap<_, _> = offers.into_iter().collect();
    // In the recommender's order; what it knows of and the catalogue does not is left out.
    let items = found.ids.iter().filter_map(|id| {
        offers
            .remove(id)
            .map(|offer| Recommendation { id: *id, offer })
    });
    let mut response = Body(Recommendations {
        source: found.source,
        items: items.collect(),
    })
    .into_response();
    if found.is_fallback {
        degraded::mark(&mut response, Degradation::RecommendationsFallback);
    }
    Ok(response)
}

/// Asks nobody for anything: it is switched off to spare them.
fn switched_off() -> Response {
    let none = Recommendations {
        source: Source::Off,
        items: Vec::new(),
    };
    let mut response = Body(none).into_response();
    degraded::mark(&mut response, Degradation::RecommendationsOff);
    response
}
