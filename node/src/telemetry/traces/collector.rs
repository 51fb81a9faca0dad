//! A collector outside, over OTLP: gRPC, or protobuf over HTTP. Named by the standard variables.
//!
//! | variable | |
//! | --- | --- |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | where, for example `http://127.0.0.1:4317`; with HTTP `/v1/traces` is added |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | the same for spans alone; nothing is added |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `…_TRACES_PROTOCOL` | `grpc` (if nobody says) or `http/protobuf` |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `…_TRACES_HEADERS` | `name=value`, divided by commas |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT`, `…_TRACES_TIMEOUT` | milliseconds, 10,000 if nobody says |

use std::{env, str::FromStr as _, time::Duration};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use prost::Message as _;
use tonic::{
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Channel, Endpoint},
};

/// How long an export may take unless the environment says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported: {variable} {reason}; mend or unset it")]
pub(crate) struct CollectorError {
    variable: String,
    reason: String,
}

/// A collector.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    way: Way,
    headers: Vec<(String, String)>,
    timeout: Duration,
}

#[derive(Debug, Clone)]
enum Way {
    Grpc(Channel),
    Http(reqwest::Client, String),
}

impl Collector {
    /// The one that the environment names, if it names one. It is connected to with the first export. Must be called inside
    /// of a tokio runtime.
    pub(crate) fn from_environment() -> Result<Option<Self>, CollectorError> {
        Self::from(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The one that listens at this address, over gRPC. Must be called inside of a tokio runtime.
    pub(crate) fn at(address: &str) -> Result<Self, CollectorError> {
        let endpoint = format!("http://{address}");
        let wrong = |error: tonic::transport::Error| CollectorError {
            variable: "the address".to_owned(),
            reason: format!("is {address:?}: {error}"),
        };
        let endpoint = Endpoint::from_shared(endpoint).map_err(wrong)?;
        Ok(Self {
            way: Way::Grpc(endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy()),
            headers: Vec::new(),
            timeout: TIMEOUT,
        })
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, CollectorError> {
        let wrong = |name: &str, reason: String| CollectorError {
            variable: name.to_owned(),
            reason,
        };
        let said = |what: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_TRACES_{what}");
            let common = format!("OTEL_EXPORTER_OTLP_{what}");
            match (variable(&own), variable(&common)) {
                (Some(value), _) => Some((own, value)),
                (None, Some(value)) => Some((common, value)),
                (None, None) => None,
            }
        };
        let Some((endpoint_name, endpoint)) = said("ENDPOINT") else {
            return Ok(None);
        };
        if !endpoint.starts_with("http://") {
            let reason = format!(
                "is {endpoint:?}; it must begin with http:// (for https let a collector beside the node pass spans on)"
            );
            return Err(wrong(&endpoint_name, reason));
        }
        let mut headers = Vec::new();
        if let Some((name, text)) = said("HEADERS") {
            for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(wrong(&name, format!("has {pair:?}, which is no name=value")));
                };
                headers.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let timeout = match said("TIMEOUT") {
            None => TIMEOUT,
            Some((name, text)) => match text.parse() {
                Ok(ms) => Duration::from_millis(ms),
                Err(_) => return Err(wrong(&name, format!("is {text:?}, which is no number of milliseconds"))),
            },
        };
        let (protocol_name, protocol) = said("PROTOCOL").unwrap_or_else(|| (String::new(), "grpc".to_owned()));
        let way = match protocol.as_str() {
            "grpc" => {
                let endpoint = Endpoint::from_shared(endpoint.clone())
                    .map_err(|error| wrong(&endpoint_name, format!("is {endpoint:?}: {error}")))?;
                Way::Grpc(endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy())
            }
            "http/protobuf" => {
                let url = if endpoint_name.contains("TRACES") {
                    endpoint
                } else {
                    format!("{}/v1/traces", endpoint.trim_end_matches('/'))
                };
                let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build();
                Way::Http(client.map_err(|error| wrong(&endpoint_name, error.to_string()))?, url)
            }
            other => {
                let reason = format!("is {other:?}; it must be grpc or http/protobuf");
                return Err(wrong(&protocol_name, reason));
            }
        };
        Ok(Some(Self { way, headers, timeout }))
    }

    /// Sends spans; or says why they did not arrive.
    pub(crate) async fn export(&self, spans: &ExportTraceServiceRequest) -> Result<(), String> {
        let sent = async {
            match &self.way {
                Way::Grpc(channel) => self.by_grpc(channel.clone(), spans.clone()).await,
                Way::Http(client, url) => self.by_http(client, url, spans.encode_to_vec()).await,
            }
        };
        let in_time = tokio::time::timeout(self.timeout, sent).await;
        in_time.unwrap_or_else(|_| Err(format!("no answer for {} ms", self.timeout.as_millis())))
    }

    async fn by_grpc(&self, channel: Channel, spans: ExportTraceServiceRequest) -> Result<(), String> {
        let mut request = tonic::Request::new(spans);
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (AsciiMetadataKey::from_str(name), AsciiMetadataValue::from_str(value)) {
                request.metadata_mut().insert(name, value);
            }
        }
        let exported = TraceServiceClient::new(channel).export(request).await;
        exported
            .map(drop)
            .map_err(|status| format!("{}: {}", status.code(), status.message()))
    }

    async fn by_http(&self, client: &reqwest::Client, url: &str, spans: Vec<u8>) -> Result<(), String> {
        let mut request = client
            .post(url)
            .header("content-type", "application/x-protobuf")
            .body(spans);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| error.without_url().to_string())?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("HTTP status {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Collector>, CollectorError> {
        Collector::from(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[tokio::test]
    async fn the_environment_names_where_and_how() {
        assert!(of(&[]).expect("nothing is wrong").is_none());
        let grpc = of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4317")])
            .expect("right")
            .expect("one");
        assert!(matches!(grpc.way, Way::Grpc(_)));
        let http = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4318/"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=secret, b = c"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "50"),
        ]);
        let http = http.expect("right").expect("one");
        assert!(matches!(&http.way, Way::Http(_, url) if url == "http://x:4318/v1/traces"));
        assert_eq!(http.headers[0], ("api-key".to_owned(), "secret".to_owned()));
        assert_eq!(http.timeout, Duration::from_millis(50));
    }

    #[tokio::test]
    async fn what_cannot_be_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4317");
        for (variables, said) in [
            (
                vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "x:4317")],
                "must begin with http://",
            ),
            (
                vec![endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
                "grpc or http/protobuf",
            ),
            (
                vec![endpoint, ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")],
                "OTEL_EXPORTER_OTLP_TIMEOUT",
            ),
            (vec![endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "secret")], "name=value"),
        ] {
            let error = of(&variables).expect_err(said).to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
