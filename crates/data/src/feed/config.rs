//! The settings of the feed.

use serde::{Deserialize, Serialize};

/// How much of each topic is kept, and where: `feed.*`.
#[derive(Clone, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Messages of a topic that Redis keeps, about: as far back as a client can resume.
    #[garde(range(min = 100, max = 10_000_000))]
    pub stream_max: usize,
    /// Bytes of an event's body. A larger one is not published. No less than the outbox takes.
    #[garde(range(min = 8_192, max = 1_048_576))]
    pub event_bytes_max: usize,
    /// Bytes of a topic's latest messages that each process keeps, so that resuming asks nobody.
    #[garde(range(min = 4096, max = 1_073_741_824))]
    pub ring_bytes_max: usize,
    /// Bytes of a topic's messages that have come and are not dealt out yet. Beyond that they are read from the stream later.
    #[garde(range(min = 4096, max = 1_073_741_824))]
    pub inbox_bytes_max: usize,
    /// Missed messages that are read from the stream at most. Who has missed more is told to fetch everything anew.
    #[garde(range(min = 1, max = 1_000_000))]
    pub repair_max: usize,
    /// Clients that may read at once from the stream what this process no longer has. Further ones are told to fetch anew.
    #[garde(range(min = 1, max = 1_000))]
    pub resumes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_max: 10_000,
            event_bytes_max: 16 * 1024,
            ring_bytes_max: 4 * 1024 * 1024,
            inbox_bytes_max: 4 * 1024 * 1024,
            repair_max: 5_000,
            resumes_max: 16,
        }
    }
}
