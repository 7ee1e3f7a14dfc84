//! The layer around the features' routes. Probes and documents are outside, because they cost nothing and must always answer.

use std::{
    convert::Infallible,
    mem,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;
use resilience::{Criticality, Standing};
use tower::{Layer, Service};

use super::{
    super::{
        Envelope,
        client_address::{ClientAddress, says_that_it_forwards},
        extract::deadline_in,
        session::SessionCookie,
    },
    Claim, Limits, Policy, Ticket,
};

/// Makes a `Limited` of a service.
#[derive(Clone)]
pub struct LimitLayer {
    pub limits: Limits,
    pub cookie: SessionCookie,
    /// How many proxies we know of.
    pub trusted_hops: u8,
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited {
            inner,
            edge: self.clone(),
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Limited<S> {
    inner: S,
    edge: LimitLayer,
}

impl<S> Service<Request> for Limited<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let edge = self.edge.clone();
        // The one that was polled until it was ready goes along.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let admitted = match edge.admit(&mut request).await {
                Ok(admitted) => admitted,
                Err(refused) => return Ok(refused),
            };
            let mut response = inner.call(request).await?;
            admitted.tell(&edge.limits, &mut response);
            Ok(response)
        })
    }
}

/// A request under way, and what to say with its answer.
struct Admitted {
    policy: Policy,
    standing: Standing,
    ticket: Option<Ticket>,
}

impl LimitLayer {
    async fn admit(&self, request: &mut Request) -> Result<Admitted, Response> {
        let limits = &self.limits;
        let extensions = request.extensions();
        let client = ClientAddress::in_extensions(extensions);
        let deadline = deadline_in(extensions);
        let envelope = extensions.get::<Envelope>();
        let (is_read, route) = envelope.map_or_else(
            || (request.method().is_safe(), Criticality::Critical),
            |envelope| (envelope.is_read, envelope.route),
        );
        let policy = Policy::of_address(is_read, route);
        let id = self.cookie.presented(request.headers());
        if let Some(id) = &id
            && let Some(wait) = limits.refused_for(id, policy.of_user())
        {
            let policy = policy.of_user();
            let standing = Standing {
                left: 0,
                whole_in: limits.rate(policy).window,
                wait,
            };
            return Err(self.refuse(policy, standing));
        }
        let taken = limits.take_of_address(client, policy, id.is_some(), deadline);
        let standing = taken.await.map_err(|standing| {
            if self.trusted_hops == 0 && says_that_it_forwards(request.headers()) {
                limits.suspect(client);
            }
            self.refuse(policy, standing)
        })?;
        let ticket = id.map(|id| {
            Ticket(Arc::new(Claim {
                limits: limits.clone(),
                id,
                client,
                address_policy: policy,
                user: OnceLock::new(),
            }))
        });
        if let Some(ticket) = &ticket {
            request.extensions_mut().insert(ticket.clone());
        }
        Ok(Admitted {
            policy,
            standing,
            ticket,
        })
    }

    fn refuse(&self, policy: Policy, standing: Standing) -> Response {
        let limits = &self.limits;
        let mut response = limits.refusal(policy, standing.wait).into_response();
        limits.tell(response.headers_mut(), policy, standing);
        response
    }
}

impl Admitted {
    fn tell(self, limits: &Limits, response: &mut Response) {
        let user = self.ticket.as_ref().and_then(|ticket| {
            let standing = ticket.0.user.get()?;
            Some((ticket.policy(), *standing))
        });
        let (policy, standing) = user.unwrap_or((self.policy, self.standing));
        limits.tell(response.headers_mut(), policy, standing);
    }
}
