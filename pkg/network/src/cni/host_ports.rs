//! Ports of the node that lead to a pod (`hostPort`), as elements of maps in the node's table.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::PortMapping;
use crate::TABLE;
use crate::nft::{Content, DataType, Element, Expr, Field, Key, NftError, Rule, Set, Table};

const ANY_ADDRESS: &str = "host-ports";
const ONE_ADDRESS: &str = "host-ports-of-address";
const SELF: &str = "host-port-pods";

/// Why a pod's host ports could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostPortError {
    #[error("{0} is not a protocol that can have a host port")]
    Protocol(String),
    #[error("{0} is not an IPv4 address")]
    Address(String),
    #[error("cannot record the pod's host ports in {}", path.display())]
    Record { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// What is kept on disk of a pod with host ports.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pod: IpAddr,
    ports: Vec<PortMapping>,
}

/// The maps that the elements below belong to.
pub(crate) fn sets(content: &mut Content) {
    use DataType::{InetProto, InetService, Ipv4Addr};
    content.set(ANY_ADDRESS, Set::map(&[InetProto, InetService], &[Ipv4Addr, InetService]));
    content.set(ONE_ADDRESS, Set::map(&[Ipv4Addr, InetProto, InetService], &[Ipv4Addr, InetService]));
    content.set(SELF, Set::of(&[Ipv4Addr, Ipv4Addr]));
}

/// The rules that translate destinations, and those for the source after it.
pub(crate) fn rules() -> (Vec<Rule>, Vec<Rule>) {
    let translate = |fields: &[Field], set: &str| {
        let lookup = Expr::Lookup { set: set.into(), key: 0, to: Some(0), absent: false };
        let nat = Expr::DestinationNat { v6: false, address: 0, port: Some(1) };
        Rule::new().v4().to_this_host().load_all(fields).expr(lookup).expr(nat)
    };
    let destination = vec![
        translate(&[Field::Daddr4, Field::L4Proto, Field::Dport], ONE_ADDRESS),
        translate(&[Field::L4Proto, Field::Dport], ANY_ADDRESS),
    ];
    // A pod that reaches itself through the node would otherwise answer itself directly.
    let source = vec![Rule::new().v4().in_set(&[Field::Saddr4, Field::Daddr4], SELF).masquerade()];
    (destination, source)
}

/// Opens a pod's host ports, in the kernel and on record.
pub(super) fn open(dir: &Path, container: &str, pod: IpAddr, ports: &[PortMapping]) -> Result<(), HostPortError> {
    let ports: Vec<PortMapping> = ports.iter().filter(|mapping| mapping.host_port != 0).cloned().collect();
    if ports.is_empty() {
        return Ok(());
    }
    let record = Record { pod, ports };
    let content = elements(&record)?;
    let path = path(dir, container);
    write(&path, &record).map_err(|source| HostPortError::Record { path, source })?;
    Ok(Table::new(TABLE).change(&[(&Content::default(), &content)])?)
}

/// Closes what [`open`] opened; says whether there was anything.
pub(super) fn close(dir: &Path, container: &str) -> Result<bool, HostPortError> {
    let path = path(dir, container);
    let Some(record) = read(&path) else { return Ok(false) };
    let content = elements(&record)?;
    match Table::new(TABLE).change(&[(&content, &Content::default())]) {
        Err(error) if !error.is_missing() => return Err(error.into()),
        _ => {}
    }
    fs::remove_file(&path).map_err(|source| HostPortError::Record { path, source })?;
    Ok(true)
}

/// The elements of all pods on record, for a table that is made anew.
pub(crate) fn elements_of_all(dir: &Path, content: &mut Content) {
    let Ok(entries) = fs::read_dir(dir.join("host-ports")) else { return };
    let records = entries.flatten().filter_map(|entry| read(&entry.path()));
    for part in records.filter_map(|record| elements(&record).ok()) {
        for (set, elements) in part.elements {
            content.elements.entry(set).or_default().extend(elements);
        }
    }
}

fn path(dir: &Path, container: &str) -> PathBuf {
    dir.join("host-ports").join(container)
}

/// An unreadable record is that of a pod from before a power failure, of which the kernel knows nothing either.
fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, serde_json::to_vec(record)?)
}

fn elements(record: &Record) -> Result<Content, HostPortError> {
    let mut content = Content::default();
    for mapping in &record.ports {
        let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => return Err(HostPortError::Protocol(mapping.protocol.clone())),
        };
        let target = Element::Value(Key::new().ip(record.pod).port(mapping.container_port));
        match &*mapping.host_ip {
            "" | "0.0.0.0" | "::" => {
                content.element(ANY_ADDRESS, Key::new().proto(protocol).port(mapping.host_port), target);
            }
            one => {
                let address: std::net::Ipv4Addr = one.parse().map_err(|_| HostPortError::Address(one.to_owned()))?;
                let key = Key::new().ip(address.into()).proto(protocol).port(mapping.host_port);
                content.element(ONE_ADDRESS, key, target);
            }
        }
    }
    content.element(SELF, Key::new().ip(record.pod).ip(record.pod), Element::Member);
    Ok(content)
}
