//! A TCP stream that does not wait for ever for its peer.
//!
//! hyper times a request's head only, and only once it knows the protocol: a client that connects and says
//! nothing, sends half a method, or stops reading is held for as long as it likes. This wrapper sits below hyper and
//! knows from [`Activity`] whether a request is running, so that each kind of silence has its own limit.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{Config, server::Place};

/// What the requests of one connection are doing, told by the service and read by the stream.
#[derive(Debug, Default)]
pub struct Activity {
    in_flight: AtomicUsize,
    begun: AtomicU64,
    http2: AtomicBool,
    handed_over: AtomicBool,
}

impl Activity {
    /// Counts a request until the returned guard goes.
    pub fn begin(self: &Arc<Self>, version: http::Version) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        if version == http::Version::HTTP_2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        InFlight(Arc::clone(self))
    }

    /// The connection is no more one of requests, and whoever has it sees for itself whether its peer is there.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether no request has begun yet.
    pub fn is_fresh(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == 0
    }

    pub fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a peer may be silent, by what it is expected to do.
#[derive(Clone, Copy, Debug)]
struct Patience {
    first_byte: Duration,
    head: Duration,
    idle: Duration,
    write: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct TimedStream {
    stream: TcpStream,
    _place: Place,
    activity: Arc<Activity>,
    patience: Patience,
    /// Requests begun when the current silence was first seen.
    begun: u64,
    /// When the peer was last told something, or let in.
    quiet_since: Instant,
    /// When the first byte of a head came that is not complete yet.
    head_since: Option<Instant>,
    /// Since when the peer has taken no byte of what is to be written.
    write_since: Option<Instant>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
}

impl TimedStream {
    pub(super) fn new(
        stream: TcpStream,
        place: Place,
        activity: Arc<Activity>,
        config: &Config,
    ) -> Self {
        let now = Instant::now();
        let patience = Patience {
            first_byte: config.first_byte_timeout,
            head: config.head_timeout,
            idle: config.idle_timeout,
            write: config.write_stall_timeout,
        };
        Self {
            stream,
            _place: place,
            activity,
            patience,
            begun: 0,
            quiet_since: now,
            head_since: None,
            write_since: None,
            read_timer: Box::pin(sleep_until(now + patience.first_byte)),
            write_timer: Box::pin(sleep_until(now + patience.write)),
        }
    }

    /// Until when the peer may go on saying nothing.
    fn read_limit(&mut self) -> Instant {
        if self.activity.in_flight() > 0 {
            // No limit, but a time to look again: hyper does not poll a read that has blocked before when a
            // request ends.
            return Instant::now() + self.patience.head;
        }
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if begun != self.begun {
            self.begun = begun;
            self.head_since = None;
        }
        match self.head_since {
            // An HTTP/2 peer sends frames that are no request; any of them ends the silence.
            Some(heard) if begun > 0 && self.activity.is_http2() => heard + self.patience.idle,
            Some(started) => started + self.patience.head,
            None if begun == 0 => self.quiet_since + self.patience.first_byte,
            None => self.quiet_since + self.patience.idle,
        }
    }

    fn heard(&mut self) {
        if self.activity.in_flight() == 0 {
            let now = Instant::now();
            let since = self.head_since.get_or_insert(now);
            if self.activity.is_http2() {
                *since = now;
            }
        }
    }

    fn poll_written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_since = None;
            self.quiet_since = Instant::now();
            return written;
        }
        let limit = *self.write_since.get_or_insert_with(Instant::now) + self.patience.write;
        ready!(poll_until(&mut self.write_timer, cx, limit));
        Poll::Ready(Err(stalled("the client stopped reading")))
    }
}

/// Waits until `limit`. The timer is moved only when it fires too early, so a busy connection hardly touches it.
fn poll_until(timer: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>, limit: Instant) -> Poll<()> {
    if timer.deadline() > limit {
        timer.as_mut().reset(limit);
    }
    loop {
        ready!(timer.as_mut().poll(cx));
        if Instant::now() >= limit {
            return Poll::Ready(());
        }
        timer.as_mut().reset(limit);
    }
}

fn stalled(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            this.heard();
            return Poll::Ready(read);
        }
        if this.activity.handed_over.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let limit = this.read_limit();
        ready!(poll_until(&mut this.read_timer, cx, limit));
        Poll::Ready(Err(stalled("the client sent nothing")))
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
