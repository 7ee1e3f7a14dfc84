//! The payments made so far, one for each idempotency key.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Beyond it new keys are refused; a sandbox that forgot a key would charge twice.
const KEYS_MAX: usize = 1_000_000;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPayment {
    /// What the client calls it, for example its order.
    pub(super) reference: String,
    pub(super) amount_cents: u64,
    /// Three letters, ISO 4217.
    pub(super) currency: String,
}

#[derive(Clone, Serialize)]
pub(super) struct Payment {
    id: String,
    status: &'static str,
    #[serde(flatten)]
    request: NewPayment,
}

/// What became of a request to pay.
pub(super) enum Outcome {
    Made(Payment),
    /// The key was used before for the same request: the payment made then.
    Repeated(Payment),
    /// The key was used before for another request.
    KeyReused,
    Full,
}

#[derive(Default)]
pub(super) struct Payments {
    by_key: Mutex<HashMap<String, Payment>>,
}

impl Payments {
    pub(super) fn authorise(&self, key: Option<&str>, request: NewPayment) -> Outcome {
        let payment = Payment {
            id: format!("pay_{:016x}", fastrand::u64(..)),
            status: "authorised",
            request,
        };
        let Some(key) = key else {
            return Outcome::Made(payment);
        };
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        match by_key.get(key) {
            Some(made) if made.request == payment.request => Outcome::Repeated(made.clone()),
            Some(_) => Outcome::KeyReused,
            None if by_key.len() >= KEYS_MAX => Outcome::Full,
            None => {
                by_key.insert(key.to_owned(), payment.clone());
                Outcome::Made(payment)
            }
        }
    }
}
