//! CNI plugin, pod address management, VXLAN overlay and the netlink code they share with the service proxy.

pub mod conntrack;
pub mod netns;
mod nfnl;
pub mod nft;
pub mod rtnl;
