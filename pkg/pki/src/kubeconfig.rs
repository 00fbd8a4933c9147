//! Kubeconfig files.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::PkiError;
use crate::file::write_private;

/// How the user of a kubeconfig proves who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A certificate and key in PEM, embedded.
    Embedded {
        certificate_pem: String,
        key_pem: String,
    },
    /// Paths of files that are read again when they change.
    Files {
        certificate: String,
        key: String,
    },
    Token(String),
}

/// A kubeconfig with one cluster, one user and one context, all named `name`.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    pub name: String,
    /// `https://HOST:PORT`
    pub server: String,
    pub ca_pem: String,
    pub credential: Credential,
}

impl Kubeconfig {
    /// The file's YAML text.
    pub fn to_yaml(&self) -> String {
        let quote = |s: &str| serde_json::Value::from(s).to_string();
        let user = match &self.credential {
            Credential::Embedded { certificate_pem, key_pem } => format!(
                "    client-certificate-data: {}\n    client-key-data: {}\n",
                STANDARD.encode(certificate_pem),
                STANDARD.encode(key_pem)
            ),
            Credential::Files { certificate, key } => {
                format!("    client-certificate: {}\n    client-key: {}\n", quote(certificate), quote(key))
            }
            Credential::Token(token) => format!("    token: {}\n", quote(token)),
        };
        let (name, server, ca) = (quote(&self.name), quote(&self.server), STANDARD.encode(&self.ca_pem));
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n\
             current-context: {name}\nusers:\n- name: {name}\n  user:\n{user}"
        )
    }

    /// Writes the file atomically with mode 0600; an identical file is left alone.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        let text = self.to_yaml();
        if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write_private(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_one_context_with_the_credential() {
        let text = Kubeconfig {
            name: "kube1".into(),
            server: "https://127.0.0.1:6443".into(),
            ca_pem: "CA".into(),
            credential: Credential::Token("abc".into()),
        }
        .to_yaml();
        assert_eq!(
            text,
            "apiVersion: v1\nkind: Config\nclusters:\n- name: \"kube1\"\n  cluster:\n    server: \"https://127.0.0.1:6443\"\n    \
             certificate-authority-data: Q0E=\ncontexts:\n- name: \"kube1\"\n  context:\n    cluster: \"kube1\"\n    user: \"kube1\"\n\
             current-context: \"kube1\"\nusers:\n- name: \"kube1\"\n  user:\n    token: \"abc\"\n"
        );
    }
}
