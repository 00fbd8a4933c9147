//! The nftables table of the overlay.

use std::path::Path;

use ipnet::IpNet;

use super::files::pods_dir;
use crate::cni;
use crate::nft::{ChainType, Content, Field, ForeignChain, Hook, HookPoint, NftError, Rule, priority};
use crate::{BRIDGE, TUNNEL};

/// Masquerading of what leaves the cluster, host ports, and protection of the host's loopback addresses.
pub(super) fn content(state_dir: &Path, cluster_cidr: IpNet) -> Content {
    let mut content = Content::default();
    cni::sets(&mut content);
    let (destination, mut source) = cni::rules();
    // Host ports go before node ports.
    let nat = |point, priority| Hook { kind: ChainType::Nat, point, priority };
    content.base_chain("prerouting", nat(HookPoint::Prerouting, priority::DSTNAT - 5), destination.clone());
    content.base_chain("output", nat(HookPoint::Output, priority::DSTNAT - 5), destination);
    source.extend(masquerading(cluster_cidr));
    content.base_chain("postrouting", nat(HookPoint::Postrouting, priority::SRCNAT), source);
    let raw = Hook { kind: ChainType::Filter, point: HookPoint::Prerouting, priority: priority::RAW };
    content.base_chain("loopback-guard", raw, [BRIDGE, TUNNEL].map(from_pods_to_loopback).to_vec());
    cni::elements_of_all(&pods_dir(state_dir), &mut content);
    content
}

/// Where `iptables`, and through it Docker and ufw, decide about what the host forwards.
const FORWARDED: [ForeignChain; 2] = [
    ForeignChain { v6: false, table: "filter", chain: "FORWARD" },
    ForeignChain { v6: true, table: "filter", chain: "FORWARD" },
];
const OUR_CHAIN: &str = "KUBE1-FORWARD";

/// Lets pods' packets through a firewall that drops what it does not know; network policies still see them.
pub(super) fn pass_other_firewalls(cluster_cidr: IpNet) -> Result<(), NftError> {
    let address = cluster_cidr.addr();
    let accept = |field| Rule::new().network(field, cluster_cidr, true).accept();
    for chain in FORWARDED.iter().filter(|chain| chain.v6 == address.is_ipv6()) {
        chain.precede(OUR_CHAIN, vec![accept(Field::saddr(address)), accept(Field::daddr(address))])?;
    }
    Ok(())
}

/// Undoes [`pass_other_firewalls`].
pub(super) fn leave_other_firewalls() -> Result<(), NftError> {
    FORWARDED.iter().try_for_each(|chain| chain.withdraw(OUR_CHAIN))
}

fn masquerading(cluster_cidr: IpNet) -> Vec<Rule> {
    let (from, to) = (Field::saddr(cluster_cidr.addr()), Field::daddr(cluster_cidr.addr()));
    let leaving = Rule::new().family(cluster_cidr.addr()).network(from, cluster_cidr, true);
    let leaving = leaving.network(to, cluster_cidr, false).network(to, multicast(cluster_cidr), false);
    let leaving = leaving.not_interface(Field::OifName, "lo").masquerade();
    // From localhost to a node port or host port, whose pod could not answer there.
    let local =
        Rule::new().v4().network(Field::Saddr4, loopback(), true).not_interface(Field::OifName, "lo").masquerade();
    vec![leaving, local]
}

fn from_pods_to_loopback(interface: &str) -> Rule {
    Rule::new().interface(Field::IifName, interface).v4().network(Field::Daddr4, loopback(), true).deny()
}

fn loopback() -> IpNet {
    IpNet::new([127, 0, 0, 0].into(), 8).expect("8 is a valid prefix length")
}

fn multicast(like: IpNet) -> IpNet {
    let (address, length) = match like {
        IpNet::V4(_) => ([224, 0, 0, 0].into(), 4),
        IpNet::V6(_) => ([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    };
    IpNet::new(address, length).expect("these are valid prefix lengths")
}
