//! Ports for servers that must come back on the same one after a restart.

use std::{collections::HashSet, net::TcpListener, ops::Range, sync::Mutex, sync::PoisonError};

use anyhow::{Context, Result};

/// Below the kernel's own range (32768 and up on Linux, 49152 on macOS), from which outgoing connections take theirs:
/// a port given up for a restart is not lost to one of them.
const PORTS: Range<u16> = 20_000..30_000;
const ATTEMPTS: usize = 200;

static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A free port on the loopback address that this process was not given before.
pub(crate) fn free() -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (0..ATTEMPTS)
        .map(|_| fastrand::u16(PORTS))
        .find(|port| !taken.contains(port) && is_free(port))
        .with_context(|| format!("no free port between {} and {}", PORTS.start, PORTS.end))?;
    taken.insert(port);
    Ok(port)
}
