//! Netfilter netlink messages: building with nested attributes, sending, and reading the answers.

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};

const NETLINK_NETFILTER: isize = 12;
const NESTED: u16 = 1 << 15;
const HEADER: usize = 16;

/// A sequence of netfilter netlink messages in the kernel's encoding.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    start: usize,
    sequence: u32,
}

impl Messages {
    /// Appends one message of a subsystem whose attributes `fill` writes; returns its sequence number.
    pub(crate) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Self),
    ) -> u32 {
        self.start = self.bytes.len();
        self.sequence += 1;
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        fill(self);
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence
    }

    /// Asks for an acknowledgement of the message that was pushed last.
    pub(crate) fn acknowledge_last(&mut self) {
        let at = self.start + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | NLM_F_ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    /// The number of the message that was pushed last.
    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// The encoded messages' size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes an attribute of raw bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Writes a number in network byte order, as almost all of netfilter wants it.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Writes a 64 bit number in network byte order.
    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Writes a zero-terminated string.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let length = (value.len() + 5) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Writes an attribute that contains those that `fill` writes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Writes attributes that are encoded already.
    pub(crate) fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend_from_slice(attributes);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What the kernel refused: the message's sequence number and the error.
pub(crate) type Refusal = (u32, io::Error);

/// A netfilter netlink socket of the calling thread's network namespace.
pub(crate) struct NfnlSocket {
    socket: Socket,
}

impl NfnlSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket })
    }

    /// Sends all messages at once and collects refusals until the last message is acknowledged.
    pub(crate) fn transact(&self, mut messages: Messages, last: u32) -> io::Result<Vec<Refusal>> {
        // The kernel takes a transaction only whole; refusals of all its messages come back before the acknowledgement.
        let room = messages.len() * 2 + (1 << 16);
        setsockopt(&self.socket.as_fd(), SndBufForce, &room)?;
        setsockopt(&self.socket.as_fd(), RcvBufForce, &(room * 4))?;
        let sent = self.socket.send(&messages.bytes, 0)?;
        debug_assert_eq!(sent, messages.bytes.len());
        messages.bytes = Vec::new();
        let mut refusals = Vec::new();
        loop {
            let (buffer, _) = self.socket.recv_from_full()?;
            for (kind, sequence, body) in split(&buffer) {
                if kind != NLMSG_ERROR {
                    continue;
                }
                if let Some(error) = error_of(body) {
                    refusals.push((sequence, error));
                }
                if sequence == last {
                    return Ok(refusals);
                }
            }
        }
    }

    /// Asks for all objects that a request describes and gives `visit` the attributes of each.
    pub(crate) fn dump(
        &self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Messages),
        visit: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.ask(kind, NLM_F_DUMP, family, fill, visit)
    }

    /// Asks for one object and gives `visit` its attributes.
    pub(crate) fn get(
        &self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Messages),
        visit: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.ask(kind, NLM_F_ACK, family, fill, visit)
    }

    fn ask(
        &self,
        kind: u16,
        flags: u16,
        family: u8,
        fill: impl FnOnce(&mut Messages),
        mut visit: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut messages = Messages::default();
        messages.push(kind, flags, family, 0, fill);
        self.socket.send(&messages.bytes, 0)?;
        loop {
            let (buffer, _) = self.socket.recv_from_full()?;
            for (kind, _, body) in split(&buffer) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error_of(body).map_or(Ok(()), Err),
                    _ => visit(body.get(4..).unwrap_or_default()),
                }
            }
        }
    }
}

fn error_of(body: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

/// Type, sequence number and body of each message in a datagram.
fn split(mut buffer: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let header = buffer.get(..HEADER)?;
        let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
        let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
        let body = buffer.get(HEADER..length)?;
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

/// Number (without flags) and value of each attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
