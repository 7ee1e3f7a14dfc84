//! Asks the payment provider for an order's money: once for each order, however often it is asked.

use std::time::Duration;

use http::StatusCode;
use resilience::{breaker, bulkhead, retry};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::{
    Caller,
    outbound::{self, CallError, Metrics, Service},
};

/// What the shop's prices are in (ISO 4217).
const CURRENCY: &str = "EUR";

/// The payment provider. A clone is the same one.
#[derive(Clone)]
pub struct Payments(Service);

/// The provider has the money.
#[derive(Debug, PartialEq)]
pub struct Payment {
    /// What the provider calls it.
    pub id: String,
}

/// Why there is no payment.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// The customer's money is not to be had, and asking again changes nothing.
    #[error("the payment was declined")]
    Declined,
    /// Nobody knows whether it was made. Asking again for the same order finds out, and never makes a second one.
    #[error("the payment provider did not answer")]
    Failed(#[source] CallError),
}

/// What is asked for.
#[derive(Serialize)]
struct NewPayment {
    reference: Uuid,
    amount_cents: i64,
    currency: &'static str,
}

/// The provider's answer. A status that is not known is no payment.
#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Made {
    Authorised { id: String },
}

/// The settings it has if nothing is set. Losing it loses sales, and so does taking it for lost: it gets more time, more patience
/// and more retries than what is expendable.
pub(super) fn defaults() -> outbound::Config {
    outbound::Config {
        attempt_timeout: Duration::from_millis(1500),
        total_timeout: Duration::from_millis(3500),
        body_bytes_max: 64 * 1024,
        breaker: breaker::Config {
            failures_in_row: 10,
            slow_after: Duration::from_millis(1400),
            // A slow payment is one: only if nearly none is quick does waiting for them cost more than they bring.
            slow_ratio: 0.95,
            open_min: Duration::from_millis(500),
            open_max: Duration::from_millis(1500),
            ..breaker::Config::default()
        },
        bulkhead: bulkhead::Config {
            calls_max: 64,
            waiting_max: 64,
            wait: Duration::from_millis(250),
        },
        retry: retry::Config {
            // A shop with an order a minute gets its retries, too.
            budget_per_second: 5.0,
            pause_min: Duration::from_millis(50),
            ..retry::Config::default()
        },
        ..outbound::Config::default()
    }
}

impl Payments {
    /// The provider that the settings name, if they name one.
    ///
    /// # Errors
    /// When TLS to it cannot be set up.
    pub fn new(config: &outbound::Config, metrics: &Metrics) -> anyhow::Result<Option<Self>> {
        let service = Service::new("payments", config, metrics)?;
        Ok(service.map(Self))
    }

    /// Has `amount_cents` paid for an order. The order's id is the idempotency key: asked for again, by whomever and whenever,
    /// it is the payment made the first time.
    ///
    /// # Errors
    /// When it was declined, or when it is not known to have been made.
    pub async fn pay(
        &self,
        order_id: Uuid,
        amount_cents: i64,
        caller: &Caller,
    ) -> Result<Payment, PaymentError> {
        let payment = NewPayment {
            reference: order_id,
            amount_cents,
            currency: CURRENCY,
        };
        match self.0.post("/payments", order_id, &payment, caller).await {
            Ok(Made::Authorised { id }) => Ok(Payment { id }),
            Err(CallError::Refused(StatusCode::PAYMENT_REQUIRED)) => Err(PaymentError::Declined),
            Err(error) => Err(PaymentError::Failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use devstack::{Behaviour, PaymentStatus, Upstream, UpstreamService};
    use http::HeaderMap;
    use prometheus_client::registry::Registry;
    use resilience::Criticality;
    use tokio::{
        net::TcpListener,
        task::JoinSet,
        time::{Instant, sleep},
    };

    use super::*;
    use crate::http::{RequestId, breakers::Breakers};

    /// Far more than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Scene {
        provider: Arc<Upstream>,
        payments: Payments,
        order: Uuid,
        _task: JoinSet<()>,
    }

    impl Scene {
        /// A provider that behaves like this.
        async fn start(behaviour: Behaviour) -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let provider = Arc::new(Upstream::default());
            provider.set(UpstreamService::Payments, behaviour);
            let mut task = JoinSet::new();
            let serving = Arc::clone(&provider).serve(listener);
            task.spawn(async move { serving.await.unwrap() });
            let config = outbound::Config {
                url: Some(url),
                total_timeout: PATIENCE,
                ..defaults()
            };
            let metrics = Metrics::register(&mut Registry::default(), &Breakers::default());
            Self {
                provider,
                payments: Payments::new(&config, &metrics).unwrap().unwrap(),
                order: Uuid::now_v7(),
                _task: task,
            }
        }

        async fn pay(&self, amount_cents: i64) -> Result<Payment, PaymentError> {
            let caller = Caller {
                deadline: Instant::now() + PATIENCE,
                criticality: Criticality::CriticalPlus,
                tenant: None,
                id: RequestId::from_headers(&HeaderMap::new()),
                trace: None,
            };
            self.payments.pay(self.order, amount_cents, &caller).await
        }

        /// What the provider knows of the order.
        fn made(&self) -> Vec<(String, PaymentStatus)> {
            let made = self.provider.payments(&self.order.to_string());
            let made = made.into_iter();
            made.map(|payment| (payment.id, payment.status)).collect()
        }
    }

    #[tokio::test]
    async fn an_order_is_paid_once_however_often_it_is_asked_for() {
        let scene = Scene::start(Behaviour::default()).await;

        let (first, second) = tokio::join!(scene.pay(1999), scene.pay(1999));

        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first, second);
        assert_eq!(scene.made(), [(first.id, PaymentStatus::Authorised)]);
    }

    #[tokio::test]
    async fn what_is_declined_stays_so_and_is_no_failure() {
        let scene = Scene::start(Behaviour {
            decline_rate: 1.0,
            ..Behaviour::default()
        })
        .await;

        let declined = scene.pay(1999).await.unwrap_err();
        let well = Behaviour::default();
        scene.provider.set(UpstreamService::Payments, well);
        let again = scene.pay(1999).await.unwrap_err();

        assert!(matches!(declined, PaymentError::Declined), "{declined:?}");
        assert!(matches!(again, PaymentError::Declined), "{again:?}");
        assert_eq!(scene.made().len(), 1);
    }

    #[tokio::test]
    async fn a_payment_whose_answer_was_lost_is_found_again() {
        let scene = Scene::start(Behaviour {
            hang: true,
            ..Behaviour::default()
        })
        .await;
        let counters = || scene.provider.counters(UpstreamService::Payments);
        let silent_once = async {
            let deadline = Instant::now() + PATIENCE;
            while counters().requests < 2 {
                assert!(Instant::now() < deadline, "it is not asked again");
                sleep(Duration::from_millis(5)).await;
            }
            let well = Behaviour::default();
            scene.provider.set(UpstreamService::Payments, well);
        };

        let (paid, ()) = tokio::join!(scene.pay(1999), silent_once);

        assert_eq!(
            scene.made(),
            [(paid.unwrap().id, PaymentStatus::Authorised)]
        );
        assert_eq!(counters().effects, 1);
    }

    #[tokio::test]
    async fn an_order_is_not_paid_twice_at_two_prices() {
        let scene = Scene::start(Behaviour::default()).await;
        scene.pay(1999).await.unwrap();

        let error = scene.pay(2999).await.unwrap_err();

        let refused = matches!(error, PaymentError::Failed(CallError::Refused(status)) if status.as_u16() == 422);
        assert!(refused, "{error:?}");
        assert_eq!(scene.made().len(), 1);
    }
}
