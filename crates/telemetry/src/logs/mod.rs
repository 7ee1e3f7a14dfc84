//! The log layer: one line an event, written to standard output, with the fields of the request it belongs to.

mod fields;
mod json;
mod pretty;

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, MakeWriter},
    reload,
};

use crate::{Config, Error, LogFormat};

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Reads and changes which log events are written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Replaces the filter for the whole process: `debug`, or `info,data=trace`.
    ///
    /// # Errors
    /// The text is no filter; the one in force stays.
    pub fn set(&self, filter: &str) -> Result<(), Error> {
        let filter = parse(filter)?;
        self.0.reload(filter).map_err(Error::Gone)
    }

    /// The filter in force.
    #[must_use]
    pub fn get(&self) -> String {
        self.0
            .with_current(EnvFilter::to_string)
            .unwrap_or_default()
    }
}

pub(crate) fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| Error::Filter(filter.to_owned(), error))
}

pub(crate) fn layer<W>(config: &Config, writer: W) -> Result<(BoxedLayer, LogLevel), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&config.log_filter)?);
    let terminal = std::io::stdout().is_terminal();
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !terminal,
    };
    let layer = fmt::layer().with_writer(writer).with_ansi(terminal);
    let layer = if json {
        layer
            .fmt_fields(json::JsonFields)
            .event_format(json::Json)
            .with_filter(filter)
            .boxed()
    } else {
        layer
            .fmt_fields(pretty::PrettyFields)
            .event_format(pretty::Pretty)
            .with_filter(filter)
            .boxed()
    };

    Ok((layer, LogLevel(handle)))
}

#[cfg(test)]
mod tests;
