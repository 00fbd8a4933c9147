//! The single checks of the standards, each with what it says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::policy::{Level, Policy};
use super::restricted::{
    privilege_escalation, restricted_capabilities, restricted_proc_mount, restricted_seccomp, restricted_volumes,
    run_as_non_root, run_as_user,
};

const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

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
/// Each with the minor version of the standards that first lets it pass.
const SAFE_SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: [(&str, u32); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// A pod's metadata and spec, looked at by a version of the standards.
pub(super) struct Pod<'a> {
    metadata: &'a Value,
    pub spec: &'a Value,
    /// The standards of Kubernetes 1.x.
    pub minor: u32,
}

/// Reason, and what exactly of the pod.
pub(super) type Violation = (String, String);
type Check = fn(&Pod<'_>) -> Option<Violation>;

const NEVER: u32 = u32::MAX;

/// Checks with the minor version that first has them, and the one whose restricted level has a stricter form instead.
const BASELINE: [(Check, u32, u32); 12] = [
    (apparmor, 0, NEVER),
    (baseline_capabilities, 0, 22),
    (host_namespaces, 0, NEVER),
    (host_path_volumes, 0, 0),
    (host_ports, 0, NEVER),
    (probe_hosts, 34, NEVER),
    (privileged, 0, NEVER),
    (baseline_proc_mount, 0, 35),
    (selinux, 0, NEVER),
    (baseline_seccomp, 0, 19),
    (sysctls, 0, NEVER),
    (windows_host_process, 0, NEVER),
];
const RESTRICTED: [(Check, u32); 7] = [
    (privilege_escalation, 8),
    (restricted_capabilities, 22),
    (restricted_proc_mount, 35),
    (restricted_volumes, 0),
    (run_as_non_root, 0),
    (run_as_user, 23),
    (restricted_seccomp, 19),
];

/// What of a pod the policy forbids.
pub(super) fn violations(policy: Policy, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let (Policy { level, .. }, minor) = (policy, policy.version.minor());
    let pod = Pod { metadata, spec, minor };
    let baseline = BASELINE.iter().filter(|(_, since, stricter)| {
        *since <= minor && (level == Level::Baseline || (level == Level::Restricted && minor < *stricter))
    });
    let restricted = RESTRICTED.iter().filter(|(_, since)| level == Level::Restricted && *since <= minor);
    let checks = baseline.map(|(check, ..)| check).chain(restricted.map(|(check, _)| check));
    checks.filter_map(|check| check(&pod)).collect()
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

    /// The pod's own security context and those of its containers.
    pub fn contexts(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        std::iter::once(self.context()).chain(self.containers().map(|(_, c)| &c["securityContext"]))
    }

    pub fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// Whether what only concerns Linux is not asked of it.
    pub fn is_windows(&self) -> bool {
        self.minor >= 25 && self.spec["os"]["name"] == "windows"
    }

    /// Root inside is nobody outside.
    pub fn has_user_namespace(&self) -> bool {
        self.minor >= 35 && self.spec["hostUsers"].as_bool() == Some(false)
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
    let bad = |context: &Value| {
        let profile = text(&context["appArmorProfile"]["type"]);
        !context["appArmorProfile"].is_null() && !matches!(profile, "RuntimeDefault" | "Localhost")
    };
    let mut setters = setters(pod, bad);
    let bad_ones = pod.contexts().filter(|c| bad(c)).map(|c| text(&c["appArmorProfile"]["type"]).to_owned());
    let mut values: Vec<String> = bad_ones.collect::<BTreeSet<_>>().into_iter().collect();
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let annotations = annotations.filter(|(k, _)| k.starts_with(APPARMOR_ANNOTATION)).map(|(k, v)| (k, text(v)));
    let wrong = |v: &str| !(v.is_empty() || v == "runtime/default" || v.starts_with("localhost/"));
    let annotations: BTreeSet<String> =
        annotations.filter(|(_, v)| wrong(v)).map(|(k, v)| format!("{k}={v:?}")).collect();
    if !annotations.is_empty() {
        setters.push(if annotations.len() == 1 { "annotation" } else { "annotations" }.to_owned());
        values.extend(annotations);
    }
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    if setters.is_empty() {
        return None;
    }
    violation(reason, format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values)))
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
    let ports: BTreeSet<String> =
        pod.containers().flat_map(|(_, c)| ports_of(c)).map(|port| port.to_string()).collect();
    let ports: Vec<String> = ports.into_iter().collect();
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
        hosts.filter(|h| !h.is_empty()).map(str::to_owned).collect()
    };
    let mut names = pod.containers_where(|c| !handlers(c).is_empty());
    names.sort_unstable();
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

fn baseline_proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { restricted_proc_mount(pod) }
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
    let allowed = |ty: &str| SELINUX_TYPES.iter().any(|(known, since)| *known == ty && *since <= pod.minor);
    let forbidden_type = |c: &Value| !allowed(text(&c["seLinuxOptions"]["type"]));
    let sets = |c: &Value, member: &str| !text(&c["seLinuxOptions"][member]).is_empty();
    let setters = setters(pod, |c| forbidden_type(c) || sets(c, "user") || sets(c, "role"));
    if setters.is_empty() {
        return None;
    }
    let types: BTreeSet<&str> =
        pod.contexts().filter(|c| forbidden_type(c)).map(|c| text(&c["seLinuxOptions"]["type"])).collect();
    let mut found = Vec::new();
    if !types.is_empty() {
        let word = if types.len() == 1 { "type" } else { "types" };
        found.push(format!("{word} {}", quoted(&types)));
    }
    for member in ["user", "role"] {
        if pod.contexts().any(|c| sets(c, member)) {
            found.push(format!("{member} may not be set"));
        }
    }
    let detail =
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), found.join("; "));
    violation("seLinuxOptions", detail)
}

pub(super) fn seccomp(context: &Value) -> &str {
    text(&context["seccompProfile"]["type"])
}

/// Before there was a field, annotations said it.
fn annotated_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let of_containers = pod.containers().map(|(name, _)| format!("{SECCOMP_OF_CONTAINER}{name}"));
    let keys = std::iter::once(SECCOMP_OF_POD.to_owned()).chain(of_containers);
    let wrong = |v: &str| !(matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/"));
    let value = |key: &str| pod.metadata["annotations"].get(key).map(text).filter(|v| wrong(v));
    let found: BTreeSet<String> = keys.filter_map(|key| value(&key).map(|v| format!("{key}={v:?}"))).collect();
    let word = if found.len() == 1 { "annotation" } else { "annotations" };
    let texts: Vec<String> = found.into_iter().collect();
    if texts.is_empty() { None } else { violation("seccompProfile", format!("forbidden {word} {}", texts.join(", "))) }
}

fn baseline_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    if pod.minor < 19 {
        return annotated_seccomp(pod);
    }
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
    let safe = |name: &str| SAFE_SYSCTLS.iter().any(|(known, since)| *known == name && *since <= pod.minor);
    let bad: Vec<&str> = names.filter(|n| !safe(n)).collect();
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
