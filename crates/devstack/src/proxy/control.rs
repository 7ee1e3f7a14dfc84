//! Faults by HTTP, for people and for programs outside this process:
//! `GET /proxies`, `PUT /proxies/{server}` with a list of faults, `DELETE /proxies/{server}`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use serde::Serialize;
use tokio::net::TcpListener;

use super::{Proxy, Target, Toxic};

const TOXICS_MAX: usize = 16;

type Proxies = Arc<BTreeMap<Target, Arc<Proxy>>>;

#[derive(Serialize)]
struct Listed {
    listen: SocketAddr,
    server: SocketAddr,
    toxics: Vec<Toxic>,
}

/// Serves until the runtime ends.
pub(crate) async fn serve(
    listener: TcpListener,
    proxies: BTreeMap<Target, Arc<Proxy>>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/proxies", get(list_proxies))
        .route("/proxies/{server}", put(set_faults).delete(clear_faults))
        .with_state(Arc::new(proxies));
    axum::serve(listener, router).await
}

async fn list_proxies(State(proxies): State<Proxies>) -> Json<BTreeMap<Target, Listed>> {
    let listed = |proxy: &Proxy| Listed {
        listen: proxy.listen,
        server: proxy.server(),
        toxics: proxy.toxics(),
    };
    Json(
        proxies
            .iter()
            .map(|(target, proxy)| (*target, listed(proxy)))
            .collect(),
    )
}

/// The body is read as JSON whatever its type is called, so that plain `curl -d` does.
async fn set_faults(
    State(proxies): State<Proxies>,
    Path(target): Path<Target>,
    body: Bytes,
) -> Result<StatusCode, (StatusCode, String)> {
    let refuse = |reason: String| (StatusCode::UNPROCESSABLE_ENTITY, format!("{reason}\n"));
    let toxics: Vec<Toxic> =
        serde_json::from_slice(&body).map_err(|error| refuse(error.to_string()))?;
    if toxics.len() > TOXICS_MAX {
        return Err(refuse(format!("at most {TOXICS_MAX} faults")));
    }
    proxies[&target].set_all(toxics).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(proxies): State<Proxies>, Path(target): Path<Target>) -> StatusCode {
    proxies[&target].clear().await;
    StatusCode::NO_CONTENT
}
