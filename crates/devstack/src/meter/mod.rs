//! A relay that counts what is asked of a server, on the wire, where no client and no server can be wrong about it. Not
//! part of a stack: whoever counts puts a meter of its own before one of a stack's addresses, and sees nobody else.

mod session;

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use session::Session;

const READ_BYTES_MAX: usize = 16 * 1024;
/// What a Redis client sends to see whether the connection lives.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// The relay; ends when dropped, and with the runtime it was started in.
pub struct Meter {
    url: String,
    traffic: Arc<Mutex<Traffic>>,
    _relays: JoinSet<()>,
}

/// What was asked of a server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// How often a client spoke after the server did; what waits for nothing between is one. Logins count.
    pub round_trips: usize,
    /// Every statement that was run, in order, as the client wrote it; of Redis none.
    pub statements: Vec<String>,
}

/// Whose requests count.
#[derive(Clone)]
enum Counted {
    /// The Postgres sessions that call themselves so (`application_name`).
    Application(String),
    /// What any Redis client sends, but the pings.
    Commands,
}

impl Meter {
    /// Relays to a Postgres server, and counts what the sessions with this `application_name` ask. A background check
    /// that calls itself otherwise passes unseen.
    pub async fn postgres(url: &str, application: &str) -> Result<Self> {
        Self::start(url, Counted::Application(application.to_owned())).await
    }

    /// Relays to a Redis server, and counts everything but pings.
    pub async fn redis(url: &str) -> Result<Self> {
        Self::start(url, Counted::Commands).await
    }

    /// The server through the relay.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was asked since the last time this was called.
    pub fn take(&self) -> Traffic {
        mem::take(&mut self.traffic.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn start(url: &str, counted: Counted) -> Result<Self> {
        let (before, after) = url.rsplit_once(':').context("a URL without a port")?;
        let (port, database) = after.split_once('/').unwrap_or((after, ""));
        let port: u16 = port.parse().context("a URL without a port")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let here = listener.local_addr()?.port();
        let traffic = Arc::<Mutex<Traffic>>::default();
        let mut relays = JoinSet::new();
        relays.spawn(accept(listener, port, counted, Arc::clone(&traffic)));
        Ok(Self {
            url: format!("{before}:{here}/{database}"),
            traffic,
            _relays: relays,
        })
    }
}

async fn accept(listener: TcpListener, port: u16, counted: Counted, traffic: Arc<Mutex<Traffic>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let ear = Ear {
            is_client_speaking: false,
            session: match &counted {
                Counted::Application(name) => Some(Session::of(name)),
                Counted::Commands => None,
            },
            traffic: Arc::clone(&traffic),
        };
        // A client whose server is gone finds its connection closed.
        connections.spawn(async move {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                relay(client, server, Mutex::new(ear)).await;
            }
        });
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, ear: Mutex<Ear>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let hear =
        |heard: &dyn Fn(&mut Ear)| heard(&mut ear.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::select! {
        () = copy(from_client, to_server, |bytes| hear(&|ear| ear.client(bytes))) => {}
        () = copy(from_server, to_client, |_| hear(&Ear::server)) => {}
    }
}

/// What is heard of one connection. Each side is heard before the other one gets the bytes, so that all of a request is
/// counted when its answer arrives.
struct Ear {
    is_client_speaking: bool,
    session: Option<Session>,
    traffic: Arc<Mutex<Traffic>>,
}

impl Ear {
    fn client(&mut self, bytes: &[u8]) {
        let (is_counted, statements) = match &mut self.session {
            Some(session) => session.hear(bytes),
            None => (bytes != PING, Vec::new()),
        };
        if !is_counted {
            return;
        }
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.round_trips += usize::from(!mem::replace(&mut self.is_client_speaking, true));
        traffic.statements.extend(statements);
    }

    fn server(&mut self) {
        self.is_client_speaking = false;
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    heard: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; READ_BYTES_MAX];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        heard(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
