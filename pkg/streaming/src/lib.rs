//! The streams of commands in containers and of forwarded ports, as clients, kubelets and runtimes speak them.
//!
//! Runtimes speak SPDY. Clients speak websockets, in which [`channels`] carries the streams of a command and [`tunnel`] the
//! bytes of a SPDY connection for port forwarding. The kubelet translates between the two, and so does the API server for
//! kubelets that cannot (`ExtendWebSocketsToKubelet`, KEP-4006).

pub mod channels;
pub mod spdy;
pub mod tunnel;
mod upgrade;

pub use upgrade::Upgrade;
