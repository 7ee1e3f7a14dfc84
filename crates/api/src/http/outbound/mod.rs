//! Calls to other services. Every one is made here, so that each is bounded, counted and given up in the same way:
//!
//! breaker → bulkhead → attempt (under its own timeout, the call's, and the request's deadline) → retry, where it is
//! safe, within the budget.
//!
//! A call takes along the request's id (`X-Request-Id`), its trace (`traceparent`, `tracestate`), how long the answer is still
//! of use (`Request-Timeout`, such as `250ms`) and how much it matters (`Request-Criticality`); to a service that has given us a
//! key (`Caller-Key`), also for whom it is (`Request-Tenant`). Nothing else of the request.

mod config;
mod error;
mod metrics;
mod question;
#[cfg(test)]
mod tests;
mod transport;

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use resilience::{
    Breaker, Bulkhead, Retries,
    breaker::{Permit, State},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::Instrument;
use uuid::Uuid;

pub use config::Config;
pub use error::CallError;
pub use metrics::Metrics;

use super::Caller;
use metrics::Instruments;
use question::Question;
use transport::{Answer, Transport};

/// One other service. A clone is the same connections, breaker and budget.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

/// An answer, and what it can be asked for by again (`ETag`).
#[derive(Debug)]
pub struct Tagged<T> {
    pub value: T,
    pub tag: Option<HeaderValue>,
}

struct Inner {
    name: &'static str,
    base: String,
    config: Config,
    transport: Transport,
    breaker: Breaker,
    bulkhead: Bulkhead,
    retries: Retries,
    instruments: Instruments,
}

impl Service {
    /// The service that `config` names, if it names one; it is `name` in logs and metrics.
    ///
    /// # Errors
    /// When TLS to it cannot be set up.
    pub fn new(
        name: &'static str,
        config: &Config,
        metrics: &Metrics,
    ) -> anyhow::Result<Option<Self>> {
        let Some(url) = &config.url else {
            return Ok(None);
        };
        let instruments = metrics.of(name);
        let breaker = Breaker::new(&config.breaker, move |state| match state {
            State::Open => {
                tracing::warn!(service = name, "not called any more for a while: it fails")
            }
            State::HalfOpen => {
                tracing::info!(service = name, "trying whether it answers again")
            }
            State::Closed => tracing::info!(service = name, "called again: it answers"),
        });
        metrics.breakers.add(name, &breaker);
        Ok(Some(Self(Arc::new(Inner {
            name,
            base: url.trim_end_matches('/').to_owned(),
            transport: Transport::new(config)?,
            breaker,
            bulkhead: Bulkhead::new(&config.bulkhead),
            retries: Retries::new(&config.retry),
            instruments,
            config: config.clone(),
        }))))
    }

    /// GETs `target`, a path with its query, and reads the JSON of the answer. Safe to repeat, so it is repeated when that
    /// may help.
    ///
    /// # Errors
    /// When there is no answer, or any other than a 200 or 201 that holds such a value.
    pub async fn get<T: DeserializeOwned>(
        &self,
        target: &str,
        caller: &Caller,
    ) -> Result<T, CallError> {
        let question = Question::get(&self.0.base, target);
        self.0.ask(question, caller, Answer::json).await
    }

    /// POSTs `body` as JSON to `target` and reads the JSON of the answer. There is no way to do so without an idempotency `key`,
    /// by which the other side knows what it has done already: so this is safe to repeat, too, and is repeated when that may
    /// help. Also by a later call with the same key and body.
    ///
    /// # Errors
    /// When there is no answer, or any other than a 200 or 201 that holds such a value. [`CallError::Refused`] is the
    /// other side's last word; after most others nobody knows whether it has done what was asked.
    pub async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        key: Uuid,
        body: &impl Serialize,
        caller: &Caller,
    ) -> Result<T, CallError> {
        let body = question::json(body, self.0.config.body_bytes_max);
        let question = body.and_then(|body| Question::post(&self.0.base, target, key, body));
        self.0.ask(question, caller, Answer::json).await
    }

    /// POSTs `body` as JSON to `target` where that changes nothing but only asks, and reads the JSON of the answer. None: it is
    /// still the one with the tag `known`. Safe to repeat, so it is repeated when that may help.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn look<T: DeserializeOwned>(
        &self,
        target: &str,
        known: Option<&HeaderValue>,
        body: &impl Serialize,
        caller: &Caller,
    ) -> Result<Option<Tagged<T>>, CallError> {
        let body = question::json(body, self.0.config.body_bytes_max);
        let question = body.and_then(|body| Question::look(&self.0.base, target, known, body));
        let read = |answer: &Answer| {
            if known.is_some() && answer.status == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            let tag = answer.tag.clone();
            answer.json().map(|value| Some(Tagged { value, tag }))
        };
        self.0.ask(question, caller, read).await
    }
}

impl Inner {
    /// One call, counted.
    async fn ask<T>(
        &self,
        question: Result<Question, CallError>,
        caller: &Caller,
        read: impl FnOnce(&Answer) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let answer = match question {
            Ok(question) => {
                let question = question
                    .on_behalf_of(caller, self.config.caller_key.as_ref())
                    .authorized(self.config.token.as_ref());
                self.call(&question, caller).await
            }
            Err(error) => Err(error),
        };
        let result = answer.and_then(|answer| read(&answer));
        let outcome = result
            .as_ref()
            .map_or_else(CallError::outcome, |_| "answered");
        self.instruments.ended(outcome);
        result
    }

    async fn call(&self, question: &Question, caller: &Caller) -> Result<Answer, CallError> {
        let deadline = caller
            .deadline
            .min(Instant::now() + self.config.total_timeout);
        self.retries.begin();
        let mut made = 0;
        loop {
            let error = match self.attempt(question, caller, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            made += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = error
                .may_pass()
                .then(|| self.retries.pause(made, error.retry_after(), left));
            let Some(Some(pause)) = pause else {
                return Err(error);
            };
            tracing::info!(service = self.name, attempt = made, %error, ?pause, "asking again");
            self.instruments.retries.inc();
            sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        question: &Question,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let permit = self.breaker.enter()?;
        let _slot = self.bulkhead.enter(deadline).await?;
        let _under_way = self.instruments.under_way();
        let begun = Instant::now();
        let until = deadline.min(begun + self.config.attempt_timeout);
        let span = tracing::info_span!("call", service = self.name, otel.kind = "client");
        let request = span.in_scope(|| question.attempt(caller, until));
        let exchange = self.transport.exchange(request).instrument(span);
        let result = timeout_at(until, exchange)
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(until - begun)));
        self.instruments
            .attempts
            .observe(begun.elapsed().as_secs_f64());
        self.judge(permit, &result, begun);
        result
    }

    /// Tells the breaker what the attempt says about the service.
    fn judge(&self, permit: Permit, result: &Result<Answer, CallError>, begun: Instant) {
        let took = begun.elapsed();
        let is_success = match result {
            // Too much of an answer is one.
            Ok(_) | Err(CallError::TooLarge(_)) => true,
            // A caller in a hurry says nothing about the service.
            Err(CallError::Timeout(_)) if took < self.config.breaker.slow_after => return,
            Err(_) => false,
        };
        permit.record(is_success, took);
    }
}

impl Answer {
    /// The body of a success as JSON.
    fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        if self.status.is_client_error() {
            return Err(CallError::Refused(self.status));
        }
        if ![StatusCode::OK, StatusCode::CREATED].contains(&self.status) {
            return Err(CallError::Unreadable(
                format!("it answered {}", self.status).into(),
            ));
        }
        serde_json::from_slice(&self.body).map_err(|error| CallError::Unreadable(error.into()))
    }
}
