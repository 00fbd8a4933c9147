//! One question to a container.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube1_cri::{ErrorKind, Runtime};
use tokio::net::TcpStream;

use super::grpc;
use super::http::{HttpTarget, get};

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// A success that people should know of.
    Warning(String),
    Failure(String),
    /// The question could not be asked, which says nothing about the container.
    Unknown(String),
}

/// Whom a probe or hook asks.
#[derive(Clone, Debug)]
pub struct Target {
    pub container_id: String,
    pub container: Container,
    pub pod_ip: String,
}

/// Most of a probe's output that a message shows.
const SHOWN: usize = 1024;

/// Asks in the way that the probe says.
pub async fn check_handler(runtime: &Runtime, target: &Target, probe: &Probe, limit: Duration) -> Outcome {
    if let Some(exec) = &probe.exec {
        return check_exec(runtime, &target.container_id, exec.command.clone().unwrap_or_default(), limit).await;
    }
    if let Some(action) = &probe.http_get {
        let Some(target) = HttpTarget::new(action, target) else {
            return Outcome::Unknown("the port has no number and is no port of the container".to_owned());
        };
        return match tokio::time::timeout(limit, get(&target)).await {
            Err(_) => Outcome::Failure(format!(
                "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                target.url()
            )),
            Ok(Err(error)) => Outcome::Failure(format!("Get \"{}\": {error}", target.url())),
            Ok(Ok(answer)) => match answer.code {
                200..300 => Outcome::Success,
                300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
                code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
            },
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.pod_ip.clone());
        let Some(port) = resolve_port(&action.port, &target.container) else {
            return Outcome::Unknown("the port has no number and is no port of the container".to_owned());
        };
        let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        return match tokio::time::timeout(limit, TcpStream::connect((host.as_str(), port))).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => Outcome::Failure(format!("dial tcp {shown}: {}", connect_error(&error))),
            Err(_) => Outcome::Failure(format!("dial tcp {shown}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.clone().unwrap_or_default();
        let port = u16::try_from(action.port).unwrap_or(0);
        return grpc::check(&target.pod_ip, port, &service, limit).await;
    }
    Outcome::Unknown("the probe has no handler".to_owned())
}

async fn check_exec(runtime: &Runtime, id: &str, command: Vec<String>, limit: Duration) -> Outcome {
    let shown = command.join(" ");
    match runtime.exec_sync(id, command, limit).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let output = [answer.stdout, answer.stderr].concat();
            let mut text = String::from_utf8_lossy(&output[..output.len().min(SHOWN)]).into_owned();
            if text.is_empty() {
                text = format!("command \"{shown}\" failed with exit code {}", answer.exit_code);
            }
            Outcome::Failure(text)
        }
        Err(error) if error.kind == ErrorKind::Timeout => {
            Outcome::Failure(format!("command timed out: \"{shown}\" timed out after {}s", limit.as_secs()))
        }
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// A connection's failure in the words that people look for.
pub(super) fn connect_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// A port's number, or that of the container's port of this name.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_or_names() {
        let container: Container =
            serde_json::from_str(r#"{"name":"c","ports":[{"name":"web","containerPort":8080}]}"#).expect("a container");
        let cases = [
            (IntOrString::Int(80), Some(80)),
            (IntOrString::String("web".into()), Some(8080)),
            (IntOrString::String("81".into()), Some(81)),
            (IntOrString::String("none".into()), None),
            (IntOrString::Int(0), None),
        ];
        for (port, wanted) in cases {
            assert_eq!(resolve_port(&port, &container), wanted, "{port:?}");
        }
    }
}
