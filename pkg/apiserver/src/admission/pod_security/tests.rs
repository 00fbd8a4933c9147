use serde_json::json;

use super::policy::Version;
use super::*;

fn labels(labels: &[(&str, &'static str)]) -> Policies {
    Policies::of(Defaults::default(), |label| {
        labels.iter().find(|(mode, _)| label == format!("{PREFIX}{mode}")).map(|(_, value)| *value)
    })
}

#[test]
fn labels_ask_for_policies() {
    for (given, enforce, audit, warn, errors) in [
        (&[][..], "privileged:latest", "privileged:latest", "privileged:latest", 0),
        (
            &[("enforce", "restricted"), ("enforce-version", "v1.25")],
            "restricted:v1.25",
            "privileged:latest",
            "restricted:v1.25",
            0,
        ),
        (
            &[("enforce", "baseline"), ("warn-version", "v1.20")],
            "baseline:latest",
            "privileged:latest",
            "baseline:v1.20",
            0,
        ),
        (
            &[("enforce", "restricted"), ("warn", "baseline")],
            "restricted:latest",
            "privileged:latest",
            "baseline:latest",
            0,
        ),
        (
            &[("enforce", "x"), ("audit", "y"), ("warn", "z")],
            "restricted:latest",
            "privileged:latest",
            "privileged:latest",
            3,
        ),
        (
            &[("audit", "baseline"), ("audit-version", "v1.01")],
            "privileged:latest",
            "baseline:latest",
            "privileged:latest",
            1,
        ),
    ] {
        let policies = labels(given);
        let found = [policies.enforce, policies.audit, policies.warn].map(|p| p.to_string());
        assert_eq!(found, [enforce, audit, warn], "{given:?}");
        assert_eq!(policies.errors.len(), errors, "{given:?}");
    }
}

#[test]
fn standards_differ_by_version() {
    let bare = || json!({"containers": [{"name": "a"}]});
    let with = |container: Value| json!({"containers": [container]});
    let good = || {
        json!({"containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]})
    };
    let in_pod = |mut spec: Value, member: &str, value: Value| {
        spec[member] = value;
        spec
    };
    let in_context = |member: &str, value: Value| {
        let mut spec = good();
        spec["containers"][0]["securityContext"][member] = value;
        spec
    };
    let sysctl = |name: &str| in_pod(bare(), "securityContext", json!({"sysctls": [{"name": name}]}));
    let probe = json!({"name": "a", "livenessProbe": {"httpGet": {"host": "127.0.0.1"}}});
    let hosts = || in_pod(good(), "hostUsers", false.into());
    let (baseline, restricted) = (Level::Baseline, Level::Restricted);
    for (level, minor, spec, expected) in [
        (baseline, 33, with(probe.clone()), ""),
        (
            baseline,
            34,
            with(probe),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"127.0.0.1\")",
        ),
        (
            baseline,
            26,
            sysctl("net.ipv4.ip_local_reserved_ports"),
            "forbidden sysctls (net.ipv4.ip_local_reserved_ports)",
        ),
        (baseline, 27, sysctl("net.ipv4.ip_local_reserved_ports"), ""),
        (baseline, 31, sysctl("net.ipv4.tcp_rmem"), "forbidden sysctls (net.ipv4.tcp_rmem)"),
        (baseline, 32, sysctl("net.ipv4.tcp_rmem"), ""),
        (
            baseline,
            30,
            in_pod(bare(), "securityContext", json!({"seLinuxOptions": {"type": "container_engine_t", "user": "u"}})),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\"; user may not be set)",
        ),
        (
            baseline,
            31,
            in_pod(bare(), "securityContext", json!({"seLinuxOptions": {"type": "container_engine_t"}})),
            "",
        ),
        (
            restricted,
            7,
            bare(),
            "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            restricted,
            8,
            bare(),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
             runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            restricted,
            21,
            in_context("capabilities", json!({"add": ["SYS_ADMIN"]})),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            restricted,
            22,
            in_context("capabilities", json!({"add": ["SYS_ADMIN"]})),
            "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"a\" must \
             not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (restricted, 22, in_context("runAsUser", 0.into()), ""),
        (restricted, 23, in_context("runAsUser", 0.into()), "runAsUser=0 (container \"a\" must not set runAsUser=0)"),
        (
            restricted,
            34,
            in_pod(in_context("runAsUser", 0.into()), "hostUsers", false.into()),
            "runAsUser=0 (container \"a\" must not set runAsUser=0)",
        ),
        (restricted, 35, in_pod(in_context("runAsUser", 0.into()), "hostUsers", false.into()), ""),
        (
            restricted,
            36,
            in_pod(good(), "securityContext", json!({"runAsNonRoot": false})),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (restricted, 36, in_pod(good(), "volumes", json!([{"name": "v", "image": {}}])), ""),
        (
            restricted,
            36,
            in_pod(good(), "volumes", json!([{"name": "v", "hostPath": {}}])),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (baseline, 35, in_pod(in_context("procMount", "Unmasked".into()), "hostUsers", false.into()), ""),
        (
            restricted,
            35,
            in_pod(in_context("procMount", "Unmasked".into()), "hostUsers", false.into()),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            baseline,
            36,
            in_pod(
                in_context("appArmorProfile", json!({"type": "Unconfined"})),
                "securityContext",
                json!({"appArmorProfile": {"type": "Unconfined"}}),
            ),
            "forbidden AppArmor profile (pod and container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            baseline,
            36,
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 9}, {"hostPort": 80}]}]}),
            "hostPort (container \"a\" uses hostPorts 80, 9)",
        ),
        (restricted, 36, hosts(), ""),
    ] {
        let policy = Policy { level, version: Version::Minor(minor) };
        let found = policy.violations(&json!({}), &spec).unwrap_or_default();
        assert_eq!(found, expected, "{policy} {spec}");
    }
    let windows = in_pod(bare(), "os", json!({"name": "windows"}));
    let at =
        |minor| Policy { level: restricted, version: Version::Minor(minor) }.reasons(&json!({}), &windows).unwrap();
    assert_eq!(
        at(24),
        "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    );
    assert_eq!(at(25), "runAsNonRoot != true");
    let annotated = json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}});
    let old = Policy { level: baseline, version: Version::Minor(18) }.violations(&annotated, &bare()).unwrap();
    assert_eq!(old, "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")");
    let annotated = json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
    let found = Policy { level: baseline, version: Version::Latest }.violations(&annotated, &bare()).unwrap();
    assert_eq!(
        found,
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
         \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")"
    );
}

#[test]
fn updates_matter_where_images_change() {
    let pod = |image: &str, ephemeral: Value| json!({"spec": {"containers": [{"name": "a", "image": image}], "ephemeralContainers": ephemeral}});
    let old = pod("i", json!([{"name": "e", "image": "i"}]));
    for (new, expected) in [
        (pod("j", json!([{"name": "e", "image": "i"}])), true),
        (pod("i", json!([])), false),
        (pod("i", json!([{"name": "e", "image": "j"}])), true),
        (pod("i", json!([{"name": "e", "image": "i"}, {"name": "f"}])), true),
        (json!({"metadata": {"labels": {}}, "spec": {"tolerations": [], "containers": [{"image": "i"}]}}), false),
    ] {
        assert_eq!(is_significant(&new, &old), expected, "{new}");
    }
}
