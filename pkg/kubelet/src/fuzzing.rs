//! What hostile input is tried on: texts of pods, lines of logs, what clients ask and files of the host.

use jiff::Timestamp;
use kube1_mutate::Target;

use crate::image::reference;
use crate::{dns, env_file, eviction, expand, log_file, server, static_pod};

const TEXTS: &[&[u8]] = &[
    b"2026-01-02T03:04:05.000000006Z stdout F a line",
    b"$(A) $$(B) $(C $(D)) ${E}",
    b"registry.example.com:5000/team/image:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%",
    b"nameserver 10.0.0.1\nsearch a.example b.example.\noptions ndots:5\n",
    b"# values\nA=1\nB='two words'\nC=\"x\\n\"\nexport D=4\n",
];
const TEXT_WORDS: &[&str] = &["$(", ")", "$$", " stderr P ", "@sha256:", ":", "/", "[::1]", "<", "%", "=", "'", "\n"];
const QUERIES: &[&[u8]] = &[
    b"follow=true&previous=0&timestamps=1&tailLines=5&limitBytes=9&sinceSeconds=60&stream=Stderr",
    b"sinceTime=2026-01-02T03%3A04%3A05Z&tailLines=-1",
];
const QUERY_WORDS: &[&str] = &["sinceSeconds=9223372036854775807", "&", "%", "+", "sinceTime=-009999-01-01T00:00:00Z"];
const POD: &[u8] = b"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}]}\n";

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    vec![
        Target::new("kubelet_texts", texts, TEXTS, TEXT_WORDS),
        Target::new("log_query", log_query, QUERIES, QUERY_WORDS),
        Target::new("static_pod", manifest, &[POD], &["spec: ", "&a", "*a", "- ", "containers: ", "tolerations: "]),
    ]
}

fn texts(bytes: &[u8]) {
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
    let _ = text.parse::<eviction::EvictionThresholds>().map(|thresholds| thresholds.by_signal());
    let _ = dns::parse_resolv_conf(&text);
    let _ = env_file::value_of(&text, "B");
}

fn log_query(bytes: &[u8]) {
    let pairs = server::pairs(&String::from_utf8_lossy(bytes));
    for now in [Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let _ = server::LogOptions::parse(&pairs, now);
    }
}

fn manifest(bytes: &[u8]) {
    let _ = static_pod::parse(&String::from_utf8_lossy(bytes), "node");
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
