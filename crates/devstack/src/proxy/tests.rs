//! Each fault on a real socket, with an echo server behind the proxy. Times are asserted from below only.

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::{Instant, timeout},
};

use super::{Arc, Direction, Effects, Fault, Proxy, Toxic};

const DELAY: Duration = Duration::from_millis(80);
/// Long enough for bytes that would come, short enough to wait for what does not.
const SILENCE: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_secs(20);

/// A proxy before a server that sends back what it gets, and closes when its client has closed.
async fn echo() -> Arc<Proxy> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = copy(&mut reader, &mut writer).await;
            });
        }
    });
    Proxy::start(&Handle::current(), port).unwrap()
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.listen).await.unwrap()
}

/// Sends bytes and waits for them to come back.
async fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    let mut back = vec![0; bytes.len()];
    timeout(DEADLINE, stream.read_exact(&mut back)).await??;
    assert_eq!(back, bytes);
    Ok(())
}

async fn timed_round_trip(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    round_trip(stream, b"ping").await.unwrap();
    start.elapsed()
}

#[tokio::test]
async fn bytes_pass_unchanged_and_the_end_too() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[1]).collect();
    let mut received = Vec::new();

    let (mut reader, mut writer) = stream.split();
    let send = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(send, timeout(DEADLINE, reader.read_to_end(&mut received)));

    read.unwrap().unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn latency_delays_each_direction_and_live_connections() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    round_trip(&mut stream, b"before").await.unwrap();
    let latency = Toxic::from(Fault::Latency {
        delay: DELAY,
        jitter: Duration::ZERO,
    });

    proxy
        .set(latency.clone().towards(Direction::ToServer))
        .await;
    let one_way = timed_round_trip(&mut stream).await;
    proxy.set(latency).await;
    let both_ways = timed_round_trip(&mut stream).await;

    assert!(
        one_way >= DELAY && both_ways >= 2 * DELAY,
        "{one_way:?} {both_ways:?}"
    );
}

#[tokio::test]
async fn latency_does_not_limit_what_is_under_way() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy
        .set(Fault::Latency {
            delay: DEADLINE / 10,
            jitter: Duration::ZERO,
        })
        .await;

    let start = Instant::now();
    for _ in 0..20 {
        stream.write_all(b"ping").await.unwrap();
    }
    round_trip_rest(&mut stream, 20 * 4).await;

    assert!(
        start.elapsed() < DEADLINE,
        "each write waited for the one before it"
    );
}

async fn round_trip_rest(stream: &mut TcpStream, length: usize) {
    let mut back = vec![0; length];
    timeout(DEADLINE, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn bandwidth_slows_what_passes() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy
        .set(
            Toxic::from(Fault::Bandwidth {
                bytes_per_second: 100_000,
            })
            .towards(Direction::ToClient),
        )
        .await;

    let start = Instant::now();
    round_trip(&mut stream, &[7; 40_000]).await.unwrap();

    assert!(
        start.elapsed() >= Duration::from_millis(350),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_black_hole_is_silent_and_gives_back_what_it_held() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::BlackHole).await;
    stream.write_all(b"held").await.unwrap();
    let mut back = [0; 4];

    let silence = timeout(SILENCE, stream.read_exact(&mut back)).await;
    proxy.clear().await;
    let answer = timeout(DEADLINE, stream.read_exact(&mut back)).await;

    assert!(silence.is_err());
    assert_eq!((answer.unwrap().unwrap(), &back), (4, b"held"));
}

#[tokio::test]
async fn a_black_hole_hides_the_end_of_the_other_side() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    round_trip(&mut stream, b"before").await.unwrap();
    proxy
        .set(Toxic::from(Fault::BlackHole).towards(Direction::ToClient))
        .await;

    stream.shutdown().await.unwrap();
    let silence = timeout(SILENCE, stream.read_u8()).await;
    proxy.clear().await;
    let end = timeout(DEADLINE, stream.read_u8()).await.unwrap();

    assert!(silence.is_err());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn reset_ends_new_and_live_connections() {
    let proxy = echo().await;
    let mut live = connect(&proxy).await;
    round_trip(&mut live, b"before").await.unwrap();

    proxy.set(Fault::Reset).await;
    let live = timeout(DEADLINE, live.read_u8()).await.unwrap();
    let new = timeout(DEADLINE, connect(&proxy).await.read_u8())
        .await
        .unwrap();

    assert_eq!(live.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(new.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn cut_lets_exactly_so_many_bytes_through() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy
        .set(Toxic::from(Fault::Cut { after_bytes: 1000 }).towards(Direction::ToClient))
        .await;
    let mut received = Vec::new();

    stream.write_all(&[1; 5000]).await.unwrap();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut received))
        .await
        .unwrap();

    assert_eq!(received.len(), 1000);
}

#[tokio::test]
async fn slow_close_delays_the_end_and_nothing_else() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy
        .set(Toxic::from(Fault::SlowClose { delay: DELAY }).towards(Direction::ToClient))
        .await;
    round_trip(&mut stream, b"ping").await.unwrap();

    let start = Instant::now();
    stream.shutdown().await.unwrap();
    let end = timeout(DEADLINE, stream.read_u8()).await.unwrap();

    assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(start.elapsed() >= DELAY);
}

#[tokio::test]
async fn down_refuses_until_it_is_cleared() {
    let proxy = echo().await;
    let mut live = connect(&proxy).await;
    round_trip(&mut live, b"before").await.unwrap();

    proxy.set(Fault::Down).await;
    let live = timeout(DEADLINE, live.read_u8()).await.unwrap();
    let refused = TcpStream::connect(proxy.listen).await;
    proxy.clear().await;

    assert_eq!(live.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    round_trip(&mut connect(&proxy).await, b"after")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_probability_concerns_that_share_of_connections() {
    let proxy = echo().await;
    proxy
        .set(Toxic::from(Fault::Reset).with_probability(0.5))
        .await;
    let mut reset = 0;

    for _ in 0..200 {
        let mut stream = connect(&proxy).await;
        reset += u32::from(round_trip(&mut stream, b"ping").await.is_err());
    }

    assert!((60..140).contains(&reset), "{reset} of 200");
}

#[tokio::test]
async fn a_dead_server_resets_its_clients() {
    let proxy = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Proxy::start(&Handle::current(), listener.local_addr().unwrap().port()).unwrap()
    };

    let end = timeout(DEADLINE, connect(&proxy).await.read_u8())
        .await
        .unwrap();

    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_fault_touches_its_direction_only() {
    let toxics = [Toxic::from(Fault::BlackHole).towards(Direction::ToClient)];

    let to_client = Effects::draw(&toxics, Direction::ToClient, 1);
    let to_server = Effects::draw(&toxics, Direction::ToServer, 1);

    assert_eq!((to_client.is_held, to_server.is_held), (true, false));
}

#[test]
fn both_directions_of_a_connection_are_drawn_alike() {
    let toxics = [Toxic::from(Fault::BlackHole).with_probability(0.5)];
    let held = |direction, seed| Effects::draw(&toxics, direction, seed).is_held;

    let alike = (0..100)
        .filter(|seed| held(Direction::ToClient, *seed) == held(Direction::ToServer, *seed));

    assert_eq!(alike.count(), 100);
}
