//! Servers that are killed, paused and late.

use std::{io::ErrorKind, time::Duration};

use devstack::{Stack, Target};
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{DEADLINE, eventually};

const DATABASE: &str = "holdfast";

/// Long enough for an answer that would come, short enough to wait for one that does not.
const SILENCE: Duration = Duration::from_millis(300);

async fn read_one(connection: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar("select 1").fetch_one(connection).await
}

/// One stack for all that is done to servers, because a stack takes a second or two.
#[tokio::test]
async fn servers_can_be_killed_paused_delayed_and_restarted() {
    let stack = Stack::start().await.unwrap();

    a_killed_primary_refuses_and_comes_back_with_its_data(&stack).await;
    a_paused_standby_is_silent_until_it_is_resumed(&stack).await;
    a_standby_shows_nothing_new_while_replay_is_paused(&stack).await;
    a_delayed_standby_shows_rows_later(&stack).await;
    a_killed_redis_refuses_and_comes_back_empty(&stack).await;
}

async fn a_killed_primary_refuses_and_comes_back_with_its_data(stack: &Stack) {
    let mut connection = PgConnection::connect(&stack.primary_url(DATABASE))
        .await
        .unwrap();
    connection
        .execute("create table kept as select 7 as number")
        .await
        .unwrap();

    stack.primary().kill().await.unwrap();
    let refused = PgConnection::connect(&stack.primary_url(DATABASE))
        .await
        .unwrap_err();
    let broken = read_one(&mut connection).await;
    stack.primary().restart().await.unwrap();

    assert!(
        matches!(refused, sqlx::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused)
    );
    broken.unwrap_err();
    let mut connection = PgConnection::connect(&stack.primary_url(DATABASE))
        .await
        .unwrap();
    let kept: i32 = sqlx::query_scalar("select number from kept")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, 7);
}

async fn a_paused_standby_is_silent_until_it_is_resumed(stack: &Stack) {
    let mut connection = PgConnection::connect(&stack.replica_url(DATABASE))
        .await
        .unwrap();

    stack.standby().pause().await.unwrap();
    let mut answer = Box::pin(read_one(&mut connection));
    let silence = timeout(SILENCE, &mut answer).await;
    stack.standby().resume().await.unwrap();

    assert!(silence.is_err(), "a paused backend answered");
    assert_eq!(timeout(DEADLINE, answer).await.unwrap().unwrap(), 1);
}

async fn a_standby_shows_nothing_new_while_replay_is_paused(stack: &Stack) {
    let mut primary = PgConnection::connect(&stack.primary_url(DATABASE))
        .await
        .unwrap();

    stack.standby().pause_replay().await.unwrap();
    primary
        .execute("create table held as select 1")
        .await
        .unwrap();
    wait_until_received(stack, &mut primary).await;
    let while_paused = is_on_standby(stack, "held").await;
    stack.standby().resume_replay().await.unwrap();

    assert!(!while_paused);
    eventually("the table is replayed", async || {
        is_on_standby(stack, "held").await.then_some(())
    })
    .await;
}

async fn a_delayed_standby_shows_rows_later(stack: &Stack) {
    let mut primary = PgConnection::connect(&stack.primary_url(DATABASE))
        .await
        .unwrap();

    stack
        .standby()
        .apply_delay(Duration::from_secs(3600))
        .await
        .unwrap();
    primary
        .execute("create table late as select 1")
        .await
        .unwrap();
    wait_until_received(stack, &mut primary).await;
    let while_delayed = is_on_standby(stack, "late").await;
    stack.standby().apply_delay(Duration::ZERO).await.unwrap();

    assert!(!while_delayed);
    eventually("the table is replayed", async || {
        is_on_standby(stack, "late").await.then_some(())
    })
    .await;
}

async fn a_killed_redis_refuses_and_comes_back_empty(stack: &Stack) {
    redis(stack, "SET key value").await.unwrap();

    stack.redis().kill().await.unwrap();
    let refused = redis(stack, "PING").await.unwrap_err();
    stack.redis().restart().await.unwrap();

    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(redis(stack, "GET key").await.unwrap(), "$-1\r\n");
    assert!(stack.proxy(Target::Redis).toxics().is_empty());
}

/// What the standby has received and does not show, it does not want to show.
async fn wait_until_received(stack: &Stack, primary: &mut PgConnection) {
    let written = sqlx::query_scalar("select pg_current_wal_lsn()::text")
        .fetch_one(primary)
        .await;
    let written: String = written.unwrap();
    let mut standby = PgConnection::connect(&stack.replica_url(DATABASE))
        .await
        .unwrap();
    eventually("the standby has received the write", async || {
        let received =
            sqlx::query_scalar("select pg_last_wal_receive_lsn() >= $1::pg_lsn").bind(&written);
        received
            .fetch_one(&mut standby)
            .await
            .unwrap_or(false)
            .then_some(())
    })
    .await;
}

async fn is_on_standby(stack: &Stack, table: &str) -> bool {
    let mut standby = PgConnection::connect(&stack.replica_url(DATABASE))
        .await
        .unwrap();
    let found = sqlx::query_scalar("select to_regclass($1) is not null").bind(table);
    found.fetch_one(&mut standby).await.unwrap()
}

/// Signs in, sends one command and gives all that was answered.
async fn redis(stack: &Stack, command: &str) -> std::io::Result<String> {
    let url = stack.redis_url();
    let address = url.rsplit('@').next().unwrap().trim_end_matches("/0");
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("AUTH holdfast\r\n{command}\r\nQUIT\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let answered = answer
        .strip_prefix("+OK\r\n")
        .and_then(|rest| rest.strip_suffix("+OK\r\n"));
    Ok(answered.unwrap().to_owned())
}
