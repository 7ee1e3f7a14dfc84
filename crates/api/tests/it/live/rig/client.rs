//! A client of the live feed, over a WebSocket or as a stream of events, and somebody who makes things happen.

use std::{net::SocketAddr, time::Duration};

use data::feed::{Event, Feed};
use devstack::{Database, Services};
use futures::{SinkExt, StreamExt};
use http::HeaderName;
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    service::PATIENCE,
    wire::{Reply, Wire, call, sign_in},
};

/// Headers of a request.
pub type Headers = [(&'static str, String)];

/// An open WebSocket.
pub struct Socket {
    pub stream: WebSocketStream<TcpStream>,
    /// The newest token that came.
    pub token: String,
}

/// What comes over a WebSocket.
#[derive(Debug)]
pub enum Heard {
    Frame(Value),
    /// It was closed, with this code and reason.
    Closed(u16, String),
}

impl Socket {
    /// Opens one and hears the first frame.
    pub async fn open(address: SocketAddr, query: &str, headers: &Headers) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::open_on(stream, query, headers).await.hello().await
    }

    /// The same by who was here before. The first frame may be the last: a process may end meanwhile.
    pub async fn come_back(address: SocketAddr, token: String) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let query = format!("resume={token}");
        let socket = Self::open_on(stream, &query, &[]).await;
        Self { token, ..socket }
    }

    /// The same, of a client whose kernel keeps as little for it as may be.
    pub async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(address).await.unwrap();
        Self::open_on(stream, "", &[]).await.hello().await
    }

    async fn open_on(stream: TcpStream, query: &str, headers: &Headers) -> Self {
        let mut request = format!("ws://shop/v1/live?{query}")
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let handshake = timeout(PATIENCE, client_async(request, stream));
        let (stream, _) = handshake.await.expect("no answer to a handshake").unwrap();
        Self {
            stream,
            token: String::new(),
        }
    }

    async fn hello(mut self) -> Self {
        match self.next().await {
            Heard::Frame(hello) => assert_eq!(hello["type"], "hello"),
            closed @ Heard::Closed(..) => panic!("{closed:?}"),
        }
        self
    }

    /// The next frame or the end. A connection that is cut without a word has the code 1006, as browsers say.
    pub async fn next(&mut self) -> Heard {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Heard::Frame(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                        return Heard::Closed(code.into(), reason.to_string());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Heard::Closed(1006, String::new()),
                }
            }
        };
        let heard = timeout(PATIENCE, next).await.expect("nothing came");
        if let Heard::Frame(frame) = &heard
            && let Some(token) = frame["token"].as_str()
        {
            self.token = token.to_owned();
        }
        heard
    }

    /// The next message of this type.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Heard::Frame(frame) if frame["type"] == kind => return frame,
                Heard::Frame(frame) => assert_eq!(frame["type"], "token", "{frame}"),
                closed @ Heard::Closed(..) => panic!("{closed:?}"),
            }
        }
    }

    /// The numbers of the stock messages that come, up to this one.
    pub async fn numbers_up_to(&mut self, last: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.last() != Some(&last) {
            numbers.push(self.next_of("stock").await["data"]["n"].as_u64().unwrap());
        }
        numbers
    }

    /// Whatever comes until it is closed: the frames, code and reason.
    pub async fn end(&mut self) -> (Vec<Value>, u16, String) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Heard::Frame(frame) => frames.push(frame),
                Heard::Closed(code, reason) => {
                    // The answer to a closing frame, without which the service waits.
                    let _ = self.stream.flush().await;
                    return (frames, code, reason);
                }
            }
        }
    }

    pub async fn send(&mut self, message: Message) {
        // Somebody who is closed at once may not be able to.
        let _ = self.stream.send(message).await;
    }
}

/// An open stream of server-sent events.
pub struct Events {
    stream: BufReader<TcpStream>,
    /// The last id that came.
    pub id: String,
}

impl Events {
    pub async fn open(address: SocketAddr, query: &str, headers: &Headers) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!("GET /v1/live?{query} HTTP/1.1\r\nHost: shop\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "Accept-Encoding: gzip, br\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self {
            stream: BufReader::new(stream),
            id: String::new(),
        };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &events.line().await.unwrap();
        }
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(!head.contains("content-encoding"), "{head}");
        events
    }

    /// The next message and the pause it asks for before coming back; none at the end, be it of the connection or a last chunk.
    /// Comments are no messages.
    pub async fn next(&mut self) -> Option<(Value, Option<u64>)> {
        let (mut data, mut retry) = (String::new(), None);
        loop {
            let line = self.line().await?;
            let line = line.trim_end_matches(['\r', '\n']);
            if line == "0" {
                return None;
            } else if let Some(id) = line.strip_prefix("id: ") {
                self.id = id.to_owned();
            } else if let Some(ms) = line.strip_prefix("retry: ") {
                retry = ms.parse().ok();
            } else if let Some(json) = line.strip_prefix("data: ") {
                data += json;
            } else if line.is_empty() && !data.is_empty() {
                return Some((serde_json::from_str(&data).unwrap(), retry));
            }
        }
    }

    /// The next message of this type.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let (message, _) = self.next().await.expect("the stream ended");
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// A line, be it of a chunk's length.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line));
        let read = read.await.expect("nothing came");
        read.is_ok_and(|read| read > 0).then_some(line)
    }
}

/// Makes things happen, as the service would.
pub struct World {
    feed: Feed,
    _watch: JoinSet<()>,
}

impl World {
    /// Beside the services of `database`, and with no proxy between: what befalls them does not befall it.
    pub async fn of(services: &Services, database: &Database) -> Self {
        let config = data::redis::Config {
            url: SecretString::from(services.redis_direct_url()),
            key_prefix: database.name.clone(),
            command_timeout: Duration::from_secs(4),
            ..data::redis::Config::default()
        };
        let redis = data::redis::Redis::new(&config, &mut Registry::default()).unwrap();
        let mut watch = JoinSet::new();
        watch.spawn(redis.clone().watch(CancellationToken::new()));
        assert!(redis.connected(Instant::now() + PATIENCE).await);
        Self {
            feed: Feed::new(&data::feed::Config::default(), redis),
            _watch: watch,
        }
    }

    pub async fn publish(&self, topic: &str, key: Uuid, body: &Value) {
        self.tell(topic, &[(key, body.to_string())]).await;
    }

    /// One message about stock for each number.
    pub async fn stock(&self, numbers: impl IntoIterator<Item = u64>) {
        self.stock_with("", numbers).await;
    }

    /// The same, each with so much to read.
    pub async fn stock_with(&self, padding: &str, numbers: impl IntoIterator<Item = u64>) {
        let bodies = numbers.into_iter();
        let bodies = bodies.map(|n| json!({ "n": n, "padding": padding }).to_string());
        let bodies: Vec<_> = bodies.map(|body| (Uuid::nil(), body)).collect();
        self.tell("stock", &bodies).await;
    }

    /// At least once, as whoever publishes for good has to.
    async fn tell(&self, topic: &str, bodies: &[(Uuid, String)]) {
        let events = bodies.iter().map(|(key, body)| Event {
            id: Uuid::now_v7(),
            key: *key,
            body,
        });
        let events: Vec<_> = events.collect();
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.feed.publish(topic, &events, deadline).await {
            assert!(error.is_transient() && Instant::now() < deadline, "{error}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A new customer, and the headers of a new session.
pub async fn customer(address: SocketAddr) -> (Uuid, [(&'static str, String); 2]) {
    let email = format!("{:x}@example.com", fastrand::u64(..));
    let password = "correct horse battery staple";
    let user = json!({ "email": email, "password": password });
    let created = call(address, "POST /v1/users", &[], Some(&user)).await;
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.json()["id"].as_str().unwrap().parse().unwrap();
    (id, sign_in(address, (&email, password)).await)
}

/// A request that would open a socket, as it is answered when it does not.
pub async fn handshake(address: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Reply {
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let headers = [&upgrade, headers].concat();
    let mut wire = Wire::connect(address).await.unwrap();
    wire.call(&format!("GET /v1/live?{query}"), &headers, None)
        .await
        .unwrap()
}

/// A message that takes leave.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }))
}
