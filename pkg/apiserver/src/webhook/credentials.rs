//! What webhooks are shown, by a kubeconfig whose users are named after them (`kubeConfigFile` of the plugins' configuration).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::dial::{Credential, RemoteError, Users};
use crate::reload::{Fresh, Made};

type ByName = HashMap<String, Arc<Credential>>;

/// The credentials of a file, or none. The file, and certificates it names, are read again when they change.
#[derive(Clone, Default)]
pub struct Credentials(Option<Arc<Fresh<ByName>>>);

/// The user of the file's current context, under a name that no host has.
const CURRENT: &str = "";

impl Credentials {
    pub fn read(path: &Path) -> Result<Self, RemoteError> {
        let first = read(path)?;
        let path = path.to_owned();
        Ok(Self(Some(Arc::new(Fresh::new(first, move || read(&path).map_err(|error| error.to_string()))))))
    }

    /// What the webhook at this host and port is shown: the user of that name, of `*.` and the end of it, `*`, or else that
    /// of the current context. The port 443 need not be named.
    pub fn of(&self, host: &str, port: u16) -> Option<Arc<Credential>> {
        let users = self.0.as_ref()?.get();
        let full = format!("{host}:{port}");
        let bare = (port == 443).then_some(host);
        let by_name = [Some(full.as_str()), bare].into_iter().flatten().find_map(|target| {
            let mut ends = target.match_indices('.').map(|(at, _)| format!("*{}", &target[at..]));
            users.get(target).or_else(|| ends.find_map(|pattern| users.get(&pattern)))
        });
        by_name.or_else(|| users.get("*")).or_else(|| users.get(CURRENT)).cloned()
    }
}

fn read(path: &Path) -> Result<Made<ByName>, RemoteError> {
    let Users { named, current, files } = Users::read(path)?;
    let mut users: ByName = named.into_iter().map(|(name, credential)| (name, Arc::new(credential))).collect();
    users.remove(CURRENT);
    if let Some(current) = users.get(&current).cloned() {
        users.insert(CURRENT.to_owned(), current);
    }
    Ok(Made { value: users, files })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_closest_name_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let mut text = "current-context: c\ncontexts: [{name: c, context: {user: current}}]\nusers:\n".to_owned();
        for name in ["hook.ns.svc", "*.ns.svc", "*.svc:8443", "exact.ns.svc:8443", "*.example.com:444", "current"] {
            text += &format!("- {{name: '{name}', user: {{token: '{name}'}}}}\n");
        }
        std::fs::write(&path, &text).unwrap();
        let users = Credentials::read(&path).unwrap();
        let token = async |users: &Credentials, host: &str, port: u16| match users.of(host, port) {
            Some(credential) => credential.headers().await["authorization"].to_str().unwrap().to_owned(),
            None => String::new(),
        };
        for (host, port, expected) in [
            ("hook.ns.svc", 443, "hook.ns.svc"),
            ("other.ns.svc", 443, "*.ns.svc"),
            ("other.ns.svc", 8443, "*.svc:8443"),
            ("exact.ns.svc", 8443, "exact.ns.svc:8443"),
            ("hook.other.svc", 443, "current"),
            ("a.b.example.com", 444, "*.example.com:444"),
            ("example.com", 444, "current"),
        ] {
            assert_eq!(token(&users, host, port).await, format!("Bearer {expected}"), "{host}:{port}");
        }
        std::fs::write(&path, text + "- {name: '*', user: {token: star}}\n").unwrap();
        assert_eq!(token(&Credentials::read(&path).unwrap(), "x.y", 443).await, "Bearer star");
        assert_eq!(token(&Credentials::default(), "x.y", 443).await, "");
    }
}
