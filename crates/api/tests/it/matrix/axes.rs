//! What the matrix is made of. A variant's name is the same in the file, on the page and in what is printed.

use std::{convert::Infallible, fmt, future::pending, time::Duration};

use devstack::{Direction, Fault as Wrong, Proxy, Toxic};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// What the service depends on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    Primary,
    Standby,
    Redis,
    Payments,
    Recommender,
    Collector,
}

impl Dependency {
    pub const ALL: [Self; 6] = [
        Self::Primary,
        Self::Standby,
        Self::Redis,
        Self::Payments,
        Self::Recommender,
        Self::Collector,
    ];
}

/// How it fails.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Connections are refused, and those there were are reset.
    Down,
    /// Connections stay and are accepted, and nothing answers.
    Hang,
    /// Each answer takes two seconds longer.
    Slow,
    /// Connections are accepted and reset.
    Reset,
    /// It goes down and comes back all the time.
    Flap,
}

/// Added to each answer by [`Fault::Slow`].
const LATE: Duration = Duration::from_secs(2);
/// [`Fault::Flap`] is down for so long, and then back for so long.
const FLAP_DOWN: Duration = Duration::from_millis(300);
const FLAP_UP: Duration = Duration::from_millis(700);

impl Fault {
    pub const ALL: [Self; 5] = [Self::Down, Self::Hang, Self::Slow, Self::Reset, Self::Flap];

    /// Whether it leaves the dependency in one state.
    pub fn is_steady(self) -> bool {
        self != Self::Flap
    }

    /// Begins; one that is not steady goes on in [`Fault::go_on`].
    pub async fn begin(self, proxy: &Proxy) {
        let wrong = match self {
            Self::Down | Self::Flap => Toxic::from(Wrong::Down),
            Self::Hang => Wrong::BlackHole.into(),
            Self::Slow => {
                let late = Wrong::Latency {
                    delay: LATE,
                    jitter: Duration::ZERO,
                };
                Toxic::from(late).towards(Direction::ToClient)
            }
            Self::Reset => Wrong::Reset.into(),
        };
        proxy.set(wrong).await;
    }

    /// Until it is dropped.
    pub async fn go_on(self, proxy: &Proxy) -> Infallible {
        if self.is_steady() {
            return pending().await;
        }
        loop {
            sleep(FLAP_DOWN).await;
            proxy.clear().await;
            sleep(FLAP_UP).await;
            proxy.set(Wrong::Down).await;
        }
    }
}

/// Requests that depend on the same things.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    ProductUncached,
    ProductCached,
    Products,
    Recommendations,
    Session,
    SignIn,
    Orders,
    PlaceOrder,
    StaffWrite,
    Events,
    Probes,
}

impl Route {
    pub const ALL: [Self; 11] = [
        Self::ProductUncached,
        Self::ProductCached,
        Self::Products,
        Self::Recommendations,
        Self::Session,
        Self::SignIn,
        Self::Orders,
        Self::PlaceOrder,
        Self::StaffWrite,
        Self::Events,
        Self::Probes,
    ];
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
