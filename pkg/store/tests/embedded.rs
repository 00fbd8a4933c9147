//! The embedded engine against a model, against concurrency and against being killed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use kube1_store::{EmbeddedStore, Event, Health, Observer, Range, Revision, Store, StoreError, Txn};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

type Model = BTreeMap<String, (Revision, String)>;

/// Replays what it is told into a map.
#[derive(Default)]
struct Replica(Mutex<BTreeMap<String, String>>);

impl Observer for Replica {
    fn committed(&self, events: &[Event], _revision: Revision) {
        let mut map = self.0.lock();
        for event in events {
            let key = text(&event.key);
            match &event.value {
                Some(kv) => map.insert(key, text(&kv.value)),
                None => map.remove(&key),
            };
        }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn plain(model: &Model) -> BTreeMap<String, String> {
    model.iter().map(|(k, (_, v))| (k.clone(), v.clone())).collect()
}

async fn contents(store: &EmbeddedStore, range: Range) -> BTreeMap<String, String> {
    store.range(range).await.unwrap().items.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

#[tokio::test]
async fn behaves_as_a_map_with_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut model = Model::new();
    let mut past: BTreeMap<Revision, BTreeMap<String, String>> = BTreeMap::new();
    let mut store = EmbeddedStore::open(dir.path()).unwrap();
    let mut replica = Arc::new(Replica::default());
    store.observe(Range::default(), replica.clone()).await.unwrap();
    for step in 0..600 {
        let key = format!("{}/{}", random.random_range(0..3), random.random_range(0..10));
        let known = model.get(&key).map_or(0, |(revision, _)| *revision);
        let expected = if random.random_bool(0.8) { known } else { known + 1 };
        let txn = match expected {
            0 => Txn::new().if_absent(key.clone()),
            revision => Txn::new().if_modified_at(key.clone(), revision),
        };
        let deleting = random.random_bool(0.3);
        let value = format!("v{step}");
        let txn = if deleting { txn.delete(key.clone()) } else { txn.put(key.clone(), value.clone()) };
        let before = store.revision();
        match store.txn(txn).await {
            Ok(revision) => {
                assert_eq!(expected, known);
                let changed = !deleting || known != 0;
                assert_eq!(revision, before + u64::from(changed));
                if deleting {
                    model.remove(&key);
                } else {
                    model.insert(key, (revision, value));
                }
                past.insert(revision, plain(&model));
            }
            Err(StoreError::Compare { current, .. }) => {
                assert_ne!(expected, known);
                assert_eq!(current.map_or(0, |kv| kv.mod_revision), known);
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(*replica.0.lock(), plain(&model));
        if step == 300 {
            drop(store);
            store = EmbeddedStore::open(dir.path()).unwrap();
            past.clear();
            replica = Arc::new(Replica::default());
            let page = store.observe(Range::default(), replica.clone()).await.unwrap();
            replica.0.lock().extend(page.items.iter().map(|kv| (text(&kv.key), text(&kv.value))));
        }
    }
    for (revision, expected) in &past {
        assert_eq!(&contents(&store, Range::default().at(*revision)).await, expected, "at {revision}");
        let first: Vec<_> = expected.iter().filter(|(k, _)| k.starts_with("1/")).take(2).collect();
        let page = store.range(Range::prefix("1/").limit(2).at(*revision)).await.unwrap();
        assert_eq!(
            page.items.iter().map(|kv| text(&kv.key)).collect::<Vec<_>>(),
            first.iter().map(|(k, _)| (*k).clone()).collect::<Vec<_>>()
        );
        assert_eq!(page.more, expected.keys().filter(|k| k.starts_with("1/")).count() > 2);
    }
    let newest = store.revision();
    store.compact(newest - 1).await.unwrap();
    assert!(matches!(store.range(Range::default().at(newest - 2)).await, Err(StoreError::Compacted { .. })));
    assert!(matches!(store.watch(Range::default(), newest - 2).await, Err(StoreError::Compacted { .. })));
    assert!(matches!(store.range(Range::default().at(newest + 1)).await, Err(StoreError::Future { .. })));

    let copy = dir.path().join("copy");
    store.snapshot(&copy).await.unwrap();
    let restored = dir.path().join("restored");
    EmbeddedStore::restore(&copy, &restored).unwrap();
    let restored = EmbeddedStore::open(&restored).unwrap();
    assert_eq!(contents(&restored, Range::default()).await, plain(&model));
    assert!(restored.revision() > newest);
}

#[tokio::test]
async fn a_watch_tells_the_past_then_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    let first = store.txn(Txn::new().put("a/1", "x")).await.unwrap();
    store.txn(Txn::new().put("b/1", "x").put("a/2", "y")).await.unwrap();
    let mut watch = store.watch(Range::prefix("a/"), first).await.unwrap();
    store.txn(Txn::new().delete("a/1")).await.unwrap();
    let past = watch.next().await.unwrap();
    assert_eq!(past.iter().map(|e| (text(&e.key), e.revision)).collect::<Vec<_>>(), [("a/2".to_owned(), first + 1)]);
    let next = watch.next().await.unwrap();
    assert!(next[0].value.is_none() && next[0].previous.as_ref().unwrap().value == "x");
    drop(store);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn one_process_at_a_time_and_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let store = EmbeddedStore::open(&data).unwrap();
    assert!(matches!(EmbeddedStore::open(&data), Err(StoreError::InUse { .. })));
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(data.join("store.redb")).unwrap().permissions().mode() & 0o777, 0o600);
    drop(store);
    std::fs::write(data.join("store.redb"), vec![7; 9000]).unwrap();
    assert!(matches!(EmbeddedStore::open(&data), Err(StoreError::Open { .. })));
}

#[tokio::test]
async fn a_journal_that_skips_commits_is_refused_not_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    for keys in [["a", "b", "c"], ["d", "e", "f"]] {
        let store = EmbeddedStore::open(dir.path()).unwrap();
        for key in keys {
            store.txn(Txn::new().put(key, "1")).await.unwrap();
        }
    }
    // The second round's records stand where the first one's did; without the rows something is missing.
    std::fs::remove_file(dir.path().join("store.redb")).unwrap();
    assert!(matches!(EmbeddedStore::open(dir.path()), Err(StoreError::Gap { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_compare_and_swap_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path()).unwrap());
    store.txn(Txn::new().put("n", "0")).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                loop {
                    let kv = store.range(Range::key("n")).await.unwrap().items.remove(0);
                    let next = (text(&kv.value).parse::<u64>().unwrap() + 1).to_string();
                    let txn = Txn::new().if_modified_at("n", kv.mod_revision).put("n", next);
                    match store.txn(txn).await {
                        Ok(_) => break,
                        Err(StoreError::Compare { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    let kv = store.range(Range::key("n")).await.unwrap().items.remove(0);
    assert_eq!((text(&kv.value), kv.version), ("160".to_owned(), 161));
}

#[tokio::test]
async fn a_write_may_outlive_whoever_asked_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path()).unwrap());
    // The writer holds the last reference, by way of the origin.
    let txn = Txn::new().put("a", "x").origin(store.clone());
    let mut asking = Box::pin(async move { store.txn(txn).await });
    assert!(futures::poll!(&mut asking).is_pending());
    drop(asking);
    let reopened = async {
        loop {
            match EmbeddedStore::open(dir.path()) {
                Ok(store) => return store,
                Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    let reopened = tokio::time::timeout(std::time::Duration::from_secs(20), reopened).await.unwrap();
    assert_eq!(contents(&reopened, Range::default()).await.len(), 1);
}

const CHILD_DIR: &str = "KUBE1_STORE_TEST_CHILD_DIR";

/// Not a test: what the next one starts and kills. Prints each write once it is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn child_writes_until_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = Arc::new(EmbeddedStore::open(Path::new(&dir)).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0_u64.. {
                // Long enough that the journal's files are used again and again.
                store.txn(Txn::new().put(format!("{writer}"), format!("{n:>40000}"))).await.unwrap();
                println!("ack {writer} {n}");
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_kill_loses_no_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = BTreeMap::new();
        let mut count = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let ["ack", writer, n] = words[..] else { continue };
            acknowledged.insert(writer.to_owned(), n.parse::<u64>().unwrap());
            count += 1;
            if count == 200 + round * 37 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() == 8 && count >= 200);
        let store = EmbeddedStore::open(dir.path()).unwrap();
        for (writer, n) in acknowledged {
            let kv = store.range(Range::key(writer.clone())).await.unwrap().items.remove(0);
            assert!(text(&kv.value).trim().parse::<u64>().unwrap() >= n, "writer {writer}");
        }
    }
}

/// Not a test: what the next one starts on a disk of its own that is nearly full.
#[tokio::test]
async fn child_fills_its_disk() {
    let Ok(dir) = std::env::var(SMALL_DISK) else { return };
    let store = EmbeddedStore::open(Path::new(&dir)).unwrap();
    store.txn(Txn::new().put("a", "1")).await.unwrap();
    assert_eq!(store.health(), Health { open: true, writes: true });
    let long = "x".repeat(16 << 20);
    assert!(matches!(store.txn(Txn::new().put("b", long)).await, Err(StoreError::Write { .. })));
    assert_eq!(store.health(), Health { open: true, writes: false });
    store.txn(Txn::new().put("c", "1")).await.unwrap();
    assert_eq!(store.health(), Health { open: true, writes: true });
    println!("told");
}

const SMALL_DISK: &str = "KUBE1_STORE_TEST_SMALL_DISK";

#[test]
fn a_full_disk_is_told_until_writes_succeed_again() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=14m none \"$1\" && exec \"$2\" --exact child_fills_its_disk --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK, dir.path().join("store"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.lines().any(|line| line.contains("told")), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
