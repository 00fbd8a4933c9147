//! A SPDY connection for port forwarding inside a websocket.

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::channels::finished;

/// The protocol that clients offer for it.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The version of the streaming protocol that is spoken inside.
pub const BACKEND_VERSION: &str = "portforward.k8s.io";
const BUFFER: usize = 32 * 1024;

/// Passes the bytes of messages on to `backend`, and its bytes back as messages, until one side ends.
pub async fn join<C, B>(client: WebSocketStream<C>, backend: B) -> Result<(), Error>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut messages, mut said) = client.split();
    let (mut from, mut to) = tokio::io::split(backend);
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        tokio::select! {
            heard = said.next() => match heard.transpose()? {
                Some(Message::Close(_)) | None => return to.shutdown().await.map_err(Error::Io),
                Some(message @ (Message::Binary(_) | Message::Text(_))) => {
                    to.write_all(&message.into_data()).await.map_err(Error::Io)?;
                }
                Some(_) => {}
            },
            read = from.read_buf(&mut buffer) => {
                if read.map_err(Error::Io)? == 0 {
                    return messages.send(finished()).await;
                }
                messages.send(Message::binary(buffer.split().freeze())).await?;
                buffer.reserve(BUFFER);
            }
        }
    }
}
