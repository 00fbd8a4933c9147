//! A server's memory in MB and its CPU time, summed over its processes.

use std::time::Duration;

use tokio::task::JoinSet;

/// What the processes hold (PSS); `None` when none was named, or it cannot be read.
pub fn read(pids: &[u32]) -> Option<f64> {
    sum(pids, pss)
}

fn sum(pids: &[u32], read: fn(u32) -> Option<f64>) -> Option<f64> {
    pids.iter().map(|pid| read(*pid)).sum::<Option<f64>>().filter(|_| !pids.is_empty())
}

fn pss(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kilobytes: f64 = text.lines().find_map(|l| l.strip_prefix("Pss:"))?.trim().split(' ').next()?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// Resident pages: unlike PSS, reading this does not stop the process for long.
fn resident(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: f64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096.0 / 1e6)
}

/// CPU time that the processes have used so far, in seconds.
pub fn cpu(pids: &[u32]) -> Option<f64> {
    sum(pids, |pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, which may hold spaces, ends with the last bracket; then user and system time are fields 12 and 13.
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks / 100.0)
    })
}

/// The most memory (RSS) that is seen while `work` runs.
pub async fn peak<T>(pids: &[u32], work: impl Future<Output = T>) -> (T, Option<f64>) {
    let pids = pids.to_vec();
    let (sender, receiver) = tokio::sync::watch::channel(sum(&pids, resident));
    let mut sampler = JoinSet::new();
    sampler.spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tick.tick().await;
            let seen = sum(&pids, resident);
            sender.send_if_modified(|most| {
                let higher = seen > *most;
                if higher {
                    *most = seen;
                }
                higher
            });
        }
    });
    let done = work.await;
    let most = *receiver.borrow();
    (done, most)
}
