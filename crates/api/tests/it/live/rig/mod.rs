//! A fleet whose clients hear what happens, and what it takes to look on.

pub mod client;
pub mod restarts;

use std::{net::SocketAddr, time::Duration};

use devstack::Database;
use tokio::time::{Instant, sleep};

use self::client::{Headers, World};
use crate::{
    service::{PATIENCE, PATIENT, Service, database},
    wire::get,
};

/// Processes of one fleet, and somebody who makes things happen.
pub struct Scene {
    pub services: Vec<Service>,
    pub world: World,
    pub database: Database,
}

impl Scene {
    pub async fn start(processes: usize, further: &[(&str, &str)]) -> Self {
        let database = database().await;
        let settings = [&PATIENT[..], further].concat();
        let mut services = Vec::new();
        for _ in 0..processes {
            let service = Service::start(&database, &settings).await;
            service.ready().await;
            listening(&service).await;
            services.push(service);
        }
        Self {
            world: World::of(devstack::shared().await, &database).await,
            services,
            database,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.services[0].public
    }
}

/// Waits until the process hears what happens.
pub async fn listening(service: &Service) {
    for topic in ["orders", "stock"] {
        let subscribed = format!(r#"feed_subscribed{{topic="{topic}"}}"#);
        until_metric(service, &subscribed, |value| value == 1.0).await;
        let read = format!(r#"feed_repairs_total{{topic="{topic}"}}"#);
        until_metric(service, &read, |value| value > 0.0).await;
    }
}

pub async fn metric(service: &Service, name: &str) -> f64 {
    let metrics = get(service.admin, "/metrics").await.body;
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

pub async fn until_metric(service: &Service, name: &str, is_so: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = metric(service, name).await;
        if is_so(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {value}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub const NOBODY: &Headers = &[];
