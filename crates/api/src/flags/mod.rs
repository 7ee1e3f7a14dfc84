//! Switches: what may be turned off without a restart, by hand for the whole fleet or by the load on one process. A question
//! costs a look at memory; where the answer comes from is looked after in the background, and outlives the loss of it.

mod config;
mod copy;
mod keep;
pub mod list;
mod metrics;
mod ofrep;
#[cfg(any(test, feature = "open-feature"))]
pub mod open_feature;
pub mod routes;
mod state;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

pub use config::Config;
pub use list::Flag;
pub use state::{ByHand, Origin, Reason, Standing};

use self::{copy::Copies, keep::Order, metrics::Metrics, state::State};
use crate::http::outbound::Service;

/// Orders of operators that may wait to be carried out.
const ORDERS_MAX: usize = 16;

/// See the module. A clone is the same flags.
#[derive(Clone)]
pub struct Flags(Arc<Inner>);

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.load();
        f.debug_tuple("Flags").field(&*state).finish()
    }
}

struct Inner {
    config: Config,
    state: ArcSwap<State>,
    /// Held while a new state is made of the last one.
    changing: Mutex<()>,
    copies: Option<Copies>,
    /// The remote one.
    service: Option<Service>,
    metrics: Metrics,
    orders: mpsc::Sender<Order>,
    /// Theirs who carries them out.
    ordered: tokio::sync::Mutex<mpsc::Receiver<Order>>,
}

impl Flags {
    /// What the process last knew, if there is a copy of it, and else what the code says. Asks nobody.
    /// `service` is the remote one, if there is one.
    pub fn new(config: &Config, service: Option<Service>, registry: &mut Registry) -> Self {
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let copies = config.copy_path.clone().map(Copies::new);
        let mut state = State::new(service.is_some());
        if let Some(copy) = copies.as_ref().and_then(Copies::read) {
            copy.apply_to(&mut state);
        }
        let flags = Self(Arc::new(Inner {
            config: config.clone(),
            state: ArcSwap::from_pointee(state),
            changing: Mutex::new(()),
            copies,
            service,
            metrics: Metrics::register(registry),
            orders,
            ordered: tokio::sync::Mutex::new(ordered),
        }));
        registry.register_collector(Box::new(metrics::Collected(flags.clone())));
        flags
    }

    /// Whether what the flag switches is on now. Allocates nothing.
    pub fn is_on(&self, flag: Flag) -> bool {
        self.evaluate(flag).is_on
    }

    /// The same with who decides it, and why.
    pub fn evaluate(&self, flag: Flag) -> Standing {
        let standing = self.standing(flag);
        self.0.metrics.evaluated(flag, standing.reason);
        standing
    }

    /// The same for who only looks; it is not counted.
    pub fn standing(&self, flag: Flag) -> Standing {
        self.0.state.load().standing(flag)
    }

    /// What the flag is set to by hand.
    pub fn by_hand(&self, flag: Flag) -> Option<ByHand> {
        self.0.state.load().by_hand(flag).cloned()
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let changing = self.0.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        let mut state = State::clone(&self.0.state.load());
        change(&mut state);
        self.0.state.store(Arc::new(state));
    }
}
