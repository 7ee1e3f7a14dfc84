//! What can be wrong with a connection, and the draw that decides for one connection whether it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One way in which a network or a server fails.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Every byte arrives later by `delay`, give or take `jitter`, in order.
    Latency {
        /// In one direction; a round trip takes twice as long when both are late.
        #[serde(with = "humantime_serde")]
        delay: Duration,
        /// The most by which a delay is longer or shorter, drawn evenly.
        #[serde(default, with = "humantime_serde")]
        jitter: Duration,
    },
    /// No more than so many bytes a second get through.
    Bandwidth {
        /// In one direction of one connection; at least one.
        bytes_per_second: u32,
    },
    /// Bytes and the end of the stream are held back while both sockets stay open: a partition. What was held
    /// arrives when the fault is cleared.
    BlackHole,
    /// New connections and live ones end with a TCP reset.
    Reset,
    /// The connection closes when so many further bytes have passed in one direction.
    Cut {
        /// Counted from when the fault is set, or from the connection's beginning.
        after_bytes: u64,
    },
    /// When one side closes, the other learns it only so much later.
    SlowClose {
        /// From the one side's end to the other's.
        #[serde(with = "humantime_serde")]
        delay: Duration,
    },
    /// New connections are refused and live ones reset, whatever the direction and probability.
    Down,
}

/// Which bytes a fault touches.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Those of both directions.
    #[default]
    Both,
    /// What the client sends.
    ToServer,
    /// What the server sends.
    ToClient,
}

/// A fault with the direction and the share of connections it touches.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Toxic {
    /// What goes wrong.
    pub fault: Fault,
    /// Which bytes it touches; both ways when not given.
    #[serde(default)]
    pub direction: Direction,
    /// The share of connections it touches, from 0 to 1; all when not given. Live connections are drawn, too.
    #[serde(default = "always")]
    pub probability: f64,
}

fn always() -> f64 {
    1.0
}

impl Toxic {
    /// The same fault on the bytes of one direction only.
    pub fn towards(self, direction: Direction) -> Self {
        Self { direction, ..self }
    }

    /// The same fault on a share of the connections, from 0 to 1.
    pub fn with_probability(self, probability: f64) -> Self {
        Self {
            probability,
            ..self
        }
    }
}

impl From<Fault> for Toxic {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            direction: Direction::Both,
            probability: always(),
        }
    }
}

/// What one direction of one connection suffers.
#[derive(Clone, Copy, Default)]
pub(super) struct Effects {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) bytes_per_second: Option<u32>,
    pub(super) is_held: bool,
    pub(super) is_reset: bool,
    pub(super) cut_after_bytes: Option<u64>,
    pub(super) close_delay: Duration,
}

impl Effects {
    /// Equal seeds give equal draws, so that both directions of a connection agree on what befell it.
    pub(super) fn draw(toxics: &[Toxic], direction: Direction, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut effects = Self::default();
        for toxic in toxics {
            let is_drawn = random.f64() < toxic.probability;
            let is_concerned = toxic.direction == Direction::Both || toxic.direction == direction;
            if toxic.fault == Fault::Down || is_drawn && is_concerned {
                effects.add(&toxic.fault);
            }
        }
        effects
    }

    fn add(&mut self, fault: &Fault) {
        match *fault {
            Fault::Latency { delay, jitter } => (self.delay, self.jitter) = (delay, jitter),
            Fault::Bandwidth { bytes_per_second } => {
                self.bytes_per_second = Some(bytes_per_second.max(1))
            }
            Fault::BlackHole => self.is_held = true,
            Fault::Reset | Fault::Down => self.is_reset = true,
            Fault::Cut { after_bytes } => self.cut_after_bytes = Some(after_bytes),
            Fault::SlowClose { delay } => self.close_delay = delay,
        }
    }

    /// The delay of the bytes that have just arrived.
    pub(super) fn delay_now(&self) -> Duration {
        let spread = self.jitter.mul_f64(2.0 * fastrand::f64());
        (self.delay + spread).saturating_sub(self.jitter)
    }
}
