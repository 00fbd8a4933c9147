//! The gRPC health protocol.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;

use super::check::Outcome;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks a service in the pod for its health.
pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Outcome {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(limit, ask(&authority, service)).await {
        Ok(Ok(SERVING)) => Outcome::Success,
        Ok(Ok(_)) => Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        Ok(Err(reason)) => Outcome::Failure(reason),
        Err(_) => {
            let limit = limit.as_secs();
            Outcome::Failure(format!(
                "timeout: failed to connect service \"{authority}\" within {limit}s: context deadline exceeded"
            ))
        }
    }
}

async fn ask(authority: &str, service: &str) -> Result<i32, String> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|e| e.to_string())?;
    let connect_error = |e| format!("failed to connect service \"{authority}\": {e}");
    let channel = endpoint.connect().await.map_err(connect_error)?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let request = tonic::Request::new(HealthRequest { service: service.to_owned() });
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthRequest, HealthResponse>::default();
    let answer = client.unary(request, path, codec).await;
    match answer {
        Ok(answer) => Ok(answer.into_inner().status),
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            Err("this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned())
        }
        Err(status) => Err(format!("rpc error: code = {:?} desc = {}", status.code(), status.message())),
    }
}
