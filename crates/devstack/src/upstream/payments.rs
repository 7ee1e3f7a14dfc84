//! The payments asked for so far, one for each idempotency key.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Beyond it further ones are refused; a sandbox that forgot one would charge twice.
const PAYMENTS_MAX: usize = 1_000_000;

/// What a client wants to have paid.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// What the client calls it, for example its order.
    pub reference: String,
    /// In cents.
    pub amount_cents: u64,
    /// Three letters, ISO 4217.
    pub currency: String,
}

/// A payment that was asked for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Payment {
    /// What the provider calls it.
    pub id: String,
    /// Whether there is money.
    pub status: PaymentStatus,
    /// What was asked for.
    #[serde(flatten)]
    pub request: NewPayment,
}

/// What became of a payment, for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The money is the client's.
    Authorised,
    /// There is none.
    Declined,
}

/// What a request to pay meets.
pub(super) enum Outcome {
    Made(Payment),
    /// The key was used before for the same request: the payment made, or declined, then.
    Repeated(Payment),
    /// The key was used before for another request.
    KeyReused,
    Full,
}

#[derive(Default)]
pub(super) struct Payments(Mutex<Made>);

#[derive(Default)]
struct Made {
    all: Vec<Payment>,
    /// Where in `all` a key's payment is.
    by_key: HashMap<String, usize>,
}

impl Payments {
    pub(super) fn make(
        &self,
        key: Option<&str>,
        request: NewPayment,
        status: PaymentStatus,
    ) -> Outcome {
        let mut made = self.lock();
        if let Some(at) = key.and_then(|key| made.by_key.get(key)) {
            let before = &made.all[*at];
            return if before.request == request {
                Outcome::Repeated(before.clone())
            } else {
                Outcome::KeyReused
            };
        }
        if made.all.len() >= PAYMENTS_MAX {
            return Outcome::Full;
        }
        let payment = Payment {
            id: format!("pay_{:016x}", fastrand::u64(..)),
            status,
            request,
        };
        if let Some(key) = key {
            let at = made.all.len();
            made.by_key.insert(key.to_owned(), at);
        }
        made.all.push(payment.clone());
        Outcome::Made(payment)
    }

    /// Those with this reference, the oldest first.
    pub(super) fn of(&self, reference: &str) -> Vec<Payment> {
        let made = self.lock();
        let of_it = made
            .all
            .iter()
            .filter(|payment| payment.request.reference == reference);
        of_it.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
