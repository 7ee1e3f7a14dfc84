//! A whole stack: starts the servers in an order that overlaps what it can, and ends them together.

use std::{fs, ops::Deref, os::unix::fs::PermissionsExt, sync::Arc};

use anyhow::{Context, Result};
use tokio::sync::Mutex;

use crate::{
    binaries::{self, PostgresBinaries},
    guard::Guard,
    ports,
    postgres::{Postgres, Template, copy_primary},
    redis::Redis,
    services::{Ports, Services},
};

/// A stack that this process started. Dropping it ends all servers and removes what they wrote; so does the end of
/// the process, whatever its cause.
pub struct Stack {
    services: Services,
    primary: Postgres,
    standby: Postgres,
    redis: Redis,
    guard: Arc<Guard>,
}

impl Stack {
    /// Starts all servers and waits until they answer and the standby streams.
    pub async fn start() -> Result<Self> {
        let binaries = binaries::find()?;
        let guard = Arc::new(Guard::new()?);
        let redis = Redis {
            guard: Arc::clone(&guard),
            program: binaries.redis_server,
            port: ports::free()?,
            process: Mutex::new(None),
        };
        let (postgres, redis_started) =
            tokio::join!(start_postgres(&guard, &binaries.postgres), redis.start());
        let (primary, standby) = postgres?;
        redis_started?;
        let services = Services {
            primary: Ports {
                direct: primary.port,
                proxied: primary.port,
            },
            standby: Ports {
                direct: standby.port,
                proxied: standby.port,
            },
            redis: Ports {
                direct: redis.port,
                proxied: redis.port,
            },
            superuser_password: primary.superuser_password.clone(),
            state_file: guard.folder().join("stack.json"),
        };
        write_state(&services)?;
        Ok(Self {
            services,
            primary,
            standby,
            redis,
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

    /// The Redis server.
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// A command that dies with the stack; the program and its arguments are still to be added.
    #[doc(hidden)]
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

async fn start_postgres(
    guard: &Arc<Guard>,
    binaries: &PostgresBinaries,
) -> Result<(Postgres, Postgres)> {
    let template = Template::find_or_prepare(guard, binaries)
        .await
        .context("prepare a Postgres cluster")?;
    let server = |name: &'static str| -> Result<Postgres> {
        Ok(Postgres {
            guard: Arc::clone(guard),
            binaries: binaries.clone(),
            name,
            data: guard.folder().join(name),
            port: ports::free()?,
            superuser_password: template.superuser_password.clone(),
            process: Mutex::new(None),
        })
    };
    let (primary, standby) = (server("primary")?, server("standby")?);
    template.copy_to(&primary.data)?;
    primary.start().await?;
    copy_primary(&primary, &standby.data)
        .await
        .context("copy the primary")?;
    standby.start().await?;
    Ok((primary, standby))
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
