//! The remote service, by OpenFeature's protocol (OFREP 0.2, `POST /ofrep/v1/evaluate/flags`): asked for all flags at once, now
//! and then, and never for an evaluation.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Flags,
    list::Flag,
    state::{COUNT, Knowledge},
};
use crate::http::{
    Caller,
    outbound::{CallError, Tagged},
};

const TARGET: &str = "/ofrep/v1/evaluate/flags";

/// Whom the flags are for: this service, and not one of its customers.
const ASK: Ask = Ask {
    context: Context {
        targeting_key: "holdfast",
    },
};

#[derive(Serialize)]
struct Ask {
    context: Context,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    targeting_key: &'static str,
}

#[derive(Deserialize)]
struct Told {
    flags: Vec<Evaluation>,
}

/// One flag. Without a value where it could not be evaluated.
#[derive(Deserialize)]
struct Evaluation {
    key: String,
    value: Option<Value>,
}

impl Told {
    /// What is said of each flag of ours. One that is not on or off is as good as not named.
    fn values(&self) -> [Option<bool>; COUNT] {
        Flag::ALL.map(|flag| {
            let told = self.flags.iter().find(|told| told.key == flag.name())?;
            told.value.as_ref()?.as_bool()
        })
    }
}

impl Flags {
    /// Takes over what the remote service says, if there is one. What it last said counts while it says nothing.
    pub(super) async fn follow_service(&self) {
        let (Some(service), config) = (&self.0.service, &self.0.config) else {
            return;
        };
        let mut ticks = interval(config.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last_told, mut was_told) = (Instant::now(), true);
        let mut known = None;
        loop {
            ticks.tick().await;
            let caller = Caller::background(Instant::now() + config.ofrep.total_timeout);
            let looked: Result<Option<Tagged<Told>>, CallError> =
                service.look(TARGET, known.as_ref(), &ASK, &caller).await;
            if let (Err(error), true) = (&looked, was_told) {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the remote service does not say how flags are to be");
            }
            was_told = looked.is_ok();
            match looked {
                Ok(told) => {
                    last_told = Instant::now();
                    let values = told.as_ref().map(|told| told.value.values());
                    known = told.map_or(known, |told| told.tag);
                    self.told(values);
                    self.copy().await;
                }
                Err(_) if last_told.elapsed() >= config.stale_after => self.service_grows_stale(),
                Err(_) => {}
            }
        }
    }

    /// None: what it said before.
    fn told(&self, values: Option<[Option<bool>; COUNT]>) {
        self.change(|state| {
            if let Some(values) = values {
                state.remote = values;
            }
            state.service = Some(Knowledge::Current);
        });
    }

    fn service_grows_stale(&self) {
        if self.0.state.load().service == Some(Knowledge::Current) {
            self.change(|state| state.service = Some(Knowledge::Stale));
        }
    }
}
