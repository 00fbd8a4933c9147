//! Kernel parameters.

use std::fs;

use super::OverlayError;
use crate::{BRIDGE, TUNNEL};

/// Sets what pods' traffic needs of the host.
pub(super) fn set_all(tunnel: bool) -> Result<(), OverlayError> {
    set("net/ipv4/ip_forward", "1")?;
    // Pods of one node reach each other through the host, which must not tell them of a shorter way.
    for interface in ["all", BRIDGE] {
        set(&format!("net/ipv4/conf/{interface}/send_redirects"), "0")?;
    }
    // Lets the node's own processes use node ports on localhost; the table drops what others send there.
    for interface in [BRIDGE, TUNNEL].into_iter().filter(|name| *name != TUNNEL || tunnel) {
        set(&format!("net/ipv4/conf/{interface}/route_localnet"), "1")?;
    }
    Ok(())
}

fn set(name: &str, value: &str) -> Result<(), OverlayError> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| OverlayError::Sysctl { name: name.replace('/', "."), source })
}
