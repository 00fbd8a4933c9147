//! The file that says where spans go (`TracingConfiguration`).

use std::path::Path;

use kube1_grpc::Address;
use serde::Deserialize;

const VERSIONS: &[&str] =
    &["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// OTLP's own port, and gRPC's where an address has none.
const DEFAULT: &str = "localhost:4317";
const GRPC_PORT: u16 = 443;
const RATE_MAX: i32 = 1_000_000;

/// A file that cannot be used; every problem that was found is told.
#[derive(Debug, thiserror::Error)]
pub enum TracingConfigError {
    #[error("cannot read the tracing configuration {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the tracing configuration {path} does not parse: {reason}")]
    Parse { path: String, reason: String },
    #[error("the tracing configuration {path} is invalid: {}", problems.join("; "))]
    Invalid { path: String, problems: Vec<String> },
}

/// What is traced, and who gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub collector: Address,
    /// Of a million requests that no trusted caller decided about.
    pub rate: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    endpoint: Option<String>,
    sampling_rate_per_million: Option<i32>,
}

impl Settings {
    /// Reads a TracingConfiguration of `apiserver.config.k8s.io`.
    pub fn read(path: &Path) -> Result<Self, TracingConfigError> {
        let shown = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| TracingConfigError::Read { path: shown.clone(), source })?;
        let file: File = serde_saphyr::from_str(&text)
            .map_err(|error| TracingConfigError::Parse { path: shown.clone(), reason: error.to_string() })?;
        let mut problems = Vec::new();
        if !VERSIONS.contains(&file.api_version.as_str()) || file.kind != "TracingConfiguration" {
            problems.push("apiVersion and kind must be apiserver.config.k8s.io/v1 and TracingConfiguration".to_owned());
        }
        let settings = Self::new(file.endpoint.as_deref(), file.sampling_rate_per_million, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(TracingConfigError::Invalid { path: shown, problems }) }
    }

    /// What is wrong is added to `problems`, in upstream's words.
    pub fn new(endpoint: Option<&str>, rate: Option<i32>, problems: &mut Vec<String>) -> Self {
        let rate = rate.unwrap_or_default();
        let wrong = match rate {
            ..0 => "sampling rate must be positive",
            0..=RATE_MAX => "",
            _ => "sampling rate per million must be less than or equal to one million",
        };
        if !wrong.is_empty() {
            problems.push(format!("samplingRatePerMillion: Invalid value: {rate}: {wrong}"));
        }
        let endpoint = endpoint.unwrap_or(DEFAULT);
        let collector = address(endpoint).unwrap_or_else(|why| {
            problems.push(format!("endpoint: Invalid value: {endpoint:?}: {why}"));
            Address::Tcp(DEFAULT.to_owned())
        });
        Self { collector, rate: u32::try_from(rate).unwrap_or_default() }
    }
}

/// A target as gRPC names it: `host:port`, `dns://resolver/host:port`, `unix:path`, `unix-abstract:name`.
fn address(endpoint: &str) -> Result<Address, String> {
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) => (
            scheme,
            rest.split_once('/')
                .map_or(rest, |(authority, path)| if scheme == "dns" || authority.is_empty() { path } else { rest }),
        ),
        None => match endpoint.split_once(':') {
            Some((scheme @ ("dns" | "unix" | "unix-abstract"), rest)) => (scheme, rest),
            _ => ("dns", endpoint),
        },
    };
    match scheme {
        "unix" if endpoint.starts_with("unix://") => {
            Ok(Address::Unix(format!("/{}", rest.trim_start_matches('/')).into()))
        }
        "unix" => Ok(Address::Unix(rest.into())),
        "unix-abstract" => Ok(Address::Unix(format!("@{rest}").into())),
        "dns" if rest.is_empty() => Err("must name a host".to_owned()),
        "dns" => {
            let port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            Ok(Address::Tcp(if port { rest.to_owned() } else { format!("{rest}:{GRPC_PORT}") }))
        }
        other => Err(format!(
            "unsupported scheme: {other}.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_those_of_grpc() {
        let tcp = |text: &str| Ok(Address::Tcp(text.to_owned()));
        let unix = |text: &str| Ok(Address::Unix(text.into()));
        for (endpoint, expected) in [
            ("localhost:4317", tcp("localhost:4317")),
            ("127.0.0.1:1", tcp("127.0.0.1:1")),
            ("collector", tcp("collector:443")),
            ("dns:///a:1", tcp("a:1")),
            ("dns://1.1.1.1/a:1", tcp("a:1")),
            ("unix:///run/a.sock", unix("/run/a.sock")),
            ("unix:a.sock", unix("a.sock")),
            ("unix-abstract:a", unix("@a")),
        ] {
            assert_eq!(address(endpoint), expected, "{endpoint}");
        }
        let mut problems = Vec::new();
        for (endpoint, rate) in [(Some("https://a:1"), None), (None, Some(-1)), (None, Some(1_000_001))] {
            Settings::new(endpoint, rate, &mut problems);
        }
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("unsupported scheme: https."), "{problems:?}");
    }
}
