//! A TCP relay that counts round trips: how often the client speaks after the server did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The relay; ends when dropped.
pub struct Wire {
    pub port: u16,
    count: Arc<Count>,
    _relays: JoinSet<()>,
}

#[derive(Default)]
struct Count {
    round_trips: AtomicUsize,
    is_client_speaking: AtomicBool,
}

impl Wire {
    /// Listens on a free port and relays to `port`.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let count = Arc::<Count>::default();
        let mut relays = JoinSet::new();
        let here = listener.local_addr().unwrap().port();
        let counting = count.clone();
        relays.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                connections.spawn(relay(client, server, counting.clone()));
            }
        });
        Self {
            port: here,
            count,
            _relays: relays,
        }
    }

    /// Round trips since the relay began, over all connections.
    pub fn round_trips(&self) -> usize {
        self.count.round_trips.load(Ordering::SeqCst)
    }
}

async fn relay(client: TcpStream, server: TcpStream, count: Arc<Count>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = copy(from_client, to_server, || {
        if !count.is_client_speaking.swap(true, Ordering::SeqCst) {
            count.round_trips.fetch_add(1, Ordering::SeqCst);
        }
    });
    let answers = copy(from_server, to_client, || {
        count.is_client_speaking.store(false, Ordering::SeqCst)
    });
    tokio::select! { () = requests => {}, () = answers => {} }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, heard: impl Fn()) {
    let mut buffer = [0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        heard();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
