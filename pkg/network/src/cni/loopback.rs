//! The loopback plugin: a pod's `lo` is up.

use serde_json::{Value, json};

use super::spec::{self, Call, CniError, Config};
use crate::netns;
use crate::rtnl::{NetlinkError, RouteSocket};

pub(super) fn add(config: &Config, call: &Call) -> Result<Value, CniError> {
    in_namespace(call, |socket| {
        let link = socket.link(&call.interface)?;
        socket.set_up(link.index)
    })?;
    let interface = json!({"name": call.interface, "mac": "00:00:00:00:00:00", "sandbox": call.namespace()?});
    let mut result = spec::result(config, json!([interface]), None);
    let mut ips = json!([{"address": "127.0.0.1/8", "interface": 0}]);
    if config.cni_version.starts_with("0.") {
        ips[0]["version"] = json!("4");
    }
    result["ips"] = ips;
    Ok(result)
}

pub(super) fn check(call: &Call) -> Result<(), CniError> {
    let link = in_namespace(call, |socket| socket.link(&call.interface))?;
    if link.up { Ok(()) } else { Err(CniError::check(format!("{} is down", call.interface))) }
}

fn in_namespace<T: Send>(
    call: &Call,
    work: impl FnOnce(&mut RouteSocket) -> Result<T, NetlinkError> + Send,
) -> Result<T, CniError> {
    netns::within(call.namespace()?, || work(&mut RouteSocket::open()?))
        .map_err(|error| CniError::io("cannot enter the pod's network namespace", &error))?
        .map_err(|error| CniError::kernel("cannot set up the loopback interface", &error))
}
