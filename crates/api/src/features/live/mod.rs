//! What happens, told as it happens: to each customer what becomes of their orders, to everybody what is left of products. Over a
//! WebSocket, or where there can be none a stream of server-sent events, with the same messages. RPCs that stream go by the same way.
//!
//! Nothing here is the truth: a client fetches the state by the API and is told here when it changes. What it misses while it is away
//! it is told when it comes back, to any process, and where that cannot be it is told to fetch the state anew.

mod config;
mod events;
mod metrics;
mod model;
mod socket;
mod sockets;
mod stream;

#[cfg(test)]
mod http_tests;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        FromRef, FromRequestParts, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use data::{
    feed::{Arrival, Delivery, Hub, Interest, Subscriber},
    sessions::Sessions,
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use config::Config;
pub use model::{Close, TOPICS, Topic};
pub use stream::{OpenStream, Word};

use self::{
    metrics::{Kind, Metrics},
    model::{Frame, LiveParams},
    sockets::{Place, Sockets},
};
use crate::{
    http::{
        self as edge, ApiError, ApiResult, Envelope, Query,
        client_address::ClientAddress,
        drain::Drain,
        envelope::Tenant,
        session::{Session, SessionCookie, is_our_own},
    },
    state::AppState,
};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(open_live))
}

/// The live feed of this process. A clone is the same.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    config: Config,
    hub: Hub,
    sockets: Sockets,
    sessions: Sessions,
    metrics: Metrics,
}

impl Live {
    pub fn new(
        config: &Config,
        hub: Hub,
        sessions: Sessions,
        drain: Drain,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::register(registry);
        Self(Arc::new(Inner {
            config: config.clone(),
            hub,
            sockets: Sockets::new(config, drain, metrics.clone()),
            sessions,
            metrics,
        }))
    }

    /// Hears what happens, and looks whose sessions have ended, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let hub = self.0.hub.clone().run(stop.clone());
        let sessions = self.0.sockets.check_sessions(&self.0.sessions);
        tokio::join!(hub, stop.run_until_cancelled(sessions));
    }
}

/// Tells what happens, as it happens. With `Upgrade: websocket` over a WebSocket, else as server-sent events; each message is the same
/// JSON object. `type` says which it is:
///
/// - `hello`: the first one; `delayed` says whether messages may come late at the moment.
/// - `order`, `stock`: something has happened; `id` is the same if it is told twice, `data` says what.
/// - `refetch`: of `topic` something was missed that cannot be told any more; fetch the present state.
/// - `token`: nothing has happened.
/// - `reconnect`: this process ends; come back in `after_ms`.
/// - `close` (events only): why the stream ends, as the codes below.
///
/// `token` is to be sent as `resume` (of events: `Last-Event-ID`, as browsers do) by who comes back, who is then told what was missed.
/// A client sends nothing. A WebSocket is closed with 1012 (restart: come back), 4001 (the session has ended), 4008 (too slow),
/// 4009 (silent), 1008 (sent something), 1009 (sent too much) or 1002.
#[utoipa::path(get, path = "/", tag = "live", extensions(("x-criticality" = json!("sheddable_plus"))),
    params(LiveParams, ("last-event-id" = Option<String>, Header)),
    responses((status = 101, description = "A WebSocket"),
        (status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
        (status = 400), (status = 401), (status = 403), (status = 422), (status = 429), (status = 503)))]
async fn open_live(
    State(live): State<Live>,
    asked: Asked,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    if !headers.contains_key(header::UPGRADE) {
        let client = live.admit(Kind::Events, asked).await?;
        return Ok(events::answer(OpenStream::new(live, client)));
    }
    let upgrade = upgrade.map_err(|rejection| {
        ApiError::invalid(
            StatusCode::BAD_REQUEST,
            "no_websocket",
            rejection.body_text(),
        )
    })?;
    let client = live.admit(Kind::WebSocket, asked).await?;
    Ok(socket::upgrade(upgrade, live, client))
}

/// Who asks for what.
struct Asked {
    topics: Vec<(&'static str, Interest)>,
    resume: Option<data::feed::Token>,
    session: Option<Session>,
    tenant: Tenant,
    deadline: Instant,
}

impl FromRequestParts<AppState> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        require_our_own(parts, state)?;
        let Query(params) = Query::<LiveParams>::from_request_parts(parts, state).await?;
        let topics = params.topics()?;
        let session = match topics.iter().any(|topic| topic.is_private()) {
            true => Some(Session::from_request_parts(parts, state).await?),
            false => None,
        };
        let customer = session.as_ref().map(|session| session.user_id);
        let interests = topics.into_iter().filter_map(|topic| {
            let interest = topic.interest(customer)?;
            Some((topic.name(), interest))
        });
        let last_event_id = parts.headers.get("last-event-id");
        let last_event_id = last_event_id.and_then(|id| id.to_str().ok());
        let Visitor { tenant, deadline } = Visitor::of(parts);
        Ok(Self {
            topics: interests.collect(),
            resume: params.resume(last_event_id),
            session,
            tenant,
            deadline,
        })
    }
}

/// A WebSocket is open to any page in a browser, which sends the cookie along: what a write must prove, this must too. Who is no browser
/// and sends no cookie has nothing that another's page could use.
fn require_our_own(parts: &Parts, state: &AppState) -> ApiResult<()> {
    let headers = &parts.headers;
    let has_cookie = || SessionCookie::from_ref(state).read(headers).is_some();
    let is_at_risk = headers.contains_key(header::ORIGIN) || has_cookie();
    if !headers.contains_key(header::UPGRADE) || !is_at_risk || is_our_own(headers, &state.http) {
        return Ok(());
    }
    tracing::warn!(target: "audit", event = "cross_site_socket_refused");
    Err(ApiError::Forbidden(
        "a WebSocket is for pages of this service: send Origin or Sec-Fetch-Site",
    ))
}

/// Whose request it is, and until when it may take to be let in.
pub struct Visitor {
    tenant: Tenant,
    deadline: Instant,
}

impl Visitor {
    fn of(parts: &Parts) -> Self {
        let envelope = parts.extensions.get::<Envelope>();
        let tenant = envelope.map_or_else(
            || Tenant::Address(ClientAddress::in_extensions(&parts.extensions).network()),
            |envelope| envelope.tenant.clone(),
        );
        Self {
            tenant,
            deadline: edge::extract::deadline_of(parts),
        }
    }
}

impl FromRequestParts<AppState> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> ApiResult<Self> {
        Ok(Self::of(parts))
    }
}

/// One open socket, however it speaks.
struct Client {
    subscriber: Subscriber,
    place: Place,
}

impl Live {
    /// Opens a stream of all of a public topic, after what was missed since the token `resume`, if that is not empty.
    ///
    /// # Errors
    /// There are as many streams as may be, of this tenant or of all.
    pub async fn hear(
        &self,
        topic: Topic,
        resume: &str,
        visitor: Visitor,
    ) -> ApiResult<OpenStream> {
        let interest = topic
            .interest(None)
            .map(|interest| (topic.name(), interest));
        let asked = Asked {
            topics: interest.into_iter().collect(),
            resume: model::resume(resume),
            session: None,
            tenant: visitor.tenant,
            deadline: visitor.deadline,
        };
        let client = self.admit(Kind::Rpc, asked).await?;
        Ok(OpenStream::new(self.clone(), client))
    }

    async fn admit(&self, kind: Kind, asked: Asked) -> ApiResult<Client> {
        let inner = &*self.0;
        let place = inner
            .sockets
            .enter(kind, asked.tenant, asked.session.as_ref())?;
        let patience = Instant::now() + inner.config.resume_timeout;
        let arrival = Arrival {
            wanted: &asked.topics,
            resume: asked.resume.as_ref(),
            queue_bytes_max: inner.config.queue_bytes_max,
            deadline: patience.min(asked.deadline),
        };
        let subscriber = inner.hub.join(arrival).await;
        Ok(Client { subscriber, place })
    }

    fn hello(&self, subscriber: &Subscriber) -> String {
        let is_delayed = !self.0.hub.is_live();
        Frame::Hello { is_delayed }.json(&subscriber.token())
    }

    /// What is to be sent of a delivery, which is counted.
    fn delivered(&self, delivery: &Delivery, token: &str) -> String {
        self.count(delivery);
        Frame::Delivery(delivery).json(token)
    }

    fn count(&self, delivery: &Delivery) {
        if let Delivery::Message {
            topic,
            message,
            was_missed,
        } = delivery
        {
            let published_ms = (!was_missed).then(|| message.published_ms());
            self.0.metrics.delivered(topic, published_ms);
        }
    }

    fn reconnect_after(&self) -> Duration {
        self.0.config.reconnect_spread.mul_f64(fastrand::f64())
    }
}
