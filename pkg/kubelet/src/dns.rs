//! Names in a pod: its resolver's configuration, its host name and its hosts file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube1_cri::v1::DnsConfig;

use crate::config::KubeletConfig;
use crate::pod::PodExt;

/// Longest host name that the kernel and DNS take.
const HOSTNAME_MAX: usize = 63;
/// Where systemd-resolved keeps the real servers behind its stub.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The resolver configuration that a pod's `dnsPolicy` and `dnsConfig` ask for.
pub fn resolver(config: &KubeletConfig, pod: &Pod) -> DnsConfig {
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !pod.is_host_network(),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        _ => host_resolver(&config.resolv_conf),
    };
    if cluster && !config.cluster_dns.is_empty() {
        let domain = &config.cluster_domain;
        let mut searches = vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.clone()];
        searches.append(&mut dns.searches);
        let servers = config.cluster_dns.iter().map(IpAddr::to_string).collect();
        dns = DnsConfig { servers, searches, options: vec!["ndots:5".to_owned()] };
    }
    if let Some(custom) = &spec.dns_config {
        dns.servers.extend(custom.nameservers.iter().flatten().cloned());
        dns.searches.extend(custom.searches.iter().flatten().cloned());
        for option in custom.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options.retain(|o| o.split(':').next() != Some(&name));
            dns.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    for list in [&mut dns.servers, &mut dns.searches] {
        let mut seen = std::collections::HashSet::new();
        list.retain(|item| seen.insert(item.clone()));
    }
    dns
}

/// The host's own resolver; behind a stub on the loopback, which a pod cannot reach, the servers that the stub uses.
fn host_resolver(path: &Path) -> DnsConfig {
    let parsed = parse_resolv_conf(&std::fs::read_to_string(path).unwrap_or_default());
    let loopback = |s: &String| s.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if !parsed.servers.is_empty()
        && parsed.servers.iter().all(loopback)
        && let Ok(real) = std::fs::read_to_string(RESOLVED)
    {
        return parse_resolv_conf(&real);
    }
    parsed
}

pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => {
                dns.searches =
                    words.map(|s| s.strip_suffix('.').filter(|s| !s.is_empty()).unwrap_or(s).to_owned()).collect();
            }
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

/// The pod's host name, and its domain if it has one.
pub fn hostname_and_domain(config: &KubeletConfig, pod: &Pod) -> (String, Option<String>) {
    let spec = pod.spec();
    if let Some(name) = &spec.hostname_override {
        return (name.clone(), None);
    }
    let name = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod.name());
    let mut hostname = name.to_owned();
    hostname.truncate(HOSTNAME_MAX);
    let hostname = hostname.trim_end_matches(['-', '.']).to_owned();
    let domain = spec.subdomain.as_deref().filter(|s| !s.is_empty());
    (hostname, domain.map(|sub| format!("{sub}.{}.svc.{}", pod.namespace(), config.cluster_domain)))
}

/// What `hostname` says in the pod.
pub fn kernel_hostname(config: &KubeletConfig, pod: &Pod) -> Result<String, String> {
    let (hostname, domain) = hostname_and_domain(config, pod);
    match domain.filter(|_| pod.spec().set_hostname_as_fqdn == Some(true)) {
        None => Ok(hostname),
        Some(domain) => {
            let full = format!("{hostname}.{domain}");
            if full.len() <= 64 {
                Ok(full)
            } else {
                Err(format!("failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long"))
            }
        }
    }
}

/// Writes a pod's hosts file; gives its path.
pub fn write_hosts(config: &KubeletConfig, pod: &Pod, pod_ips: &[String]) -> std::io::Result<PathBuf> {
    let path = config.pod_dir(pod.uid()).join("etc-hosts");
    let text = hosts(config, pod, pod_ips);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(path);
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Written in place, as a running container holds a mount of this very file.
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(path)
}

fn hosts(config: &KubeletConfig, pod: &Pod, pod_ips: &[String]) -> String {
    let mut text = if pod.is_host_network() {
        let host = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
        let (hostname, domain) = hostname_and_domain(config, pod);
        for ip in pod_ips {
            match &domain {
                Some(domain) => text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
                None => text.push_str(&format!("{ip}\t{hostname}\n")),
            }
        }
        text
    };
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names: Vec<&str> = alias.hostnames.iter().flatten().map(String::as_str).collect();
            text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"web-0","namespace":"shop","uid":"u"}},"spec":{spec}}}"#
        ))
        .unwrap()
    }

    fn config(dir: &Path) -> KubeletConfig {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::io::Error>(http::Response::new(kube::client::Body::empty()))
        });
        let client = kube::Client::new(service, "default");
        let mut config = KubeletConfig::new(client, "n", IpAddr::from([10, 0, 0, 1]), dir, dir);
        config.resolv_conf = dir.join("resolv.conf");
        config.cluster_dns = vec![IpAddr::from([10, 43, 0, 10])];
        std::fs::write(&config.resolv_conf, "nameserver 9.9.9.9\nsearch corp.example.\noptions edns0\n").unwrap();
        config
    }

    #[tokio::test]
    async fn the_dns_policy_chooses_servers_and_searches() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let cases = [
            (
                r#"{"containers":[]}"#,
                "10.43.0.10",
                "shop.svc.cluster.local,svc.cluster.local,cluster.local,corp.example",
                "ndots:5",
            ),
            (r#"{"containers":[],"dnsPolicy":"Default"}"#, "9.9.9.9", "corp.example", "edns0"),
            (r#"{"containers":[],"hostNetwork":true}"#, "9.9.9.9", "corp.example", "edns0"),
            (
                r#"{"containers":[],"dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"],"searches":["a"],
                "options":[{"name":"ndots","value":"2"}]}}"#,
                "1.1.1.1",
                "a",
                "ndots:2",
            ),
        ];
        for (spec, servers, searches, options) in cases {
            let dns = resolver(&config, &pod(spec));
            assert_eq!((dns.servers.join(","), dns.searches.join(",")), (servers.into(), searches.into()), "{spec}");
            assert_eq!(dns.options.join(","), options, "{spec}");
        }
    }

    #[tokio::test]
    async fn hosts_name_the_pod_and_its_aliases() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let pod = pod(r#"{"containers":[],"subdomain":"db","hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}]}"#);
        let path = write_hosts(&config, &pod, &["10.42.0.9".to_owned()]).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("10.42.0.9\tweb-0.db.shop.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\ta\tb\n"), "{text}");
    }
}
