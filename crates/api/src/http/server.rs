//! A listener and its connections: HTTP/1.1 and h2c on one port, every wait bounded, and a drain that loses nothing.
//!
//! `axum::serve` sets no timer, no cap and no deadline for a drain, which is why this accept loop is ours.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tower::Service;

use super::{
    Config,
    client_address::Peer,
    drain::{Drain, Pending, Phase},
    listener::{self, LAST_HANDSHAKES},
    stream::{Activity, InFlight, TimedStream},
};

/// The pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection that was accepted last has for its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// How often an idle HTTP/2 peer is asked whether it is still there.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// Requests one HTTP/2 connection may have open.
const HTTP2_STREAMS_MAX: u32 = 200;

/// A bound listener with everything a connection needs.
pub struct Server<A> {
    listener: TcpListener,
    app: A,
    config: Arc<Config>,
    age: Option<Age>,
    drain: Drain,
    tasks: TaskTracker,
}

/// How old a connection may become. Clients that keep theirs for ever never get to know a process that came later.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    /// When it is told to end, a tenth more or less, so that those of one moment do not all come back in another.
    pub max: Duration,
    /// For how long what is open then may go on.
    pub grace: Duration,
}

impl Age {
    async fn reached(age: Option<Self>) -> Duration {
        let Some(Self { max, grace }) = age else {
            return std::future::pending().await;
        };
        sleep(max.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        grace
    }
}

/// What serves the connections of a [`Server`]; a clone is cheap.
pub trait Served:
    Service<Request, Response = Response, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<A> Served for A where
    A: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

impl<A: Served> Server<A> {
    /// Binds `config.listen`. `app` serves the connections once [`Server::run`] runs.
    pub fn bind(config: Arc<Config>, app: A, drain: Drain) -> io::Result<Self> {
        Ok(Self {
            listener: listener::bind(config.listen)?,
            app,
            config,
            age: None,
            drain,
            tasks: TaskTracker::new(),
        })
    }

    /// Lets no connection become older.
    pub fn aged(self, age: Age) -> Self {
        Self {
            age: Some(age),
            ..self
        }
    }

    /// The address it is bound to, with the port the kernel chose if the setting was 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the drain reaches [`Phase::Closing`] and then until the last connection has ended, whatever it was upgraded
    /// to, which may take as long as the slowest of them.
    pub async fn run(self) {
        self.accept_until_closing().await;
        drop(self.listener);
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn accept_until_closing(&self) {
        let slots = Arc::new(Semaphore::new(self.config.connections_max));
        let mut closing = pin!(self.drain.reached(Phase::Closing));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&slots) => accepted,
                () = &mut closing => break,
            };
            self.spawn(accepted);
        }
        // Clients that the kernel has let in, or is about to, would be reset with the listener.
        if let Err(error) = listener::refuse_handshakes(&self.listener) {
            tracing::warn!(%error, "the last clients to connect may be reset");
        }
        let last = Instant::now() + LAST_HANDSHAKES;
        while let Ok(accepted) = timeout_at(last, self.accept(&slots)).await {
            self.spawn(accepted);
        }
    }

    /// The next connection, once there is a slot for it. Never fails: an error of one connection is not the
    /// listener's, and an exhausted process gets a pause to recover in.
    async fn accept(&self, slots: &Arc<Semaphore>) -> Accepted {
        let slot = Arc::clone(slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return Accepted { stream, peer, slot },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "accepting a connection failed; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, Accepted { stream, peer, slot }: Accepted) {
        let connection = Connection {
            peer: Peer(peer.ip()),
            app: self.app.clone(),
            age: self.age,
            drain: self.drain.clone(),
            activity: Arc::default(),
        };
        let config = Arc::clone(&self.config);
        let place = Place {
            _slot: slot,
            _unfinished: self.drain.begin(),
            _task: self.tasks.token(),
        };
        self.tasks
            .spawn(async move { connection.serve(stream, place, &config).await });
    }
}

/// A connection's place among all. It goes with the stream and not with the task that serves requests on it, for an upgrade hands
/// the stream on.
#[derive(Debug)]
pub(super) struct Place {
    _slot: OwnedSemaphorePermit,
    _unfinished: Pending,
    _task: TaskTrackerToken,
}

/// A connection and its place among all.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// One accepted connection.
struct Connection<A> {
    peer: Peer,
    app: A,
    age: Option<Age>,
    drain: Drain,
    activity: Arc<Activity>,
}

impl<A: Served> Connection<A> {
    async fn serve(self, stream: TcpStream, place: Place, config: &Config) {
        // Without it small responses wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let stream = TimedStream::new(stream, place, Arc::clone(&self.activity), config);
        let builder = builder(config);
        let service = service_fn(|request| self.answer(request));
        let mut serving =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));

        tokio::select! {
            // An error here is a client that went away or was too slow: its own affair.
            _ = serving.as_mut() => return,
            grace = Age::reached(self.age) => {
                serving.as_mut().graceful_shutdown();
                // Calls end by their deadlines; what is left then is a stream that would never end.
                let _ = timeout(grace, serving).await;
                return;
            }
            () = self.drain.reached(Phase::LameDuck) => {}
        }
        // HTTP/2 is told with GOAWAY and its open streams finish; HTTP/1.1 is told with the next answer.
        if self.activity.is_http2() {
            serving.as_mut().graceful_shutdown();
        }
        tokio::select! {
            _ = serving.as_mut() => return,
            () = self.drain.reached(Phase::Closing) => {}
        }
        // A client that has only just connected is about to ask; its answer will tell it to close.
        if self.activity.is_fresh() && timeout(FIRST_REQUEST, serving.as_mut()).await.is_ok() {
            return;
        }
        serving.as_mut().graceful_shutdown();
        let _ = serving.await;
    }

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<TrackedBody>, Infallible>> + use<A> {
        let version = request.version();
        let counted = self.activity.begin(version);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        let answer = self.app.clone().call(request);
        let drain = self.drain.clone();
        let activity = Arc::clone(&self.activity);
        async move {
            let mut response = answer.await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                activity.hand_over();
            } else if version < Version::HTTP_2 && drain.phase() >= Phase::LameDuck {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| TrackedBody {
                body,
                _counted: counted,
            }))
        }
    }
}

fn builder(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `TimedStream` times the head, because hyper's timer would also end an idle connection.
        .header_read_timeout(None)
        // Twice our own limits, so that what exceeds ours is still parsed and gets a problem for an answer.
        // The number of headers stays at hyper's 100: with any other it allocates for them on every request.
        .max_buf_size((config.head_bytes_max * 2).max(16 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(config.head_bytes_max * 2).unwrap_or(u32::MAX));
    builder
}

/// A response body that keeps its request counted until hyper has taken the last of it.
struct TrackedBody {
    body: Body,
    _counted: InFlight,
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
