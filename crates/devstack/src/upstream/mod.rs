//! The upstream sandbox: one small HTTP server that plays the payment provider and the recommender, and behaves as
//! badly as it is told. `POST /payments`, `GET /recommendations?product_id=`; for the person at the desk
//! `GET /behaviour`, `PUT /behaviour/{service}`, `GET /counters` and `GET /payments?reference=`.

mod handlers;
mod payments;
mod recommendations;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch, time::sleep};

use payments::Payments;
pub use payments::{NewPayment, Payment, PaymentStatus};
use recommendations::Asked;

/// The two services the sandbox plays.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamService {
    /// The payment provider.
    Payments,
    /// The recommender.
    Recommendations,
}

/// How a service treats its clients.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Between the effect of a request and its answer: a client that gives up meanwhile has paid nevertheless.
    #[serde(with = "humantime_serde")]
    pub latency: Duration,
    /// The share of requests, from 0 to 1, that are refused with 503 before they have an effect.
    pub error_rate: f64,
    /// The share of payments, from 0 to 1, that are declined with 402. One asked for again is what it was.
    pub decline_rate: f64,
    /// No answer at all, until this is false again.
    pub hang: bool,
}

/// What a service has done since it was started.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counters {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests refused by the error rate.
    pub refused: u64,
    /// Payments declined; one asked for again counts once.
    pub declined: u64,
    /// Payments made, or recommendations given; a payment asked for again counts once.
    pub effects: u64,
}

/// The running sandbox.
#[derive(Default)]
pub struct Upstream {
    payments: Service,
    recommendations: Service,
    made: Payments,
    asked: Asked,
}

#[derive(Default)]
struct Service {
    behaviour: watch::Sender<Behaviour>,
    counters: watch::Sender<Counters>,
}

impl Upstream {
    /// From now on the service behaves like this, also towards requests that hang.
    pub fn set(&self, service: UpstreamService, behaviour: Behaviour) {
        self.service(service).behaviour.send_replace(behaviour);
    }

    /// How the service behaves now.
    pub fn behaviour(&self, service: UpstreamService) -> Behaviour {
        *self.service(service).behaviour.borrow()
    }

    /// What the service has done so far.
    pub fn counters(&self, service: UpstreamService) -> Counters {
        *self.service(service).counters.borrow()
    }

    /// The payments with this reference that were made or declined, the oldest first.
    pub fn payments(&self, reference: &str) -> Vec<Payment> {
        self.made.of(reference)
    }

    /// Serves until the runtime ends. A stack does so by itself; this is for a test that needs nothing else of one.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, handlers::router(self)).await
    }

    fn service(&self, service: UpstreamService) -> &Service {
        match service {
            UpstreamService::Payments => &self.payments,
            UpstreamService::Recommendations => &self.recommendations,
        }
    }

    fn all<T>(&self, read: impl Fn(&Self, UpstreamService) -> T) -> BTreeMap<UpstreamService, T> {
        let services = [UpstreamService::Payments, UpstreamService::Recommendations];
        services
            .map(|service| (service, read(self, service)))
            .into()
    }
}

impl Service {
    /// Counts a request; false when it is to be refused.
    fn admit(&self) -> bool {
        let is_refused = fastrand::f64() < self.behaviour.borrow().error_rate;
        self.counters.send_modify(|counters| {
            counters.requests += 1;
            counters.refused += u64::from(is_refused);
        });
        !is_refused
    }

    fn count_effect(&self) {
        self.counters.send_modify(|counters| counters.effects += 1);
    }

    /// What becomes of a payment that was not asked for before.
    fn judge(&self) -> PaymentStatus {
        if fastrand::f64() < self.behaviour.borrow().decline_rate {
            PaymentStatus::Declined
        } else {
            PaymentStatus::Authorised
        }
    }

    fn count_payment(&self, status: PaymentStatus) {
        match status {
            PaymentStatus::Authorised => self.count_effect(),
            PaymentStatus::Declined => self.counters.send_modify(|counters| counters.declined += 1),
        }
    }

    /// Waits as long as the behaviour wants an answer to take.
    async fn linger(&self) {
        let mut behaviour = self.behaviour.subscribe();
        let latency = behaviour.borrow().latency;
        sleep(latency).await;
        // The sender lives in `self`, so the wait ends with a behaviour that does not hang.
        let _ = behaviour.wait_for(|behaviour| !behaviour.hang).await;
    }
}
