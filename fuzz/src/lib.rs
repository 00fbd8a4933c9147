//! Which decoder of several an input is for.

use std::sync::LazyLock;

/// A decoder by its name.
pub type Target = (&'static str, fn(&[u8]));

static WANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("KUBE1_FUZZ_TARGET").ok());

/// Gives the input to the decoder that the environment names, or else to the one that its first byte chooses.
pub fn dispatch(targets: &[Target], data: &[u8]) {
    if let Some(name) = WANTED.as_deref() {
        let (_, run) = targets.iter().find(|(known, _)| *known == name).expect("no decoder has this name");
        return run(data);
    }
    if let Some((first, rest)) = data.split_first() {
        targets[usize::from(*first) % targets.len()].1(rest);
    }
}
