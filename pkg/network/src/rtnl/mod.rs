//! Interfaces, addresses, routes and neighbours of a network namespace, over route netlink.
//!
//! Requests block for microseconds only, so that async callers need no other thread for a few of them.

mod link;
mod route;
mod socket;
#[cfg(test)]
mod tests;

pub use link::{Link, Mac, Vxlan};
pub use route::{Neighbour, Route};
pub use socket::{NetlinkError, RouteSocket};
