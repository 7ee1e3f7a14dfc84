//! What every request carries by value: how much it matters, until when it is of use, and for whom it is.
//!
//! The route says how much it matters (`x-criticality`, beside each handler). Anybody may ask for less: for a sooner end by
//! `Request-Timeout` (`250ms`, `2s`) or, as gRPC has it, `grpc-timeout`, for a lower criticality by `Request-Criticality`. Only a caller with a key of ours
//! (`Caller-Key`, the setting `http.caller_keys`) may ask for a higher one, and say by `Request-Tenant` for whom it asks. A key and no
//! network, because a balancer forwards strangers from within ours. A value that cannot be read counts for nothing.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::extract::Request;
use http::{HeaderMap, Method};
use matchit::Router;
use resilience::Criticality;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::openapi::{OpenApi, path::Operation};

use super::{Config, client_address::ClientAddress, grpc::Rpc};

/// Until when the caller waits, from now: a number and its unit, `ms` or `s`.
pub const REQUEST_TIMEOUT: &str = "request-timeout";
/// The same as gRPC's clients say it: at most 8 digits, and one of the units `H`, `M`, `S`, `m`, `u`, `n`.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";
/// How much the request matters: one of the names of [`Criticality`].
pub const REQUEST_CRITICALITY: &str = "request-criticality";
/// For whom a trusted caller asks.
pub const REQUEST_TENANT: &str = "request-tenant";
/// Makes a caller a trusted one.
pub const CALLER_KEY: &str = "caller-key";
/// The longest key there may be.
pub const CALLER_KEY_BYTES_MAX: usize = 256;
/// The field of an operation in the OpenAPI document that says how much it matters.
const X_CRITICALITY: &str = "x-criticality";

/// See the module. In the request's extensions.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub arrived: Instant,
    pub criticality: Criticality,
    /// How much the route matters by itself, whatever was asked for.
    pub route: Criticality,
    /// Whether it changes nothing.
    pub is_read: bool,
    pub deadline: Instant,
    pub tenant: Tenant,
}

/// For whom a request is, as far as that is known without asking anybody. A session does not count: whoever makes one up would be
/// another tenant with each request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tenant {
    /// Who a trusted caller says it is.
    Named(Arc<str>),
    /// The client's address; of IPv6 the network, which one client has whole (RFC 6177).
    Address(IpAddr),
}

/// What is known of a route before any request.
#[derive(Clone, Debug)]
pub struct Route {
    pub template: Arc<str>,
    pub criticality: Criticality,
    /// Whether it changes nothing, so that it has a reader's deadline and quota.
    pub is_read: bool,
    /// Its number among all routes.
    pub kind: usize,
}

/// Every documented route. Probes and the document itself are none of them. Looked up by a router of its own, the same that axum
/// uses: what is refused need not pass axum's, which costs more than all the rest of a refusal.
#[derive(Clone, Default)]
pub struct Routes {
    by_path: Router<Vec<(Method, Route)>>,
    kinds: usize,
}

impl Routes {
    /// Reads the routes and their criticality from the document. One that does not say is critical, like most work.
    pub fn of(document: &OpenApi) -> Self {
        let mut routes = Self::default();
        for (path, item) in &document.paths.paths {
            let template: Arc<str> = path.as_str().into();
            let operations = [
                (Method::GET, &item.get),
                (Method::HEAD, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            let kinds = &mut routes.kinds;
            let known = operations.into_iter().filter_map(|(method, operation)| {
                let route = Route {
                    template: Arc::clone(&template),
                    criticality: criticality_of(operation.as_ref()?),
                    is_read: method.is_safe(),
                    kind: *kinds,
                };
                *kinds += 1;
                Some((method, route))
            });
            let known = known.collect();
            let inserted = routes.by_path.insert(path, known);
            inserted.expect("axum has taken the same paths");
        }
        routes
    }

    /// Of RPCs, whose kinds of work are numbered after those of `others`.
    pub fn of_rpcs<'a>(rpcs: impl IntoIterator<Item = &'a Rpc>, others: &Self) -> Self {
        let mut routes = Self {
            by_path: Router::new(),
            kinds: others.kinds,
        };
        for rpc in rpcs {
            let route = Route {
                template: rpc.path.as_str().into(),
                criticality: rpc.criticality,
                is_read: rpc.is_read,
                kind: routes.kinds,
            };
            routes.kinds += 1;
            let known = vec![(Method::POST, route)];
            let inserted = routes.by_path.insert(&rpc.path, known);
            inserted.expect("axum has taken the same paths");
        }
        routes
    }

    pub fn find(&self, method: &Method, path: &str) -> Option<&Route> {
        let methods = self.by_path.at(path).ok()?.value;
        let found = methods.iter().find(|(known, _)| known == method);
        found.map(|(_, route)| route)
    }
}

fn criticality_of(operation: &Operation) -> Criticality {
    let said = operation
        .extensions
        .as_ref()
        .and_then(|extensions| extensions.get(X_CRITICALITY)?.as_str());
    said.and_then(Criticality::from_name)
        .unwrap_or(Criticality::Critical)
}

impl Envelope {
    /// The envelope of a request that arrived `now`. What is no route is critical, and reads by its method.
    pub fn of(
        request: &Request,
        client: ClientAddress,
        now: Instant,
        route: Option<&Route>,
        config: &Config,
    ) -> Self {
        let headers = request.headers();
        let is_trusted = is_trusted(headers, config);
        let default = route.map_or(Criticality::Critical, |route| route.criticality);
        let is_read = route.map_or_else(|| request.method().is_safe(), |route| route.is_read);
        let wanted = [
            text(headers, REQUEST_TIMEOUT).and_then(parse_timeout),
            text(headers, GRPC_TIMEOUT).and_then(parse_grpc_timeout),
        ];
        let wanted = wanted.into_iter().flatten();
        let budget = wanted.fold(budget(is_read, config), Duration::min);
        let criticality = match text(headers, REQUEST_CRITICALITY).and_then(Criticality::from_name)
        {
            Some(wanted) if is_trusted || wanted < default => wanted,
            _ => default,
        };
        Self {
            arrived: now,
            criticality,
            route: default,
            is_read,
            deadline: now + budget,
            tenant: tenant(request, client, is_trusted),
        }
    }
}

/// How long a request may take by our own settings.
pub fn budget(is_read: bool, config: &Config) -> Duration {
    if is_read {
        config.read_deadline
    } else {
        config.write_deadline
    }
}

fn tenant(request: &Request, client: ClientAddress, is_trusted: bool) -> Tenant {
    match text(request.headers(), REQUEST_TENANT) {
        Some(name) if is_trusted => Tenant::Named(name.into()),
        _ => Tenant::Address(client.network()),
    }
}

/// Digests are compared, so that the time it takes says nothing about a key. What is longer than any key is not digested: that would
/// be work for a stranger.
fn is_trusted(headers: &HeaderMap, config: &Config) -> bool {
    let presented = text(headers, CALLER_KEY).filter(|key| key.len() <= CALLER_KEY_BYTES_MAX);
    presented.is_some_and(|presented| {
        let presented = Sha256::digest(presented);
        let mut keys = config.caller_keys.iter();
        keys.any(|key| Sha256::digest(key.expose_secret()) == presented)
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn parse_timeout(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(digits) => parse_digits(digits).map(Duration::from_millis),
        None => parse_digits(text.strip_suffix('s')?).map(Duration::from_secs),
    }
}

/// Of gRPC over HTTP/2, "Requests": `TimeoutValue TimeoutUnit`.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let value = parse_digits(text.strip_suffix(unit)?)?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// A whole number of at most 8 digits, as in gRPC's timeouts.
fn parse_digits(digits: &str) -> Option<u64> {
    const DIGITS_MAX: usize = 8;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use secrecy::SecretString;

    use super::*;

    const KEY: &str = "a key of thirty-two characters, or more";

    fn envelope(headers: &[(&str, &str)]) -> (Envelope, Instant) {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let client = ClientAddress([10, 0, 0, 7].into());
        let config = Config {
            caller_keys: vec![SecretString::from(KEY)],
            ..Config::default()
        };
        let route = Route {
            template: "/".into(),
            criticality: Criticality::SheddablePlus,
            is_read: true,
            kind: 0,
        };
        let now = Instant::now();
        let envelope = Envelope::of(&request, client, now, Some(&route), &config);
        (envelope, now)
    }

    #[test]
    fn a_shorter_deadline_holds_and_a_longer_one_does_not() {
        let own = Config::default().read_deadline;
        for (header, budget) in [
            ("250ms", Duration::from_millis(250)),
            ("1s", Duration::from_secs(1)),
            ("0s", Duration::ZERO),
            ("3600s", own),
            ("99999999s", own),
            ("999999999s", own),
            ("250", own),
            ("-1s", own),
            ("", own),
        ] {
            let (envelope, now) = envelope(&[(REQUEST_TIMEOUT, header)]);
            assert_eq!(envelope.deadline - now, budget, "{header}");
        }
    }

    #[test]
    fn a_timeout_of_grpc_holds_in_each_of_its_units() {
        let own = Config::default().read_deadline;
        for (header, budget) in [
            ("1S", Duration::from_secs(1)),
            ("250m", Duration::from_millis(250)),
            ("250000u", Duration::from_millis(250)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0n", Duration::ZERO),
            ("1M", own),
            ("99999999H", own),
            ("250", own),
            ("1s", own),
            ("S", own),
            ("-1S", own),
            ("999999999n", own),
            ("", own),
        ] {
            let (envelope, now) = envelope(&[(GRPC_TIMEOUT, header)]);
            assert_eq!(envelope.deadline - now, budget, "{header}");
        }
    }

    #[test]
    fn only_a_caller_with_a_key_is_more_critical_than_the_route() {
        use Criticality::{CriticalPlus, Sheddable, SheddablePlus};
        let right = (CALLER_KEY, KEY);
        let wrong = (CALLER_KEY, "a key of thirty-two characters, but");
        for (key, wanted, got) in [
            (wrong, "critical_plus", SheddablePlus),
            (wrong, "sheddable", Sheddable),
            (right, "critical_plus", CriticalPlus),
            (right, "sheddable", Sheddable),
            (right, "everything", SheddablePlus),
        ] {
            let (envelope, _) = envelope(&[key, (REQUEST_CRITICALITY, wanted)]);
            assert_eq!(envelope.criticality, got, "{key:?} {wanted}");
        }
    }

    #[test]
    fn only_a_caller_with_a_key_says_for_whom_it_asks() {
        let (stranger, _) = envelope(&[(REQUEST_TENANT, "shop-7")]);
        let (known, _) = envelope(&[(REQUEST_TENANT, "shop-7"), (CALLER_KEY, KEY)]);

        assert_eq!(stranger.tenant, Tenant::Address([10, 0, 0, 7].into()));
        assert_eq!(known.tenant, Tenant::Named("shop-7".into()));
    }
}
