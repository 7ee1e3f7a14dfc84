//! Every statement of the code, planned by Postgres on a database of a real shop's size.

use std::{fs, path::Path};

use api::roles::seed;
use devstack::Template;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const PRODUCTS: u32 = 100_000;

/// Customers, orders, lines, events, keys and jobs, many enough that reading all of them is never the cheapest plan.
const CUSTOMERS_AND_ORDERS: [&str; 12] = [
    "insert into users (id, email, password_hash)
     select md5('u' || n)::uuid, 'customer-' || n || '@example.com', '' from generate_series(1, 20000) as n",
    "insert into orders (customer_id, id, total_cents)
     select md5('u' || (n % 20000 + 1))::uuid, md5('o' || n)::uuid, 100 from generate_series(1, 60000) as n",
    "insert into order_lines (customer_id, order_id, line_no, product_id, name, quantity, price_cents)
     select customer_id, id, line_no, id, '', 1, 100 from orders, generate_series(1, 2) as line_no",
    "insert into events (id, at, name, properties)
     select md5('e' || n)::uuid, now(), '', '{}' from generate_series(1, 60000) as n",
    "insert into idempotency_keys
         (key_hash, operation, caller, fingerprint, fence, locked_until, status, headers, body, expires_at)
     select sha256(n::text::bytea), 'POST /v1/orders', customer_id, sha256(''), n, now(), 201, '[]', '', now() + interval '1 day'
     from (select row_number() over () as n, customer_id from orders) as orders",
    "insert into jobs (kind, version, payload, run_at)
     select 'kind-' || n % 6, 1, '{}', now() - n * interval '1 s' from generate_series(1, 60000) as n",
    "insert into jobs_dead (id, kind, version, payload, attempts, context, created_at, reason, died_at)
     select id, kind, version, payload, 15, context, run_at, 'failed', run_at from jobs",
    "insert into order_notices (order_id, kind, created_at)
     select id, 'confirmed', now() - row_number() over () * interval '1 min' from orders",
    "insert into order_fulfilments (order_id, customer_id, pieces) select id, customer_id, 2 from orders",
    "insert into outbox (topic, key, body) select 'orders', customer_id, '{}' from orders",
    "insert into event_counts (hour, name, count)
     select now() - n * interval '1 hour', '', 1 from generate_series(1, 60000) as n",
    "analyze",
];

/// The tables that grow with the shop.
const GROWING: [&str; 12] = [
    "products",
    "users",
    "orders",
    "order_lines",
    "events",
    "idempotency_keys",
    "jobs",
    "jobs_dead",
    "order_notices",
    "order_fulfilments",
    "outbox",
    "event_counts",
];

/// A statement as `make sql` wrote it down.
#[derive(Deserialize)]
struct Statement {
    query: String,
    describe: Describe,
}

#[derive(Deserialize)]
struct Describe {
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "Left")]
    types: Vec<Value>,
}

fn statements() -> Vec<Statement> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.sqlx");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap())
        .collect()
}

async fn shop() -> Template {
    let fill = async |url: String| -> anyhow::Result<()> {
        let migrations = data::migrate::Config::default();
        data::migrate::run(&SecretString::from(url.as_str()), &migrations).await?;
        let mut connection = PgConnection::connect(&url).await?;
        seed::products(&mut connection, PRODUCTS).await?;
        for statement in CUSTOMERS_AND_ORDERS {
            sqlx::query(statement).execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    };
    devstack::shared()
        .await
        .template("shop", fill)
        .await
        .unwrap()
}

/// The plan Postgres uses once it no longer looks at the parameters, which is what a prepared statement soon gets.
async fn generic_plan(connection: &mut PgConnection, statement: &Statement) -> Value {
    let run = async |connection: &mut PgConnection, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(connection)
            .await
            .map(drop)
    };
    run(
        connection,
        format!("prepare statement as {}", statement.query),
    )
    .await
    .unwrap();
    let arguments = vec!["null"; statement.describe.parameters.types.len()].join(", ");
    let explain = match arguments.as_str() {
        "" => "explain (format json) execute statement".to_owned(),
        arguments => format!("explain (format json) execute statement({arguments})"),
    };
    let plan = sqlx::query_scalar(AssertSqlSafe(explain))
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    run(connection, "deallocate statement".to_owned())
        .await
        .unwrap();
    plan
}

/// Every node of a plan that `wanted` picks.
fn nodes<'a>(plan: &'a Value, wanted: &dyn Fn(&Value) -> bool) -> Vec<&'a Value> {
    let inner = match plan {
        Value::Array(items) => items.iter().collect::<Vec<_>>(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    let mut found: Vec<&Value> = inner
        .into_iter()
        .flat_map(|inner| nodes(inner, wanted))
        .collect();
    if wanted(plan) {
        found.push(plan);
    }
    found
}

#[tokio::test]
async fn no_statement_reads_a_growing_table_from_end_to_end() {
    let database = devstack::shared()
        .await
        .database_from(&shop().await)
        .await
        .unwrap();
    let mut connection = PgConnection::connect(&database.admin_url).await.unwrap();
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan")
        .execute(&mut connection)
        .await
        .unwrap();
    let statements = statements();
    assert!(
        statements.len() > 20,
        "only {} statements in .sqlx",
        statements.len()
    );

    for statement in &statements {
        let plan = generic_plan(&mut connection, statement).await;

        let is_whole = |node: &Value| {
            node["Node Type"] == "Seq Scan"
                && GROWING.iter().any(|table| node["Relation Name"] == *table)
        };
        assert!(
            nodes(&plan, &is_whole).is_empty(),
            "{}\n{plan:#}",
            statement.query
        );

        // A page in an order of its own comes out of an index in that order; only a search sorts what it has found, and whoever
        // reads all of a table that does not grow.
        let is_small = |node: &Value| node["Relation Name"] == "flags";
        let is_sorted_page = statement.query.contains("limit $")
            && !statement.query.contains("search @@")
            && nodes(&plan, &is_small).is_empty();
        let is_sort = |node: &Value| {
            node["Node Type"]
                .as_str()
                .is_some_and(|kind| kind.contains("Sort"))
        };
        assert!(
            !is_sorted_page || nodes(&plan, &is_sort).is_empty(),
            "{}\n{plan:#}",
            statement.query
        );
    }
}
