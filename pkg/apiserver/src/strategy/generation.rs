//! metadata.generation: counts changes of what users want.

use serde_json::{Map, Value};

#[derive(Clone, Copy)]
pub(super) enum Generation {
    None,
    /// Starts at 1, rises when one of the members changes.
    Members(&'static [&'static str]),
    /// The same, but nothing is shown before the first change.
    FromZero(&'static [&'static str]),
    SpecOrAnnotations,
    /// Everything but metadata and status.
    Content,
    ContentOrLabels,
}

impl Generation {
    pub fn start(self, metadata: &mut Value) {
        match self {
            Self::None | Self::FromZero(_) => super::remove(metadata, "generation"),
            _ => metadata["generation"] = 1.into(),
        }
    }

    pub fn count(self, new: &mut Value, old: &Value) {
        let changed = match self {
            Self::None => false,
            Self::Members(members) | Self::FromZero(members) => members.iter().any(|m| new[*m] != old[*m]),
            Self::SpecOrAnnotations => {
                new["spec"] != old["spec"] || new["metadata"]["annotations"] != old["metadata"]["annotations"]
            }
            Self::Content => content(new) != content(old),
            Self::ContentOrLabels => {
                content(new) != content(old) || new["metadata"]["labels"] != old["metadata"]["labels"]
            }
        };
        if changed {
            new["metadata"]["generation"] = (old["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
        }
    }
}

fn content(object: &Value) -> Map<String, Value> {
    let mut members = object.as_object().cloned().unwrap_or_default();
    for other in ["metadata", "status", "apiVersion", "kind"] {
        members.remove(other);
    }
    members
}
