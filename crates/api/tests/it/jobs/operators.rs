//! What operators see of jobs and do with them: in a shell, and on the admin listener.

use serde_json::Value;
use sqlx::Executor as _;

use super::{Enqueuer, admin, count, new_orders};
use crate::{
    service::{Service, command, database, output},
    wire::call,
};

const DEAD: &str = "insert into jobs_dead (id, kind, version, payload, attempts, context, created_at, reason, error)
    select nextval('jobs_id_seq'), 'send_confirmation', 1, '{\"order_id\": 1}', 15, '{}', now(), 'failed', 'no server'
    from generate_series(1, 3)";

const TOKEN: &str = "an operator's token of 32 characters";

#[tokio::test]
async fn operators_list_cancel_replay_and_drop_in_a_shell() {
    let database = database().await;
    admin(&database).await.execute(DEAD).await.unwrap();
    Enqueuer::of(&database).enqueue(&new_orders(2), true).await;
    let jobs = async |args: &[&str]| {
        let args = [&["jobs"], args].concat();
        let done = output(&mut command(
            &args,
            devstack::shared().await,
            &database,
            &[],
        ))
        .await;
        let lines = String::from_utf8(done.stdout).unwrap();
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        (done.status.code(), lines)
    };
    let ids = |lines: &[String]| -> Vec<String> {
        let parse = |line: &String| serde_json::from_str::<Value>(line).unwrap()["id"].to_string();
        lines.iter().map(parse).collect()
    };

    let waiting = ids(&jobs(&["list", "--kind", "send_confirmation"]).await.1);
    let (_, dead) = jobs(&["dead", "--limit", "2"]).await;
    let dead_ids = ids(&dead);
    let further = ids(&jobs(&["dead", "--before", &dead_ids[1]]).await.1);
    let cancelled = jobs(&["cancel", &waiting[0]]).await;
    let replayed = jobs(&["replay", &dead_ids[0]]).await;
    let dropped = jobs(&["drop", &dead_ids[1], "99999"]).await;

    assert_eq!((waiting.len(), dead_ids.len(), further.len()), (2, 2, 1));
    assert!(dead[0].contains("no server"), "{dead:?}");
    assert_eq!(
        cancelled,
        (Some(0), vec![format!("job {} cancelled", waiting[0])])
    );
    assert_eq!(replayed.0, Some(0));
    assert_eq!(
        dropped,
        (Some(1), vec![format!("job {} dropped", dead_ids[1])])
    );
    assert_eq!(count(&database, "jobs where attempts = 0").await, 2);
    assert_eq!(count(&database, "jobs_dead").await, 1);
}

#[tokio::test]
async fn operators_list_cancel_replay_and_drop_on_the_admin_listener() {
    let database = database().await;
    admin(&database).await.execute(DEAD).await.unwrap();
    Enqueuer::of(&database).enqueue(&new_orders(1), true).await;
    let service = Service::start(&database, &[("HOLDFAST__ADMIN__TOKEN", TOKEN)]).await;
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str())];
    let ask = async |line: &str| call(service.admin, line, &headers, None).await;
    let ids = |list: &Value| -> Vec<String> {
        let jobs = list.as_array().unwrap().iter();
        jobs.map(|job| job["id"].to_string()).collect()
    };

    let waiting = ids(&ask("GET /jobs?kind=send_confirmation").await.json());
    let dead = ids(&ask("GET /jobs/dead?limit=3").await.json());
    let statuses = [
        call(service.admin, "GET /jobs/dead", &[], None)
            .await
            .status,
        ask("GET /jobs?limit=100000").await.status,
        ask(&format!("POST /jobs/dead/{}/replay", dead[0]))
            .await
            .status,
        ask(&format!("POST /jobs/dead/{}/replay", dead[0]))
            .await
            .status,
        ask(&format!("DELETE /jobs/dead/{}", dead[1])).await.status,
        ask(&format!("DELETE /jobs/{}", waiting[0])).await.status,
        ask(&format!("DELETE /jobs/{}", waiting[0])).await.status,
    ];

    assert_eq!((waiting.len(), dead.len()), (1, 3));
    assert_eq!(statuses, [403, 422, 204, 404, 204, 204, 404]);
    assert_eq!(
        (
            count(&database, "jobs").await,
            count(&database, "jobs_dead").await
        ),
        (1, 1)
    );
    let audited = service.logged("job_replay").await;
    assert!(
        audited.contains(&format!("\"job.id\":{}", dead[0])),
        "{audited}"
    );
}
