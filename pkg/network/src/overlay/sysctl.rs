//! Kernel parameters.

use std::fs;
use std::path::Path;

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

/// Sets how long the kernel remembers connections, as upstream's proxy does: half-closed ones of services are used for
/// longer than its minute. Only where it tracks connections, which begins with the first table that asks for it.
pub(super) fn set_timeouts() -> Result<(), OverlayError> {
    for (state, seconds) in [("established", "86400"), ("close_wait", "3600")] {
        let name = format!("net/netfilter/nf_conntrack_tcp_timeout_{state}");
        if Path::new("/proc/sys").join(&name).exists() {
            set(&name, seconds)?;
        }
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
