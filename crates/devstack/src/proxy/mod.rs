//! A TCP proxy that stands before each server and fails as told: it can be late, slow, silent, cut, reset or gone.
//! A server that is paused or dead shows through as it would without a proxy.

mod control;
mod pipe;
mod toxic;

use std::{future::pending, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

pub(crate) use control::serve as serve_control;
use pipe::{End, pipe};
use toxic::Effects;
pub use toxic::{Direction, Fault, Toxic};

use crate::ports;

/// Further clients wait in the listener's queue.
const CONNECTIONS_MAX: usize = 2048;
const LISTEN_QUEUE_MAX: u32 = 1024;
/// A server whose own queue is full lets a client wait as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(20);

/// The servers that have a proxy before them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The Postgres server that takes writes.
    Primary,
    /// The Postgres server that streams from the primary; what it streams does not pass through a proxy.
    Standby,
    /// The Redis server.
    Redis,
    /// The sandbox of the payment provider and the recommender.
    Upstream,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Primary, Self::Standby, Self::Redis, Self::Upstream];
}

/// The proxy before one server. It lives as long as the stack.
pub struct Proxy {
    listen: SocketAddr,
    rules: watch::Sender<Rules>,
    /// The version of the rules by which the port is now open or closed.
    applied: watch::Receiver<u64>,
}

struct Rules {
    /// Where new connections lead.
    server: SocketAddr,
    toxics: Vec<Toxic>,
    /// The server was killed: connecting must be refused, as the kernel would without a proxy.
    is_server_gone: bool,
    /// Counts the changes; part of each connection's seed.
    version: u64,
}

impl Rules {
    fn refuses(&self) -> bool {
        self.is_server_gone || self.toxics.iter().any(|toxic| toxic.fault == Fault::Down)
    }
}

impl Proxy {
    /// Listens on a free port and forwards to a port of this machine, in tasks of the given runtime.
    pub(crate) fn start(runtime: &Handle, server: u16) -> Result<Arc<Self>> {
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let server = SocketAddr::from(([127, 0, 0, 1], server));
        let (rules, changes) = watch::channel(Rules {
            server,
            toxics: Vec::new(),
            is_server_gone: false,
            version: 0,
        });
        let (report, applied) = watch::channel(0);
        let _context = runtime.enter();
        let listener = bind(listen).with_context(|| format!("listen on {listen}"))?;
        runtime.spawn(accept(listener, changes, report));
        Ok(Arc::new(Self {
            listen,
            rules,
            applied,
        }))
    }

    /// The port on which clients are served.
    pub fn port(&self) -> u16 {
        self.listen.port()
    }

    /// Where new connections lead.
    pub(crate) fn server(&self) -> SocketAddr {
        self.rules.borrow().server
    }

    /// From now on this fault and no other, on new and on live connections.
    pub async fn set(&self, toxic: impl Into<Toxic>) {
        self.set_all(vec![toxic.into()]).await;
    }

    /// From now on these faults and no others, on new and on live connections.
    pub async fn set_all(&self, toxics: Vec<Toxic>) {
        self.change(|rules| rules.toxics = toxics).await;
    }

    /// No fault any more. What a black hole held arrives now.
    pub async fn clear(&self) {
        self.set_all(Vec::new()).await;
    }

    /// The faults now in force.
    pub fn toxics(&self) -> Vec<Toxic> {
        self.rules.borrow().toxics.clone()
    }

    /// From now on new connections lead to another server, as when an endpoint moves at a failover. Live ones stay.
    pub(crate) async fn lead_to(&self, port: u16) {
        self.change(|rules| {
            rules.server.set_port(port);
            rules.is_server_gone = false;
        })
        .await;
    }

    pub(crate) async fn set_server_gone(&self, is_server_gone: bool) {
        self.change(|rules| rules.is_server_gone = is_server_gone)
            .await;
    }

    /// Returns when the port is open or closed accordingly; live connections follow at once.
    async fn change(&self, change: impl FnOnce(&mut Rules)) {
        let mut version = 0;
        self.rules.send_modify(|rules| {
            change(rules);
            rules.version += 1;
            version = rules.version;
        });
        // The end of the runtime is the end of the wait.
        let _ = self
            .applied
            .clone()
            .wait_for(|applied| *applied >= version)
            .await;
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The port may still be named by old connections when it is taken up again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_QUEUE_MAX)
}

/// Ends when the proxy is dropped, and all connections with it.
async fn accept(
    listener: TcpListener,
    mut rules: watch::Receiver<Rules>,
    applied: watch::Sender<u64>,
) -> Option<()> {
    let address = listener.local_addr().ok()?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        let (is_refused, version) = {
            let rules = rules.borrow_and_update();
            (rules.refuses(), rules.version)
        };
        if is_refused {
            listener = None;
        } else if listener.is_none() {
            listener = bind(address).ok();
        }
        if is_refused == listener.is_none() {
            applied.send_replace(version);
        }
        tokio::select! {
            changed = rules.changed() => changed.ok()?,
            _ = connections.join_next(), if !connections.is_empty() => {}
            (client, place) = next_client(listener.as_ref(), &places) => {
                let rules = rules.clone();
                connections.spawn(async move {
                    serve(client, rules).await;
                    drop(place);
                });
            }
            () = sleep(RETRY), if listener.is_none() && !is_refused => {}
        }
    }
}

/// A failed accept concerns one client, or passes.
async fn next_client(
    listener: Option<&TcpListener>,
    places: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let Some(listener) = listener else {
        return pending().await;
    };
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((client, _)) => return (client, place),
            Err(_) => sleep(RETRY).await,
        }
    }
}

async fn serve(mut client: TcpStream, rules: watch::Receiver<Rules>) {
    let server = rules.borrow().server;
    let seed = fastrand::u64(..);
    let draw = |direction| Draw {
        rules: rules.clone(),
        direction,
        seed,
    };
    let to_server = draw(Direction::ToServer);
    let is_reset = to_server.effects().is_reset;
    let connected = match is_reset {
        true => None,
        false => timeout(CONNECT_TIMEOUT, TcpStream::connect(server))
            .await
            .ok()
            .and_then(Result::ok),
    };
    let Some(mut server) = connected else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reader, client_writer) = client.split();
    let (server_reader, server_writer) = server.split();
    let ended = tokio::try_join!(
        pipe(client_reader, server_writer, to_server),
        pipe(server_reader, client_writer, draw(Direction::ToClient)),
    );
    if ended == Err(End::Reset) {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction's share of the rules.
struct Draw {
    rules: watch::Receiver<Rules>,
    direction: Direction,
    /// The connection's own, the same in both directions.
    seed: u64,
}

impl Draw {
    fn effects(&self) -> Effects {
        let rules = self.rules.borrow();
        Effects::draw(
            &rules.toxics,
            self.direction,
            self.seed.wrapping_add(rules.version),
        )
    }

    /// Waits for other rules; a proxy that goes takes its connections with it.
    async fn changed(&mut self) -> Result<Effects, End> {
        self.rules.changed().await.map_err(|_| End::Reset)?;
        Ok(self.effects())
    }
}

#[cfg(test)]
mod tests;
