//! A history checker: clients of a few customers append orders and read them back through two processes while servers die,
//! freeze, fall behind and come back. Then: no acknowledged order is lost or doubled, no client with its token was shown less
//! than it had written, and none was shown less than it had seen before.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use devstack::{Fault, Target};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    scene::{Scene, ask},
    service::{PATIENCE, STAFF},
    wire::{Reply, sign_in},
};

const CUSTOMERS: usize = 4;
const CLIENTS: usize = 8;
const PRODUCTS: usize = 8;
/// How long each fault lasts, and the pause after it.
const FAULT: Duration = Duration::from_secs(4);
const ROUNDS: usize = 2;
/// The largest page there is.
const PAGE: usize = 100;
const PASSWORD: &str = "correct horse battery staple";

#[derive(Clone, Copy, Debug)]
enum Trouble {
    StandbyKilled,
    StandbyFrozen,
    StandbyBehind,
    StandbySlow,
    PrimaryKilled,
    PrimaryFrozen,
    PrimaryCutOff,
    SessionsEnded,
    RedisFrozen,
    RedisKilled,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::StandbyKilled,
    Trouble::StandbyFrozen,
    Trouble::StandbyBehind,
    Trouble::StandbySlow,
    Trouble::PrimaryKilled,
    Trouble::PrimaryFrozen,
    Trouble::PrimaryCutOff,
    Trouble::SessionsEnded,
    Trouble::RedisFrozen,
    Trouble::RedisKilled,
];

impl Trouble {
    async fn begin(self, scene: &Scene) {
        let stack = &scene.stack;
        match self {
            Self::StandbyKilled => stack.standby().kill().await.unwrap(),
            Self::StandbyFrozen => stack.standby().pause().await.unwrap(),
            Self::StandbyBehind => stack.standby().pause_replay().await.unwrap(),
            Self::StandbySlow => {
                let delay = Duration::from_millis(300);
                let latency = Fault::Latency {
                    delay,
                    jitter: delay,
                };
                stack.proxy(Target::Standby).set(latency).await;
            }
            Self::PrimaryKilled => stack.primary().kill().await.unwrap(),
            Self::PrimaryFrozen => stack.primary().pause().await.unwrap(),
            Self::PrimaryCutOff => stack.proxy(Target::Primary).set(Fault::BlackHole).await,
            Self::SessionsEnded => end_sessions(scene).await,
            Self::RedisFrozen => stack.redis().pause().await.unwrap(),
            Self::RedisKilled => stack.redis().kill().await.unwrap(),
        }
    }

    async fn end(self, scene: &Scene) {
        let stack = &scene.stack;
        match self {
            Self::StandbyKilled => stack.standby().restart().await.unwrap(),
            Self::StandbyFrozen => stack.standby().resume().await.unwrap(),
            Self::StandbyBehind => stack.standby().resume_replay().await.unwrap(),
            Self::StandbySlow => stack.proxy(Target::Standby).clear().await,
            Self::PrimaryKilled => stack.primary().restart().await.unwrap(),
            Self::PrimaryFrozen => stack.primary().resume().await.unwrap(),
            Self::PrimaryCutOff => stack.proxy(Target::Primary).clear().await,
            Self::SessionsEnded => {}
            Self::RedisFrozen => stack.redis().resume().await.unwrap(),
            Self::RedisKilled => stack.redis().restart().await.unwrap(),
        }
    }
}

/// Ends every session of the service on both servers.
async fn end_sessions(scene: &Scene) {
    let urls = [
        scene.database.admin_url.clone(),
        scene.stack.replica_admin_url(&scene.database.name),
    ];
    for url in urls {
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
                   where datname = current_database() and application_name like 'holdfast%'";
        sqlx::query(end).fetch_all(&mut admin).await.unwrap();
    }
}

/// One client of a customer, with what it knows.
struct Client<'a> {
    scene: &'a Scene,
    email: String,
    session: Option<String>,
    token: Option<String>,
    products: &'a [String],
    /// Orders that were acknowledged to this client.
    acknowledged: Vec<String>,
    /// Orders this client was shown, those included.
    seen: BTreeSet<String>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    appends: usize,
    reads: usize,
    refused: usize,
    unanswered: usize,
    went_back: usize,
}

impl Client<'_> {
    async fn run(mut self, is_over: &AtomicBool) -> Self {
        while !is_over.load(Ordering::Relaxed) {
            if self.session.is_none() {
                self.sign_in().await;
            } else if fastrand::u8(..10) < 4 {
                self.append().await;
            } else {
                self.read().await;
            }
        }
        self
    }

    fn any_process(&self) -> SocketAddr {
        self.scene.services[fastrand::usize(..2)].public
    }

    async fn send(&mut self, line: &str, body: Option<&Value>) -> Option<Reply> {
        let session = self.session.clone().unwrap_or_default();
        let token = self.token.clone().unwrap_or_default();
        let mut headers = vec![
            ("Cookie", session.as_str()),
            ("Sec-Fetch-Site", "same-origin"),
        ];
        if !token.is_empty() {
            headers.push(("Consistency-Token", &token));
        }
        let reply = ask(self.any_process(), line, &headers, body).await;
        let Some(reply) = reply else {
            self.counts.unanswered += 1;
            return None;
        };
        assert!(
            matches!(reply.status, 200 | 201 | 401 | 503 | 504),
            "{line}: {reply:?}"
        );
        if let Some(token) = reply.header("consistency-token") {
            self.token = Some(token.to_owned());
        }
        match reply.status {
            // The session went with its Redis.
            401 => self.session = None,
            503 | 504 => {
                self.counts.refused += 1;
                sleep(Duration::from_millis(20)).await;
            }
            _ => return Some(reply),
        }
        None
    }

    async fn sign_in(&mut self) {
        let credentials = json!({ "email": self.email, "password": PASSWORD });
        let reply = self.send("POST /v1/session", Some(&credentials)).await;
        let cookie = reply.as_ref().and_then(|reply| {
            let cookies = reply.head.lines().filter_map(|line| line.split_once(": "));
            cookies
                .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
                .find_map(|(_, cookie)| cookie.starts_with("sid=").then_some(cookie))
        });
        self.session = cookie.map(|cookie| cookie.split(';').next().unwrap().to_owned());
    }

    async fn append(&mut self) {
        let product = fastrand::choice(self.products).unwrap();
        let order = json!({ "lines": [{ "product_id": product, "quantity": 1 }] });
        if let Some(reply) = self.send("POST /v1/orders", Some(&order)).await {
            let id = reply.json()["id"].as_str().unwrap().to_owned();
            self.acknowledged.push(id.clone());
            self.seen.insert(id);
            self.counts.appends += 1;
        }
    }

    /// A page must have every order seen before, as far as it reaches back.
    async fn read(&mut self) {
        let line = format!("GET /v1/orders?limit={PAGE}");
        let Some(reply) = self.send(&line, None).await else {
            return;
        };
        self.counts.reads += 1;
        let page = ids(&reply);
        let reaches_back_to = match page.len() {
            PAGE => page.first().cloned().unwrap(),
            _ => String::new(),
        };
        let missing: Vec<_> = self
            .seen
            .range(reaches_back_to..)
            .filter(|id| !page.contains(*id))
            .collect();
        if !missing.is_empty() {
            println!("{} is not shown {missing:?}", self.email);
            self.counts.went_back += 1;
        }
        self.seen.extend(page);
    }
}

fn ids(page: &Reply) -> BTreeSet<String> {
    let items = page.json()["items"].clone();
    let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
    items.as_array().unwrap().iter().map(id).collect()
}

/// Everything a customer has, and whether something was shown twice.
async fn everything(scene: &Scene, email: &str) -> BTreeSet<String> {
    let address = scene.services[0].public;
    let headers = sign_in(address, (email, PASSWORD)).await;
    let headers = crate::wire::borrowed(&headers);
    let mut all = BTreeSet::new();
    let mut line = format!("GET /v1/orders?limit={PAGE}");
    loop {
        let reply = ask(address, &line, &headers, None).await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        for id in ids(&reply) {
            assert!(all.insert(id.clone()), "{id} is there twice");
        }
        match reply.json()["next_cursor"].as_str() {
            Some(cursor) => line = format!("GET /v1/orders?limit={PAGE}&cursor={cursor}"),
            None => return all,
        }
    }
}

async fn register(scene: &Scene) -> Vec<String> {
    let mut emails = Vec::new();
    for number in 0..CUSTOMERS {
        let email = format!("customer-{number}@example.com");
        let user = json!({ "email": email, "password": PASSWORD });
        let address = scene.services[0].public;
        let reply = ask(address, "POST /v1/users", &[], Some(&user))
            .await
            .unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
        emails.push(email);
    }
    emails
}

/// Products that nobody can buy out.
async fn stock_up(scene: &Scene) -> Vec<String> {
    let address = scene.services[0].public;
    let headers = sign_in(address, STAFF).await;
    let headers = crate::wire::borrowed(&headers);
    let mut products = Vec::new();
    for number in 0..PRODUCTS {
        let product = json!({
            "sku": format!("chaos-{number}"), "name": "Anvil", "description": "", "category": "tools",
            "price_cents": 100, "stock": 1_000_000,
        });
        let reply = ask(address, "POST /v1/products", &headers, Some(&product))
            .await
            .unwrap();
        products.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    products
}

/// Each trouble in a random order, with a pause after each.
async fn make_trouble(scene: &Scene) {
    for _ in 0..ROUNDS {
        let mut troubles = TROUBLES;
        fastrand::shuffle(&mut troubles);
        for trouble in troubles {
            println!("{trouble:?}");
            trouble.begin(scene).await;
            sleep(FAULT).await;
            trouble.end(scene).await;
            sleep(FAULT / 2).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_no_client_goes_back_in_time() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::seed(seed);
    let scene = Scene::start().await;
    let (emails, products) = (register(&scene).await, stock_up(&scene).await);
    let is_over = AtomicBool::new(false);
    let client = |number: usize| Client {
        scene: &scene,
        email: emails[number % CUSTOMERS].clone(),
        session: None,
        token: None,
        products: &products,
        acknowledged: Vec::new(),
        seen: BTreeSet::new(),
        counts: Counts::default(),
    };

    let clients = join_all((0..CLIENTS).map(|number| client(number).run(&is_over)));
    let trouble = async {
        make_trouble(&scene).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let (clients, ()) = tokio::join!(clients, trouble);
    let healed = Instant::now();
    timeout(PATIENCE, scene.all_well())
        .await
        .expect("not well again");
    println!("well {:?} after the last trouble", healed.elapsed());

    let mut total = Counts::default();
    for email in &emails {
        let kept = everything(&scene, email).await;
        for client in clients.iter().filter(|client| client.email == *email) {
            let lost: Vec<_> = client.seen.difference(&kept).collect();
            assert!(lost.is_empty(), "{email} has lost {lost:?}");
            let acknowledged: BTreeSet<_> = client.acknowledged.iter().collect();
            assert_eq!(acknowledged.len(), client.acknowledged.len());
        }
    }
    for Client { counts, .. } in &clients {
        total.appends += counts.appends;
        total.reads += counts.reads;
        total.refused += counts.refused;
        total.unanswered += counts.unanswered;
        total.went_back += counts.went_back;
    }
    println!("{total:?}");
    assert!(total.appends > 100 && total.reads > 100, "{total:?}");
    assert_eq!((total.went_back, total.unanswered), (0, 0), "{total:?}");
}
