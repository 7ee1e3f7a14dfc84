//! A whole service for one slice test: the public router in its stack of layers, over a database and a Redis key prefix
//! of its own, without a socket. Tests speak HTTP to it and nothing else.

use std::{env, fs};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use devstack::{Database, Meter, Services, Traffic};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use resilience::Rate;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::Connection;
use telemetry::trace::Sampling;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tower::{ServiceExt, util::MapRequest};

use crate::{
    http::{App, idempotency::IDEMPOTENCY_KEY, observe::ObserveLayer},
    settings::Settings,
    state::AppState,
};

/// How long anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module. The background checks end with the test's runtime.
pub struct TestApp {
    app: App,
    rpcs: App,
    database: Database,
    meters: Option<Meters>,
}

/// A channel without a socket.
pub type RpcChannel = MapRequest<App, fn(http::Request<tonic::body::Body>) -> http::Request<Body>>;

/// What stands between a metered app and its servers.
struct Meters {
    primary: Meter,
    standby: Meter,
    redis: Meter,
}

/// What one request asked of each server.
#[derive(Debug, PartialEq)]
pub struct Cost {
    pub primary: Traffic,
    pub standby: Traffic,
    pub redis: Traffic,
}

impl Cost {
    /// Statements run on the primary and on the standby.
    pub fn statements(&self) -> [usize; 2] {
        [&self.primary, &self.standby].map(|traffic| traffic.statements.len())
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts with settings that differ from the defaults.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let services = devstack::shared().await;
        let database = database(services).await;
        let mut settings = settings(services, &database);
        change(&mut settings);
        Self::serve(&settings, database, None).await
    }

    /// Starts with a meter before each server, for [`Self::cost`].
    pub async fn metered() -> Self {
        Self::metered_with(|_| {}).await
    }

    /// The same with settings that differ from the defaults.
    pub async fn metered_with(change: impl FnOnce(&mut Settings)) -> Self {
        let services = devstack::shared().await;
        let database = database(services).await;
        let postgres = async |url| Meter::postgres(url, "holdfast").await.unwrap();
        let meters = Meters {
            primary: postgres(&database.primary_url).await,
            standby: postgres(&database.replica_url).await,
            redis: Meter::redis(&services.redis_url()).await.unwrap(),
        };
        let mut settings = settings(services, &database);
        settings.postgres.primary_url = SecretString::from(meters.primary.url());
        settings.postgres.replica_urls = vec![SecretString::from(meters.standby.url())];
        settings.redis.url = SecretString::from(meters.redis.url());
        change(&mut settings);
        Self::serve(&settings, database, Some(meters)).await
    }

    /// The same with a flag set by hand: it is off in the copy that the app starts with.
    pub async fn metered_without(flag: &str) -> Self {
        let path = env::temp_dir().join(format!("holdfast-flags-{:x}.json", fastrand::u64(..)));
        let set = json!({
            "value": false, "reason": "a test", "changed_by": "a test",
            "changed_at": "2026-01-01T00:00:00Z", "expires_at": "9999-01-01T00:00:00Z",
        });
        let copy = json!({ "by_hand": { flag: set }, "remote": null });
        fs::write(&path, copy.to_string()).unwrap();
        let app = Self::metered_with(|settings| settings.flags.copy_path = Some(path.clone()));
        let app = app.await;
        fs::remove_file(path).unwrap();
        app
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    async fn serve(settings: &Settings, database: Database, meters: Option<Meters>) -> Self {
        let mut registry = Registry::default();
        let state = AppState::new(settings, &mut registry).unwrap();
        let observe = ObserveLayer::new(
            &settings.http,
            Sampling::new(&settings.telemetry),
            state.degradations.clone(),
            &mut registry,
        );
        state.health.started();
        state.events.start();
        let (clusters, redis) = (state.clusters.clone(), state.redis.clone());
        tokio::spawn(async move { clusters.watch(CancellationToken::new()).await });
        tokio::spawn(redis.watch(CancellationToken::new()));
        tokio::spawn(state.live.clone().run(CancellationToken::new()));
        state.redis.connected(Instant::now() + PATIENCE).await;
        let rpcs = crate::rpc_app(state.clone(), observe.clone());
        let app = crate::app(state, observe);
        Self {
            app,
            rpcs,
            database,
            meters,
        }
    }

    /// Waits until probes say that it is ready.
    pub async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.anonymous().get("/ready").await.status != StatusCode::OK {
            assert!(Instant::now() < deadline, "not ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the generated clients of gRPC call.
    pub fn rpcs(&self) -> RpcChannel {
        ServiceExt::map_request(self.rpcs.clone(), |request| request.map(Body::new))
    }

    /// A client without a session.
    pub fn anonymous(&self) -> Client {
        Client {
            app: self.app.clone(),
            cookie: None,
        }
    }

    /// A client that has registered and signed in as a new customer.
    pub async fn customer(&self) -> Client {
        self.sign_up(&format!("{:x}@example.com", fastrand::u64(..)))
            .await
    }

    /// A client that has signed in as a new member of staff.
    pub async fn staff(&self) -> Client {
        let email = format!("{:x}@holdfast.example", fastrand::u64(..));
        drop(self.sign_up(&email).await);
        let promote = sqlx::query("update users set role = 'staff' where email = $1").bind(&email);
        promote.execute(&mut self.admin().await).await.unwrap();
        self.sign_in(&email).await
    }

    /// A connection behind the service's back.
    pub async fn admin(&self) -> sqlx::PgConnection {
        sqlx::PgConnection::connect(&self.database.admin_url)
            .await
            .unwrap()
    }

    /// Runs a statement behind the service's back; the number of rows it found or changed.
    pub async fn execute(&self, statement: &'static str) -> u64 {
        sqlx::query(statement)
            .execute(&mut self.admin().await)
            .await
            .unwrap()
            .rows_affected()
    }

    /// What a request costs a service that is warm: it is sent twice, because the first one opens connections and has
    /// statements prepared, and the second one counts. Exact, whatever else goes on: the counting is done on the way
    /// between this app and its servers, and leaves out its background checks.
    pub async fn cost<A>(&self, request: impl AsyncFn() -> A) -> (A, Cost) {
        let meters = self.meters.as_ref().expect("started by `metered`");
        request().await;
        meters.take();
        let answer = request().await;
        (answer, meters.take())
    }

    async fn sign_up(&self, email: &str) -> Client {
        let user = json!({ "email": email, "password": PASSWORD });
        let answer = self.anonymous().post("/v1/users", &user).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        self.sign_in(email).await
    }

    async fn sign_in(&self, email: &str) -> Client {
        let mut client = self.anonymous();
        let answer = client
            .post(
                "/v1/session",
                &json!({ "email": email, "password": PASSWORD }),
            )
            .await;
        client.cookie = Some(answer.session_cookie());
        client
    }
}

impl Meters {
    fn take(&self) -> Cost {
        Cost {
            primary: self.primary.take(),
            standby: self.standby.take(),
            redis: self.redis.take(),
        }
    }
}

async fn database(services: &Services) -> Database {
    let template = services.template("api", async |url| {
        data::migrate::run(&SecretString::from(url), &data::migrate::Config::default()).await
    });
    services
        .database_from(&template.await.unwrap())
        .await
        .unwrap()
}

fn settings(services: &Services, database: &Database) -> Settings {
    let mut settings = Settings::default();
    settings.postgres.primary_url = SecretString::from(database.primary_url.clone());
    settings.postgres.replica_urls = vec![SecretString::from(database.replica_url.clone())];
    settings.redis.url = SecretString::from(services.redis_url());
    settings.redis.key_prefix = database.name.clone();
    // The other tests share the machine; what is slow here is not broken.
    settings.postgres.acquire_timeout = Duration::from_secs(4);
    settings.postgres.connect_timeout = Duration::from_secs(4);
    settings.postgres.statement_timeout = Duration::from_secs(10);
    settings.postgres.token_wait = Duration::from_secs(4);
    settings.redis.command_timeout = Duration::from_secs(4);
    settings.redis.breaker.slow_after = Duration::from_secs(4);
    settings.sessions.passwords.wait = Duration::from_secs(20);
    settings.admission.delay_tolerated = Duration::from_secs(4);
    settings.admission.queue_wait = Duration::from_secs(4);
    settings.http.read_deadline = Duration::from_secs(20);
    settings.http.write_deadline = Duration::from_secs(30);
    settings.idempotency.lease = Duration::from_secs(40);
    // All clients of a test are one address, and some ask more than anyone would.
    settings.limits.address_read = UNLIMITED;
    settings.limits.address_write = UNLIMITED;
    settings.limits.user_read = UNLIMITED;
    settings.limits.user_write = UNLIMITED;
    settings.sessions.throttle.account_free = UNLIMITED.quota;
    settings.sessions.throttle.address_free = UNLIMITED.quota;
    settings
}

/// As good as no limit.
const UNLIMITED: Rate = Rate {
    quota: 1_000_000,
    window: Duration::from_secs(1),
};

/// What every account of [`TestApp`] signs in with.
pub const PASSWORD: &str = "correct horse battery staple";

/// One client; it keeps a session's cookie and sends it as a browser on our own page would.
#[derive(Clone)]
pub struct Client {
    app: App,
    pub cookie: Option<String>,
}

impl Client {
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(HeaderName, &str)]) -> Answer {
        self.send(Method::GET, path, headers, None).await
    }

    /// With an `Idempotency-Key` of its own, as any client of ours sends one.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_as(&format!("{:x}", fastrand::u128(..)), path, body)
            .await
    }

    /// What a call of gRPC brings along to be of the same session.
    pub fn bearer(&self) -> MetadataValue<Ascii> {
        let cookie = self.cookie.as_deref().unwrap_or_default();
        let (_, id) = cookie.split_once('=').expect("signed in");
        format!("Bearer {id}").parse().unwrap()
    }

    /// With this `Idempotency-Key`.
    pub async fn post_as(&self, key: &str, path: &str, body: &Value) -> Answer {
        let headers = [(IDEMPOTENCY_KEY, key)];
        self.send(Method::POST, path, &headers, Some(body)).await
    }

    pub async fn put(&self, path: &str, headers: &[(HeaderName, &str)], body: &Value) -> Answer {
        self.send(Method::PUT, path, headers, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// Sends a request; `headers` replace the client's own.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request =
            Request::new(body.map_or_else(Body::empty, |body| Body::from(body.to_string())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        let own = request.headers_mut();
        own.insert(header::HOST, HeaderValue::from_static("shop.example"));
        own.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        if body.is_some() {
            own.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        if let Some(cookie) = &self.cookie {
            own.insert(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        for (name, value) in headers {
            own.insert(name, HeaderValue::from_str(value).unwrap());
        }
        Answer::read(self.app.clone().oneshot(request).await.unwrap()).await
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    async fn read(response: axum::response::Response) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The stable code of a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    /// The name and value of the session cookie it sets, to be sent back.
    pub fn session_cookie(&self) -> String {
        let cookie = self.header(header::SET_COOKIE);
        assert!(!cookie.is_empty(), "no cookie: {self:?}");
        cookie.split(';').next().unwrap().to_owned()
    }
}
