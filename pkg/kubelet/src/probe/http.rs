//! HTTP requests to containers, for probes and hooks.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use kube1_pki::AnyServer;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::check::{Target, connect_error, resolve_port};

/// Redirects followed within one host.
const REDIRECTS: usize = 10;
/// Most of an answer that is read.
const BODY_MAX: usize = 10 * 1024;

/// What a container answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    /// The beginning of a redirect's text; that of others is not read.
    pub body: String,
    location: Option<String>,
}

/// A request to a container.
#[derive(Clone, Debug)]
pub struct HttpTarget {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl HttpTarget {
    /// `None` if the port has no number.
    pub fn new(action: &HTTPGetAction, target: &Target) -> Option<Self> {
        let path = action.path.clone().unwrap_or_default();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let headers = action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
        Some(Self {
            tls: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| target.pod_ip.clone()),
            port: resolve_port(&action.port, &target.container)?,
            path,
            headers: headers.collect(),
        })
    }

    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, String> {
        let uri: Uri = self.path.parse().map_err(|_| format!("invalid path {:?}", self.path))?;
        let mut request = Request::builder().method(Method::GET).uri(uri);
        let given = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let defaults =
            [("host", self.authority()), ("user-agent", "kube-probe/1.36".to_owned()), ("accept", "*/*".to_owned())];
        for (name, value) in defaults.into_iter().filter(|(name, _)| !given(name)) {
            request = request.header(name, value);
        }
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).map_err(|_| format!("invalid header {name:?}"))?;
            let value = HeaderValue::try_from(value).map_err(|_| format!("invalid value of header {name}"))?;
            request = request.header(name, value);
        }
        request.header("connection", "close").body(Empty::new()).map_err(|e| e.to_string())
    }

    /// Where an answer sends us, if that is on the same host.
    fn redirected(&self, answer: &Answer) -> Option<Self> {
        let uri: Uri = answer.location.as_deref()?.parse().ok()?;
        let tls = uri.scheme_str().map_or(self.tls, |s| s == "https");
        let host = uri.host().unwrap_or(&self.host).trim_matches(['[', ']']).to_owned();
        if host != self.host {
            return None;
        }
        let default = if uri.scheme_str().is_none() {
            self.port
        } else if tls {
            443
        } else {
            80
        };
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Some(Self { tls, host, port: uri.port_u16().unwrap_or(default), path, headers: self.headers.clone() })
    }
}

/// The answer to a GET. Redirects within the host are followed; one to elsewhere is an answer by itself.
pub async fn get(target: &HttpTarget) -> Result<Answer, String> {
    let mut target = target.clone();
    for _ in 0..REDIRECTS {
        let answer = send(&target).await?;
        match target.redirected(&answer) {
            Some(next) if (300..400).contains(&answer.code) => target = next,
            _ => return Ok(answer),
        }
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

async fn send(target: &HttpTarget) -> Result<Answer, String> {
    let dial = |error: std::io::Error| format!("dial tcp {}: {}", target.authority(), connect_error(&error));
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(dial)?;
    if target.tls {
        let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
        let stream = insecure_tls()?.connect(name, stream).await.map_err(|e| e.to_string())?;
        exchange(TokioIo::new(stream), target.request()?).await
    } else {
        exchange(TokioIo::new(stream), target.request()?).await
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|e| e.to_string())?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(|e| e.to_string())?.into_parts();
        let body = if head.status.is_redirection() { beginning(body).await } else { String::new() };
        let location = head.headers.get(http::header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        Ok(Answer { code: head.status.as_u16(), body, location })
    };
    tokio::pin!(connection, answer);
    // The connection ends with this function.
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// As much of a body as comes, up to [`BODY_MAX`].
async fn beginning(mut body: Incoming) -> String {
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if read.len() >= BODY_MAX {
            read.truncate(BODY_MAX);
            break;
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

fn insecure_tls() -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        // A probe asks whether a server answers, not who it is: certificates are for names, pods are asked by address.
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves the given answers, one connection each, and gives what was asked.
    async fn serve(listener: TcpListener, answers: Vec<String>) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    }

    #[tokio::test]
    async fn redirects_within_the_host_are_followed_and_headers_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = vec![
            "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 4\r\n\r\nmove".to_owned(),
        ];
        let server = tokio::spawn(serve(listener, answers));
        let headers = vec![("Host".to_owned(), "me.example".to_owned())];
        let target = HttpTarget { tls: false, host: "127.0.0.1".into(), port, path: "/here".into(), headers };
        assert_eq!(get(&target).await.unwrap().code, 503);
        let elsewhere = get(&target).await.unwrap();
        assert_eq!((elsewhere.code, elsewhere.body.as_str()), (302, "move"));
        let asked = server.await.unwrap();
        assert!(asked[0].starts_with("GET /here ") && asked[1].starts_with("GET /there "), "{asked:?}");
        assert!(asked[0].contains("Host: me.example") || asked[0].contains("host: me.example"), "{asked:?}");
        assert!(get(&target).await.unwrap_err().contains("connection refused"));
    }
}
