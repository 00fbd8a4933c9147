//! With which credentials images came here, so that a pod without them cannot use an image that is private (KEP-2535).
//!
//! Each image that this node agent pulled has a record on disk, in upstream's form. An image without one was there before
//! (or came from an archive) and is everybody's. While an image is pulled a note says so: a pull that was cut off leaves an
//! image of which nobody knows whose it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kube1_cri::v1::AuthConfig;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::reference::registry_and_path;

/// The secret that credentials are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    #[serde(default)]
    pub credential_hash: String,
}

/// Who may use an image under one of its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    /// It was pulled without credentials.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<SecretSource>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    image_ref: String,
    /// By the image's name without tag and digest.
    credential_mapping: BTreeMap<String, Access>,
}

/// What is known of an image and a name of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// All pods of the node may use it.
    Everybodys,
    /// Who has one of these credentials may use it, others must show theirs to the registry.
    With(Vec<SecretSource>),
}

/// The records of a node.
pub struct PulledImages {
    dir: PathBuf,
}

impl PulledImages {
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("image_manager") }
    }

    /// Who may use an image that the runtime knows by `id`, under `name`.
    pub fn known(&self, id: &str, name: &str) -> Known {
        let text = match fs::read(self.record_path(id)) {
            Ok(text) => text,
            Err(_) if self.note_path(name).exists() => return Known::With(Vec::new()),
            Err(_) => return Known::Everybodys,
        };
        // What cannot be read says nothing of who may use the image.
        let record: Record = serde_json::from_slice(&text).unwrap_or_default();
        match record.credential_mapping.get(&place(name)) {
            Some(access) if access.node_pods_accessible => Known::Everybodys,
            access => Known::With(access.map(|a| a.kubernetes_secrets.clone()).unwrap_or_default()),
        }
    }

    /// Notes that an image is going to be pulled.
    pub fn begin(&self, name: &str) -> io::Result<()> {
        let note = json!({"kind": "ImagePullIntent", "apiVersion": "kubelet.config.k8s.io/v1beta1", "image": name});
        write(&self.note_path(name), &note)
    }

    /// Records a pull; `used` are the credentials it took.
    pub fn record(&self, id: &str, name: &str, used: Option<&SecretSource>) -> io::Result<()> {
        let path = self.record_path(id);
        let old = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let mut record = old.unwrap_or_default();
        id.clone_into(&mut record.image_ref);
        let access = record.credential_mapping.entry(place(name)).or_default();
        match used {
            None => *access = Access { node_pods_accessible: true, kubernetes_secrets: Vec::new() },
            Some(_) if access.node_pods_accessible => {}
            Some(used) => {
                let same = |known: &SecretSource| {
                    (&known.uid, &known.namespace, &known.name) == (&used.uid, &used.namespace, &used.name)
                };
                access.kubernetes_secrets.retain(|known| !same(known));
                access.kubernetes_secrets.push(used.clone());
            }
        }
        let mut value = serde_json::to_value(&record).map_err(io::Error::other)?;
        value["kind"] = "ImagePulledRecord".into();
        value["apiVersion"] = "kubelet.config.k8s.io/v1beta1".into();
        value["lastUpdatedTime"] = crate::status::now().0.to_string().into();
        write(&path, &value)?;
        self.end(name);
        Ok(())
    }

    /// Takes the note of a pull away that came to nothing.
    pub fn end(&self, name: &str) {
        // A note that stays only makes pods show their credentials.
        let _ = fs::remove_file(self.note_path(name));
    }

    /// Forgets the images that the runtime has no more.
    pub fn retain(&self, ids: &[&str]) {
        let kept: Vec<PathBuf> = ids.iter().map(|id| self.record_path(id)).collect();
        for entry in fs::read_dir(self.dir.join("pulled")).into_iter().flatten().flatten() {
            if !kept.contains(&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.dir.join("pulled").join(hashed(id))
    }

    fn note_path(&self, name: &str) -> PathBuf {
        self.dir.join("pulling").join(hashed(name))
    }
}

/// An image's name without tag and digest.
fn place(name: &str) -> String {
    let (host, path) = registry_and_path(name);
    format!("{host}/{path}")
}

/// What stands for credentials in a record.
pub fn credential_hash(auth: &AuthConfig) -> String {
    let text =
        format!("{:?}", (&auth.username, &auth.password, &auth.auth, &auth.identity_token, &auth.registry_token));
    hashed(&text)
}

fn hashed(text: &str) -> String {
    let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256-{digest}")
}

fn write(path: &Path, value: &serde_json::Value) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = path.with_extension("tmp");
    fs::write(&new, value.to_string())?;
    fs::rename(new, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_for_those_who_had_its_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let images = PulledImages::new(dir.path());
        let secret = |name: &str, hash: &str| SecretSource {
            uid: format!("uid-{name}"),
            namespace: "ns".into(),
            name: name.into(),
            credential_hash: hash.into(),
        };
        assert_eq!(images.known("sha256:a", "r.io/app:1"), Known::Everybodys, "it was there before");
        images.begin("r.io/app:1").unwrap();
        assert_eq!(images.known("sha256:a", "r.io/app:1"), Known::With(vec![]), "a pull was cut off");
        images.record("sha256:a", "r.io/app:1", Some(&secret("s", "1"))).unwrap();
        images.record("sha256:a", "r.io/app:1", Some(&secret("t", "2"))).unwrap();
        images.record("sha256:a", "r.io/app:2", Some(&secret("s", "3"))).unwrap();
        assert_eq!(images.known("sha256:a", "r.io/app"), Known::With(vec![secret("t", "2"), secret("s", "3")]));
        assert_eq!(images.known("sha256:a", "other.io/app"), Known::With(vec![]), "another name is another registry");
        images.record("sha256:a", "r.io/app:1", None).unwrap();
        images.record("sha256:a", "r.io/app:1", Some(&secret("s", "1"))).unwrap();
        assert_eq!(images.known("sha256:a", "r.io/app:9"), Known::Everybodys, "it needs no credentials");
        images.retain(&["sha256:b"]);
        assert_eq!(images.known("sha256:a", "other.io/app"), Known::Everybodys, "it is forgotten");
    }
}
