//! The layer that gives a request its envelope and decides, before any work, whether it is worked on: an expired one never, and
//! not more at once than is worth it. What is not in the API's document, such as probes, is always answered.

pub mod metrics;

#[cfg(test)]
mod http_tests;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;
use http::{HeaderValue, StatusCode, header};
use resilience::{
    Criticality,
    admission::{Admission, Entry, Outcome, Permit, Queued, Refusal},
};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    Config, Envelope, RequestId,
    client_address::ClientAddress,
    envelope::{Route, Routes, budget},
    error::ApiError,
};

/// Makes an [`Admit`] of a service.
#[derive(Clone)]
pub struct AdmitLayer(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    routes: Routes,
    admission: Admission,
}

impl AdmitLayer {
    pub fn new(config: Arc<Config>, routes: Routes, admission: Admission) -> Self {
        Self(Arc::new(Shared {
            config,
            routes,
            admission,
        }))
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            inner,
            shared: Arc::clone(&self.0),
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Admit<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// What the layers below answer with: boxed, so that this one need not box it again.
type Answer = BoxFuture<'static, Result<Response, Infallible>>;

impl<S> Service<Request> for Admit<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future = Answer>,
    S: Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Admitting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Admitting {
        let shared = &*self.shared;
        let now = Instant::now();
        let route = shared.routes.find(&request);
        let default = route.map_or(Criticality::Critical, |route| route.criticality);
        let (hops, by) = (shared.config.trusted_hops, shared.config.forwarded_by);
        let client = ClientAddress::of(&request, hops, by);
        request.extensions_mut().insert(client);
        let envelope = Envelope::of(&request, client, now, default, &shared.config);
        let deadline = envelope.deadline;
        if deadline <= now {
            return Admitting::Refused(Some(expired()));
        }
        // A caller that asked for less time than it takes has itself to blame, and not our load.
        let patience = budget(request.method(), &shared.config);
        let entry =
            route
                .filter(|_| shared.admission.config().enabled)
                .map(|Route { kind, .. }| {
                    let Envelope {
                        criticality,
                        tenant,
                        ..
                    } = &envelope;
                    shared.admission.enter(*criticality, kind, tenant)
                });
        request.extensions_mut().insert(envelope);
        match entry {
            None => Admitting::Boxed(self.inner.call(request)),
            Some(Entry::Admitted(permit)) => Admitting::Working(Working {
                answer: self.inner.call(request),
                permit: Some(permit),
                late: now + patience,
            }),
            Some(Entry::Queued(queued)) => {
                // The ready one is used up here, and its clone has to become ready anew.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                let waiting = wait(inner, request, queued, (deadline, now + patience));
                let shared = Arc::clone(&self.shared);
                Admitting::Boxed(Box::pin(async move {
                    Ok(waiting
                        .await
                        .unwrap_or_else(|_| refused(shared.admission.config().retry_after_max)))
                }))
            }
            Some(Entry::Refused(_)) => {
                Admitting::Refused(Some(refused(shared.admission.config().retry_after_max)))
            }
        }
    }
}

/// The end of the queue: `ends` are the request's deadline, and what it would be by our own settings.
async fn wait<S>(
    mut inner: S,
    request: Request,
    queued: Queued,
    ends: (Instant, Instant),
) -> Result<Response, Refusal>
where
    S: Service<Request, Response = Response, Error = Infallible, Future = Answer>,
{
    let (deadline, late) = ends;
    let permit = queued.admitted(deadline).await?;
    let working = Working {
        answer: inner.call(request),
        permit: Some(permit),
        late,
    };
    let Ok(response) = working.await;
    Ok(response)
}

/// A request on its way through [`Admit`].
pub enum Admitting {
    Refused(Option<Response>),
    Boxed(Answer),
    Working(Working),
}

impl Future for Admitting {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Refused(response) => {
                Poll::Ready(Ok(response.take().expect("polled once when ready")))
            }
            Self::Boxed(answer) => answer.as_mut().poll(cx),
            Self::Working(working) => Pin::new(working).poll(cx),
        }
    }
}

/// An admitted request. Its permit is given back with the answer's head, or when the client goes away.
pub struct Working {
    answer: Answer,
    permit: Option<Permit>,
    late: Instant,
}

impl Future for Working {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(self.answer.as_mut().poll(cx));
        if let Some(permit) = self.permit.take() {
            permit.finish(outcome(response.status(), self.late));
        }
        Poll::Ready(Ok(response))
    }
}

fn outcome(status: StatusCode, late: Instant) -> Outcome {
    if status.is_success() || status.is_redirection() {
        Outcome::Done
    } else if status == StatusCode::GATEWAY_TIMEOUT && Instant::now() >= late {
        Outcome::TimedOut
    } else {
        Outcome::Failed
    }
}

fn expired() -> Response {
    ApiError::Timeout { source: None }.into_response()
}

/// A request refused for want of capacity: in the response's extensions, for [`super::observe`], which writes its body and no
/// line in the log. The metrics count it.
#[derive(Clone, Copy)]
pub struct Shed;

fn refused(retry_after_max: Duration) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let seconds = fastrand::u64(1..=retry_after_max.as_secs().max(1));
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response.extensions_mut().insert(Shed);
    response
}

impl Shed {
    /// The problem, with the only thing in it that differs from one to the next.
    pub fn body(self, id: &RequestId) -> Body {
        const BEGINNING: &str = concat!(
            r#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","#,
            r#""title":"Service Unavailable","status":503,"code":"overloaded","#,
            r#""detail":"there is no capacity at the moment: retry after the time Retry-After says","request_id":""#
        );
        Body::from([BEGINNING, id.as_str(), r#""}"#].concat())
    }
}
