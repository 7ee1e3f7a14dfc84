//! The part of a stack that runs inside its owner: the fault proxies, their HTTP control, and the upstream sandbox.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::Result;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
};

use crate::{
    ports,
    proxy::{self, Proxy, Target},
    services::{Ports, Services},
    upstream::Upstream,
};

const THREADS: usize = 2;

/// The proxies and the sandbox, running.
pub(crate) struct Network {
    pub(crate) ports: BTreeMap<Target, Ports>,
    pub(crate) proxies: BTreeMap<Target, Arc<Proxy>>,
    pub(crate) upstream: Arc<Upstream>,
    control: u16,
    background: Background,
}

/// A runtime of the stack's own, for a test's runtime ends with the test and a shared stack does not.
struct Background {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Background {
    fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("devstack")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // To wait for its threads is forbidden in async code, where stacks are dropped.
            runtime.shutdown_background();
        }
    }
}

impl Network {
    pub(crate) fn start() -> Result<Self> {
        let background = Background::start()?;
        let runtime = &background.handle;
        let (mut ports, mut proxies) = (BTreeMap::new(), BTreeMap::new());
        for target in Target::ALL {
            let direct = ports::free()?;
            let proxy = Proxy::start(runtime, direct)?;
            ports.insert(
                target,
                Ports {
                    direct,
                    proxied: proxy.port(),
                },
            );
            proxies.insert(target, proxy);
        }
        let upstream = Arc::new(Upstream::default());
        let listener = listen(runtime, ports[&Target::Upstream].direct)?;
        runtime.spawn(Arc::clone(&upstream).serve(listener));
        let control = ports::free()?;
        runtime.spawn(proxy::serve_control(
            listen(runtime, control)?,
            proxies.clone(),
        ));
        Ok(Self {
            ports,
            proxies,
            upstream,
            control,
            background,
        })
    }

    /// A further proxy before a port of this machine. Its faults cannot be set over HTTP.
    pub(crate) fn proxy(&self, server: u16) -> Result<Arc<Proxy>> {
        Proxy::start(&self.background.handle, server)
    }

    pub(crate) fn services(&self, superuser_password: &str, folder: &Path) -> Services {
        Services {
            primary: self.ports[&Target::Primary],
            standby: self.ports[&Target::Standby],
            redis: self.ports[&Target::Redis],
            upstream: self.ports[&Target::Upstream],
            control: self.control,
            superuser_password: superuser_password.to_owned(),
            state_file: folder.join("stack.json"),
        }
    }
}

fn listen(runtime: &Handle, port: u16) -> Result<TcpListener> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let _context = runtime.enter();
    Ok(TcpListener::from_std(listener)?)
}
