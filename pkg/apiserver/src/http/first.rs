//! Notices the bytes that come over a connection, by which clients are told that leave it silent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::timer::Arrival;

/// What every HTTP/2 connection begins with, in bytes.
pub const PREFACE: usize = 24;

/// A connection whose first bytes are counted, and whose arriving bytes are noted.
pub struct First<S> {
    inner: S,
    arrival: Option<Arc<Arrival>>,
    /// Bytes that were read, until they are enough.
    read: Arc<AtomicUsize>,
    enough: bool,
}

impl<S> First<S> {
    /// Gives the count too.
    pub fn new(inner: S, arrival: Option<Arc<Arrival>>) -> (Self, Arc<AtomicUsize>) {
        let read = Arc::<AtomicUsize>::default();
        (Self { inner, arrival, read: read.clone(), enough: false }, read)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for First<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Some(arrival) = &self.arrival
            && buffer.filled().len() > before
        {
            arrival.note();
        }
        if !self.enough {
            let more = buffer.filled().len() - before;
            self.enough = self.read.fetch_add(more, Ordering::Relaxed) + more >= PREFACE;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for First<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
