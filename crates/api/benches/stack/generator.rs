//! Requests at times fixed beforehand, whatever became of the earlier ones (an open loop), each timed from the moment at which it
//! was to be sent. A client that waits for an answer before it asks again hides every stall of the server.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// When a client gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent, how often and for how long.
#[derive(Clone)]
pub struct Fire {
    pub address: SocketAddr,
    /// Per second.
    pub rate: f64,
    pub count: usize,
    /// As many can be open at once; a request that finds none free is late, and that counts.
    pub connections: usize,
    /// The part of the requests that is critical.
    pub critical: f64,
    /// What is sent for each, as it goes over the wire; one of them at random.
    pub critical_requests: Arc<[Vec<u8>]>,
    pub sheddable_requests: Arc<[Vec<u8>]>,
}

/// One request and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    pub is_critical: bool,
    /// When it was to be sent, from the first.
    pub due: Duration,
    /// 0: there was no answer.
    pub status: u16,
    /// Whether the answer said when to come back.
    pub says_when: bool,
    /// From when it was to be sent to the end of the answer.
    pub took: Duration,
    /// How long after that it was sent: the generator's own fault.
    pub late: Duration,
}

/// Sends it all, and gives what came of each.
pub async fn fire(fire: &Fire) -> Vec<Shot> {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now() + Duration::from_millis(50);
    let mut clients = JoinSet::new();
    for _ in 0..fire.connections {
        clients.spawn(client(fire.clone(), start, Arc::clone(&next)));
    }
    clients.join_all().await.concat()
}

async fn client(fire: Fire, start: Instant, next: Arc<AtomicUsize>) -> Vec<Shot> {
    let mut shots = Vec::new();
    let mut kept = TcpStream::connect(fire.address).await.ok();
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= fire.count {
            return shots;
        }
        let due = start + Duration::from_secs_f64(number as f64 / fire.rate);
        sleep_until(due).await;
        let is_critical = fastrand::f64() < fire.critical;
        let requests = if is_critical {
            &fire.critical_requests
        } else {
            &fire.sheddable_requests
        };
        let request = fastrand::choice(&**requests).expect("there is something to send");
        let stream = match kept.take() {
            Some(stream) => Ok(stream),
            None => TcpStream::connect(fire.address).await,
        };
        let late = due.elapsed();
        let answer = match stream {
            Ok(stream) => timeout(PATIENCE, exchange(stream, request, &mut buffer)).await,
            Err(error) => Ok(Err(error)),
        };
        let (status, says_when) = match answer {
            Ok(Ok((stream, status, says_when))) => {
                kept = Some(stream);
                (status, says_when)
            }
            _ => (0, false),
        };
        shots.push(Shot {
            is_critical,
            due: due - start,
            status,
            says_when,
            took: due.elapsed(),
            late,
        });
    }
}

/// Sends a request and reads its answer; the connection again, the status, and whether there was a `Retry-After`.
async fn exchange(
    mut stream: TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<(TcpStream, u16, bool)> {
    buffer.clear();
    stream.write_all(request).await?;
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = head(buffer)
            && head.body.is_whole(&buffer[head.length..])
        {
            return Ok((stream, head.status, head.says_when));
        }
    }
}

struct Head {
    status: u16,
    /// Whether there is a `Retry-After`.
    says_when: bool,
    length: usize,
    body: Body,
}

enum Body {
    OfLength(usize),
    Chunked,
}

impl Body {
    fn is_whole(&self, bytes: &[u8]) -> bool {
        match self {
            Self::OfLength(length) => bytes.len() >= *length,
            Self::Chunked => bytes.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}

/// None while it is not all there.
fn head(bytes: &[u8]) -> Option<Head> {
    let length = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..length]).ok()?;
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    };
    Some(Head {
        status: head.get(9..12)?.parse().ok()?,
        says_when: field("retry-after").is_some(),
        length,
        body: match field("content-length") {
            Some(value) => Body::OfLength(value.parse().ok()?),
            None => Body::Chunked,
        },
    })
}
