//! Every decoder of input from outside as a target of libFuzzer; `hack/fuzz` builds and runs this.
//!
//! `KUBE1_FUZZ_TARGET` names the decoder. With `KUBE1_FUZZ_SEEDS` the seeds and the dictionaries of all of them are written to
//! that directory instead: `NAME/` and `NAME.dict`.

#![no_main]

#[allow(dead_code)]
#[path = "../../cmd/kube1/src/snapshot/archive.rs"]
mod archive;

use std::path::Path;
use std::sync::LazyLock;

use kube1_mutate::Target;

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("KUBE1_FUZZ_TARGET").expect("KUBE1_FUZZ_TARGET names a decoder");
    targets().into_iter().find(|target| target.name == wanted).expect("no decoder has this name")
});

fn targets() -> Vec<Target> {
    [
        kube1_api::fuzzing::targets(),
        kube1_apiserver::fuzzing::targets(),
        kube1_controllers::fuzzing::targets(),
        kube1_cri::fuzzing::targets(),
        kube1_dns::fuzzing::targets(),
        kube1_join::fuzzing::targets(),
        kube1_kubelet::fuzzing::targets(),
        kube1_network::cni::fuzzing::targets(),
        kube1_pki::fuzzing::targets(),
        kube1_store::fuzzing::targets(),
        archive::targets(),
    ]
    .concat()
}

/// A directory of seeds and a dictionary for each decoder.
fn write_seeds(dir: &Path) -> std::io::Result<()> {
    for target in targets() {
        let seeds = dir.join(target.name);
        std::fs::create_dir_all(&seeds)?;
        for (number, seed) in target.seeds.iter().enumerate() {
            std::fs::write(seeds.join(format!("seed-{number}")), seed)?;
        }
        let hex = |word: &str| word.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let words: String = target.words.iter().map(|word| format!("\"{}\"\n", hex(word))).collect();
        std::fs::write(dir.join(target.name).with_extension("dict"), words)?;
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(
    init: if let Some(dir) = std::env::var_os("KUBE1_FUZZ_SEEDS") {
        write_seeds(Path::new(&dir)).expect("seeds can be written");
        std::process::exit(0);
    },
    |data: &[u8]| CHOSEN.check(data)
);
