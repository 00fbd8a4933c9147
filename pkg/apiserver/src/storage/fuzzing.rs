//! Tokens of clients and bytes of a damaged store.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use kube1_api::selector::{FieldSelector, LabelSelector};

use super::object::{Draft, Layout};
use super::token::Token;

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
