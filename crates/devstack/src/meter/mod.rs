//! A relay that counts what is asked of a server, on the wire, where no client and no server can be wrong about it, and that
//! stops at a given round trip, so that a client can be killed in the middle of it. Not part of a stack: whoever counts puts a
//! meter of its own before one of a stack's addresses, and sees nobody else.

mod session;
mod stop;

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
pub use stop::Moment;
use stop::Stop;

const READ_BYTES_MAX: usize = 16 * 1024;
/// What a Redis client sends to see whether the connection lives.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// The relay; ends when dropped, and with the runtime it was started in.
pub struct Meter {
    url: String,
    traffic: Arc<Mutex<Traffic>>,
    stop: Stop,
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

    /// Relays to an HTTP server of one request at a time on a connection, and counts them.
    pub async fn http(url: &str) -> Result<Self> {
        let mut meter = Self::start(url, Counted::Commands).await?;
        meter.url = meter.url.trim_end_matches('/').to_owned();
        Ok(meter)
    }

    /// Stops the connection of the `nth` round trip that is counted from now on, the first being 1, at that moment of it. What
    /// was to be relayed never is.
    pub fn stop_at(&self, nth: usize, moment: Moment) {
        self.stop.set(nth, moment);
    }

    /// Waits until a connection is stopped.
    pub async fn stopped(&self) {
        self.stop.reached().await;
    }

    /// Closes what is stopped, as the death of the client would, and stops at nothing more.
    pub fn cut(&self) {
        self.stop.clear();
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
        let stop = Stop::default();
        let ear = Ear {
            is_client_speaking: false,
            session: None,
            traffic: Arc::clone(&traffic),
            stop: stop.clone(),
            stops_at: None,
        };
        let mut relays = JoinSet::new();
        relays.spawn(accept(listener, port, counted, ear));
        Ok(Self {
            url: format!("{before}:{here}/{database}"),
            traffic,
            stop,
            _relays: relays,
        })
    }
}

async fn accept(listener: TcpListener, port: u16, counted: Counted, deaf: Ear) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let ear = Ear {
            session: match &counted {
                Counted::Application(name) => Some(Session::of(name)),
                Counted::Commands => None,
            },
            traffic: Arc::clone(&deaf.traffic),
            stop: deaf.stop.clone(),
            ..deaf
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
    let stop = hear(&ear, |ear| ear.stop.clone());
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let of_client = |bytes: &[u8]| hear(&ear, |ear| ear.client(bytes));
    let of_server = |_: &[u8]| hear(&ear, Ear::server);
    tokio::select! {
        () = copy(from_client, to_server, &stop, of_client) => {}
        () = copy(from_server, to_client, &stop, of_server) => {}
    }
}

fn hear<T>(ear: &Mutex<Ear>, heard: impl FnOnce(&mut Ear) -> T) -> T {
    heard(&mut ear.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What is heard of one connection. Each side is heard before the other one gets the bytes, so that all of a request is
/// counted when its answer arrives.
struct Ear {
    is_client_speaking: bool,
    session: Option<Session>,
    traffic: Arc<Mutex<Traffic>>,
    stop: Stop,
    /// The moment at which the round trip under way is to be stopped.
    stops_at: Option<Moment>,
}

impl Ear {
    /// Whether the client is to be stopped here.
    fn client(&mut self, bytes: &[u8]) -> bool {
        let (is_counted, statements) = match &mut self.session {
            Some(session) => session.hear(bytes),
            None => (bytes != PING, Vec::new()),
        };
        if !is_counted {
            return false;
        }
        let is_new = !mem::replace(&mut self.is_client_speaking, true);
        if is_new {
            self.stops_at = self.stop.count();
        }
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.round_trips += usize::from(is_new);
        traffic.statements.extend(statements);
        self.stops_at == Some(Moment::Asked)
    }

    /// Whether the server's answer is to be stopped here.
    fn server(&mut self) -> bool {
        self.is_client_speaking = false;
        self.stops_at == Some(Moment::Answered)
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    stop: &Stop,
    heard: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; READ_BYTES_MAX];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if heard(&buffer[..length]) {
            return stop.hold().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
