//! What an operator sees of the settings and of the short-lived roles: every answer says what to do, and no secret.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Output};

use futures::future::join_all;
use sqlx::{Connection, PgConnection};

use crate::service::{Service, bare_command, command, database, output};

/// Exit code for settings that cannot work, after sysexits.h EX_CONFIG.
const MISCONFIGURED: Option<i32> = Some(78);

#[tokio::test]
async fn every_setting_is_printed_with_its_origin_and_no_secret() {
    let printed = check(&[
        (
            "HOLDFAST__POSTGRES__PRIMARY_URL",
            "postgres://shop:canary@db/shop",
        ),
        (
            "HOLDFAST__POSTGRES__REPLICA_URLS",
            "postgres://shop:canary@a/shop,postgres://shop:canary@b/shop",
        ),
        ("HOLDFAST__REDIS__URL", "redis://:canary@cache/0"),
        ("HOLDFAST__HTTP__READ_DEADLINE", "1900ms"),
    ])
    .await;

    let text = text(&printed);
    assert_eq!(printed.status.code(), Some(0), "{text}");
    let line = |key: &str| {
        let found = text
            .lines()
            .find(|line| line.starts_with(&format!("{key} = ")));
        found
            .unwrap_or_else(|| panic!("no {key} in:\n{text}"))
            .to_owned()
    };
    assert!(line("http.read_deadline").contains("1s 900ms"), "{text}");
    assert!(
        line("http.read_deadline").ends_with("# env HOLDFAST__HTTP__READ_DEADLINE"),
        "{text}"
    );
    assert!(line("http.listen").ends_with("# profile dev"), "{text}");
    assert!(
        line("http.idle_timeout").ends_with("# built-in default"),
        "{text}"
    );
    assert!(line("postgres.primary_url").contains("********"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn all_faults_are_told_at_once_with_what_is_allowed() {
    let refused = check(&[
        ("HOLDFAST__HTTP__READ_DEADLIN", "1s"),
        ("HOLDFAST__HTTP__HEADERS_MAX", "many"),
        ("HOLDFAST__HTTP__JSON_DEPTH_MAX", "1000"),
        (
            "HOLDFAST__POSTGRES__PRIMARY_URL",
            "mysql://shop:canary@db/shop",
        ),
    ])
    .await;

    let text = text(&refused);
    assert_eq!(refused.status.code(), MISCONFIGURED, "{text}");
    for told in [
        "read_deadlin",
        "http.read_deadline",
        "headers_max",
        "json_depth_max",
        "1000",
        "postgres://user",
    ] {
        assert!(text.contains(told), "no {told} in:\n{text}");
    }
    assert!(text.lines().count() >= 4, "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn timeouts_that_cannot_work_together_are_both_named() {
    let refused = check(&[
        ("HOLDFAST__POSTGRES__STATEMENT_TIMEOUT", "3s"),
        ("HOLDFAST__HTTP__READ_DEADLINE", "2500ms"),
    ])
    .await;

    let text = text(&refused);
    assert_eq!(refused.status.code(), MISCONFIGURED, "{text}");
    let conflict = text
        .lines()
        .find(|line| line.contains(r#"postgres.statement_timeout = "3s""#));
    assert!(
        conflict.is_some_and(|line| line.contains(r#"http.read_deadline = "2s 500ms""#)),
        "{text}"
    );
}

#[tokio::test]
async fn clusters_that_cannot_work_together_are_named_with_what_is_allowed_and_without_their_passwords()
 {
    let url = "postgres://user:canary@host/shop";
    let clusters = |east: &'static str, others: &[(&'static str, &'static str)]| {
        let both = [
            ("HOLDFAST__SHARDS__CLUSTERS__EAST__PRIMARY_URL", url),
            ("HOLDFAST__SHARDS__CLUSTERS__WEST__PRIMARY_URL", url),
            ("HOLDFAST__SHARDS__CLUSTERS__EAST__BUCKETS", east),
            ("HOLDFAST__SHARDS__CLUSTERS__WEST__BUCKETS", "100..200"),
        ];
        [&both, others].concat()
    };

    let overlap = check(&clusters(
        "0..100",
        &[("HOLDFAST__SHARDS__MOVE_GRACE", "10s")],
    ))
    .await;
    let range = check(&clusters("1000..1024", &[])).await;

    let (overlap, range) = (text(&overlap), text(&range));
    assert!(
        overlap.contains("shards.clusters.west.buckets = \"100..200\"")
            && overlap.contains("both claim 100;"),
        "{overlap}"
    );
    assert!(overlap.contains("shards.move_grace = \"10s\""), "{overlap}");
    assert!(
        range.contains("shards.clusters.east.buckets = \"1000..1024\"")
            && range.contains("from 0 to 1023"),
        "{range}"
    );
    assert!(!format!("{overlap}{range}").contains("canary"));
}

#[tokio::test]
async fn a_call_to_another_service_may_not_take_longer_than_the_request_around_it() {
    for (service, section, deadline) in [
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM",
            "recommendations.upstream",
            r#"http.read_deadline = "2s""#,
        ),
        (
            "HOLDFAST__ORDERS__PAYMENTS",
            "orders.payments",
            r#"http.write_deadline = "5s""#,
        ),
    ] {
        let slow = (&*format!("{service}__TOTAL_TIMEOUT"), "5s");
        let url = (&*format!("{service}__URL"), "http://upstream");

        let (off, on) = (check(&[slow]).await, check(&[slow, url]).await);

        assert_eq!(off.status.code(), Some(0), "{}", text(&off));
        let text = text(&on);
        assert_eq!(on.status.code(), MISCONFIGURED, "{text}");
        let total = format!(r#"{section}.total_timeout = "5s""#);
        let conflict = text.lines().find(|line| line.contains(&total));
        assert!(
            conflict.is_some_and(|line| line.contains(deadline)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn prod_refuses_secrets_that_are_missing_or_open_to_everyone() {
    let open = SecretFile::new("redis://:canary@cache/0", 0o644);

    let refused = check(&[
        ("HOLDFAST_PROFILE", "prod"),
        ("HOLDFAST__REDIS__URL_FILE", open.path()),
    ])
    .await;

    let text = text(&refused);
    assert_eq!(refused.status.code(), MISCONFIGURED, "{text}");
    assert!(
        text.contains("postgres.primary_url") && text.contains("must be set in prod"),
        "{text}"
    );
    assert!(
        text.contains("0644") && text.contains("0440 or 0400"),
        "{text}"
    );
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn prod_takes_secrets_from_files_that_only_it_can_read() {
    let primary = SecretFile::new("postgres://shop:canary@db/shop\n", 0o400);
    let redis = SecretFile::new("redis://:canary@cache/0\n", 0o400);

    let printed = check(&[
        ("HOLDFAST_PROFILE", "prod"),
        ("HOLDFAST__POSTGRES__PRIMARY_URL_FILE", primary.path()),
        ("HOLDFAST__REDIS__URL_FILE", redis.path()),
    ])
    .await;

    let text = text(&printed);
    assert_eq!(printed.status.code(), Some(0), "{text}");
    assert!(
        text.contains(primary.path()) && !text.contains("canary"),
        "{text}"
    );
}

#[tokio::test]
async fn the_healthcheck_says_by_its_exit_code_how_the_service_is() {
    let database = database().await;
    let service = Service::start(&database, &[]).await;
    let admin = service.admin.to_string();
    let ask = async |args: &[&str]| {
        let mut command = bare_command(args);
        output(command.env("HOLDFAST__ADMIN__LISTEN", &admin)).await
    };

    service.ready().await;
    let alive = ask(&["healthcheck"]).await;
    let ready = ask(&["healthcheck", "--ready"]).await;
    assert_eq!(service.stop().await, Some(0));
    let gone = ask(&["healthcheck", "--ready"]).await;

    assert_eq!(alive.status.code(), Some(0), "{}", text(&alive));
    assert_eq!(ready.status.code(), Some(0), "{}", text(&ready));
    assert_eq!(gone.status.code(), Some(1), "{}", text(&gone));
    assert!(
        text(&gone).contains("is the service running?"),
        "{}",
        text(&gone)
    );
}

#[tokio::test]
async fn the_healthcheck_asks_other_hosts_by_name_for_any_route_and_by_grpc() {
    let database = database().await;
    let service = Service::start(&database, &[]).await;
    service.ready().await;
    let (public, rpcs) = (service.public.port(), service.rpcs.port());
    let (public, rpcs) = (format!("localhost:{public}"), format!("localhost:{rpcs}"));
    let admin = format!("localhost:{}", service.admin.port());
    let ask = async |args: &[&str]| {
        let asked = output(bare_command(&["healthcheck"]).args(args)).await;
        (asked.status.code(), text(&asked))
    };

    let products = ask(&["--at", &public, "--path", "/v1/products?limit=1"]).await;
    let started = ask(&["--at", &admin, "--path", "/startup"]).await;
    let ready = ask(&["--at", &public, "--ready"]).await;
    let grpc = ask(&["--at", &rpcs, "--grpc"]).await;
    let unknown = ask(&["--at", &public, "--path", "/startup"]).await;
    let no_grpc = ask(&["--at", &admin, "--grpc"]).await;

    for answer in [products, started, ready, grpc] {
        assert_eq!(answer.0, Some(0), "{}", answer.1);
    }
    println!("{}{}", unknown.1, no_grpc.1);
    assert!(unknown.0 == Some(1) && unknown.1.contains("/startup says HTTP/1.1 404"));
    assert_eq!(no_grpc.0, Some(1));
}

#[tokio::test]
async fn five_migrators_at_once_all_succeed_and_migrate_once() {
    let services = devstack::shared().await;
    let database = services.database("migrated_by_five").await.unwrap();

    let migrators =
        (0..5).map(async |_| output(&mut command(&["migrate"], services, &database, &[])).await);
    let ended = join_all(migrators).await;

    for migrator in ended {
        assert_eq!(migrator.status.code(), Some(0), "{}", text(&migrator));
    }
    let mut connection = PgConnection::connect(&database.admin_url).await.unwrap();
    let applied: Vec<i64> =
        sqlx::query_scalar("select version from _sqlx_migrations order by version")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(applied.last(), Some(&data::migrate::expected()));
    assert_eq!(applied.len(), data::migrate::MIGRATOR.iter().count());
}

async fn check(settings: &[(&str, &str)]) -> Output {
    output(bare_command(&["check-config"]).envs(settings.iter().copied())).await
}

/// Everything it printed.
fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes))
        .concat()
}

/// A mounted secret; removed with this value.
struct SecretFile(PathBuf);

impl SecretFile {
    fn new(secret: &str, mode: u32) -> Self {
        let name = format!("secret-{:x}", fastrand::u64(..));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, secret).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
