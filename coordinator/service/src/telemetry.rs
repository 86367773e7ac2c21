//! Export of spans over OTLP (HTTP, protobuf), with the feature `otlp`.
//!
//! Spans: `request` (route), `turn` (events), `commit`, `work` (effect, batch). [`exporter`] gives a layer for the
//! subscriber that the binary installs; the guard flushes what is left when it is dropped, so it lives as long as the
//! process does.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::Resource;
use tracing::Subscriber;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::Layer;

/// Export cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported to {endpoint}: {reason}")]
pub struct TelemetryError {
    /// Where to.
    pub endpoint: String,
    /// Why.
    pub reason: String,
}

/// Flushes spans when it is dropped.
#[derive(Debug)]
pub struct Guard(SdkTracerProvider);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            // The subscriber may be gone already; nobody else would hear of it.
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// A layer that exports spans to `endpoint`, such as `http://127.0.0.1:4318/v1/traces`, under a service's name.
///
/// Sends from a thread of its own and drops spans rather than wait.
///
/// # Errors
/// [`TelemetryError`].
pub fn exporter<S>(endpoint: &str, service: &str) -> Result<(impl Layer<S>, Guard), TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // An error says that the process has a provider already, which will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| TelemetryError { endpoint: endpoint.to_owned(), reason: error.to_string() })?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("assay"));
    Ok((layer, Guard(provider)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_span_arrives_at_the_collector() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut bytes = Vec::new();
            // Up to the pause after the body.
            let _ = stream.read_to_end(&mut bytes);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (layer, guard) = exporter(&endpoint, "assay-test").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("a-span-of-the-test").in_scope(|| {});
        });
        drop(guard);
        let request = collector.join().unwrap();
        assert!(request.starts_with("POST /v1/traces"), "{request:.100}");
        assert!(request.contains("a-span-of-the-test") && request.contains("assay-test"));
    }
}
