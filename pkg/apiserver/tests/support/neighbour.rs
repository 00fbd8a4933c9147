//! Servers beside the one that is tested.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube1_pki::{AltName, LeafProfile, ReloadingCertificate, Subject, Usage};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::TestServer;

/// Serves `answer` over HTTPS under `name` with a certificate of the cluster's CA. It is given the user that a front proxy
/// names, or else what the request is a part of.
pub async fn serve(server: &TestServer, name: &str, answer: fn(&Method, &str, &str, Value) -> Value) -> SocketAddr {
    let profile = LeafProfile {
        subject: Subject::new(name, &[]),
        usages: vec![Usage::ServerAuth],
        alt_names: vec![AltName::parse(name), AltName::parse("127.0.0.1")],
    };
    let certificate = Arc::new(ReloadingCertificate::new(&server.pki.ca.issue(&profile).unwrap()).unwrap());
    let verifier = server.api.server().authenticator.certificate_verifier();
    let tls = kube1_apiserver::http::tls::tls_config(certificate, verifier, &Default::default()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(tls.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    let told = ["x-remote-user", "traceparent"].iter().find_map(|name| parts.headers.get(*name));
                    let user = told.map_or("", |v| v.to_str().unwrap()).to_owned();
                    let text = answer(&parts.method, parts.uri.path(), &user, body).to_string();
                    let reply = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(reply.body(Full::new(Bytes::from(text))).unwrap())
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}
