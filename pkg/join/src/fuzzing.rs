//! What hostile input is tried on: the text of a token, as somebody copied it.

use kube1_mutate::Target;

use crate::JoinToken;

const SEEDS: &[&[u8]] = &[
    b"kube1://abcdef.0123456789abcdef@192.168.1.10:6443,[fd00::1]:6443,host/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/1999999999",
    b"kube1://abcdef.0123456789abcdef@192.168.1.10:6443,[fd00::1]*6443,host/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    vec![Target::new("join", token, SEEDS, &["@", "/", ",", "[", "]", ":0", "kube1://"])]
}

fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string().parse::<JoinToken>().as_ref(), Ok(&token));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
