//! What every user of a stack may have, be it the owner or another process: addresses, and databases of one's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    postgres::{APP, SUPERUSER},
    redis,
};

/// The ports of a server: its own, and that of the fault proxy before it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Ports {
    pub(crate) direct: u16,
    pub(crate) proxied: u16,
}

/// The addresses of a running stack, all on the loopback interface. This is what the state file holds.
#[derive(Clone, Deserialize, Serialize)]
pub struct Services {
    pub(crate) primary: Ports,
    pub(crate) standby: Ports,
    pub(crate) redis: Ports,
    pub(crate) upstream: Ports,
    pub(crate) control: u16,
    pub(crate) superuser_password: String,
    pub(crate) state_file: PathBuf,
}

impl Services {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "no running stack at {}: is `devstack` still up?",
                path.display()
            )
        })?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The primary as the application reaches it, through the fault proxy.
    pub fn primary_url(&self, database: &str) -> String {
        postgres_url(APP, APP, self.primary.proxied, database)
    }

    /// The standby as the application reaches it, through the fault proxy.
    pub fn replica_url(&self, database: &str) -> String {
        postgres_url(APP, APP, self.standby.proxied, database)
    }

    /// The primary without a proxy between, as the application's role.
    pub fn primary_direct_url(&self, database: &str) -> String {
        postgres_url(APP, APP, self.primary.direct, database)
    }

    /// The standby without a proxy between, as the application's role.
    pub fn replica_direct_url(&self, database: &str) -> String {
        postgres_url(APP, APP, self.standby.direct, database)
    }

    /// The primary as superuser, without a proxy between.
    pub fn admin_url(&self, database: &str) -> String {
        postgres_url(
            SUPERUSER,
            &self.superuser_password,
            self.primary.direct,
            database,
        )
    }

    /// The standby as superuser, without a proxy between.
    pub fn replica_admin_url(&self, database: &str) -> String {
        postgres_url(
            SUPERUSER,
            &self.superuser_password,
            self.standby.direct,
            database,
        )
    }

    /// Redis as the application reaches it, through the fault proxy.
    pub fn redis_url(&self) -> String {
        redis_url(self.redis.proxied)
    }

    /// Redis without a proxy between.
    pub fn redis_direct_url(&self) -> String {
        redis_url(self.redis.direct)
    }

    /// The payment provider and recommender as the application reaches them, through the fault proxy.
    pub fn upstream_url(&self) -> String {
        http_url(self.upstream.proxied)
    }

    /// The payment provider and recommender without a proxy between; also where their behaviour is set.
    pub fn upstream_direct_url(&self) -> String {
        http_url(self.upstream.direct)
    }

    /// Where the faults of the proxies are set over HTTP.
    pub fn control_url(&self) -> String {
        http_url(self.control)
    }

    /// The file that lets other processes use this stack; `HOLDFAST_DEVSTACK` names it.
    pub fn state_file(&self) -> &Path {
        &self.state_file
    }
}

pub(crate) fn postgres_url(role: &str, password: &str, port: u16, database: &str) -> String {
    format!("postgres://{role}:{password}@127.0.0.1:{port}/{database}")
}

fn redis_url(port: u16) -> String {
    format!("redis://default:{}@127.0.0.1:{port}/0", redis::PASSWORD)
}

fn http_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}
