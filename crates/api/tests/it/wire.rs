//! HTTP/1.1 by hand, so that a test can send what no client library would.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::service::PATIENCE;

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

impl Wire {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::connect(address).await?,
            unread: Vec::new(),
        })
    }

    pub async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// A GET and its reply, on a connection that is kept.
    pub async fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes())
            .await?;
        self.reply().await
    }

    /// The next response, whose body must have a Content-Length.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        timeout(PATIENCE, self.read_reply())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn read_reply(&mut self) -> io::Result<Reply> {
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
