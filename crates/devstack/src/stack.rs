//! A whole stack: starts the servers in an order that overlaps what it can, and ends them together.

use std::{fs, ops::Deref, os::unix::fs::PermissionsExt, sync::Arc};

use anyhow::{Context, Result};
use tokio::sync::Mutex;

use crate::{
    binaries,
    guard::Guard,
    network::Network,
    ports,
    postgres::{Postgres, Template, start_standby},
    proxy::{Proxy, Target},
    redis::Redis,
    services::Services,
    upstream::Upstream,
};

/// A stack that this process started. Dropping it ends all servers and removes what they wrote; so does the end of
/// the process, whatever its cause.
pub struct Stack {
    services: Services,
    primary: Postgres,
    standby: Postgres,
    redis: Redis,
    network: Network,
    guard: Arc<Guard>,
}

impl Stack {
    /// Starts all servers and waits until they answer and the standby streams.
    pub async fn start() -> Result<Self> {
        let binaries = binaries::find()?;
        let guard = Arc::new(Guard::new()?);
        let network = Network::start()?;
        let template = Template::find_or_prepare(&guard, &binaries.postgres).await;
        let template = template.context("prepare a Postgres cluster")?;
        let postgres = |name: &str, target| Postgres {
            guard: Arc::clone(&guard),
            binaries: binaries.postgres.clone(),
            name: name.to_owned(),
            data: guard.folder().join(name),
            port: network.ports[&target].direct,
            superuser_password: template.superuser_password.clone(),
            proxy: Arc::clone(&network.proxies[&target]),
            process: Mutex::new(None),
        };
        let (primary, standby) = (
            postgres("primary", Target::Primary),
            postgres("standby", Target::Standby),
        );
        let redis = Redis {
            guard: Arc::clone(&guard),
            program: binaries.redis_server,
            port: network.ports[&Target::Redis].direct,
            proxy: Arc::clone(&network.proxies[&Target::Redis]),
            process: Mutex::new(None),
        };
        tokio::try_join!(start_postgres(&template, &primary, &standby), redis.start())?;
        let services = network.services(&template.superuser_password, guard.folder());
        write_state(&services)?;
        Ok(Self {
            services,
            primary,
            standby,
            redis,
            network,
            guard,
        })
    }

    /// The server that takes writes.
    pub fn primary(&self) -> &Postgres {
        &self.primary
    }

    /// The server that streams from the primary and takes reads.
    pub fn standby(&self) -> &Postgres {
        &self.standby
    }

    /// Starts one more server that streams from the primary, with a slot and a fault proxy of its own. It has every
    /// database made before, and runs until the stack ends, even when the value is dropped.
    pub async fn add_standby(&self) -> Result<Postgres> {
        let port = ports::free()?;
        let name = format!("standby_{port}");
        let standby = Postgres {
            guard: Arc::clone(&self.guard),
            binaries: self.primary.binaries.clone(),
            data: self.guard.folder().join(&name),
            name,
            port,
            superuser_password: self.primary.superuser_password.clone(),
            proxy: self.network.proxy(port)?,
            process: Mutex::new(None),
        };
        start_standby(&self.primary, &standby).await?;
        Ok(standby)
    }

    /// Starts the primary of one more cluster, empty but for the application's role, with a fault proxy of its own. It runs
    /// until the stack ends, even when the value is dropped.
    pub async fn add_cluster(&self) -> Result<Postgres> {
        let port = ports::free()?;
        let name = format!("cluster_{port}");
        let binaries = self.primary.binaries.clone();
        let template = Template::prepare_another(&self.guard, &binaries, &name)
            .await
            .context("prepare another Postgres cluster")?;
        let primary = Postgres {
            guard: Arc::clone(&self.guard),
            binaries,
            data: self.guard.folder().join(&name),
            name,
            port,
            superuser_password: template.superuser_password.clone(),
            proxy: self.network.proxy(port)?,
            process: Mutex::new(None),
        };
        template.copy_to(&primary.data).await?;
        primary.start().await?;
        Ok(primary)
    }

    /// The Redis server.
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The payment provider and the recommender.
    pub fn upstream(&self) -> &Upstream {
        &self.network.upstream
    }

    /// The fault proxy before one of the servers.
    pub fn proxy(&self, target: Target) -> &Proxy {
        &self.network.proxies[&target]
    }

    /// One more fault proxy, before any port of this machine. It runs until the stack ends or it is dropped.
    pub fn add_proxy(&self, server: u16) -> Result<Arc<Proxy>> {
        self.network.proxy(server)
    }

    /// Leads the primary's endpoint to the standby, as an orchestrator does at a failover; whether before or after
    /// [`Postgres::promote`] is the caller's. Connections to the old primary stay, if it still runs.
    pub async fn move_primary_endpoint(&self) {
        self.proxy(Target::Primary).lead_to(self.standby.port).await;
    }

    /// A command that dies with the stack; the program and its arguments are still to be added.
    pub fn launcher(&self) -> std::process::Command {
        self.guard.launcher()
    }
}

/// A stack of one's own can do all that a shared one can.
impl Deref for Stack {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.guard.end();
    }
}

async fn start_postgres(template: &Template, primary: &Postgres, standby: &Postgres) -> Result<()> {
    template.copy_to(&primary.data).await?;
    primary.start().await?;
    start_standby(primary, standby).await
}

/// The file holds the superuser's password, so only the owner may read it.
fn write_state(services: &Services) -> Result<()> {
    let path = &services.state_file;
    fs::write(path, serde_json::to_vec_pretty(services)?)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o600),
    )?)
}
