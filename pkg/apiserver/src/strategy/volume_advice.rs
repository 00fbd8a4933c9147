//! Advice about volumes: kinds of them that are gone, and files of one volume that are in each other's way.

use serde_json::Value;

use super::core_advice::{items, text};

/// Members of volumes, the names that warnings have for them, and what became of them.
const GONE: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
/// Those of them that nobody is told of in persistent volumes.
const UNTOLD: [&str; 3] = ["gitRepo", "flocker", "quobyte"];
const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const RECYCLE: &str = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                       provisioning.";

/// Sources of a volume at `path` that do nothing any more.
fn gone<'a>(path: &'a str, volume: &'a Value) -> impl Iterator<Item = (&'static str, String)> + 'a {
    let there = GONE.iter().filter(|(member, ..)| !volume[member].is_null());
    there.map(move |(member, shown, what)| (*member, format!("{path}.{shown}: {what}")))
}

/// The volumes of pods at `path`.
pub(super) fn of_pods(path: &str, volumes: &Value, warnings: &mut Vec<String>) {
    for (index, volume) in items(volumes) {
        let at = format!("{path}[{index}]");
        warnings.extend(gone(&at, volume).map(|(_, warning)| warning));
        let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
        super::core_advice::claim_spec(&format!("{at}.ephemeral.volumeClaimTemplate.spec"), claim, warnings);
    }
    items(volumes).for_each(|(_, volume)| overlaps(volume, warnings));
}

pub(super) fn persistent_volume(volume: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    let spec = &volume["spec"];
    if !volume["metadata"]["annotations"][STORAGE_CLASS].is_null() {
        warnings.push(format!(
            "metadata.annotations[{STORAGE_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        warnings.push(format!("spec.persistentVolumeReclaimPolicy: {RECYCLE}"));
    }
    for (index, term) in items(&spec["nodeAffinity"]["required"]["nodeSelectorTerms"]) {
        let at = format!("spec.nodeAffinity.required.nodeSelectorTerms[{index}]");
        super::core_advice::expressions(&at, term, false, warnings);
    }
    warnings.extend(gone("spec", spec).filter(|(member, _)| !UNTOLD.contains(member)).map(|(_, warning)| warning));
}

/// A file of a volume, and what puts it there if that is worth telling.
struct File<'a> {
    path: &'a str,
    source: String,
}

fn overlaps(volume: &Value, warnings: &mut Vec<String>) {
    let name = text(volume, "name");
    let kinds =
        [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")];
    for (member, kind, naming) in kinds {
        let files: Vec<File> =
            files(&volume[member]["items"]).map(|path| File { path, source: String::new() }).collect();
        let shown = shown_source(kind, &volume[member], naming);
        collisions(&format!("volume {name:?} ({shown})"), &files, warnings);
    }
    let mut files: Vec<File> = Vec::new();
    for (_, source) in items(&volume["projected"]["sources"]) {
        if source.as_object().is_some_and(|members| members.values().all(Value::is_null)) {
            warnings.push(format!("volume {name:?} (Projected) has no sources provided"));
        }
        files.extend(projected(source));
    }
    collisions(&format!("volume {name:?} (Projected)"), &files, warnings);
}

fn files(list: &Value) -> impl Iterator<Item = &str> {
    items(list).map(|(_, file)| text(file, "path"))
}

fn shown_source(kind: &str, source: &Value, naming: &str) -> String {
    if naming.is_empty() { kind.to_owned() } else { format!("{kind} {:?}", text(source, naming)) }
}

fn projected(source: &Value) -> Vec<File<'_>> {
    for (member, kind, naming) in
        [("configMap", "ConfigMap", "name"), ("secret", "Secret", "name"), ("downwardAPI", "DownwardAPI", "")]
    {
        let part = &source[member];
        if !part["items"].is_null() {
            let shown = shown_source(kind, part, naming);
            return files(&part["items"]).map(|path| File { path, source: format!(" ({shown})") }).collect();
        }
    }
    let (token, bundle) = (&source["serviceAccountToken"], &source["clusterTrustBundle"]);
    let naming = if bundle["name"].is_null() { "signerName" } else { "name" };
    let single = if token.is_object() {
        File { path: text(token, "path"), source: " (ServiceAccountToken)".into() }
    } else if bundle.is_object() {
        File {
            path: text(bundle, "path"),
            source: format!(" ({})", shown_source("ClusterTrustBundle", bundle, naming)),
        }
    } else {
        return Vec::new();
    };
    vec![single]
}

/// Files that fall on another one, or into a file.
fn collisions(volume: &str, files: &[File], warnings: &mut Vec<String>) {
    for (index, file) in files.iter().enumerate() {
        for other in files[..index].iter().filter(|other| collide(file.path, other.path)) {
            let (one, two) = (format!("{:?}{}", file.path, file.source), format!("{:?}{}", other.path, other.source));
            warnings.push(format!("{volume}: overlapping paths: {one} with {two}"));
        }
    }
}

fn collide(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('/'), other.trim_end_matches('/'));
    let holds =
        |dir: &str, file: &str| file.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !one.is_empty() && !other.is_empty() && (holds(one, other) || holds(other, one))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_in_each_others_way_are_told() {
        let file = |path: &str| json!([{"path": path}]);
        for (volume, expected) in [
            (
                json!({"name": "v", "configMap": {"name": "m", "items": [{"path": "a/b"}, {"path": "a"}, {"path": "ab"}]}}),
                vec![r#"volume "v" (ConfigMap "m"): overlapping paths: "a" with "a/b""#],
            ),
            (
                json!({"name": "v", "secret": {"secretName": "s", "items": [{"path": "a"}, {"path": "a/"}]}}),
                vec![r#"volume "v" (Secret "s"): overlapping paths: "a/" with "a""#],
            ),
            (json!({"name": "v", "downwardAPI": {"items": [{"path": "a1"}, {"path": "a"}]}}), vec![]),
            (
                json!({"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"signerName": "x", "path": "t/t"}},
                    {"downwardAPI": {"items": file("t")}}, {"secret": {"name": "s", "items": file("t")}},
                    {"configMap": {"name": "all"}}, {"serviceAccountToken": {"path": "u"}}, {}]}}),
                vec![
                    r#"volume "v" (Projected) has no sources provided"#,
                    r#"volume "v" (Projected): overlapping paths: "t" (DownwardAPI) with "t/t" (ClusterTrustBundle "x")"#,
                    r#"volume "v" (Projected): overlapping paths: "t" (Secret "s") with "t/t" (ClusterTrustBundle "x")"#,
                    r#"volume "v" (Projected): overlapping paths: "t" (Secret "s") with "t" (DownwardAPI)"#,
                ],
            ),
            (
                json!({"name": "v", "storageos": {}}),
                vec!["volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+"],
            ),
        ] {
            let mut warnings = Vec::new();
            of_pods("volumes", &json!([volume]), &mut warnings);
            assert_eq!(warnings, expected, "{volume}");
        }
    }

    #[test]
    fn persistent_volumes_are_advised() {
        let term = json!({"matchExpressions": [{"key": "beta.kubernetes.io/os", "values": ["-"]}]});
        let volume = json!({"metadata": {"annotations": {STORAGE_CLASS: "x"}}, "spec": {"persistentVolumeReclaimPolicy": "Recycle",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}, "cephfs": {}, "quobyte": {}}});
        let mut warnings = Vec::new();
        persistent_volume(&volume, None, &mut warnings);
        let expected = [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.cephfs: deprecated in v1.28, non-functional in v1.31+",
        ];
        assert_eq!(warnings, expected);
    }
}
