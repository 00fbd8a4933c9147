//! The kernel's table of connections.

use std::io;
use std::net::IpAddr;

use crate::nfnl::{Messages, NfnlSocket, attributes};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;

/// A tracked connection, before and after address translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Where its first packet was sent to.
    pub destination: (IpAddr, u16),
    /// Who really answers.
    pub answered_by: (IpAddr, u16),
}

/// Makes the kernel forget the connections that `stale` picks, so that their next packets are routed anew.
///
/// Returns how many they were.
pub fn forget(v6: bool, mut stale: impl FnMut(&Flow) -> bool) -> io::Result<usize> {
    let family = if v6 { FAMILY_IPV6 } else { FAMILY_IPV4 };
    let socket = NfnlSocket::open()?;
    let mut tuples = Vec::new();
    socket.dump(
        GET,
        family,
        |_| {},
        |object| {
            let part = |wanted| attributes(object).find_map(|(kind, value)| (kind == wanted).then_some(value));
            let (Some(original), Some(reply)) = (part(ORIGINAL), part(REPLY)) else { return };
            if flow(original, reply).is_some_and(|flow| stale(&flow)) {
                tuples.push(original.to_vec());
            }
        },
    )?;
    let count = tuples.len();
    for tuple in tuples {
        let mut messages = Messages::default();
        let sequence = messages.push(DELETE, 0, family, 0, |out| out.nest(ORIGINAL, |out| out.raw(&tuple)));
        messages.acknowledge_last();
        for (_, error) in socket.transact(messages, sequence)? {
            // It may have ended by itself since.
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
        }
    }
    Ok(count)
}

fn flow(original: &[u8], reply: &[u8]) -> Option<Flow> {
    let (protocol, _, destination) = tuple(original)?;
    let (_, answered_by, _) = tuple(reply)?;
    Some(Flow { protocol, destination, answered_by })
}

/// Address and port.
type End = (IpAddr, u16);

/// Protocol, source and destination.
fn tuple(bytes: &[u8]) -> Option<(u8, End, End)> {
    let (mut source, mut destination, mut protocol, mut ports) = (None, None, None, (0, 0));
    for (kind, nested) in attributes(bytes) {
        for (part, value) in attributes(nested) {
            match (kind, part) {
                (1, 1 | 3) => source = address(value),
                (1, 2 | 4) => destination = address(value),
                (2, 1) => protocol = value.first().copied(),
                (2, 2) => ports.0 = u16::from_be_bytes(value.try_into().ok()?),
                (2, 3) => ports.1 = u16::from_be_bytes(value.try_into().ok()?),
                _ => {}
            }
        }
    }
    Some((protocol?, (source?, ports.0), (destination?, ports.1)))
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(value).map(IpAddr::from).ok())
}
