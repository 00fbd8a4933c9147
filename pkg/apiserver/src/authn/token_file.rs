//! Tokens of a file (`--token-auth-file`).

use std::collections::HashMap;
use std::path::Path;

use super::AuthenticationConfigError;
use crate::user::{AUTHENTICATED, UserInfo};

/// Users by their tokens, as a file of comma-separated values tells them: token, name, uid and, quoted when there are
/// several, groups.
#[derive(Default)]
pub struct TokenFile {
    users: HashMap<String, UserInfo>,
}

impl TokenFile {
    /// Reads a file; of lines with the same token the last counts.
    pub fn read(path: &Path) -> Result<Self, AuthenticationConfigError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| AuthenticationConfigError::ReadTokens { path: shown(), source })?;
        Self::parse(&text).map_err(|reason| AuthenticationConfigError::Tokens { path: shown(), reason })
    }

    /// The user of a token of the file.
    pub fn user(&self, token: &str) -> Option<&UserInfo> {
        self.users.get(token)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let fields = fields(line).ok_or_else(|| format!("line {}: a quote is not closed, or stray", at + 1))?;
            let [token, name, uid, rest @ ..] = &fields[..] else {
                let found = fields.len();
                return Err(format!("line {}: needs token, user name and user uid, has {found} fields", at + 1));
            };
            if token.is_empty() {
                tracing::warn!("line {} of the token file has no token and is left out", at + 1);
                continue;
            }
            let groups = rest.first().map_or("", |groups| groups.as_str()).split(',').filter(|group| !group.is_empty());
            let groups = groups.map(str::to_owned).chain([AUTHENTICATED.to_owned()]).collect();
            let user = UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
            if users.insert(token.clone(), user).is_some() {
                tracing::warn!("line {} of the token file has the token of an earlier one, which it replaces", at + 1);
            }
        }
        Ok(Self { users })
    }
}

/// The fields of a line (RFC 4180, without fields of several lines).
fn fields(mut line: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    loop {
        let Some(quoted) = line.strip_prefix('"') else {
            let (field, rest) = line.split_once(',').map_or((line, None), |(field, rest)| (field, Some(rest)));
            if field.contains('"') {
                return None;
            }
            found.push(field.to_owned());
            match rest {
                Some(rest) => line = rest,
                None => return Some(found),
            }
            continue;
        };
        let (mut field, mut left) = (String::new(), quoted);
        loop {
            let (inside, rest) = left.split_once('"')?;
            field.push_str(inside);
            let Some(more) = rest.strip_prefix('"') else {
                found.push(field);
                match rest.strip_prefix(',') {
                    Some(rest) => line = rest,
                    None if rest.is_empty() => return Some(found),
                    None => return None,
                }
                break;
            };
            field.push('"');
            left = more;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_users_and_what_is_wrong_in_it_is_told() {
        for (text, token, expected) in [
            ("t1,ann,1\n", "t1", Ok("ann/1 system:authenticated")),
            ("t1,ann,1,dev\r\n", "t1", Ok("ann/1 dev system:authenticated")),
            ("t1,ann,1,\"dev,ops\",more", "t1", Ok("ann/1 dev ops system:authenticated")),
            ("\"t,1\",\"a\"\"b\",", "t,1", Ok("a\"b/ system:authenticated")),
            ("\n,ann,1\n\nt1,bob,2", "t1", Ok("bob/2 system:authenticated")),
            ("t1,ann,1\nt1,bob,2", "t1", Ok("bob/2 system:authenticated")),
            ("t1,ann,1", "", Ok("nobody")),
            ("t1,ann,1", "t", Ok("nobody")),
            ("t1,ann,1\nt2,bob", "t1", Err("line 2: needs token, user name and user uid, has 2 fields")),
            ("t1,\"ann,1", "t1", Err("line 1: a quote is not closed, or stray")),
            ("t1,\"ann\"x,1", "t1", Err("line 1: a quote is not closed, or stray")),
            ("t1,an\"n,1", "t1", Err("line 1: a quote is not closed, or stray")),
        ] {
            let told = TokenFile::parse(text).map(|file| match file.user(token) {
                Some(user) => format!("{}/{} {}", user.name, user.uid, user.groups.join(" ")),
                None => "nobody".to_owned(),
            });
            assert_eq!(told, expected.map(str::to_owned).map_err(str::to_owned), "{text:?}");
        }
        assert!(matches!(TokenFile::read(Path::new("/none")), Err(AuthenticationConfigError::ReadTokens { .. })));
    }
}
