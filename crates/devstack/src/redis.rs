//! The Redis server of a stack. It keeps nothing: after a restart it is empty.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::{guard::Guard, process::Process, proxy::Proxy};

pub(crate) const PASSWORD: &str = "holdfast";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The running Redis (or Valkey) server and the ways to hurt it.
pub struct Redis {
    pub(crate) guard: Arc<Guard>,
    pub(crate) program: PathBuf,
    pub(crate) port: u16,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) process: Mutex<Option<Process>>,
}

impl Redis {
    pub(crate) async fn start(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        ensure!(slot.is_none(), "redis runs already");
        let port = self.port.to_string();
        let folder = self.guard.folder().display().to_string();
        // With the title left alone, `ps` shows which stack the server belongs to.
        let args = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--dir",
            &folder,
            "--set-proc-title",
            "no",
        ];
        let storage = [
            "--save",
            "",
            "--appendonly",
            "no",
            "--requirepass",
            PASSWORD,
        ];
        let args: Vec<OsString> = args.iter().chain(&storage).map(Into::into).collect();
        let mut process = self.guard.spawn("redis", &self.program, &args)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let attempt = self.ping().await;
            // It may have been another server that answered on the port.
            process.check_alive()?;
            let Err(error) = attempt else { break };
            if Instant::now() >= deadline {
                bail!(error.context(format!("redis was not up within {START_TIMEOUT:?}")));
            }
            sleep(START_POLL).await;
        }
        *slot = Some(process);
        self.proxy.set_server_gone(false).await;
        Ok(())
    }

    /// Kill -9 of the server. What it held is lost.
    pub async fn kill(&self) -> Result<()> {
        let mut process = self
            .process
            .lock()
            .await
            .take()
            .context("redis is not running")?;
        self.proxy.set_server_gone(true).await;
        process.kill().await
    }

    /// Stops the server with SIGSTOP: connections stay open and nothing answers.
    pub async fn pause(&self) -> Result<()> {
        self.process
            .lock()
            .await
            .as_ref()
            .context("redis is not running")?
            .pause()
    }

    /// Lets a paused server run again.
    pub async fn resume(&self) -> Result<()> {
        self.process
            .lock()
            .await
            .as_ref()
            .context("redis is not running")?
            .resume()
    }

    /// Starts a killed server again, empty and on the same port, and waits until it answers.
    pub async fn restart(&self) -> Result<()> {
        self.start().await
    }

    /// Any answer will do, be it only that a password is wanted.
    async fn ping(&self) -> Result<()> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            stream.read_u8().await
        };
        timeout(ATTEMPT_TIMEOUT, exchange).await??;
        Ok(())
    }
}
