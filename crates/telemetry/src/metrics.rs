//! The metric registry behind `/metrics`, and the gauges every process has.

use std::{fmt, fs, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::runtime::Handle;

/// The media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Linux counts CPU time for user space in hundredths of a second, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Owns the registry. Crates register their instruments once at start-up; then it is shared and read.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry with the gauges of the process and of the named runtimes.
    #[must_use]
    pub fn new(runtimes: Vec<(&'static str, Handle)>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process {
            started: SystemTime::now(),
        }));
        registry.register_collector(Box::new(Runtimes(runtimes)));
        Self { registry }
    }

    /// Where instruments are registered.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Everything in OpenMetrics text.
    ///
    /// # Errors
    /// An instrument failed to write itself.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Read from `/proc/self` at each scrape; what is not there is left out.
#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status_field(&status, "VmRSS:").map(|kib| kib * 1024.0);
        let fds = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|fds| count(fds.count()));
        let started = self
            .started
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .map(|time| time.as_secs_f64());

        gauge(
            &mut encoder,
            "process_resident_memory",
            "Memory in RAM",
            Some(&Unit::Bytes),
            resident,
        )?;
        gauge(
            &mut encoder,
            "process_open_fds",
            "Open file descriptors",
            None,
            fds,
        )?;
        gauge(
            &mut encoder,
            "process_threads",
            "Threads",
            None,
            status_field(&status, "Threads:"),
        )?;
        gauge(
            &mut encoder,
            "process_start_time",
            "Start of the process since the epoch",
            Some(&Unit::Seconds),
            started,
        )?;
        cpu(encoder)
    }
}

fn cpu(mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let Some(seconds) = cpu_seconds() else {
        return Ok(());
    };
    let counter = ConstCounter::new(seconds);
    let help = "CPU time used, in user and system mode";
    let metric = encoder.encode_descriptor(
        "process_cpu",
        help,
        Some(&Unit::Seconds),
        counter.metric_type(),
    )?;
    counter.encode(metric)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: Option<f64>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn status_field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time are the 14th and 15th field; the second is the command in parentheses, which may
/// itself hold spaces and parentheses.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_command) = stat.rsplit_once(')')?;
    let ticks = after_command.split_whitespace().skip(11).take(2);
    let sum = ticks
        .map(|field| field.parse::<f64>().ok())
        .sum::<Option<f64>>()?;
    Some(sum / TICKS_PER_SECOND)
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

type Read = fn(&Handle) -> usize;

/// The tokio runtimes of the process.
#[derive(Debug)]
struct Runtimes(Vec<(&'static str, Handle)>);

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauges: [(&str, &str, Read); 3] = [
            ("tokio_workers", "Worker threads", |runtime| {
                runtime.metrics().num_workers()
            }),
            (
                "tokio_alive_tasks",
                "Tasks that have not ended",
                |runtime| runtime.metrics().num_alive_tasks(),
            ),
            (
                "tokio_global_queue_depth",
                "Tasks waiting in the shared queue",
                |runtime| runtime.metrics().global_queue_depth(),
            ),
        ];
        for (name, help, read) in gauges {
            let mut family: MetricEncoder<'_> =
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (runtime, handle) in &self.0 {
                let labels = [("runtime", *runtime)];
                ConstGauge::new(count(read(handle))).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_and_its_runtimes_are_measured() {
        let mut metrics = Metrics::new(vec![
            ("public", Handle::current()),
            ("admin", Handle::current()),
        ]);
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        metrics
            .registry_mut()
            .register("orders", "Orders taken", counter.clone());
        counter.inc();

        let text = metrics.encode().unwrap();

        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} in\n{text}"))
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert_eq!(value("tokio_workers{runtime=\"admin\"}"), 1.0);
        assert_eq!(value("orders_total"), 1.0);
        assert_eq!(
            text.matches("# TYPE tokio_workers gauge").count(),
            1,
            "one family for both runtimes"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
