//! Requests and answers.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot talk to the kernel's network stack (CAP_NET_ADMIN is needed)")]
    Socket(#[source] io::Error),
    #[error("the kernel refused to {what}")]
    Refused { what: String, source: io::Error },
    #[error("there is no network interface {0}")]
    NoSuchLink(String),
}

impl NetlinkError {
    /// Whether the kernel said that the thing is there already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
    }

    /// Whether the kernel said that there is no such thing.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NoSuchLink(_) => true,
            Self::Refused { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
            }
            Self::Socket(_) => false,
        }
    }
}

/// A route netlink socket of the network namespace of the thread that opened it.
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(NetlinkError::Socket)?, sequence: 0 })
    }

    /// Sends a request that changes something and waits for its acknowledgement.
    pub(super) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        self.exchange(message, flags | NLM_F_ACK, |_| {}).map_err(|error| refused(error, what))
    }

    /// Sends a request for one object.
    pub(super) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        what: impl FnOnce() -> String,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut found = None;
        self.exchange(message, NLM_F_ACK, |answer| found = Some(answer)).map_err(|error| refused(error, what))?;
        Ok(found)
    }

    /// Sends a request for all objects of a kind.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        visit: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_DUMP, visit).map_err(NetlinkError::Socket)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut visit: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (buffer, _) = self.socket.recv_from_full()?;
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                rest = rest.get((answer.header.length as usize).next_multiple_of(4)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue; // Left over from a request that was given up.
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => visit(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

fn refused(source: io::Error, what: impl FnOnce() -> String) -> NetlinkError {
    NetlinkError::Refused { what: what(), source }
}
