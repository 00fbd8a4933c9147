//! Which pod has which address of the node's range.
//!
//! One symbolic link per address in use, named after it, whose target says who has it. Links are created and removed
//! atomically, so a crash at any point leaves a true record.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

const LAST: &str = "last";
const LOCK: &str = "lock";

/// The first address of a node's range, which is the node's own.
pub(crate) fn gateway(subnet: IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) + 1).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) + 1).to_be_bytes()),
    }
}

/// Why no address was allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    #[error("cannot use the records of pod addresses in {}", dir.display())]
    Io { dir: PathBuf, source: io::Error },
    #[error("all addresses of {0} are in use")]
    Exhausted(IpNet),
}

/// The allocations of a node, locked against other processes until dropped.
#[derive(Debug)]
pub struct Addresses {
    dir: PathBuf,
    _lock: File,
}

impl Addresses {
    /// Waits for the lock.
    pub fn lock(dir: &Path) -> Result<Self, AllocationError> {
        let open = || {
            fs::create_dir_all(dir)?;
            let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = open().map_err(|source| AllocationError::Io { dir: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    fn io<T>(&self, result: io::Result<T>) -> Result<T, AllocationError> {
        result.map_err(|source| AllocationError::Io { dir: self.dir.clone(), source })
    }

    /// The address of `owner`: the one it has, or a free one that has not been used for longest.
    ///
    /// Network, gateway (the first) and broadcast address are never given away.
    pub fn allocate(&self, subnet: IpNet, owner: &str) -> Result<IpAddr, AllocationError> {
        let used = self.io(self.list())?;
        if let Some((address, _)) = used.iter().find(|(address, by)| by == owner && subnet.contains(address)) {
            return Ok(*address);
        }
        let last = fs::read_to_string(self.dir.join(LAST)).ok().and_then(|text| text.parse::<IpAddr>().ok());
        let after = last.filter(|last| subnet.contains(last)).unwrap_or_else(|| subnet.network());
        let all = || subnet.hosts().filter(|host| *host != subnet.network() && *host != gateway(subnet));
        let taken: std::collections::HashSet<IpAddr> = used.iter().map(|(address, _)| *address).collect();
        let free = all()
            .find(|host| *host > after && !taken.contains(host))
            .or_else(|| all().find(|host| !taken.contains(host)));
        let address = free.ok_or(AllocationError::Exhausted(subnet))?;
        self.io(symlink(owner, self.dir.join(address.to_string())))?;
        // Only a hint that makes reuse late.
        let _ = fs::write(self.dir.join(LAST), address.to_string());
        Ok(address)
    }

    /// Frees what `owner` has; returns its addresses.
    pub fn free(&self, owner: &str) -> Result<Vec<IpAddr>, AllocationError> {
        let mut freed = self.io(self.list())?;
        freed.retain(|(_, by)| by == owner);
        for (address, _) in &freed {
            self.io(fs::remove_file(self.dir.join(address.to_string())))?;
        }
        Ok(freed.into_iter().map(|(address, _)| address).collect())
    }

    /// The address that `owner` has.
    pub fn address_of(&self, owner: &str) -> Result<Option<IpAddr>, AllocationError> {
        Ok(self.io(self.list())?.into_iter().find_map(|(address, by)| (by == owner).then_some(address)))
    }

    /// Everybody who has an address.
    pub fn owners(&self) -> Result<Vec<String>, AllocationError> {
        Ok(self.io(self.list())?.into_iter().map(|(_, owner)| owner).collect())
    }

    fn list(&self) -> io::Result<Vec<(IpAddr, String)>> {
        let mut used = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let owner = fs::read_link(entry.path())?;
            used.push((address, owner.to_string_lossy().into_owned()));
        }
        Ok(used)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_stable_and_reused_late() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = Addresses::lock(dir.path()).unwrap();
        let subnet: IpNet = "10.42.3.0/29".parse().unwrap();
        let give = |owner: &str| addresses.allocate(subnet, owner).map(|address| address.to_string());
        assert_eq!(give("a/eth0").unwrap(), "10.42.3.2");
        assert_eq!(give("b/eth0").unwrap(), "10.42.3.3");
        assert_eq!(give("a/eth0").unwrap(), "10.42.3.2", "asking again must not take another one");
        assert_eq!(addresses.free("a/eth0").unwrap().len(), 1);
        assert_eq!(addresses.free("a/eth0").unwrap().len(), 0);
        assert_eq!(give("c/eth0").unwrap(), "10.42.3.4", "a freed address is used last");
        assert_eq!(give("d/eth0").unwrap(), "10.42.3.5");
        assert_eq!(give("e/eth0").unwrap(), "10.42.3.6");
        assert_eq!(give("f/eth0").unwrap(), "10.42.3.2");
        assert!(matches!(give("g/eth0"), Err(AllocationError::Exhausted(_))));
    }

    #[test]
    fn concurrent_callers_get_different_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let subnet: IpNet = "10.42.3.0/24".parse().unwrap();
        let mut given: Vec<IpAddr> = std::thread::scope(|scope| {
            let give = |owner: usize| Addresses::lock(dir.path()).unwrap().allocate(subnet, &format!("{owner}/eth0"));
            let threads: Vec<_> = (0..32).map(|owner| scope.spawn(move || give(owner).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 32);
    }
}
