//! What stands before the router: gives a request its envelope and decides whether it is worked on, for not more are at once than is
//! worth it. In an overload most requests end here, so that a refusal is to be next to free: no routing, no span, no line in the
//! log. What is not in the API's document, such as probes, is always answered.

pub mod metrics;

#[cfg(test)]
mod http_tests;

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{Router, extract::Request, response::Response};
use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use pin_project_lite::pin_project;
use resilience::admission::{Admission, Entry, Outcome, Permit, Queued};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    Config, Envelope, RequestId,
    client_address::ClientAddress,
    envelope::{Route, Routes, budget},
    metrics::Metrics,
    observe::ObserveLayer,
    protocol::Protocol,
};

/// The whole public side: admission before the router.
pub type App = Admit<Router>;

/// Makes an [`Admit`] of a service.
#[derive(Clone)]
pub struct AdmitLayer(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    routes: Routes,
    admission: Admission,
    metrics: Metrics,
    protocol: Protocol,
}

impl AdmitLayer {
    /// Before `routes`, whose answers `observe` sees.
    pub fn new(
        config: Arc<Config>,
        routes: Routes,
        admission: Admission,
        observe: &ObserveLayer,
    ) -> Self {
        Self(Arc::new(Shared {
            config,
            routes,
            admission,
            metrics: observe.metrics().clone(),
            protocol: observe.protocol(),
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

impl<S: fmt::Debug> fmt::Debug for Admit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<S> Service<Request> for Admit<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Admitting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let shared = &*self.shared;
        let now = Instant::now();
        let route = shared.routes.find(request.method(), request.uri().path());
        let (hops, by) = (shared.config.trusted_hops, shared.config.forwarded_by);
        let client = ClientAddress::of(&request, hops, by);
        let envelope = Envelope::of(&request, client, now, route, &shared.config);
        let deadline = envelope.deadline;
        // One that has expired passes without a permit: all that is left to do for it is to say so.
        let route = route.filter(|_| shared.admission.config().enabled && now < deadline);
        let entry = route.map(|route| {
            let Envelope {
                criticality,
                tenant,
                ..
            } = &envelope;
            let entry = shared.admission.enter(*criticality, route.kind, tenant);
            (entry, route)
        });
        if let Some((Entry::Refused(_), route)) = entry {
            let response = shared.refuse(request.method(), request.headers(), route, now);
            return Admitting::Refused {
                response: Some(response),
            };
        }
        // A caller that asked for less time than it takes has itself to blame, and not our load.
        let late = now + budget(envelope.is_read, &shared.config);
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(envelope);
        match entry {
            Some((Entry::Queued(queued), route)) => {
                let waiting = Waiting {
                    request,
                    queued,
                    deadline,
                    late,
                    route: route.clone(),
                };
                // The ready one is used up here, and its clone has to become ready anew.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                let shared = Arc::clone(&self.shared);
                Admitting::Queued {
                    answer: Box::pin(waiting.turn(inner, shared)),
                }
            }
            Some((Entry::Admitted(permit), _)) => {
                request.extensions_mut().insert(permit.absence());
                Admitting::Working {
                    working: Working {
                        answer: self.inner.call(request),
                        permit: Some(permit),
                        late,
                        protocol: shared.protocol,
                    },
                }
            }
            Some((Entry::Refused(_), _)) | None => Admitting::Working {
                working: Working {
                    answer: self.inner.call(request),
                    permit: None,
                    late,
                    protocol: shared.protocol,
                },
            },
        }
    }
}

/// A request in the queue.
struct Waiting {
    request: Request,
    queued: Queued,
    deadline: Instant,
    late: Instant,
    route: Route,
}

impl Waiting {
    async fn turn<S>(self, mut inner: S, shared: Arc<Shared>) -> Result<Response, Infallible>
    where
        S: Service<Request, Response = Response, Error = Infallible>,
    {
        let Self {
            mut request,
            queued,
            deadline,
            late,
            route,
        } = self;
        let came = Instant::now();
        match queued.admitted(deadline).await {
            Ok(permit) => {
                request.extensions_mut().insert(permit.absence());
                let working = Working {
                    answer: inner.call(request),
                    permit: Some(permit),
                    late,
                    protocol: shared.protocol,
                };
                working.await
            }
            Err(_) => Ok(shared.refuse(request.method(), request.headers(), &route, came)),
        }
    }
}

pin_project! {
    /// A request on its way through [`Admit`].
    #[project = Way]
    pub enum Admitting<F> {
        Refused { response: Option<Response> },
        Queued { answer: BoxFuture<'static, Result<Response, Infallible>> },
        Working { #[pin] working: Working<F> },
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Admitting<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Way::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("polled once when ready")))
            }
            Way::Queued { answer } => answer.as_mut().poll(cx),
            Way::Working { working } => working.poll(cx),
        }
    }
}

pin_project! {
    /// A request that is worked on. Its permit, if it needed one, is given back with the answer's head, or when the client goes away.
    pub struct Working<F> {
        #[pin]
        answer: F,
        permit: Option<Permit>,
        late: Instant,
        protocol: Protocol,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Working<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let working = self.project();
        let Ok(response) = ready!(working.answer.poll(cx));
        if let Some(permit) = working.permit.take() {
            let status = working.protocol.status_of(&response);
            permit.finish(outcome(status.in_http(), *working.late));
        }
        Poll::Ready(Ok(response))
    }
}

fn outcome(status: StatusCode, late: Instant) -> Outcome {
    let is_upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
    if status.is_success() || status.is_redirection() || is_upgraded {
        Outcome::Done
    } else if status == StatusCode::GATEWAY_TIMEOUT && Instant::now() >= late {
        Outcome::TimedOut
    } else {
        Outcome::Failed
    }
}

impl Shared {
    /// The whole answer, because no layer adds to it. It is counted like any other and leaves no line in the log, which would cost
    /// more than the refusal.
    fn refuse(
        &self,
        method: &Method,
        headers: &HeaderMap,
        route: &Route,
        since: Instant,
    ) -> Response {
        let retry_after_max = self.admission.config().retry_after_max;
        let seconds = fastrand::u64(1..=retry_after_max.as_secs().max(1));
        let id = RequestId::from_headers(headers);
        let (response, status) = self.protocol.overloaded(&id, seconds);
        self.metrics
            .refused(method, &route.template, status, since.elapsed());
        response
    }
}
