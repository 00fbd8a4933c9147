//! What pods for one operating system may not ask for.

use serde_json::Value;

use super::Pod;
use crate::validate::at::At;
use crate::validate::{Errors, format};

/// Rules that follow from `spec.os`.
pub(super) fn os(spec: &At, errors: &mut Errors) {
    let os = spec.get("os");
    if !os.is_set() {
        return;
    }
    match os.str("name") {
        "" => os.get("name").required(errors, ""),
        "linux" => of_linux(spec, errors),
        "windows" => of_windows(spec, errors),
        other => os.check_supported(other, &["linux", "windows"], errors),
    }
}

fn of_linux(spec: &At, errors: &mut Errors) {
    let mut refuse = |at: &At| {
        let options = at.get("securityContext.windowsOptions");
        if options.is_set() {
            options.forbidden(errors, "windows options cannot be set for a linux pod");
        }
    };
    refuse(spec);
    Pod::each_container(spec, |container| refuse(container));
}

fn of_windows(spec: &At, errors: &mut Errors) {
    // Flags of the pod itself count when they are true, all else when it is there.
    const POD: [&str; 15] = [
        "securityContext.appArmorProfile",
        "securityContext.seLinuxOptions",
        "hostUsers",
        "hostPID",
        "hostIPC",
        "securityContext.seccompProfile",
        "securityContext.fsGroup",
        "securityContext.fsGroupChangePolicy",
        "securityContext.sysctls",
        "shareProcessNamespace",
        "securityContext.runAsUser",
        "securityContext.runAsGroup",
        "securityContext.supplementalGroups",
        "securityContext.supplementalGroupsPolicy",
        "securityContext.seLinuxChangePolicy",
    ];
    const CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for field in POD.map(|field| spec.get(field)) {
        let counts = field.value != &Value::Bool(false) || field.path().to_string().ends_with("hostUsers");
        if field.is_set() && counts {
            field.forbidden(errors, "cannot be set for a windows pod");
        }
    }
    Pod::each_container(spec, |container| {
        let context = container.get("securityContext");
        for field in CONTAINER.map(|field| context.get(field)).iter().filter(|field| field.is_set()) {
            field.forbidden(errors, "cannot be set for a windows pod");
        }
    });
}

pub(super) fn options(options: &At, errors: &mut Errors) {
    const SPEC_KIB: usize = 64;
    let (name, spec, user) =
        (options.get("gmsaCredentialSpecName"), options.get("gmsaCredentialSpec"), options.get("runAsUserName"));
    if name.is_set() {
        name.check(errors, format::dns_subdomain(name.text()));
    }
    if spec.is_set() && spec.text().is_empty() {
        spec.invalid(errors, "gmsaCredentialSpec cannot be an empty string");
    } else if spec.text().len() > SPEC_KIB * 1024 {
        spec.invalid(errors, format!("gmsaCredentialSpec size must be under {SPEC_KIB} KiB"));
    }
    if user.is_set() {
        user.check(errors, user_name(user.text()).into_iter().map(|why| format!("runAsUserName{why}")).collect());
    }
}

/// What is wrong with `DOMAIN\\USER`, of which the domain may be missing.
fn user_name(text: &str) -> Vec<&'static str> {
    if text.is_empty() {
        return vec![" cannot be an empty string"];
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return vec![" cannot contain control characters"];
    }
    let parts: Vec<&str> = text.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash"],
    };
    let cases = [
        (domain.is_some_and(|d| d.len() >= 256), "'s Domain length must be under 256 characters"),
        (
            domain.is_some_and(|d| !is_net_bios(d) && !is_domain(d)),
            "'s Domain doesn't match the NetBios nor the DNS format",
        ),
        (user.is_empty(), "'s User cannot be empty"),
        (user.len() > 104, "'s User length must not be longer than 104 characters"),
        (
            !user.is_empty() && user.chars().all(|c| c == '.' || c == ' '),
            "'s User cannot contain only periods or spaces",
        ),
        (
            user.chars().any(|c| "\"/\\:;|=,+*?<>@[]".contains(c)),
            "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
        ),
    ];
    cases.iter().filter(|(wrong, _)| *wrong).map(|(_, why)| *why).collect()
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length) && !domain.starts_with('.') && !domain.chars().any(|c| "\\/:*?\"<>|".contains(c))
}

fn is_domain(domain: &str) -> bool {
    format::dns_subdomain(&domain.to_ascii_lowercase()).is_empty()
}

/// Containers that are processes of the host are all or none, and in the host's network.
pub(super) fn host_process(spec: &At, pod: &Pod, errors: &mut Errors) {
    let whole = spec.get("securityContext.windowsOptions.hostProcess");
    let (mut all, mut of_host) = (0, 0);
    Pod::each_container(spec, |container| {
        all += 1;
        let own = container.get("securityContext.windowsOptions.hostProcess");
        if whole.is_set() && own.is_set() && whole.value != own.value {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {}", whole.value);
            own.invalid(errors, detail);
        }
        of_host += usize::from(own.is_true() || (!own.is_set() && whole.is_true()));
    });
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.invalid_value(errors, "", detail);
    }
    if !pod.host_network {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        spec.get("hostNetwork").invalid_value(errors, false, detail);
    }
}
