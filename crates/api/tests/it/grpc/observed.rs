//! What a call leaves behind: one line in the log, one sample in the metrics, and nothing secret.

use api::proto::orders::v1::{GetOrderRequest, orders_client::OrdersClient};
use serde_json::Value;
use tonic::{Code, Request, transport::Endpoint};

use super::{bearer, stocked};
use crate::{
    service::{PATIENT, Service, database},
    wire::get,
};

#[tokio::test]
async fn a_call_is_one_line_and_one_sample_and_its_session_is_in_neither() {
    let database = database().await;
    stocked(&database, 1).await;
    let everything = "debug,api=trace,data=trace,h2=trace,hyper=trace,tonic=trace";
    let verbose = [("HOLDFAST__TELEMETRY__LOG_FILTER", everything)];
    let mut service = Service::start(&database, &[&PATIENT[..], &verbose].concat()).await;
    service.ready().await;
    let bearer = bearer(&service).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", service.rpcs)).unwrap();

    let mut request = Request::new(GetOrderRequest {
        id: uuid::Uuid::nil().to_string(),
    });
    let headers = request.metadata_mut();
    headers.insert("authorization", bearer.clone());
    headers.insert("x-request-id", "the-call".parse().unwrap());
    let answer = OrdersClient::new(endpoint.connect_lazy())
        .get_order(request)
        .await;
    let metrics = get(service.admin, "/metrics").await.body;
    service.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(service.exited().await.code(), Some(0));

    assert_eq!(answer.unwrap_err().code(), Code::NotFound);
    let log = service.log();
    let lines = log.lines().filter(|line| line.contains("the-call"));
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["message"] == "request refused")
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    println!("{}", lines[0]);
    assert_eq!(lines[0]["rpc.method"], "orders.v1.Orders/GetOrder");
    assert_eq!(lines[0]["rpc.response.status_code"], "NOT_FOUND");
    let sample = r#"rpc_server_call_duration_seconds_count{rpc_method="orders.v1.Orders/GetOrder",rpc_response_status_code="NOT_FOUND"} 1"#;
    assert!(metrics.contains(sample), "{metrics}");
    let secret = bearer.to_str().unwrap().trim_start_matches("Bearer ");
    let shown: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
    assert!(shown.is_empty(), "{shown:?}");
}
