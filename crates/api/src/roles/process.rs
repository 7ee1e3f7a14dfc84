//! What every long-running role shares: telemetry, the state, background checks, the admin listener, and an end that
//! leaves nothing behind.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, anyhow};
use axum::extract::FromRef;
use data::{
    idempotency,
    outbox::{self, Relay},
};
use prometheus_client::registry::Registry;
use settings::Loaded;
use telemetry::metrics::Metrics;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use worker::Runner;

use super::{CUT, shutdown::Signals};
use crate::{
    features::orders,
    http::{
        admin::{self, AdminState},
        admission::metrics::Collected,
        observe::ObserveLayer,
    },
    jobs::{self, Operations},
    settings::Settings,
    state::AppState,
};

/// Whether a process runs jobs.
#[derive(Clone, Copy, Debug)]
pub enum Jobs {
    /// Others do.
    Leave,
    Run,
    /// And measures how many there are.
    RunAndCount,
}

/// A running process, whatever its role.
pub struct Process {
    pub state: AppState,
    pub observe: ObserveLayer,
    /// Every task of the process that is not a request.
    pub background: TaskTracker,
    /// What runs jobs. Stops before the rest.
    jobs: TaskTracker,
    stop_jobs: CancellationToken,
    stop_relay: CancellationToken,
    stop: CancellationToken,
    telemetry: telemetry::Telemetry,
    signals: Option<Signals>,
}

impl Process {
    /// Builds everything and starts the background checks. Nothing here waits for a dependency.
    pub fn start(loaded: &Loaded<Settings>, signals: Signals, jobs: Jobs) -> anyhow::Result<Self> {
        let settings = &loaded.settings;
        let telemetry = telemetry::init(&settings.telemetry, env!("CARGO_PKG_VERSION"))?;
        let mut metrics = Metrics::new(vec![("requests", tokio::runtime::Handle::current())]);
        telemetry.register(metrics.registry_mut());
        let state = AppState::new(settings, metrics.registry_mut())?;
        // A worker admits nobody, and would lower the mean that an autoscaler goes by.
        if !matches!(jobs, Jobs::RunAndCount) {
            let admission = Collected(state.admission.clone());
            metrics
                .registry_mut()
                .register_collector(Box::new(admission));
        }
        let process = Self {
            observe: ObserveLayer::new(
                &settings.http,
                telemetry.sampling(),
                state.degradations.clone(),
                metrics.registry_mut(),
            ),
            state,
            background: TaskTracker::new(),
            jobs: TaskTracker::new(),
            stop_jobs: CancellationToken::new(),
            stop_relay: CancellationToken::new(),
            stop: CancellationToken::new(),
            telemetry,
            signals: Some(signals),
        };
        process.watch_dependencies();
        process.keep_flags();
        process.resolve_holds(&settings.orders);
        process.finish_orders(&settings.orders);
        process.remove_expired_keys(&settings.idempotency);
        process.state.events.start();
        process.run_jobs(jobs, settings, metrics.registry_mut())?;
        process.serve_admin(metrics)?;
        Ok(process)
    }

    fn watch_dependencies(&self) {
        let (clusters, stop) = (self.state.clusters.clone(), self.stop.clone());
        self.background
            .spawn(async move { clusters.watch(stop).await });
        self.background
            .spawn(self.state.redis.clone().watch(self.stop.clone()));
        let (state, stop) = (self.state.clone(), self.stop.clone());
        self.background
            .spawn(async move { stop.run_until_cancelled(state.note_checks()).await });
        let (health, stop) = (self.state.health.clone(), self.stop.clone());
        self.background
            .spawn(async move { stop.run_until_cancelled(health.beat()).await });
    }

    fn keep_flags(&self) {
        let AppState {
            flags,
            clusters,
            admission,
            ..
        } = self.state.clone();
        let stop = self.stop.clone();
        self.background.spawn(flags.keep(clusters, admission, stop));
    }

    /// In every role, so that nothing is left held where no process has another role.
    fn resolve_holds(&self, config: &orders::Config) {
        let (clusters, stop) = (self.state.clusters.clone(), self.stop.clone());
        self.background
            .spawn(orders::sweep(clusters, config.clone(), stop));
    }

    /// In every role, so that no order stays half done where no process has another role.
    fn finish_orders(&self, config: &orders::Config) {
        let completer = orders::Completer {
            checkout: orders::Checkout::from_ref(&self.state),
            clusters: self.state.clusters.clone(),
            config: config.clone(),
            keys: self.state.idempotency.clone(),
        };
        self.background.spawn(completer.run(self.stop.clone()));
    }

    /// In every role, for the same reason.
    fn remove_expired_keys(&self, config: &idempotency::Config) {
        let (clusters, stop) = (self.state.clusters.clone(), self.stop.clone());
        self.background
            .spawn(idempotency::sweep(clusters, config.clone(), stop));
    }

    /// And tells others of what happens.
    fn run_jobs(
        &self,
        jobs: Jobs,
        settings: &Settings,
        metrics: &mut Registry,
    ) -> anyhow::Result<()> {
        let registry = jobs::registry(&self.state, self.telemetry.sampling());
        let clusters = self.state.clusters.clone();
        let runner = || Runner::new(&settings.jobs, registry, clusters.clone(), metrics);
        let runner = match jobs {
            Jobs::Leave => return Ok(()),
            Jobs::Run => runner(),
            Jobs::RunAndCount => runner().counting(),
        };
        self.jobs.spawn(runner.run(self.stop_jobs.clone()));
        let sink = outbox::sink(self.state.feed.clone(), &settings.outbox);
        let sink = sink.map_err(|error| anyhow!("outbox.kafka: {error}"))?;
        let relay = Relay::new(clusters, sink, &settings.outbox, metrics);
        self.jobs.spawn(relay.run(self.stop_relay.clone()));
        Ok(())
    }

    /// Where there are clients to hear of it.
    pub fn follow_feed(&self) {
        let live = self.state.live.clone();
        self.background.spawn(live.run(self.stop.clone()));
    }

    fn serve_admin(&self, metrics: Metrics) -> anyhow::Result<()> {
        let listen = self.state.health.config().listen;
        let state = AdminState {
            app: self.state.clone(),
            metrics: Arc::new(metrics),
            log_level: self.telemetry.log_level(),
            jobs: Operations::new(self.state.clusters.clone(), self.state.http.write_deadline),
        };
        let address = admin::spawn(state)
            .with_context(|| format!("cannot listen on admin.listen = {listen}"))?;
        tracing::info!(%address, "admin listener: /startup /health /ready /metrics /status /flags /jobs /log-level");
        Ok(())
    }

    /// Waits for the first signal, says so to the probes, and lets a second signal end the process at once.
    pub async fn told_to_end(&mut self) -> &'static str {
        let mut signals = self.signals.take().expect("a process is told to end once");
        let signal = signals.next().await;
        self.state.health.draining();
        self.stop_jobs.cancel();
        self.background.spawn(async move {
            let signal = signals.next().await;
            tracing::warn!(signal, "a second signal: exiting at once");
            std::process::exit(CUT.into());
        });
        signal
    }

    /// Waits for the jobs that run, writes what requests have left to be written, closes what they have used, then flushes telemetry, last. `cut` is how many
    /// connections were not finished.
    pub async fn end(self, cut: usize) -> ExitCode {
        self.stop_relay.cancel();
        self.jobs.close();
        self.jobs.wait().await;
        self.state.events.end().await;
        self.stop.cancel();
        self.state.cache.end().await;
        if cut > 0 {
            tracing::error!(connections = cut, "ended with responses unfinished");
        } else {
            tracing::info!("ended with everything finished");
        }
        if !self.telemetry.shutdown().await {
            eprintln!("holdfast: some spans could not be delivered before telemetry.flush_timeout");
        }
        if cut > 0 {
            ExitCode::from(CUT)
        } else {
            ExitCode::SUCCESS
        }
    }
}
