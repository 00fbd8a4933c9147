//! Work that recurses as deep as its input goes, on a stack that is large enough for the longest input.

/// Only what is used of it takes memory.
const STACK: usize = 256 << 20;

/// Runs `work` on a thread of its own and waits for it; an error when no thread can be had or it panics.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, &'static str> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("compile".into()).stack_size(STACK).spawn_scoped(scope, work);
        thread.map_err(|_| "no thread could be started")?.join().map_err(|_| "the text is not supported")
    })
}
