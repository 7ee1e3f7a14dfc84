//! Many clients of the live feed that do no more than read, so that they take little from the machine that they share with the server.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::UnboundedSender,
};

const HANDSHAKE: &str = "GET /v1/live HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An open WebSocket that has had its first frame.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// The time by the clock of the machine, in microseconds: the same for whoever publishes and whoever reads.
pub fn now_us() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Client {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let mut client = Self {
            stream: TcpStream::connect(address).await?,
            unread: Vec::with_capacity(1024),
        };
        client.stream.write_all(HANDSHAKE.as_bytes()).await?;
        let end = loop {
            client.read().await?;
            let head = client.unread.windows(4);
            if let Some(end) = head.into_iter().position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure!(
            client.unread.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&client.unread)
        );
        client.unread.drain(..end);
        client.frame().await?;
        Ok(client)
    }

    /// Reads `messages`, and tells how long each was under way. Each says when it was published.
    pub async fn hear(
        mut self,
        messages: usize,
        delays: UnboundedSender<Duration>,
    ) -> anyhow::Result<Self> {
        for _ in 0..messages {
            let frame = self.frame().await?;
            let text = std::str::from_utf8(&frame)?;
            let at = text.split(r#""at_us":"#).nth(1).context("no message")?;
            let at = at.split(|c: char| !c.is_ascii_digit()).next();
            let at: u64 = at.context("no time")?.parse()?;
            let _ = delays.send(Duration::from_micros(now_us().saturating_sub(at)));
        }
        Ok(self)
    }

    /// The payload of the next frame with text (RFC 6455 section 5.2). What a server sends has no mask.
    async fn frame(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let [first, length, rest @ ..] = self.unread.as_slice() {
                let (opcode, wide) = (first & 0x0f, *length == 126);
                let header = if wide { 4 } else { 2 };
                let length = match (wide, rest) {
                    (true, [high, low, ..]) => Some(usize::from(u16::from_be_bytes([*high, *low]))),
                    (true, _) => None,
                    (false, _) => Some(usize::from(*length)),
                };
                if let Some(length) = length
                    && self.unread.len() >= header + length
                {
                    let frame: Vec<u8> = self.unread.drain(..header + length).collect();
                    match opcode {
                        1 => return Ok(frame[header..].to_vec()),
                        // A ping, which wants an answer; with a mask of zeros.
                        9 => self.stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await?,
                        _ => anyhow::bail!("the server closed: {frame:?}"),
                    }
                    continue;
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read_buf(&mut self.unread).await?;
        ensure!(read > 0, "the server hung up");
        Ok(())
    }
}
