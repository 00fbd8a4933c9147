//! Frames of streams as hostile clients and kubelets send them.

use std::time::Duration;

use futures::FutureExt;
use kube1_streaming::channels::{Wanted, translate};
use kube1_streaming::spdy::Reader;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The bytes as frames of SPDY.
pub fn spdy(data: &[u8]) {
    let mut reader = Reader::new(data);
    // All of the input is there, so nothing is waited for.
    while let Some(Ok(Some(_))) = reader.next().now_or_never() {}
}

/// One part of the bytes as what a client sends over a websocket, the other as a kubelet's answer over SPDY.
pub fn websocket(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let (client, kubelet) = rest.split_at(rest.len() * usize::from(*first) / 255);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let translated = async {
        let client = tokio::io::join(client, tokio::io::sink());
        let client = WebSocketStream::from_raw_socket(client, Role::Server, None).await;
        let wanted = Wanted { stdin: true, stdout: true, stderr: first % 2 == 0, tty: first % 3 == 0 };
        let _ = translate(client, tokio::io::join(kubelet, tokio::io::sink()), wanted).await;
    };
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), translated).await });
    assert!(ended.is_ok(), "goes on though both sides have ended");
}
