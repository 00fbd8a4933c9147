//! Tokens of clients and bytes of a damaged store.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use kube1_api::selector::{FieldSelector, LabelSelector};

use super::encryption::{Encryption, mark_of};
use super::object::{Draft, Layout};
use super::token::Token;

/// The bytes as an encrypted value, by every cipher.
pub fn encrypted(data: &[u8]) {
    static KEYS: LazyLock<Encryption> = LazyLock::new(|| {
        let key = STANDARD.encode([7; 32]);
        let provider = |name: &str| format!("  - {name}: {{keys: [{{name: k, secret: {key}}}]}}\n");
        let mut providers: String = ["aesgcm", "aescbc", "secretbox"].map(provider).concat();
        providers.push_str("  - kms: {apiVersion: v2, name: s, endpoint: 'unix:///s'}\n");
        let path = std::env::temp_dir().join(format!("kube1-fuzzing-keys-{}", std::process::id()));
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: ['*.*']\n  providers:\n{providers}"
        );
        std::fs::write(&path, text).expect("a temporary file");
        let opened = Encryption::open(None, Some(path.clone())).expect("a configuration");
        let _ = std::fs::remove_file(path);
        opened
    });
    let marks = ["", "k8s:enc:aesgcm:v1:k:", "k8s:enc:aescbc:v1:k:", "k8s:enc:secretbox:v1:k:", "k8s:enc:kms:v2:s:"];
    for value in marks.map(|mark| Bytes::from([mark.as_bytes(), data].concat())) {
        let _ = mark_of(&value);
        let _ = KEYS.decrypt("secrets", b"/secrets/a/b", &value);
    }
    let kept = KEYS.encrypt("secrets", b"k", &Bytes::copy_from_slice(data)).expect("a key");
    assert_eq!(KEYS.decrypt("secrets", b"k", &kept).ok().as_deref(), Some(data));
}

/// The bytes as a token, and as what a token holds.
pub fn continue_token(data: &[u8]) {
    for text in [String::from_utf8_lossy(data).into_owned(), URL_SAFE_NO_PAD.encode(data)] {
        let Ok(token) = Token::decode(&text) else { continue };
        assert_eq!(Token::decode(&token.encode()).ok().as_ref(), Some(&token));
    }
}

/// The bytes as a stored object, with all that is read off one.
pub fn stored(data: &[u8]) {
    let layout = Arc::new(Layout::new("v1", "Pod", &["spec.nodeName", "spec.list"]));
    let Some(draft) = Draft::read(&layout, Bytes::copy_from_slice(data)) else { return };
    let _ = draft.key();
    let object = draft.commit(7);
    let _ = (object.namespace(), object.name(), object.uid(), object.is_deleting(), object.labels().count());
    let _ = (object.field("spec.nodeName"), object.field("spec.list"), object.json_without_kind());
    let selectors = (LabelSelector::parse("a=b"), FieldSelector::parse("spec.nodeName=x"));
    if let (Ok(labels), Ok(fields)) = selectors {
        let _ = object.matches(&labels, &fields);
    }
    let _ = object.at(9);
}
