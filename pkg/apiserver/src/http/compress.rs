//! Compression of large answers.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};

use super::body::{BoxError, ByteStream, ResponseBody};
use super::respond::Reply;

/// Smaller bodies are sent as they are.
const THRESHOLD: usize = 128 * 1024;

/// Marks a streamed body as worth compressing; watches and logs are not.
#[derive(Clone, Copy, Debug)]
pub struct Compressible;

/// Compresses a large complete body, or a streamed one that is marked [`Compressible`].
pub fn compress(mut reply: Reply) -> Reply {
    let large = match reply.body() {
        ResponseBody::Full(bytes) => bytes.len() >= THRESHOLD,
        ResponseBody::Stream(_) => reply.extensions().get::<Compressible>().is_some(),
        ResponseBody::Proxied(_) => false,
    };
    if !large || reply.headers().contains_key(CONTENT_ENCODING) || !reply.headers().contains_key(CONTENT_TYPE) {
        return reply;
    }
    let headers = reply.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    let source: ByteStream = match std::mem::replace(reply.body_mut(), ResponseBody::empty()) {
        ResponseBody::Full(bytes) => {
            let pieces: Vec<Bytes> = (0..bytes.len())
                .step_by(THRESHOLD)
                .map(|start| bytes.slice(start..bytes.len().min(start + THRESHOLD)))
                .collect();
            Box::pin(futures::stream::iter(pieces.into_iter().map(Ok)))
        }
        ResponseBody::Stream(stream) => stream,
        ResponseBody::Proxied(_) => return reply,
    };
    *reply.body_mut() = ResponseBody::Stream(gzip(source));
    reply
}

/// One piece is compressed per poll, so that other tasks run in between.
fn gzip(source: ByteStream) -> ByteStream {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    Box::pin(futures::stream::unfold(Some((source, encoder)), |state| async move {
        let (mut source, mut encoder) = state?;
        loop {
            match source.next().await {
                Some(Ok(bytes)) => {
                    if let Err(e) = encoder.write_all(&bytes) {
                        return Some((Err(BoxError::from(e)), None));
                    }
                    if !encoder.get_ref().is_empty() {
                        let ready = std::mem::take(encoder.get_mut());
                        return Some((Ok(Bytes::from(ready)), Some((source, encoder))));
                    }
                }
                Some(Err(e)) => return Some((Err(e), None)),
                None => return Some((encoder.finish().map(Bytes::from).map_err(BoxError::from), None)),
            }
        }
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use http::StatusCode;
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::respond;

    #[tokio::test]
    async fn large_bodies_survive_compression_and_small_ones_are_left_alone() {
        let text = "kube1 ".repeat(100_000);
        let reply = compress(respond::text(StatusCode::OK, text.clone()));
        assert_eq!(reply.headers()[CONTENT_ENCODING], "gzip");
        let packed = reply.into_body().collect().await.unwrap().to_bytes();
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
        assert!(!compress(respond::text(StatusCode::OK, "ok")).headers().contains_key(CONTENT_ENCODING));
    }
}
