//! Texts of pods and bytes of containers as hostile users make them.

use crate::image::reference;
use crate::{expand, log_file};

/// Texts of pods and lines of logs.
pub fn texts(bytes: &[u8]) {
    if let Some(entry) = log_file::parse(bytes) {
        let _ = entry.at();
    }
    let text = String::from_utf8_lossy(bytes);
    let lookup = |name: &str| (name.len() < 3).then(|| "$(B)".repeat(3));
    let _ = expand::expand(&text, lookup);
    let _ = expand::expand_strictly(&text, lookup);
    if reference::check(&text).is_ok() {
        let _ = (reference::is_latest(&text), reference::registry_and_path(&text));
    }
}

#[cfg(test)]
mod tests {
    use kube1_mutate::{PER_BYTE, Target, run};

    use super::texts;

    #[test]
    fn texts_survive() {
        const SEEDS: &[&[u8]] = &[
            b"2026-01-02T03:04:05.000000006Z stdout F a line",
            b"$(A) $$(B) $(C $(D)) ${E}",
            b"registry.example.com:5000/team/image:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ];
        let words = &["$(", ")", "$$", " stderr P ", "@sha256:", ":", "/", "[::1]"];
        run(&[Target { name: "texts", run: texts, seeds: SEEDS, words, per_byte: PER_BYTE }]);
    }
}
