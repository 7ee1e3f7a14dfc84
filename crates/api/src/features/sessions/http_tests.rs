//! What registering and signing in must do, seen by clients.

use http::{HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::testing::{Answer, Client, PASSWORD, TestApp};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

fn ann() -> Value {
    json!({ "email": "ann@example.com", "password": PASSWORD })
}

async fn registered() -> TestApp {
    let app = TestApp::start().await;
    assert_eq!(
        app.anonymous().post("/v1/users", &ann()).await.status,
        StatusCode::CREATED
    );
    app
}

/// Signs in with what the client has; its new session.
async fn sign_in(client: &Client) -> Client {
    let answer = client.post("/v1/session", &ann()).await;
    with_cookie(client.clone(), answer.session_cookie())
}

fn with_cookie(mut client: Client, cookie: String) -> Client {
    client.cookie = Some(cookie);
    client
}

async fn is_signed_in(client: &Client) -> bool {
    client.get("/v1/session").await.status == StatusCode::OK
}

/// What two answers must have in common for nobody to tell them apart.
fn shape(answer: &Answer) -> (StatusCode, Vec<String>, Value) {
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("request_id");
    (
        answer.status,
        answer.headers.keys().map(ToString::to_string).collect(),
        body,
    )
}

#[tokio::test]
async fn a_new_user_is_a_customer_and_gets_no_secret_back() {
    let app = TestApp::start().await;

    let answer = app.anonymous().post("/v1/users", &ann()).await;

    let body = answer.json();
    let fields: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["created_at", "email", "id", "role"]);
    assert_eq!(body["role"], "customer");
    assert!(
        app.execute(
            "select from users where password_hash like '$argon2id$v=19$m=19456,t=2,p=1$%'"
        )
        .await
            == 1
    );
}

#[tokio::test]
async fn nobody_registers_with_a_role_or_an_id() {
    let app = TestApp::start().await;

    for field in ["role", "id", "created_at", "password_hash"] {
        let mut user = ann();
        user[field] = json!("staff");
        assert_eq!(
            app.anonymous().post("/v1/users", &user).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{field}"
        );
    }
    assert_eq!(app.execute("select from users").await, 0);
}

#[tokio::test]
async fn what_cannot_be_an_email_or_a_good_password_is_refused_by_name() {
    let app = TestApp::start().await;
    let long = "x".repeat(1025);

    for (email, password, field) in [
        ("ann", PASSWORD, "email"),
        ("ann@example.com\u{0}", PASSWORD, "email"),
        ("ann@example.com", "short", "password"),
        ("ann@example.com", "Password1", "password"),
        ("ann@example.com", "Ann@Example.com", "password"),
        ("ann@example.com", long.as_str(), "password"),
    ] {
        let answer = app
            .anonymous()
            .post(
                "/v1/users",
                &json!({ "email": email, "password": password }),
            )
            .await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{email:?}");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{email:?}");
    }
}

#[tokio::test]
async fn one_email_is_one_account_however_it_is_written() {
    let app = registered().await;
    let shouted = json!({ "email": "ANN@Example.com", "password": PASSWORD });

    let again = app.anonymous().post("/v1/users", &shouted).await;
    let signed_in = app.anonymous().post("/v1/session", &shouted).await;

    assert_eq!(
        (again.status, again.code().as_str()),
        (StatusCode::CONFLICT, "email_taken")
    );
    assert_eq!(signed_in.status, StatusCode::CREATED);
}

#[tokio::test]
async fn the_cookie_is_kept_from_scripts_other_sites_other_hosts_and_plain_http() {
    let app = registered().await;

    let answer = app.anonymous().post("/v1/session", &ann()).await;

    let cookie = answer.header(header::SET_COOKIE);
    let (id, attributes) = cookie
        .strip_prefix("__Host-sid=")
        .unwrap()
        .split_once("; ")
        .unwrap();
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Lax");
    assert_eq!(id.len(), 43);
    assert!(!String::from_utf8_lossy(&answer.body).contains(id));
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_email_get_the_same_answer() {
    let app = registered().await;

    let wrong = json!({ "email": "ann@example.com", "password": "correct horse battery stable" });
    let unknown = json!({ "email": "bob@example.com", "password": PASSWORD });
    let wrong = app.anonymous().post("/v1/session", &wrong).await;
    let unknown = app.anonymous().post("/v1/session", &unknown).await;

    assert_eq!(wrong.code(), "wrong_credentials");
    assert_eq!(shape(&wrong), shape(&unknown));
}

#[tokio::test]
async fn signing_in_ends_the_session_the_client_had() {
    let app = registered().await;
    let first = sign_in(&app.anonymous()).await;

    let second = sign_in(&first).await;

    assert_ne!(first.cookie, second.cookie);
    assert!(!is_signed_in(&first).await);
    assert!(is_signed_in(&second).await);
}

#[tokio::test]
async fn an_id_that_a_client_chose_is_never_a_session() {
    let app = registered().await;
    let chosen = format!("__Host-sid={}", "A".repeat(43));
    let fixed = with_cookie(app.anonymous(), chosen.clone());

    let signed_in = sign_in(&fixed).await;

    assert_ne!(signed_in.cookie, Some(chosen));
    assert!(!is_signed_in(&fixed).await);
}

#[tokio::test]
async fn signing_out_ends_this_session_and_takes_the_cookie_back() {
    let app = registered().await;
    let (here, there) = (
        sign_in(&app.anonymous()).await,
        sign_in(&app.anonymous()).await,
    );

    let answer = here.delete("/v1/session").await;

    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(
        answer.header(header::SET_COOKIE),
        "__Host-sid=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
    );
    assert!(!is_signed_in(&here).await);
    assert!(is_signed_in(&there).await);
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_session_of_this_user_only() {
    let app = registered().await;
    let (here, there) = (
        sign_in(&app.anonymous()).await,
        sign_in(&app.anonymous()).await,
    );
    let other = app.customer().await;

    let answer = here.delete("/v1/sessions").await;

    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(!is_signed_in(&here).await);
    assert!(!is_signed_in(&there).await);
    assert!(is_signed_in(&other).await);
}

#[tokio::test]
async fn a_write_from_another_site_is_refused_although_it_carries_the_cookie() {
    let app = registered().await;
    let client = sign_in(&app.anonymous()).await;

    for site in ["cross-site", "same-site", ""] {
        let headers = [
            (SEC_FETCH_SITE, site),
            (header::ORIGIN, "https://evil.example"),
        ];
        for (method, path) in [
            (Method::DELETE, "/v1/session"),
            (Method::POST, "/v1/session"),
            (Method::POST, "/v1/orders"),
        ] {
            let answer = client.send(method, path, &headers, Some(&ann())).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {site:?}");
        }
        assert_eq!(
            client.get_with("/v1/session", &headers).await.status,
            StatusCode::OK,
            "{site:?}"
        );
    }
}

#[tokio::test]
async fn an_allowed_origin_may_write() {
    let app = TestApp::with(|settings| {
        settings.http.allowed_origins = vec!["https://shop.example".to_owned()]
    })
    .await;
    let client = app.customer().await;

    let headers = [
        (SEC_FETCH_SITE, "cross-site"),
        (header::ORIGIN, "https://shop.example"),
    ];
    let answer = client
        .send(Method::DELETE, "/v1/session", &headers, None)
        .await;

    assert_eq!(answer.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn every_route_asks_for_a_session_but_the_public_ones() {
    let app = TestApp::start().await;
    let public = [
        "GET /v1/live",
        "GET /v1/products",
        "GET /v1/products/{id}",
        "GET /v1/products/{id}/recommendations",
        "POST /v1/events",
        "POST /v1/users",
        "POST /v1/session",
    ];
    let document = app.anonymous().get("/openapi.json").await.json();

    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
        {
            if public.contains(&format!("{method} {path}").as_str()) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let id = "0194251f-5918-722e-9f64-9299b8213313";
            let answer = app
                .anonymous()
                .send(method, &path.replace("{id}", id), &[], Some(&json!({})))
                .await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {answer:?}");
        }
    }
}

#[tokio::test]
async fn without_redis_sessions_wait_and_the_catalogue_goes_on() {
    let app = TestApp::with(|settings| settings.redis.url = "redis://127.0.0.1:1".into()).await;
    let client = with_cookie(app.anonymous(), format!("__Host-sid={}", "A".repeat(43)));
    assert_eq!(
        client.post("/v1/users", &ann()).await.status,
        StatusCode::CREATED
    );

    let answers = [
        client.get("/v1/session").await,
        client.post("/v1/session", &ann()).await,
        client.get("/v1/orders").await,
    ];
    let catalogue = client.get("/v1/products").await;

    for answer in answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header(header::RETRY_AFTER), "1");
    }
    assert_eq!(catalogue.status, StatusCode::OK);
}
