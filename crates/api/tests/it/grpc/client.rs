//! A client as gRPC's own are: it asks several processes in turn and asks again, both as `crates/api/proto/service-config.json` says
//! (gRFC A6). tonic has neither.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// For how long a process is passed over that could not be reached: the first pause of gRPC's connection backoff.
const PASSED_OVER: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceConfig {
    method_config: Vec<MethodConfig>,
    retry_throttling: Throttling,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MethodConfig {
    name: Vec<Name>,
    /// None of what goes on until somebody ends it, which is not called here.
    #[serde(default)]
    timeout: String,
    retry_policy: RetryPolicy,
}

#[derive(Deserialize)]
struct Name {
    service: String,
    #[serde(default)]
    method: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryPolicy {
    max_attempts: u32,
    initial_backoff: String,
    max_backoff: String,
    backoff_multiplier: f64,
    retryable_status_codes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    max_tokens: f64,
    token_ratio: f64,
}

/// See the module.
pub struct Client {
    config: ServiceConfig,
    processes: Mutex<Vec<Arc<Process>>>,
    turn: AtomicUsize,
    tokens: Mutex<f64>,
    pub retries: AtomicUsize,
}

struct Process {
    address: SocketAddr,
    channel: Channel,
    away_until: Mutex<Option<Instant>>,
}

impl Process {
    fn is_away(&self) -> bool {
        let until = self.away_until.lock().unwrap();
        until.is_some_and(|until| Instant::now() < until)
    }
}

impl Client {
    pub fn new(addresses: &[SocketAddr]) -> Self {
        let config = include_str!("../../../proto/service-config.json");
        let config: ServiceConfig = serde_json::from_str(config).unwrap();
        let client = Self {
            tokens: Mutex::new(config.retry_throttling.max_tokens),
            config,
            processes: Mutex::default(),
            turn: AtomicUsize::new(0),
            retries: AtomicUsize::new(0),
        };
        client.resolved(addresses);
        client
    }

    /// The same over a channel that was made elsewhere.
    pub fn over(address: SocketAddr, channel: Channel) -> Self {
        let client = Self::new(&[]);
        let process = Process {
            address,
            channel,
            away_until: Mutex::default(),
        };
        client.processes.lock().unwrap().push(Arc::new(process));
        client
    }

    /// The same without a second attempt, for who has one made by a balancer.
    pub fn plain(addresses: &[SocketAddr]) -> Self {
        let mut client = Self::new(addresses);
        for method in &mut client.config.method_config {
            method.retry_policy.max_attempts = 1;
        }
        client
    }

    /// From now on these are the processes. Those that were known keep their connection.
    pub fn resolved(&self, addresses: &[SocketAddr]) {
        let mut processes = self.processes.lock().unwrap();
        let known = std::mem::take(&mut *processes);
        *processes = addresses
            .iter()
            .map(|address| {
                let same = known.iter().find(|process| process.address == *address);
                same.map_or_else(|| Arc::new(process(*address)), Arc::clone)
            })
            .collect();
    }

    /// Calls `path`, until the answer is final or there is no time left. `attempt` is told what is left.
    pub async fn call<R, F: Future<Output = Result<R, Status>>>(
        &self,
        path: &str,
        attempt: impl Fn(Channel, Duration) -> F,
    ) -> Result<R, Status> {
        let MethodConfig {
            timeout,
            retry_policy: policy,
            ..
        } = self.config.of(path);
        let deadline = Instant::now() + seconds(timeout);
        let mut made = 0;
        loop {
            let process = self.next();
            let left = deadline.saturating_duration_since(Instant::now());
            let status = match attempt(process.channel.clone(), left).await {
                Ok(answer) => {
                    self.pay_in();
                    return Ok(answer);
                }
                Err(status) => status,
            };
            made += 1;
            // What came over the wire has no source: it is an answer. Anything else is a connection that was lost or not made.
            let is_lost = std::error::Error::source(&status).is_some();
            if is_lost {
                *process.away_until.lock().unwrap() = Some(Instant::now() + PASSED_OVER);
            }
            let code = match is_lost {
                true => Code::Unavailable,
                false => status.code(),
            };
            let pause = policy.pause(made, code, &status);
            let (Some(pause), true) = (pause, self.take_token()) else {
                return Err(status);
            };
            if made >= policy.max_attempts || Instant::now() + pause >= deadline {
                return Err(status);
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
        }
    }

    /// The one whose turn it is of those that can be reached; of all if none can.
    fn next(&self) -> Arc<Process> {
        let processes = self.processes.lock().unwrap();
        let here: Vec<_> = processes
            .iter()
            .filter(|process| !process.is_away())
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match here.len() {
            0 => Arc::clone(&processes[turn % processes.len()]),
            count => Arc::clone(here[turn % count]),
        }
    }

    fn pay_in(&self) {
        let Throttling {
            max_tokens,
            token_ratio,
        } = self.config.retry_throttling;
        let mut tokens = self.tokens.lock().unwrap();
        *tokens = (*tokens + token_ratio).min(max_tokens);
    }

    fn take_token(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap();
        *tokens = (*tokens - 1.0).max(0.0);
        *tokens > self.config.retry_throttling.max_tokens / 2.0
    }
}

impl ServiceConfig {
    /// The most precise entry for `/service/method`.
    fn of(&self, path: &str) -> &MethodConfig {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
        let named = |wanted: &str| {
            let is = |name: &Name| name.service == service && name.method == wanted;
            let mut configs = self.method_config.iter();
            configs.find(|config| config.name.iter().any(is))
        };
        named(method).or_else(|| named("")).unwrap()
    }
}

impl RetryPolicy {
    /// How long to wait after so many attempts, the last of which ended so; none if that is final.
    fn pause(&self, made: u32, code: Code, status: &Status) -> Option<Duration> {
        let name = api::http::grpc::status::name(code);
        if !self
            .retryable_status_codes
            .iter()
            .any(|known| known == name)
        {
            return None;
        }
        if let Some(pushback) = status.metadata().get("grpc-retry-pushback-ms") {
            let pushback = pushback.to_str().ok()?.parse().ok()?;
            return Some(Duration::from_millis(pushback));
        }
        let exponent = i32::try_from(made - 1).unwrap();
        let backoff =
            seconds(&self.initial_backoff).mul_f64(self.backoff_multiplier.powi(exponent));
        let backoff = backoff.min(seconds(&self.max_backoff));
        Some(backoff.mul_f64(fastrand::f64()))
    }
}

/// `1.5s`, as protobuf's JSON writes a duration.
fn seconds(text: &str) -> Duration {
    let seconds = text.strip_suffix('s').unwrap().parse().unwrap();
    Duration::from_secs_f64(seconds)
}

fn process(address: SocketAddr) -> Process {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    Process {
        address,
        channel: endpoint.connect_timeout(PASSED_OVER).connect_lazy(),
        away_until: Mutex::default(),
    }
}
