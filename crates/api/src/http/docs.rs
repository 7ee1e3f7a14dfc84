//! The API's own description: OpenAPI 3.1 made from the code, and a page to read it.

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{HeaderValue, header};
use utoipa::OpenApi;

use super::error::{FieldError, Problem};

/// What the document says besides the features' own paths and schemas.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "A small shop that stays correct, fast and up under load, faults and growth.\n\n\
            Every error is `application/problem+json` (RFC 9457) with a stable `code` and a `request_id`. \
             503 and 429 carry `Retry-After`; what is below `/v1` says in `RateLimit` and `RateLimit-Policy` where a client stands.\n\n\
             `Request-Timeout` (`250ms`, `2s`) says how long the caller waits; no work is done beyond that. `x-criticality` says \
             what is refused last when there is too much; `Request-Criticality` lowers it for one request.\n\n\
             A POST that wants an `Idempotency-Key` may be sent again until `Idempotency-Expires`: it takes effect once, and is answered \
             as the first time, marked `Idempotent-Replayed: true`.",
    ),
    components(schemas(Problem<'static>, FieldError)),
)]
pub struct ApiDoc;

/// `/openapi.json` and `/docs`.
pub fn routes<S: Clone + Send + Sync + 'static>(document: &utoipa::openapi::OpenApi) -> Router<S> {
    let json = Bytes::from(
        document
            .to_json()
            .expect("the document is made of derived types"),
    );
    let content_type = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let router = Router::new().route("/openapi.json", get(async move || ([content_type], json)));
    with_page(router)
}

#[cfg(feature = "docs-page")]
fn with_page<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    use utoipa_swagger_ui::{Config, SwaggerUi};

    router.merge(SwaggerUi::new("/docs").config(Config::new(["/openapi.json"])))
}

#[cfg(not(feature = "docs-page"))]
fn with_page<S>(router: Router<S>) -> Router<S> {
    router
}
