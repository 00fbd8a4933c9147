//! The server's side of the websocket handshake.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Extensions, HeaderMap, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A client's wish for a websocket.
pub struct Upgrade {
    on: OnUpgrade,
    accept: String,
    protocol: Option<&'static str>,
}

impl Upgrade {
    /// Takes the wish out of a request, with the first protocol that the client offers and that is `known`. `None` for any
    /// other request, which stays as it is. The error is what to tell a client whose request is no proper one.
    pub fn take(
        headers: &HeaderMap,
        extensions: &mut Extensions,
        known: &[&'static str],
    ) -> Result<Option<Self>, &'static str> {
        let websocket = headers.get(UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if !websocket || !wanted(headers) {
            return Ok(None);
        }
        let Some(on) = extensions.remove::<OnUpgrade>() else { return Ok(None) };
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or("the websocket request has no key")?;
        Ok(Some(Self { on, accept: derive_accept_key(key.as_bytes()), protocol: offered(headers, known) }))
    }

    /// As [`Self::take`], only for a client that offers one of the known protocols.
    pub fn take_offer(
        headers: &HeaderMap,
        extensions: &mut Extensions,
        known: &[&'static str],
    ) -> Result<Option<Self>, &'static str> {
        if offered(headers, known).is_some() { Self::take(headers, extensions, known) } else { Ok(None) }
    }

    /// The protocol that was agreed on.
    pub fn protocol(&self) -> Option<&'static str> {
        self.protocol
    }

    /// The headers of the answer (101) that switches protocols.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let accept = HeaderValue::from_str(&self.accept).expect("it is base64");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        headers
    }

    /// The websocket, once the client has been answered.
    pub async fn socket(self) -> Result<WebSocketStream<TokioIo<Upgraded>>, Error> {
        let stream = self.on.await.map_err(|e| Error::Io(std::io::Error::other(e)))?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await)
    }
}

/// Whether the client asks for another protocol.
fn wanted(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    connection.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// The first protocol that the client offers and that is known.
fn offered(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    offered.flat_map(|v| v.split(',')).find_map(|p| known.iter().copied().find(|known| *known == p.trim()))
}
