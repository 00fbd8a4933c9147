//! Names of images.

/// Says what is wrong with an image's name, in the words that registries use.
pub fn check(image: &str) -> Result<(), &'static str> {
    const INVALID: &str = "invalid reference format";
    if image.is_empty() {
        return Err("invalid reference format");
    }
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if let Some(digest) = digest {
        let (algorithm, hex) = digest.split_once(':').ok_or(INVALID)?;
        let length_fits = algorithm != "sha256" || hex.len() == 64;
        if algorithm.is_empty() || !length_fits || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(INVALID);
        }
    }
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag {
        let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let all = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !first || !all || tag.len() > 128 {
            return Err(INVALID);
        }
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => (Some(host), path),
        _ => (None, name),
    };
    let host_fits = host.is_none_or(|h| h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)));
    if !host_fits || !path.split('/').all(is_component) {
        if name.bytes().any(|b| b.is_ascii_uppercase()) && path.to_lowercase().split('/').all(is_component) {
            return Err("repository name must be lowercase");
        }
        return Err(INVALID);
    }
    Ok(())
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    }
}

fn is_host(first: &str) -> bool {
    first.contains('.') || first.contains(':') || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_component(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last()) && !text.contains("..")
}

/// Whether the name leaves open which image it is.
pub fn is_latest(image: &str) -> bool {
    !image.contains('@') && matches!(split_tag(image).1, None | Some("latest"))
}

/// The registry and path of a name, as credentials are looked up.
pub fn registry_and_path(image: &str) -> (String, String) {
    let name = split_tag(image.split('@').next().unwrap_or_default()).0;
    match name.split_once('/') {
        Some((host, path)) if is_host(host) => (host.to_owned(), path.to_owned()),
        Some(_) => ("index.docker.io".to_owned(), name.to_owned()),
        None => ("index.docker.io".to_owned(), format!("library/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_registries_do() {
        let digest = format!("r.io/a/b@sha256:{}", "0".repeat(64));
        for good in ["busybox", "a/b:1", "r.io:5000/a_b/c-d:v1.2_3", "localhost/x", digest.as_str()] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "a//b", "-a", "a:", "a@sha256:12", "a/../b", "bad:tag:x"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(check("a/Busybox"), Err("repository name must be lowercase"));
        assert!(is_latest("a") && is_latest("r:5000/a") && !is_latest("a:1") && !is_latest(&digest));
        assert_eq!(registry_and_path("r:5/a/b:1"), ("r:5".to_owned(), "a/b".to_owned()));
    }
}
