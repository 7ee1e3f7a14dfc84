//! HTTP/1.1 by hand, so that a test can send what no client library would.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::service::PATIENCE;

/// The header that names a request.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// One connection.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// One response, as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// Whether the server asked for the connection to be closed.
    pub fn closes(&self) -> bool {
        self.head
            .to_ascii_lowercase()
            .contains("\r\nconnection: close")
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::connect(address).await?,
            unread: Vec::new(),
        })
    }

    /// The same from an address of this machine.
    pub async fn connect_from(from: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        Ok(Self {
            stream: socket.connect(address).await?,
            unread: Vec::new(),
        })
    }

    pub async fn send(&mut self, bytes: &str) {
        self.try_send(bytes).await.unwrap();
    }

    /// The same to a server that may have gone.
    pub async fn try_send(&mut self, bytes: &str) -> io::Result<()> {
        self.stream.write_all(bytes.as_bytes()).await
    }

    /// A GET and its reply, on a connection that is kept.
    pub async fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes())
            .await?;
        self.reply().await
    }

    /// Any request and its reply, on a connection that is kept. `line` is method and path; a body is JSON. A POST has an
    /// `Idempotency-Key` of its own if the headers bring none.
    pub async fn call(
        &mut self,
        line: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Reply> {
        let mut request = format!("{line} HTTP/1.1\r\nHost: shop\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let is_key = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case(IDEMPOTENCY_KEY);
        if line.starts_with("POST ") && !headers.iter().any(is_key) {
            request += &format!("{IDEMPOTENCY_KEY}: {:x}\r\n", fastrand::u128(..));
        }
        match body.map(Value::to_string) {
            Some(body) => {
                let length = body.len();
                request += &format!(
                    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                );
            }
            None => request += "\r\n",
        }
        self.stream.write_all(request.as_bytes()).await?;
        // The length in the answer to a HEAD is that of a body which does not come.
        let reply = self.read_reply(!line.starts_with("HEAD "));
        timeout(PATIENCE, reply)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Sends `bytes` and returns all that comes until the server closes the connection, which it may do before it has
    /// read everything.
    pub async fn exchange(mut self, bytes: &[u8]) -> String {
        let (mut incoming, mut outgoing) = self.stream.split();
        let send = async {
            let _ = outgoing.write_all(bytes).await;
        };
        let read = async {
            while incoming
                .read_buf(&mut self.unread)
                .await
                .is_ok_and(|read| read > 0)
            {}
        };
        timeout(PATIENCE, async { tokio::join!(send, read) })
            .await
            .expect("the server keeps the connection");
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    /// Sends `head` and then a space now and then, for as long as the server lets it; what came until it closed.
    pub async fn exchange_slowly(mut self, head: &str) -> String {
        self.send(head).await;
        let (mut incoming, mut outgoing) = self.stream.split();
        let trickle = async {
            while outgoing.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let read = async {
            while incoming
                .read_buf(&mut self.unread)
                .await
                .is_ok_and(|read| read > 0)
            {}
        };
        timeout(PATIENCE, async {
            tokio::select! { () = trickle => {}, () = read => {} }
        })
        .await
        .expect("the server keeps the connection");
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    /// The next response, whose body must have a Content-Length.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        timeout(PATIENCE, self.read_reply(true))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn read_reply(&mut self, with_body: bool) -> io::Result<Reply> {
        let head_end = loop {
            if let Some(end) = self
                .unread
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break end + 4;
            }
            self.read_more().await?;
        };
        let head = String::from_utf8_lossy(&self.unread[..head_end]).into_owned();
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .filter(|_| with_body)
            .unwrap_or(0_usize);
        while self.unread.len() < head_end + length {
            self.read_more().await?;
        }
        let body = String::from_utf8_lossy(&self.unread[head_end..head_end + length]).into_owned();
        self.unread.drain(..head_end + length);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        Ok(Reply { status, head, body })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// How long it takes until the server closes the connection, without a word or with.
    pub async fn closed_after(&mut self) -> Duration {
        let since = Instant::now();
        let closed = async { while self.read_more().await.is_ok() {} };
        timeout(PATIENCE, closed)
            .await
            .expect("the server keeps the connection");
        since.elapsed()
    }
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Reply {
    Wire::connect(address)
        .await
        .unwrap()
        .get(path)
        .await
        .unwrap()
}

/// One request on a connection of its own; see [`Wire::call`].
pub async fn call(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Reply {
    let mut wire = Wire::connect(address).await.unwrap();
    wire.call(line, headers, body).await.unwrap()
}

/// Signs in and returns the headers that a browser with the new session would send.
pub async fn sign_in(
    address: SocketAddr,
    (email, password): (&str, &str),
) -> [(&'static str, String); 2] {
    let credentials = json!({ "email": email, "password": password });
    let reply = call(address, "POST /v1/session", &[], Some(&credentials)).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let cookie = reply
        .header("set-cookie")
        .and_then(|cookie| cookie.split(';').next());
    [
        (
            "Cookie",
            cookie.expect("a new session has a cookie").to_owned(),
        ),
        ("Sec-Fetch-Site", "same-origin".to_owned()),
    ]
}

/// Headers as [`Wire::call`] takes them.
pub fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}
