//! Hostile input for decoders: seeds and what becomes of them when they are damaged, the same in every run.
//!
//! A decoder must survive whatever comes: no panic, no overflow of the stack of an ordinary thread, memory in proportion
//! to its input, an answer in short time. Ordinary test runs try a few thousand inputs per decoder;
//! `KUBE1_FUZZ_SECONDS=600` tries other ones for so long each, and `KUBE1_FUZZ_TRACE=FILE` keeps the input in hand in a
//! file, for when a decoder takes the whole process down. The same decoders are targets of libFuzzer in `fuzz/`.

mod damage;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use damage::Random;
use nix::time::{ClockId, clock_gettime};
use peak_alloc::PeakAlloc;

// Counts for the whole process, so tests that use this crate run in processes of their own.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs of an ordinary run.
const INPUTS: u64 = 3_000;
/// An ordinary run of one decoder ends after this, on slow machines with fewer inputs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in a build without optimisation on a busy machine.
const SLOW: Duration = Duration::from_secs(10);
/// Memory that a decoder may take for any input.
const BASE: usize = 24 << 20;

/// Bytes of memory for a byte of a document.
const PER_BYTE: usize = 400;

/// A decoder and where its inputs start from.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: &'static str,
    run: fn(&[u8]),
    pub seeds: Vec<Cow<'static, [u8]>>,
    /// Words that mean something to the decoder.
    pub words: Vec<&'static str>,
    /// Memory that it may take for each byte of its input.
    per_byte: usize,
}

impl Target {
    /// A decoder that may take [`PER_BYTE`].
    pub fn new(name: &'static str, run: fn(&[u8]), seeds: &[&'static [u8]], words: &[&'static str]) -> Self {
        let seeds = seeds.iter().copied().map(Cow::Borrowed).collect();
        Self { name, run, seeds, words: words.to_vec(), per_byte: PER_BYTE }
    }

    /// More seeds: those that are made rather than written down.
    pub fn with_seeds(mut self, seeds: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.seeds.extend(seeds.into_iter().map(Cow::Owned));
        self
    }

    /// Values are bulky: how many bytes of memory one of the input may take.
    pub fn with_memory(self, per_byte: usize) -> Self {
        Self { per_byte, ..self }
    }

    /// Tries one input; panics if it breaks the decoder.
    pub fn check(&self, input: &[u8]) {
        check(self, input);
    }
}

/// Runs every target; panics with the first input that breaks one.
pub fn run(targets: &[Target]) {
    for target in targets {
        run_one(target);
    }
}

fn run_one(target: &Target) {
    let long = std::env::var("KUBE1_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let mut random = Random::new(if long.is_some() { now } else { 0x9e37_79b9_7f4a_7c15 });
    let trace = std::env::var_os("KUBE1_FUZZ_TRACE");
    let started = Instant::now();
    let mut tried = 0;
    let try_one = |input: &[u8]| {
        if let Some(path) = &trace {
            let _ = std::fs::write(path, input);
        }
        check(target, input);
    };
    let seeds: Vec<&[u8]> = target.seeds.iter().map(AsRef::as_ref).collect();
    seeds.iter().for_each(|seed| try_one(seed));
    damage::extremes().iter().for_each(|input| try_one(input));
    damage::repeated(&seeds, &target.words).for_each(|input| try_one(&input));
    let goes_on = |tried| match long {
        Some(limit) => started.elapsed() < limit,
        None => tried < INPUTS && started.elapsed() < PATIENCE,
    };
    while goes_on(tried) {
        try_one(&damage::damaged(&mut random, &seeds, &target.words));
        tried += 1;
    }
    println!("{}: {tried} inputs in {:?}", target.name, started.elapsed());
}

/// The processor's time that this thread took: what else runs on the machine is nobody's fault.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// One input: its memory, its time, and which it was if it breaks the target.
fn check(target: &Target, input: &[u8]) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let started = worked();
    let survived = std::panic::catch_unwind(|| (target.run)(input));
    let (took, used) = (worked().saturating_sub(started), MEMORY.peak_usage().saturating_sub(before));
    let shown = || {
        let text: String =
            input.iter().take(4096).flat_map(|b| std::ascii::escape_default(*b)).map(char::from).collect();
        format!("{} of {} bytes: b\"{text}\"", target.name, input.len())
    };
    assert!(survived.is_ok(), "panicked: {}", shown());
    assert!(took < SLOW, "took {took:?}: {}", shown());
    assert!(used < BASE + target.per_byte * input.len(), "took {used} bytes of memory: {}", shown());
}
