//! The settings of the live feed.

use std::time::Duration;

use garde::Validate;
use resilience::ranges::between;
use serde::{Deserialize, Serialize};

use crate::http::config::between_1ms_and_1h;

/// The settings under `live`. A socket is an open WebSocket, or an open stream of events or of an RPC.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sockets of this process. Fewer than `http.connections_max`, so that requests are served besides.
    #[garde(range(min = 1, max = 1_000_000))]
    pub sockets_max: usize,
    /// Sockets that one tenant has on this process: whom a trusted caller names, or else an address, behind which many people may be.
    #[garde(range(min = 1, max = 1_000_000))]
    pub tenant_sockets_max: usize,
    /// Sockets that one customer has on this process.
    #[garde(range(min = 1, max = 10_000))]
    pub customer_sockets_max: usize,
    /// Bytes that may wait for one socket, and that one may have missed when it comes back. Who reads slower is cut off.
    #[garde(range(min = 1024, max = 104_857_600))]
    pub queue_bytes_max: usize,
    /// Bytes of a message from a client, of whom nothing is expected.
    #[garde(range(min = 125, max = 65_536))]
    pub message_bytes_max: usize,
    /// How often a client is asked whether it is still there.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub ping_interval: Duration,
    /// How long it may take to say so.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub pong_timeout: Duration,
    /// How often it is looked which sessions have ended; their sockets are closed.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(4))))]
    pub session_check_interval: Duration,
    /// How long finding out what a client has missed may take. If it takes longer, the client is told to fetch anew.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub resume_timeout: Duration,
    /// How long all sockets are closed for, one after the other, when the process ends. The shorter, the more come back at once.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub drain_window: Duration,
    /// For how long after its end a socket's client is asked to wait before it comes back, at most; each waits for another time.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::ZERO, Duration::from_secs(3600))))]
    pub reconnect_spread: Duration,
    /// How long a client has to take leave, once it is told why.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub close_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sockets_max: 8_000,
            tenant_sockets_max: 500,
            customer_sockets_max: 20,
            queue_bytes_max: 256 * 1024,
            message_bytes_max: 1024,
            ping_interval: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(10),
            session_check_interval: Duration::from_secs(3),
            resume_timeout: Duration::from_secs(1),
            drain_window: Duration::from_secs(10),
            reconnect_spread: Duration::from_secs(2),
            close_timeout: Duration::from_secs(2),
        }
    }
}
