//! The single checks of the standards, each with what it says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Level;
use super::restricted::{
    privilege_escalation, restricted_capabilities, restricted_seccomp, restricted_volumes, run_as_non_root, run_as_user,
};

pub(super) const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// A pod's metadata and spec.
pub(super) struct Pod<'a> {
    metadata: &'a Value,
    pub spec: &'a Value,
}

/// Reason, and what exactly of the pod.
pub(super) type Violation = (String, String);
type Check = fn(&Pod<'_>) -> Option<Violation>;

const BASELINE: [Check; 12] = [
    apparmor,
    baseline_capabilities,
    host_namespaces,
    host_path_volumes,
    host_ports,
    probe_hosts,
    privileged,
    proc_mount,
    selinux,
    baseline_seccomp,
    sysctls,
    windows_host_process,
];
/// Checks of the baseline that the restricted level has in a stricter form are not repeated.
const RESTRICTED: [Check; 15] = [
    apparmor,
    host_namespaces,
    host_ports,
    probe_hosts,
    privileged,
    proc_mount,
    selinux,
    sysctls,
    windows_host_process,
    privilege_escalation,
    restricted_capabilities,
    restricted_volumes,
    run_as_non_root,
    run_as_user,
    restricted_seccomp,
];

/// What of a pod the level forbids.
pub(super) fn violations(level: Level, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let checks: &[Check] = match level {
        Level::Privileged => &[],
        Level::Baseline => &BASELINE,
        Level::Restricted => &RESTRICTED,
    };
    let pod = Pod { metadata, spec };
    checks.iter().filter_map(|check| check(&pod)).collect()
}

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl<'a> Pod<'a> {
    pub fn containers(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        let spec = self.spec;
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists.into_iter().flat_map(move |list| items(&spec[list])).map(|c| (text(&c["name"]), c))
    }

    pub fn containers_where(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|(_, c)| bad(c)).map(|(name, _)| name).collect()
    }

    pub fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    pub fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Root inside is nobody outside.
    pub fn has_user_namespace(&self) -> bool {
        self.spec["hostUsers"].as_bool() == Some(false)
    }
}

pub(super) fn quoted<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|n| format!("\"{}\"", n.as_ref())).collect::<Vec<_>>().join(", ")
}

pub(super) fn plural(names: &[&str]) -> String {
    let word = if names.len() == 1 { "container" } else { "containers" };
    format!("{word} {}", quoted(names))
}

pub(super) fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some((reason.to_owned(), detail))
}

pub(super) fn if_any(reason: &str, names: &[&str], must: &str) -> Option<Violation> {
    if names.is_empty() { None } else { violation(reason, format!("{} {must}", plural(names))) }
}

fn apparmor(pod: &Pod<'_>) -> Option<Violation> {
    let forbidden = |context: &Value| context["appArmorProfile"]["type"] == "Unconfined";
    let mut found = Vec::new();
    if forbidden(pod.context()) {
        found.push("pod must not set AppArmor profile type to \"Unconfined\"".to_owned());
    }
    let names = pod.containers_where(|c| forbidden(&c["securityContext"]));
    if !names.is_empty() {
        found.push(format!("{} must not set AppArmor profile type to \"Unconfined\"", plural(&names)));
    }
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    for (key, value) in annotations.filter(|(k, _)| k.starts_with(APPARMOR_ANNOTATION)) {
        let value = text(value);
        if !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/")) {
            found.push(format!("annotation {key}=\"{value}\""));
        }
    }
    let reason = if found.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    if found.is_empty() { None } else { violation(reason, found.join(", ")) }
}

fn added<'a>(container: &'a Value, allowed: &[&str]) -> Vec<&'a str> {
    let added = items(&container["securityContext"]["capabilities"]["add"]).map(text);
    added.filter(|c| !allowed.contains(c)).collect()
}

pub(super) fn forbidden_additions(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
    let mut capabilities = BTreeSet::new();
    let mut names = Vec::new();
    for (name, container) in pod.containers() {
        let bad = added(container, allowed);
        if !bad.is_empty() {
            names.push(name);
            capabilities.extend(bad);
        }
    }
    let what = quoted(&capabilities);
    (!names.is_empty())
        .then(|| format!("{} must not include {what} in securityContext.capabilities.add", plural(&names)))
}

fn baseline_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    forbidden_additions(pod, &BASELINE_CAPABILITIES).and_then(|d| violation("non-default capabilities", d))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let members = ["hostNetwork", "hostPID", "hostIPC"];
    let set: Vec<String> =
        members.iter().filter(|m| pod.spec[**m].as_bool() == Some(true)).map(|m| format!("{m}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = items(&pod.spec["volumes"]).filter(|v| !v["hostPath"].is_null());
    let names: Vec<&str> = volumes.map(|v| text(&v["name"])).collect();
    let word = if names.len() == 1 { "volume" } else { "volumes" };
    if names.is_empty() { None } else { violation("hostPath volumes", format!("{word} {}", quoted(&names))) }
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let ports_of = |c: &Value| -> Vec<u64> {
        items(&c["ports"]).filter_map(|p| p["hostPort"].as_u64()).filter(|p| *p != 0).collect()
    };
    let names = pod.containers_where(|c| !ports_of(c).is_empty());
    let ports: BTreeSet<u64> = pod.containers().flat_map(|(_, c)| ports_of(c)).collect();
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = if ports.len() == 1 { "hostPort" } else { "hostPorts" };
    if names.is_empty() {
        return None;
    }
    violation("hostPort", format!("{} {verb} {word} {}", plural(&names), ports.join(", ")))
}

/// Probes and hooks must not reach for other hosts.
fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    let handlers = |c: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| &c[p]);
        let hooks = ["postStart", "preStop"].map(|h| &c["lifecycle"][h]);
        let both = probes.into_iter().chain(hooks);
        let hosts = both.flat_map(|h| [text(&h["httpGet"]["host"]), text(&h["tcpSocket"]["host"])]);
        hosts.filter(|h| !matches!(*h, "" | "127.0.0.1" | "::1")).map(str::to_owned).collect()
    };
    let names = pod.containers_where(|c| !handlers(c).is_empty());
    let hosts: BTreeSet<String> = pod.containers().flat_map(|(_, c)| handlers(c)).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = if hosts.len() == 1 { "host" } else { "hosts" };
    if names.is_empty() {
        return None;
    }
    violation(
        "probe or lifecycle host",
        format!("{} {verb} probe or lifecycle {word} {}", plural(&names), quoted(&hosts)),
    )
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.containers_where(|c| c["securityContext"]["privileged"].as_bool() == Some(true));
    if_any("privileged", &names, "must not set securityContext.privileged=true")
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() {
        return None;
    }
    let names = pod.containers_where(|c| c["securityContext"]["procMount"] == "Unmasked");
    if_any("procMount", &names, "must not set securityContext.procMount to \"Unmasked\"")
}

/// The pod's own context and those of its containers, as `pod`, `container "a"` ...
pub(super) fn setters(pod: &Pod<'_>, bad: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut setters = Vec::new();
    if bad(pod.context()) {
        setters.push("pod".to_owned());
    }
    let names = pod.containers_where(|c| bad(&c["securityContext"]));
    if !names.is_empty() {
        setters.push(plural(&names));
    }
    setters
}

fn selinux(pod: &Pod<'_>) -> Option<Violation> {
    let forbidden_type = |c: &Value| !SELINUX_TYPES.contains(&text(&c["seLinuxOptions"]["type"]));
    let sets = |c: &Value, member: &str| !text(&c["seLinuxOptions"][member]).is_empty();
    let setters = setters(pod, |c| forbidden_type(c) || sets(c, "user") || sets(c, "role"));
    if setters.is_empty() {
        return None;
    }
    let contexts: Vec<&Value> =
        std::iter::once(pod.context()).chain(pod.containers().map(|(_, c)| &c["securityContext"])).collect();
    let types: BTreeSet<&str> =
        contexts.iter().filter(|c| forbidden_type(c)).map(|c| text(&c["seLinuxOptions"]["type"])).collect();
    let mut found = Vec::new();
    if !types.is_empty() {
        let word = if types.len() == 1 { "type" } else { "types" };
        found.push(format!("{word} {}", quoted(&types)));
    }
    for member in ["user", "role"] {
        if contexts.iter().any(|c| sets(c, member)) {
            found.push(format!("{member} may not be set"));
        }
    }
    let verb = if setters.len() == 1 && !setters[0].starts_with("containers") { "sets" } else { "set" };
    let detail =
        format!("{} {verb} forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), found.join("; "));
    violation("seLinuxOptions", detail)
}

pub(super) fn seccomp(context: &Value) -> &str {
    text(&context["seccompProfile"]["type"])
}

fn baseline_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let setters = setters(pod, |c| seccomp(c) == "Unconfined");
    if setters.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.seccompProfile.type to \"Unconfined\"", setters.join(" and "));
    violation("seccompProfile", detail)
}

fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    let names = items(&pod.context()["sysctls"]).map(|s| text(&s["name"]));
    let bad: Vec<&str> = names.filter(|n| !SAFE_SYSCTLS.contains(n)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>) -> Option<Violation> {
    let setters = setters(pod, |c| c["windowsOptions"]["hostProcess"].as_bool() == Some(true));
    if setters.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and "));
    violation("hostProcess", detail)
}
