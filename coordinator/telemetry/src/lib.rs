//! What a long-running process says of itself: logs on standard error, and spans to an OpenTelemetry collector.
//!
//! Layer: adapters. Both `assay coordinator` and `assay-worker` begin with [`init`],
//! commands that end by themselves with [`init_logs`].
//!
//! | variable | means |
//! |---|---|
//! | `RUST_LOG` | what is logged and exported, by module and level |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | a collector's address, such as `http://127.0.0.1:4318`: spans are exported (HTTP, protobuf) |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | the same, whole: with `/v1/traces` |
//! | `OTEL_SERVICE_NAME` | another name for the service |
//!
//! Other `OTEL_*` variables work as OpenTelemetry's specification has them (headers, time limits, batch sizes).
//!
//! Spans of a coordinator: `request` (route), `turn` (events), `commit`, `work` (effect, batch); of a worker: `task`
//! (attempt, batch, stage). They are sent from a thread of their own and dropped rather than waited for.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::Resource;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Variables that name a collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// The variable that names the service.
const SERVICE: &str = "OTEL_SERVICE_NAME";

/// Spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported to {endpoint}: {source}; unset OTEL_EXPORTER_OTLP_ENDPOINT to do without")]
pub struct TelemetryError {
    /// Where to.
    pub endpoint: String,
    /// Why.
    pub source: ExporterBuildError,
}

/// Sends the last spans when it is dropped: it lives as long as the process does.
#[derive(Debug)]
#[must_use = "spans are exported as long as this lives"]
pub struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) else { return };
        tracing::warn!(%error, "the last spans were not exported");
    }
}

/// Logs to standard error what `RUST_LOG` says, else `default`: all that a command needs that ends by itself.
pub fn init_logs(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A second initialisation (in tests) is harmless.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

/// Logs to standard error what `RUST_LOG` says, else `default`; exports spans as `service` if the environment names a
/// collector. To be called outside a runtime, once.
///
/// # Errors
/// [`TelemetryError`]: the collector's address is none, for example.
pub fn init(default: &str, service: &str) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let service = value(SERVICE).unwrap_or_else(|| service.to_owned());
    let (spans, guard) = match ENDPOINTS.iter().find_map(|name| value(name)) {
        // The library reads the variables itself, and knows how they differ.
        Some(endpoint) => {
            let (layer, guard) =
                exporter(None, &service).map_err(|source| TelemetryError { endpoint, source })?;
            (Some(layer), guard)
        }
        None => (None, Guard(None)),
    };
    // A second initialisation (in tests) is harmless.
    let _ = tracing_subscriber::registry().with(filter).with(spans).with(log).try_init();
    Ok(guard)
}

/// A layer that exports spans to an address, or to where the environment says.
fn exporter<S>(endpoint: Option<&str>, service: &str) -> Result<(impl Layer<S>, Guard), ExporterBuildError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // An error says that the process has a provider already, which will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = SpanExporter::builder().with_http();
    let builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(builder.build()?).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("assay"));
    Ok((layer, Guard(Some(provider))))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_span_arrives_at_the_collector() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let mut bytes = Vec::new();
            // Up to the pause after the body.
            let _ = stream.read_to_end(&mut bytes);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (layer, guard) = exporter(Some(&endpoint), "assay-test").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("a-span-of-the-test").in_scope(|| {});
        });
        drop(guard);
        let request = collector.join().unwrap();
        assert!(request.starts_with("POST /v1/traces"), "{request:.100}");
        assert!(request.contains("a-span-of-the-test") && request.contains("assay-test"));
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        let subscriber = exporter::<tracing_subscriber::Registry>(Some("not an address"), "assay-test");
        assert!(subscriber.is_err());
    }
}
