//! Connections to one service: kept, few, and each answer read whole or not at all.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};

use super::{CallError, Config, error::retry_after};

/// How long a connection may be silent before the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// What it can be asked for by again.
    pub(super) tag: Option<HeaderValue>,
}

pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    body_bytes_max: usize,
}

impl Transport {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// For an https service on a machine without certificates of authorities.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let is_https = config
            .url
            .as_deref()
            .is_some_and(|url| url.starts_with("https"));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(is_https)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.idle_max)
            // Only what was never sent, because its kept connection had been closed: no second effect is possible.
            .retry_canceled_requests(true)
            .build(connector);
        Ok(Self {
            client,
            body_bytes_max: config.body_bytes_max,
        })
    }

    /// One exchange. Redirects are answers like others: to follow one would be to call whoever it names.
    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, CallError> {
        let response = self.client.request(request).await;
        let response = response.map_err(|error| CallError::Connection(error.into()))?;
        let (head, body) = response.into_parts();
        if head.status.is_server_error() || head.status == StatusCode::TOO_MANY_REQUESTS {
            // What it says is not read; a connection with an unread body is not kept.
            return Err(CallError::Failed {
                status: head.status,
                retry_after: retry_after(&head.headers),
            });
        }
        let body = Limited::new(body, self.body_bytes_max).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                CallError::TooLarge(self.body_bytes_max)
            } else {
                CallError::Connection(error)
            }
        })?;
        Ok(Answer {
            status: head.status,
            body: body.to_bytes(),
            tag: head.headers.get(header::ETAG).cloned(),
        })
    }
}

/// The authorities are the system's, so that a company's own count; loading them is left out where nothing is encrypted.
fn tls(is_https: bool) -> anyhow::Result<ClientConfig> {
    use hyper_rustls::ConfigBuilderExt;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(if is_https {
        config.with_native_roots()?.with_no_client_auth()
    } else {
        config
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    })
}
