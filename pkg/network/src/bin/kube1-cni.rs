//! The CNI plugin as an executable of its own; the kube1 binary is the same plugin when called by its name.

use std::process::ExitCode;

fn main() -> ExitCode {
    kube1_network::cni::main()
}
