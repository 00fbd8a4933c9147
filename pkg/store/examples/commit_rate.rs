//! Prints how many durable writes a second the store takes: `commit_rate DIR WRITERS SECONDS VALUE_BYTES`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube1_store::{EmbeddedStore, Store, Txn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("DIR is missing")?);
    let mut number = |default: u64| arguments.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (writers, seconds, bytes) = (number(1), number(5), number(2500));
    let store = Arc::new(EmbeddedStore::open(&dir)?);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let (mut count, mut slowest) = (0_u64, Duration::ZERO);
            while Instant::now() < end {
                let began = Instant::now();
                let key = format!("/registry/core/pods/default/pod-{writer}-{count}");
                let value = vec![b'x'; usize::try_from(bytes).unwrap_or(0)];
                if store.txn(Txn::new().if_absent(key.clone()).put(key, value)).await.is_err() {
                    break;
                }
                slowest = slowest.max(began.elapsed());
                count += 1;
            }
            (count, slowest)
        });
    }
    let done = tasks.join_all().await;
    let total: u64 = done.iter().map(|(count, _)| count).sum();
    let slowest = done.iter().map(|(_, slowest)| *slowest).max().unwrap_or_default();
    let size = std::fs::metadata(dir.join("store.redb"))?.len();
    println!(
        "{writers} writers: {} writes/s, slowest {slowest:?}, file {} KiB for {total} writes",
        total / seconds,
        size >> 10
    );
    Ok(())
}
