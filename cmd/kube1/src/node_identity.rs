//! Who this node is when nobody says so: the host's name, and an address that needs no default route to be found.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Interfaces that containers made are no address of the node.
const NOT_THE_HOST: [&str; 8] = ["lo", "docker", "veth", "br-", "cni", "kube1", "flannel", "virbr"];

/// The given name, or the host's in lower case. An error says what makes a name unfit.
pub fn node_name(given: Option<&str>) -> anyhow::Result<String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => {
            let host = nix::unistd::gethostname().context("cannot read the host's name")?;
            host.to_string_lossy().trim().to_lowercase()
        }
    };
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    anyhow::ensure!(
        name.len() <= 253 && name.split('.').all(label),
        "{name:?} cannot be a node's name (lower-case letters, digits, '-' and '.'): choose one with --node-name"
    );
    Ok(name)
}

/// The given address, or the one that the default route uses, or the first one of a physical interface.
pub fn node_ip(given: Option<IpAddr>) -> anyhow::Result<IpAddr> {
    if let Some(address) = given {
        return Ok(address);
    }
    let addresses = host_addresses();
    // Connecting a datagram socket sends nothing: the kernel only picks the source address of the route.
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    if let Ok(address) = routed
        && !address.ip().is_unspecified()
        && !address.ip().is_loopback()
    {
        return Ok(address.ip());
    }
    addresses
        .into_iter()
        .next()
        .context("this host has no address: bring an interface up, or choose one with --node-ip")
}

/// Global IPv4 addresses of the host's own interfaces, in the kernel's order.
pub fn host_addresses() -> Vec<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let usable = interfaces.filter(|i| {
        i.flags.contains(InterfaceFlags::IFF_UP)
            && !i.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && !NOT_THE_HOST.iter().any(|prefix| i.interface_name.starts_with(prefix))
    });
    let addresses = usable.filter_map(|i| Some(IpAddr::V4(i.address?.as_sockaddr_in()?.ip())));
    addresses.filter(|a| !matches!(a, IpAddr::V4(v4) if v4.is_link_local())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_addresses_found() {
        assert_eq!(node_name(Some("node-1.example")).unwrap(), "node-1.example");
        for bad in ["", "Node", "a_b", "-a", "a..b"] {
            assert!(node_name(Some(bad)).is_err(), "{bad}");
        }
        let given = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
        assert_eq!(node_ip(Some(given)).unwrap(), given);
        assert!(host_addresses().iter().all(|a| !a.is_loopback()));
    }
}
