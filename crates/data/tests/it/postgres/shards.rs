//! Two clusters behind one handle: where a key's rows are, and what a process does that does not know.

use std::collections::BTreeMap;
use std::time::Duration;

use data::postgres::shards::{self, Bucket, ClusterConfig, Table};
use data::postgres::{Clusters, Config, Consistency, Db, Reach, Tx};
use devstack::{Database, Postgres, Stack};
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::rig::{PATIENCE, soon, until};

pub const TABLES: [Table; 2] = [
    Table {
        name: "orders",
        key: "customer_id",
    },
    Table {
        name: "order_lines",
        key: "customer_id",
    },
];

/// Home and `east`, migrated and dealt, and a service's handle on both.
pub struct Two {
    pub clusters: Clusters,
    pub config: Config,
    pub shards: shards::Config,
    pub home: Database,
    pub east: Postgres,
    pub stack: Stack,
    tasks: JoinSet<()>,
}

impl Two {
    /// With `dealt` on `east` from the beginning.
    pub async fn start(dealt: &str) -> Self {
        Self::with(dealt, |_| {}).await
    }

    /// With settings that differ.
    pub async fn with(dealt: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let stack = Stack::start().await.unwrap();
        let (home, east) = tokio::join!(stack.database("home"), stack.add_cluster());
        let (home, east) = (home.unwrap(), east.unwrap());
        east.create_database("east").await.unwrap();
        let cluster = ClusterConfig {
            primary_url: SecretString::from(east.url("east")),
            admin_url: Some(SecretString::from(east.admin_url("east"))),
            buckets: dealt.parse().unwrap(),
            ..ClusterConfig::default()
        };
        let shards = shards::Config {
            clusters: BTreeMap::from([("east".to_owned(), cluster)]),
            home_admin_url: Some(SecretString::from(home.admin_url.as_str())),
            map_interval: Duration::from_millis(200),
            map_age_max: Duration::from_secs(3),
            move_grace: Duration::from_secs(4),
            move_pause_max: PATIENCE,
            ..shards::Config::default()
        };
        let mut config = Config {
            primary_url: SecretString::from(home.primary_url.as_str()),
            replica_urls: vec![SecretString::from(home.replica_url.as_str())],
            acquire_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            replica_timeout: PATIENCE,
            statement_timeout: PATIENCE,
            check_timeout: PATIENCE,
            ..Config::default()
        };
        adjust(&mut config);
        for url in [home.primary_direct_url.clone(), east.direct_url("east")] {
            let url = SecretString::from(url);
            data::migrate::run(&url, &data::migrate::Config::default())
                .await
                .unwrap();
        }
        shards::deal(&config.primary_url, &shards, &TABLES)
            .await
            .unwrap();
        let clusters = Clusters::new(&config, &shards, &mut Registry::default()).unwrap();
        let mut two = Self {
            clusters,
            config,
            shards,
            home,
            east,
            stack,
            tasks: JoinSet::new(),
        };
        two.tasks.spawn(watch(two.clusters.clone()));
        until("the map is known", async || {
            two.clusters.holder(Bucket::of(Uuid::nil())).is_ok()
        })
        .await;
        two
    }

    /// One more process on the same clusters.
    pub async fn another(&mut self, adjust: impl FnOnce(&mut shards::Config)) -> Clusters {
        let mut shards = self.shards.clone();
        adjust(&mut shards);
        let clusters = Clusters::new(&self.config, &shards, &mut Registry::default()).unwrap();
        self.tasks.spawn(watch(clusters.clone()));
        until("the map is known", async || {
            clusters.holder(Bucket::of(Uuid::nil())).is_ok()
        })
        .await;
        clusters
    }

    pub async fn admin_of(&self, cluster: &str) -> PgConnection {
        let url = match cluster {
            "home" => self.home.admin_url.clone(),
            _ => self.east.admin_url("east"),
        };
        PgConnection::connect(&url).await.unwrap()
    }

    /// How many orders a customer has on one cluster.
    pub async fn orders_on(&self, cluster: &str, customer: Uuid) -> i64 {
        sqlx::query_scalar("select count(*) from orders where customer_id = $1")
            .bind(customer)
            .fetch_one(&mut self.admin_of(cluster).await)
            .await
            .unwrap()
    }
}

async fn watch(clusters: Clusters) {
    clusters.watch(CancellationToken::new()).await;
}

/// A customer whose rows are in this bucket.
pub fn customer(bucket: u16) -> Uuid {
    let random = Uuid::new_v4().as_u128() & !0xffff;
    Uuid::from_u128(random | u128::from(bucket))
}

/// Writes one order without lines.
pub async fn place(db: &Db, customer: Uuid) -> Result<Uuid, data::Error> {
    let id = Uuid::now_v7();
    let insert = || {
        sqlx::query("insert into orders (customer_id, id, total_cents) values ($1, $2, 1)")
            .bind(customer)
            .bind(id)
    };
    db.shard(customer).write().execute(insert).await?;
    Ok(id)
}

/// How many orders a customer has.
pub async fn count(db: &Db, customer: Uuid) -> Result<i64, data::Error> {
    let count =
        || sqlx::query_scalar("select count(*) from orders where customer_id = $1").bind(customer);
    db.shard(customer).read().fetch_one(count).await
}

#[tokio::test]
async fn rows_are_where_the_map_says_and_nowhere_else() {
    let two = Two::start("512..1023").await;
    let (here, there) = (customer(7), customer(512));
    let db = two.clusters.db(soon());

    place(&db, here).await.unwrap();
    place(&db, there).await.unwrap();

    let found = [
        two.orders_on("home", here).await,
        two.orders_on("east", here).await,
        two.orders_on("home", there).await,
        two.orders_on("east", there).await,
    ];
    assert_eq!(found, [1, 0, 0, 1]);
    assert_eq!(count(&db, there).await.unwrap(), 1);
}

#[tokio::test]
async fn a_transaction_at_home_reaches_the_rows_that_are_there_too_and_no_others() {
    let two = Two::start("512..1023").await;
    let db = two.clusters.db(soon());
    let reach = async |key: Uuid| {
        let body = move |tx: Tx| async move {
            match tx.for_key(key)? {
                Reach::Here(mut tx) => {
                    let insert =
                        "insert into orders (customer_id, id, total_cents) values ($1, $1, 1)";
                    tx.execute(sqlx::query(insert).bind(tx.key())).await?;
                    tx.commit(true).await
                }
                Reach::Elsewhere(tx) => tx.commit(false).await,
            }
        };
        db.write()
            .transaction::<_, data::Error, _, _>(body)
            .await
            .unwrap()
    };
    let (here, there) = (customer(7), customer(512));

    let reached = [reach(here).await, reach(there).await];

    assert_eq!(reached, [true, false]);
    assert_eq!(two.orders_on("home", here).await, 1);
}

#[tokio::test]
async fn a_write_hands_on_the_map_it_went_by_even_where_no_replica_can_be_behind() {
    let two = Two::start("512..1023").await;
    let consistency = Consistency::default();
    let db = two.clusters.db(soon()).consistent(consistency.clone());

    place(&db, customer(512)).await.unwrap();

    assert_eq!(consistency.to_hand_on().unwrap().map_version(), 1);
}

#[tokio::test]
async fn a_dead_cluster_fails_its_own_customers_only() {
    let two = Two::start("512..1023").await;
    two.east.kill().await.unwrap();

    let db = two.clusters.db(soon());
    let here = place(&db, customer(7)).await;
    let there = place(&two.clusters.db(soon()), customer(512)).await;

    here.unwrap();
    assert!(there.unwrap_err().is_transient());
    until("the checks say which one it is", async || {
        let status = two.clusters.status();
        let down = status.iter().filter(|node| !node.healthy);
        down.map(|node| node.name.as_str())
            .eq(["shard-east-primary"])
    })
    .await;
}

#[tokio::test]
async fn without_home_a_process_soon_refuses_what_is_sharded_because_others_may_have_moved_it() {
    let two = Two::start("512..1023").await;
    two.stack.primary().kill().await.unwrap();
    two.stack.standby().kill().await.unwrap();

    let before = place(&two.clusters.db(soon()), customer(512)).await;
    until("the map is too old", async || {
        two.clusters.holder(Bucket::of(customer(512))).is_err()
    })
    .await;
    let after = place(&two.clusters.db(soon()), customer(512)).await;

    before.unwrap();
    assert!(after.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_deal_is_made_once_and_a_cluster_with_buckets_cannot_be_left_out() {
    let two = Two::start("512..1023").await;
    let url = &two.config.primary_url;
    let mut other = two.shards.clone();
    other.clusters.get_mut("east").unwrap().buckets = "0".parse().unwrap();

    let again = shards::deal(url, &other, &TABLES).await;
    let without = shards::deal(url, &shards::Config::default(), &TABLES).await;

    assert!(!again.unwrap());
    assert_eq!(
        two.clusters.holder(Bucket::of(customer(0))).unwrap(),
        "home"
    );
    let refusal = without.unwrap_err().to_string();
    assert!(refusal.contains("512..1023 on east"), "{refusal}");
}
