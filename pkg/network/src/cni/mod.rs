//! The CNI plugins `kube1-cni` and `loopback`: what containerd runs for every pod.
//!
//! Pods get a /32 address and reach everything, also each other on one node, through the host, which therefore sees
//! every packet: services and policies work without bridge netfilter.

mod addresses;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod host_ports;
mod loopback;
mod plugin;
mod spec;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

pub(crate) use addresses::gateway;
pub use addresses::{Addresses, AllocationError};
pub(crate) use host_ports::{elements_of_all, rules, sets};
use spec::{Call, SUPPORTED_VERSIONS};
pub use spec::{CniError, Config};

/// The name of the plugin's executable, as network configurations have it.
pub const PLUGIN: &str = "kube1-cni";
/// The name of the plugin that sets up a pod's loopback interface.
pub const LOOPBACK: &str = "loopback";

/// Runs the plugin that this process was called as: reads environment and standard input, writes the result.
pub fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    let loopback = Path::new(&program).file_name().is_some_and(|name| name == LOOPBACK);
    let (answer, code) = match run(loopback) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(error) => (error.to_json(), ExitCode::FAILURE),
    };
    // The runtime is gone if it does not read; there is nobody left to tell.
    let _ = writeln!(std::io::stdout(), "{answer}");
    code
}

fn run(loopback: bool) -> Result<Option<Value>, CniError> {
    let command = std::env::var("CNI_COMMAND").map_err(|_| CniError::environment("CNI_COMMAND is not set"))?;
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).map_err(|error| CniError::io("cannot read the configuration", &error))?;
    if command == "VERSION" {
        let version = serde_json::from_slice::<Value>(&input).ok();
        let version = version.as_ref().and_then(|value| value["cniVersion"].as_str()).unwrap_or("1.0.0");
        return Ok(Some(json!({"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS})));
    }
    let config = Config::parse(&input)?;
    if command == "STATUS" {
        return if loopback { Ok(None) } else { plugin::status(&config).map(|()| None) };
    }
    if command == "GC" {
        return if loopback { Ok(None) } else { plugin::collect_garbage(&config).map(|()| None) };
    }
    let call = Call::from_environment(&command)?;
    match (&*command, loopback) {
        ("ADD", false) => plugin::add(&config, &call).map(Some),
        ("DEL", false) => plugin::delete(&config, &call).map(|()| None),
        ("CHECK", false) => plugin::check(&config, &call).map(|()| None),
        ("ADD", true) => loopback::add(&config, &call).map(Some),
        ("DEL", true) => Ok(None),
        ("CHECK", true) => loopback::check(&call).map(|()| None),
        _ => Err(CniError::environment(&format!("CNI_COMMAND {command} is not known"))),
    }
}
