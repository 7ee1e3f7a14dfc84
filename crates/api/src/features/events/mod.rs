//! What clients say of what they do, for analytics. It is the first to go: an event is kept in memory and written a moment later,
//! together with others, so that no request waits for it; at most once, and dropped and counted where there is no room or no database.
//! Nothing in it says who sent it.

mod buffer;
mod config;
mod jobs;
mod metrics;
mod model;
mod store;
mod writer;

#[cfg(test)]
mod http_tests;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use jobs::register;
pub use writer::Events;

use self::model::{NewEvents, Received};
use crate::{
    flags::{Flag, Flags},
    http::{
        ApiError, ApiResult, Body,
        degraded::{self, Degradation},
    },
    state::AppState,
};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create_events))
}

/// Takes events, to be written a moment later, and says how many it had room for. 503 when for none.
#[utoipa::path(post, path = "/", tag = "events", extensions(("x-criticality" = json!("sheddable"))),
    request_body = NewEvents,
    responses((status = 202, body = Received, headers(("degraded" = Option<String>,
        description = "`events_off`: all are dropped, and to be sent no more"))), (status = 422), (status = 503)))]
async fn create_events(
    State(events): State<Events>,
    State(flags): State<Flags>,
    Body(new): Body<NewEvents>,
) -> ApiResult<Response> {
    if !flags.is_on(Flag::Events) {
        return Ok(switched_off(events.refuse(&new)));
    }
    let received = events.receive(new);

    if received.accepted == 0 {
        return Err(ApiError::busy());
    }
    Ok((StatusCode::ACCEPTED, Body(received)).into_response())
}

/// No refusal: whoever is refused sends them again.
fn switched_off(received: Received) -> Response {
    let mut response = (StatusCode::ACCEPTED, Body(received)).into_response();
    degraded::mark(&mut response, Degradation::EventsOff);
    response
}
