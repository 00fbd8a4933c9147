//! The objects a pod makes use of on its node.

use serde_json::Value;

/// An object of a pod's namespace: plural name and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub plural: &'static str,
    pub name: String,
}

/// Everything of its namespace that a pod's node has to read for it. A mirror pod gives its node nothing.
pub fn references(pod: &Value) -> Vec<Reference> {
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return Vec::new();
    }
    let mut found = Found(Vec::new());
    let spec = &pod["spec"];
    found.add("serviceaccounts", &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        found.add("secrets", &secret["name"]);
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        list(&spec[key]).iter().for_each(|container| found.container(container));
    }
    for volume in list(&spec["volumes"]) {
        found.volume(volume, pod["metadata"]["name"].as_str().unwrap_or_default());
    }
    for claim in list(&spec["resourceClaims"]) {
        found.add("resourceclaims", &claim["resourceClaimName"]);
    }
    for status in list(&pod["status"]["resourceClaimStatuses"]) {
        found.add("resourceclaims", &status["resourceClaimName"]);
    }
    found.0
}

/// Namespace and name of the Secrets that a persistent volume needs on the node.
pub fn volume_secrets(volume: &Value) -> Vec<(String, String)> {
    let spec = &volume["spec"];
    let claim_namespace = spec["claimRef"]["namespace"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |reference: &Value, key: &str, default: &str| {
        let name = reference[key].as_str().unwrap_or_default();
        let namespace_key = if key == "secretName" { "secretNamespace" } else { "namespace" };
        let namespace = reference[namespace_key].as_str().filter(|n| !n.is_empty()).unwrap_or(default);
        if !name.is_empty() {
            found.push((namespace.to_owned(), name.to_owned()));
        }
    };
    // Those of the controller are none of the node's business.
    for key in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        add(&spec["csi"][key], "name", "");
    }
    for kind in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO"] {
        add(&spec[kind]["secretRef"], "name", claim_namespace);
    }
    for kind in ["cinder", "storageos"] {
        add(&spec[kind]["secretRef"], "name", "");
    }
    add(&spec["azureFile"], "secretName", claim_namespace);
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

struct Found(Vec<Reference>);

impl Found {
    fn add(&mut self, plural: &'static str, name: &Value) {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
            let reference = Reference { plural, name: name.to_owned() };
            if !self.0.contains(&reference) {
                self.0.push(reference);
            }
        }
    }

    fn container(&mut self, container: &Value) {
        for variable in list(&container["env"]) {
            self.add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
            self.add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
        }
        for source in list(&container["envFrom"]) {
            self.add("secrets", &source["secretRef"]["name"]);
            self.add("configmaps", &source["configMapRef"]["name"]);
        }
    }

    fn volume(&mut self, volume: &Value, pod: &str) {
        self.add("secrets", &volume["secret"]["secretName"]);
        self.add("configmaps", &volume["configMap"]["name"]);
        self.add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
        if !volume["ephemeral"].is_null() {
            let claim = format!("{pod}-{}", volume["name"].as_str().unwrap_or_default());
            self.add("persistentvolumeclaims", &claim.into());
        }
        for source in list(&volume["projected"]["sources"]) {
            self.add("secrets", &source["secret"]["name"]);
            self.add("configmaps", &source["configMap"]["name"]);
        }
        self.add("secrets", &volume["azureFile"]["secretName"]);
        self.add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
        for kind in ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            self.add("secrets", &volume[kind]["secretRef"]["name"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_references_are_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "e"}}}], "envFrom": [{"configMapRef": {"name": "c"}}]}],
            "volumes": [{"secret": {"secretName": "v"}}, {"name": "scratch", "ephemeral": {}},
                {"persistentVolumeClaim": {"claimName": "data"}},
                {"projected": {"sources": [{"configMap": {"name": "root"}}, {"secret": {"name": "e"}}]}}],
            "resourceClaims": [{"resourceClaimName": "gpu"}]}});
        let texts: Vec<String> = references(&pod).iter().map(|r| format!("{}/{}", r.plural, r.name)).collect();
        assert_eq!(
            texts,
            [
                "serviceaccounts/sa",
                "secrets/pull",
                "secrets/e",
                "configmaps/c",
                "secrets/v",
                "persistentvolumeclaims/p-scratch",
                "persistentvolumeclaims/data",
                "configmaps/root",
                "resourceclaims/gpu"
            ]
        );
        let mut mirror = pod;
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        assert!(references(&mirror).is_empty());
    }
}
