//! Memory given back to the kernel once a burst of work is over.
//!
//! Starting up, listing thousands of objects or rolling out a workload touches code and heap that an idle node then
//! keeps resident for nothing. Small machines need those pages elsewhere.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::mman::{MmapAdvise, madvise};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use tokio::time::MissedTickBehavior;

use crate::{BoxError, Component, Context};

/// How often the process looks whether work has just ended, whose garbage the heap still holds.
const LOOK: Duration = Duration::from_secs(1);
/// Less CPU time than this in one look means that the process waits.
const QUIET: Duration = Duration::from_millis(20);
/// Work of less CPU time leaves no garbage worth looking for.
const WORK: Duration = Duration::from_millis(200);
/// How often the process looks at what it has used.
const PERIOD: Duration = Duration::from_secs(20);
/// More CPU time than this in one period means that the process is at work.
const BUSY: Duration = Duration::from_millis(400);
/// Fewer page faults than this since the last time cannot have brought much in.
const WORTHWHILE: i64 = 100;

/// Returns unused memory to the kernel when the process has become idle after work.
///
/// The heap's free pages are released as soon as work ends. Once the process has been idle for a while the pages of the
/// program that are mapped but unchanged are unmapped too: they stay in the kernel's page cache while there is room, so
/// touching one again costs a minor fault.
pub struct MemoryTrimmer;

#[async_trait]
impl Component for MemoryTrimmer {
    fn name(&self) -> &str {
        "memory"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let mut look = tokio::time::interval(LOOK);
        let mut period = tokio::time::interval(PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.tick().await;
        period.tick().await;
        ctx.ready();
        let (mut last, mut trimmed) = (cpu_time()?, 0);
        let (mut looked, mut swept) = (last, last);
        loop {
            tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                _ = period.tick() => {}
                _ = look.tick() => {
                    let now = cpu_time()?;
                    if now.saturating_sub(looked) < QUIET && now.saturating_sub(swept) >= WORK {
                        tokio::task::spawn_blocking(trim_heap).await?;
                        swept = cpu_time()?;
                    }
                    looked = cpu_time()?;
                    continue;
                }
            }
            let now = cpu_time()?;
            let idle = now.saturating_sub(last) < BUSY;
            last = now;
            if idle && page_faults()? - trimmed >= WORTHWHILE {
                tokio::task::spawn_blocking(trim).await??;
                trimmed = page_faults()?;
            }
        }
    }
}

fn cpu_time() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from)
}

/// The page faults of the process so far that needed no disk.
fn page_faults() -> nix::Result<i64> {
    getrusage(UsageWho::RUSAGE_SELF).map(|usage| usage.minor_page_faults())
}

/// Heaps that the threads of the process share, for each processor. With half as many, 32 writers at once took a tenth
/// longer to be answered, and with two altogether a quarter; with four times as many, memory was held for nothing.
#[cfg(target_env = "gnu")]
const HEAPS_PER_PROCESSOR: usize = 2;

/// Lets all threads share a few heaps. To be called before there are threads.
///
/// The C library gives each new thread a heap of its own, up to eight for each processor. What one frees another cannot
/// use, and objects that stay are spread among what comes and goes, so that after some churn most of the memory was held
/// by pages with hardly anything on them: twice to three times what is in use.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let heaps = i32::try_from(processors * HEAPS_PER_PROCESSOR).unwrap_or(i32::MAX);
        // SAFETY: mallopt only sets a number, and no other thread is there to allocate meanwhile.
        #[allow(unsafe_code)]
        unsafe {
            nix::libc::mallopt(nix::libc::M_ARENA_MAX, heaps);
        }
    }
}

/// Releases the heap's free pages.
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only gives back memory that nobody holds.
    #[allow(unsafe_code)]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Releases the heap's free pages and the program's clean ones.
fn trim() -> std::io::Result<()> {
    trim_heap();
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    for range in clean_file_mappings(&smaps) {
        let Some(start) = NonNull::new(std::ptr::without_provenance_mut::<c_void>(range.start)) else { continue };
        // SAFETY: the mapping is of a file, may not be written and holds no changed page, so that what is unmapped
        // comes back from the file with the same bytes at the next touch.
        #[allow(unsafe_code)]
        unsafe {
            madvise(start, range.len(), MmapAdvise::MADV_DONTNEED)?;
        }
    }
    Ok(())
}

/// The address ranges of file mappings which are not writable and of which no page differs from the file.
///
/// A private page that was changed (a relocation, say) exists nowhere else; `Anonymous` counts those.
fn clean_file_mappings(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(mapping) = parse_mapping(line) {
            current = mapping;
        } else if line.strip_prefix("Anonymous:").is_some_and(|size| size.trim() == "0 kB") {
            found.extend(current.take());
        }
    }
    found
}

/// `None` when the line is not a mapping's first; `Some(None)` when it is one that must be left alone.
fn parse_mapping(line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let permissions = words.next()?;
    let file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    let eligible = file && permissions.starts_with('r') && !permissions.contains('w') && permissions.ends_with('p');
    Some(eligible.then_some(range))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
5500-5600 r-xp 00001000 fe:00 12 /usr/bin/kube1
Rss:                  60 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
5600-5700 r--p 00002000 fe:00 12 /usr/bin/kube1
Anonymous:             4 kB
5700-5800 rw-p 00003000 fe:00 12 /usr/bin/kube1
Anonymous:             0 kB
5800-5900 rw-p 00000000 00:00 0 [heap]
Anonymous:             0 kB
5900-5a00 r--s 00000000 fe:00 13 /var/lib/shared
Anonymous:             0 kB
7f00-7f10 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
7f20-7f30 r--p 00000000 fe:00 14 /lib/a file (deleted)
Anonymous:             0 kB
";

    #[test]
    fn only_unchanged_pages_of_files_are_unmapped() {
        assert_eq!(clean_file_mappings(SMAPS), [0x5500..0x5600, 0x7f20..0x7f30]);
    }

    #[test]
    fn trimming_unmaps_the_program_and_leaves_it_running() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap().to_owned();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        trim().unwrap();
        let after = resident();
        assert!(after < before, "{before} kB of files were resident before and {after} kB after");
    }
}
