//! What hostile input is tried on: the configuration that a runtime hands over.

use kube1_mutate::Target;

use super::spec::Config;

const SEEDS: &[&[u8]] = &[
    br#"{"cniVersion":"1.0.0","name":"kube1","type":"kube1-cni","bridge":"kube1","subnet":"10.42.0.0/24","mtu":1450,"dataDir":"/d","runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp","hostIP":"::"}]},"prevResult":{},"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"capabilities":{"portMappings":true}}"#,
];

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    vec![Target::new("cni", configuration, SEEDS, &["\"subnet\":\"fd00::/64\"", "65536", "null", "\"HostPort\":1"])]
}

fn configuration(bytes: &[u8]) {
    if let Ok(config) = Config::parse(bytes) {
        let _ = (config.pod_subnet(), serde_json::to_string(&config).map(|text| text.len()));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
