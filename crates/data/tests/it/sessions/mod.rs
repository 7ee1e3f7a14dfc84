//! The session store: what Redis holds, and who ends a session.

mod expiry;

use std::time::Duration;

use data::sessions::{Config, SessionId, Sessions};
use deadpool_redis::redis::cmd;
use uuid::Uuid;

use crate::redis_server::{Server, Watched, soon};

/// A store with its server, dropped in this order.
struct Store {
    sessions: Sessions,
    client: Watched,
    server: Server,
}

impl Store {
    async fn new() -> Self {
        let server = Server::start().await;
        let client = server.connected().await;
        Self {
            sessions: Sessions::new(&Config::default(), client.redis.clone()),
            client,
            server,
        }
    }

    /// The same sessions under other rules.
    fn with(&self, config: &Config) -> Sessions {
        Sessions::new(config, self.client.redis.clone())
    }

    async fn login(&self, user_id: Uuid) -> SessionId {
        self.sessions
            .create(user_id, "customer", soon())
            .await
            .unwrap()
    }

    async fn lives(&self, id: &SessionId) -> bool {
        self.sessions
            .find(id, None, soon())
            .await
            .unwrap()
            .is_some()
    }

    async fn keys(&self, pattern: &str) -> Vec<String> {
        self.server.ask(cmd("KEYS").arg(pattern)).await
    }

    /// The key of the only session there is.
    async fn only_key(&self) -> String {
        let keys = self.keys("*:session:*").await;
        assert_eq!(keys.len(), 1);
        keys.into_iter().next().unwrap()
    }

    async fn ttl(&self, key: &str) -> Duration {
        Duration::from_millis(self.server.ask(cmd("PTTL").arg(key)).await)
    }
}

#[tokio::test]
async fn a_created_session_is_found_with_its_user() {
    let store = Store::new().await;
    let user_id = Uuid::new_v4();

    let id = store
        .sessions
        .create(user_id, "staff", soon())
        .await
        .unwrap();
    let sent_back = SessionId::parse(&id.expose()).unwrap();
    let session = store
        .sessions
        .find(&sent_back, None, soon())
        .await
        .unwrap()
        .unwrap();

    assert_eq!(session.user_id, user_id);
    assert_eq!(session.role, "staff");
}

#[tokio::test]
async fn an_id_that_was_never_given_out_is_not_adopted() {
    let store = Store::new().await;
    let chosen = SessionId::parse(&"A".repeat(43)).unwrap();

    let found = store.sessions.find(&chosen, None, soon()).await.unwrap();

    assert_eq!(found, None);
    assert!(store.keys("*").await.is_empty());
}

#[tokio::test]
async fn redis_never_sees_the_id() {
    let store = Store::new().await;
    let user_id = Uuid::new_v4();

    let id = store.login(user_id).await;
    let keys = store.keys("*").await;
    let record: String = store
        .server
        .ask(cmd("GET").arg(store.only_key().await))
        .await;
    let index: Vec<String> = store
        .server
        .ask(
            cmd("ZRANGE")
                .arg(format!("holdfast:user-sessions:{user_id}"))
                .arg(0)
                .arg(-1),
        )
        .await;

    assert_eq!(keys.len(), 2);
    assert_eq!(index.len(), 1);
    for held in keys.iter().chain([&record]).chain(&index) {
        assert!(!held.contains(&id.expose()), "{held}");
    }
}

#[tokio::test]
async fn each_login_gets_a_new_id_and_the_old_one_can_be_ended() {
    let store = Store::new().await;
    let user_id = Uuid::new_v4();
    let old = store.login(user_id).await;

    let new = store.login(user_id).await;
    let ended = store.sessions.remove(&old, soon()).await.unwrap();

    assert!(ended);
    assert_ne!(old, new);
    assert!(!store.lives(&old).await);
    assert!(store.lives(&new).await);
}

#[tokio::test]
async fn a_find_is_one_command() {
    let store = Store::new().await;
    let id = store.login(Uuid::new_v4()).await;
    // The first one has the script loaded.
    assert!(store.lives(&id).await);
    let _: () = store.server.ask(cmd("CONFIG").arg("RESETSTAT")).await;

    for _ in 0..10 {
        assert!(store.lives(&id).await);
    }

    for asked in ["evalsha", "getex"] {
        assert_eq!(store.server.calls(asked).await, 10, "{asked}");
    }
    for other in ["get", "eval", "pexpire", "pexpireat", "zadd", "set"] {
        assert_eq!(store.server.calls(other).await, 0, "{other}");
    }
}

#[tokio::test]
async fn logging_out_everywhere_ends_all_of_a_users_sessions_and_no_others() {
    let store = Store::new().await;
    let user_id = Uuid::new_v4();
    let mine = [
        store.login(user_id).await,
        store.login(user_id).await,
        store.login(user_id).await,
    ];
    let theirs = store.login(Uuid::new_v4()).await;

    let ended = store.sessions.remove_all(user_id, soon()).await.unwrap();

    assert_eq!(ended, 3);
    for id in &mine {
        assert!(!store.lives(id).await);
    }
    assert!(store.lives(&theirs).await);
    assert_eq!(
        store.keys("*").await.len(),
        2,
        "the other user's session and index"
    );
}

#[tokio::test]
async fn a_session_too_many_ends_the_oldest() {
    let store = Store::new().await;
    let user_id = Uuid::new_v4();
    let two = store.with(&Config {
        per_user_max: 2,
        ..Config::default()
    });
    let mut ids = Vec::new();

    for _ in 0..3 {
        ids.push(two.create(user_id, "customer", soon()).await.unwrap());
    }

    assert!(!store.lives(&ids[0]).await);
    assert!(store.lives(&ids[1]).await);
    assert!(store.lives(&ids[2]).await);
}

#[tokio::test]
async fn sessions_that_expired_do_not_count_against_the_limit() {
    let store = Store::new().await;
    let user_id = Uuid::new_v4();
    let two = store.with(&Config {
        per_user_max: 2,
        ..Config::default()
    });
    let kept = two.create(user_id, "customer", soon()).await.unwrap();
    let kept_key = store.only_key().await;
    two.create(user_id, "customer", soon()).await.unwrap();
    let keys = store.keys("*:session:*").await;
    let expired = keys.iter().find(|key| **key != kept_key).unwrap();
    let _: u64 = store.server.ask(cmd("DEL").arg(expired)).await;

    two.create(user_id, "customer", soon()).await.unwrap();

    assert!(store.lives(&kept).await);
    assert_eq!(store.keys("*:session:*").await.len(), 2);
}

#[tokio::test]
async fn a_record_of_another_shape_is_no_session() {
    let store = Store::new().await;
    let id = store.login(Uuid::new_v4()).await;
    let key = store.only_key().await;

    for record in ["", "{}", "not json", "[1]", r#"{"user_id":"x","role":1}"#] {
        let _: () = store.server.ask(cmd("SET").arg(&key).arg(record)).await;
        assert!(!store.lives(&id).await, "{record}");
    }
}

#[tokio::test]
async fn without_redis_the_store_says_so_at_once() {
    let mut store = Store::new().await;
    let id = store.login(Uuid::new_v4()).await;

    store.server.kill().await;
    let found = store.sessions.find(&id, None, soon()).await;
    let created = store
        .sessions
        .create(Uuid::new_v4(), "customer", soon())
        .await;

    assert!(found.unwrap_err().is_transient());
    assert!(created.unwrap_err().is_transient());
}
