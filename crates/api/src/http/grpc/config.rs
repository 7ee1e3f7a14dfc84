//! The settings of the gRPC listener. What it has in common with the public one is set there.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use garde::Validate;
use resilience::ranges::between;
use serde::{Deserialize, Serialize};

/// The gRPC listener: `grpc.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Config {
    /// Address and port of the gRPC listener.
    pub listen: SocketAddr,
    /// Open connections; further ones wait in the kernel's backlog.
    #[garde(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// How old a connection becomes, a tenth more or less, until it is told to end: its client connects anew and so meets the
    /// processes of that time.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), Duration::from_secs(24 * 3600))))]
    pub connection_age: Duration,
    /// For how long the calls on it may go on then. A stream that lasts longer is cut, and its client begins it anew.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), Duration::from_secs(3600))))]
    pub connection_age_grace: Duration,
    /// Bytes of a message that a client sends.
    #[garde(range(min = 1024, max = 104_857_600))]
    pub request_bytes_max: usize,
    /// Bytes of a message that is sent to a client; what would be larger is a failure of ours. gRPC's clients take 4 MiB.
    #[garde(range(min = 1024, max = 104_857_600))]
    pub response_bytes_max: usize,
    /// Whether clients may ask which services there are, and of which messages. For developers' tools.
    pub reflection: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8082)),
            connections_max: 10_000,
            connection_age: Duration::from_secs(300),
            connection_age_grace: Duration::from_secs(30),
            request_bytes_max: 1024 * 1024,
            response_bytes_max: 4 * 1024 * 1024,
            reflection: false,
        }
    }
}
