use futures::{FutureExt, StreamExt};
use kube1_api::selector::{FieldSelector, LabelSelector};
use kube1_store::EmbeddedStore;
use serde_json::{Value, json};

use super::cipher::SecretKey;
use super::object::Draft;
use super::*;
use crate::options::{ListOptions, VersionMatch};

struct Fixture {
    _dir: Dir,
    storage: Storage,
    pods: Arc<Collection>,
}

struct Dir(std::path::PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scratch(name: &str) -> Dir {
    Dir(std::env::temp_dir().join(format!("kube1-storage-{}-{name}", std::process::id())))
}

async fn open(dir: &Dir) -> Storage {
    let store = Arc::new(EmbeddedStore::open(&dir.0).unwrap());
    let key = SecretKey::load_or_create(&dir.0.join("secrets.key")).unwrap();
    Storage::open(store, &ResourceTable::builtin(), Some(Arc::new(Encryption::open(Some(key), None).unwrap())))
        .await
        .unwrap()
}

fn row(plural: &str) -> Arc<Resource> {
    ResourceTable::builtin().get("", "v1", plural).unwrap()
}

async fn fixture(name: &str) -> Fixture {
    let dir = scratch(name);
    let storage = open(&dir).await;
    let pods = storage.collection(&row("pods"));
    Fixture { _dir: dir, storage, pods }
}

fn pod(namespace: &str, name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name, "uid": name,
        "labels": {"app": name}}, "spec": {"nodeName": node}})
}

fn selecting(labels: &str, fields: &str) -> ListOptions {
    let (labels, fields) = (LabelSelector::parse(labels).unwrap(), FieldSelector::parse(fields).unwrap());
    ListOptions { labels, fields, ..ListOptions::default() }
}

fn names(items: &[Arc<Object>]) -> Vec<String> {
    items.iter().map(|o| format!("{}/{}", o.namespace(), o.name())).collect()
}

/// What a watch tells without waiting, as `KIND name revision`.
fn told(stream: &mut WatchStream) -> Vec<(WatchKind, String, u64)> {
    let mut events = Vec::new();
    while let Some(Some(event)) = stream.next().now_or_never() {
        events.push((event.kind, event.object.name().to_owned(), event.object.revision()));
    }
    events
}

#[tokio::test]
async fn writes_are_seen_at_once_and_survive_a_restart() {
    let dir = scratch("restart");
    let storage = open(&dir).await;
    let pods = storage.collection(&row("pods"));
    let secrets = storage.collection(&row("secrets"));
    let made = pods.create(pod("a", "p", "n1")).await.unwrap();
    assert_eq!(made.value()["metadata"]["resourceVersion"], made.revision().to_string());
    assert!(matches!(pods.create(pod("a", "p", "n1")).await, Err(StorageError::AlreadyExists)));
    let updated = pods.update(pod("a", "p", "n2"), made.revision()).await.unwrap();
    assert_eq!(pods.get("a", "p").unwrap().revision(), updated.revision());
    match pods.update(pod("a", "p", "n3"), made.revision()).await {
        Err(StorageError::Conflict { current }) => assert_eq!(current, updated.revision()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(pods.update(pod("a", "q", ""), made.revision()).await, Err(StorageError::NotFound)));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "a", "name": "s"},
        "data": {"k": "aGlkZGVu"}});
    secrets.create(secret).await.unwrap();
    let stored = storage.store().range(Range::prefix("/registry/core/secrets/")).await.unwrap();
    assert!(!stored.items[0].value.windows(8).any(|w| w == b"aGlkZGVu"));
    let gone = pods.create(pod("a", "gone", "")).await.unwrap();
    let last = pods.delete("a", "gone", gone.revision()).await.unwrap();
    assert!(last.revision() > gone.revision() && pods.get("a", "gone").is_none());
    assert!(matches!(pods.delete("a", "gone", gone.revision()).await, Err(StorageError::NotFound)));
    let revision = storage.revision();
    drop((storage, pods, secrets));

    let storage = open(&dir).await;
    assert_eq!(storage.revision(), revision);
    let pods = storage.collection(&row("pods"));
    assert_eq!(pods.get("a", "p").unwrap().json(), updated.json());
    assert_eq!(storage.collection(&row("secrets")).get("a", "s").unwrap().value()["data"]["k"], "aGlkZGVu");
    let error = pods.watch(None, &ListOptions { resource_version: Some(2), ..ListOptions::default() }).await;
    assert_eq!(error.err().unwrap().reason(), "Expired");
}

#[tokio::test]
async fn lists_are_consistent_over_pages() {
    let f = fixture("pages").await;
    for name in ["a", "b", "c", "d", "e"] {
        f.pods.create(pod("x", name, "n1")).await.unwrap();
        f.pods.create(pod("y", name, if name == "c" { "n2" } else { "n1" })).await.unwrap();
    }
    let mut options = ListOptions { limit: 2, ..ListOptions::default() };
    let first = f.pods.list(Some("x"), &options).await.unwrap();
    assert_eq!((names(&first.items), first.remaining), (vec!["x/a".to_owned(), "x/b".to_owned()], Some(3)));
    let c = f.pods.get("x", "c").unwrap();
    f.pods.delete("x", "c", c.revision()).await.unwrap();
    let b = f.pods.get("x", "b").unwrap();
    f.pods.update(pod("x", "b", "n9"), b.revision()).await.unwrap();
    f.pods.create(pod("x", "cc", "n1")).await.unwrap();
    options.continue_token = first.continue_token.clone();
    let second = f.pods.list(Some("x"), &options).await.unwrap();
    assert_eq!((names(&second.items), second.revision), (vec!["x/c".to_owned(), "x/d".to_owned()], first.revision));
    options.continue_token = second.continue_token;
    let third = f.pods.list(Some("x"), &options).await.unwrap();
    assert_eq!((names(&third.items), third.continue_token.as_str()), (vec!["x/e".to_owned()], ""));

    let at = ListOptions {
        resource_version: Some(first.revision),
        version_match: VersionMatch::Exact,
        ..ListOptions::default()
    };
    let old = f.pods.list(Some("x"), &at).await.unwrap();
    assert_eq!(names(&old.items), ["x/a", "x/b", "x/c", "x/d", "x/e"]);
    assert_eq!(old.items[1].field("spec.nodeName"), "n1");
    assert_eq!(
        names(&f.pods.list(Some("x"), &ListOptions::default()).await.unwrap().items),
        ["x/a", "x/b", "x/cc", "x/d", "x/e"]
    );

    f.storage.hub.compact(f.storage.revision()).await;
    options.continue_token = first.continue_token;
    let expired = f.pods.list(Some("x"), &options).await.unwrap_err();
    options.continue_token = expired.to_json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = f.pods.list(Some("x"), &options).await.unwrap();
    assert_eq!((expired.reason(), names(&rest.items)), ("Expired", vec!["x/cc".to_owned(), "x/d".to_owned()]));
    assert_eq!(f.pods.list(None, &at).await.unwrap_err().reason(), "Expired");
}

#[tokio::test]
async fn selectors_narrow_lists() {
    let f = fixture("selectors").await;
    for (namespace, name, node) in [("x", "a", "n1"), ("x", "b", "n2"), ("y", "a", "n2")] {
        f.pods.create(pod(namespace, name, node)).await.unwrap();
    }
    for (namespace, labels, fields, expected) in [
        (None, "app=a", "", &["x/a", "y/a"][..]),
        (None, "", "spec.nodeName=n2", &["x/b", "y/a"]),
        (Some("y"), "", "spec.nodeName=n2", &["y/a"]),
        (Some("x"), "", "metadata.name=a", &["x/a"]),
        (None, "", "metadata.name=a", &["x/a", "y/a"]),
        (Some("x"), "", "metadata.name=a,spec.nodeName=n2", &[]),
        (None, "app!=a", "spec.nodeName!=n1", &["x/b"]),
    ] {
        let page = f.pods.list(namespace, &selecting(labels, fields)).await.unwrap();
        assert_eq!(names(&page.items), expected, "{labels} {fields}");
        let mut scan = f.pods.scan(namespace, &selecting(labels, fields)).await.unwrap();
        assert_eq!((names(&scanned(&mut scan)), scan.revision()), (names(&page.items), page.revision));
    }
}

/// The rest of a scan, one object at a time.
fn scanned(scan: &mut ListScan) -> Vec<Arc<Object>> {
    std::iter::from_fn(|| Some(scan.next_objects(1)).filter(|found| !found.is_empty())).flatten().collect()
}

#[tokio::test]
async fn a_scan_goes_on_with_the_state_that_it_began_with() {
    let f = fixture("scans").await;
    for name in ["a", "b", "c", "d"] {
        f.pods.create(pod("x", name, "")).await.unwrap();
        f.pods.create(pod("y", name, "")).await.unwrap();
    }
    let before = f.pods.list(Some("x"), &ListOptions::default()).await.unwrap();
    let mut scan = f.pods.scan(Some("x"), &ListOptions::default()).await.unwrap();
    let mut seen = scan.next_objects(before.items[0].json().len() + 1);
    assert_eq!(names(&seen), ["x/a", "x/b"]);
    for name in ["b", "c"] {
        f.pods.delete("x", name, f.pods.get("x", name).unwrap().revision()).await.unwrap();
    }
    f.pods.create(pod("x", "bb", "")).await.unwrap();
    seen.extend(scanned(&mut scan));
    let texts = |objects: &[Arc<Object>]| objects.iter().map(|o| o.line().clone()).collect::<Vec<_>>();
    assert_eq!((texts(&seen), scan.revision()), (texts(&before.items), before.revision));
}

#[tokio::test]
async fn watches_tell_the_past_the_present_and_what_leaves_the_selection() {
    use WatchKind::{Added, Bookmark, Deleted, Modified};
    let f = fixture("watch").await;
    let start = f.pods.create(pod("x", "a", "n1")).await.unwrap().revision();
    let mut on_n1 = f.pods.watch(None, &selecting("", "spec.nodeName=n1")).await.unwrap();
    let mut on_n2 =
        f.pods.watch(None, &ListOptions { bookmarks: true, ..selecting("", "spec.nodeName=n2") }).await.unwrap();
    assert_eq!(told(&mut on_n1), [(Added, "a".to_owned(), start)]);
    assert_eq!(told(&mut on_n2), [(Bookmark, String::new(), start)]);
    let moved = f.pods.update(pod("x", "a", "n2"), start).await.unwrap().revision();
    let again = f.pods.update(pod("x", "a", "n2"), moved).await.unwrap().revision();
    let gone = f.pods.delete("x", "a", again).await.unwrap().revision();
    let a = || "a".to_owned();
    assert_eq!(told(&mut on_n1), [(Deleted, a(), moved)]);
    assert_eq!(told(&mut on_n2), [(Added, a(), moved), (Modified, a(), again), (Deleted, a(), gone)]);

    let since = |revision| ListOptions { resource_version: Some(revision), ..ListOptions::default() };
    let mut past = f.pods.watch(Some("x"), &since(start)).await.unwrap();
    assert_eq!(told(&mut past), [(Modified, a(), moved), (Modified, a(), again), (Deleted, a(), gone)]);
    let mut elsewhere = f.pods.watch(Some("y"), &since(start)).await.unwrap();
    assert_eq!(told(&mut elsewhere), []);
    let mut named = f.pods.watch(Some("x"), &selecting("", "metadata.name=b")).await.unwrap();
    let b = f.pods.create(pod("x", "b", "")).await.unwrap().revision();
    f.pods.create(pod("x", "c", "")).await.unwrap();
    assert_eq!(told(&mut named), [(Added, "b".to_owned(), b)]);
    drop((on_n1, on_n2, past, elsewhere, named));
    assert!(f.pods.state.read().watchers.is_empty(), "watches that ended are forgotten");
}

#[tokio::test]
async fn watchers_share_encodings_and_slow_ones_are_ended() {
    let f = fixture("slow").await;
    let options = ListOptions { send_initial_events: Some(false), ..ListOptions::default() };
    let mut slow = f.pods.watch(None, &options).await.unwrap();
    let mut fast = f.pods.watch(None, &options).await.unwrap();
    let mut other = f.pods.watch(None, &options).await.unwrap();
    let mut revision = f.pods.create(pod("x", "a", "")).await.unwrap().revision();
    let encoded = |event: WatchEvent, text: &'static str| event.encoded(Encoding::Json, || text.into());
    assert_eq!(encoded(fast.next().await.unwrap(), "first"), "first");
    assert_eq!(encoded(other.next().await.unwrap(), "second"), "first");
    drop(other);
    // Published as the store would, without waiting for a disk each time.
    let draft = Draft::new(&f.pods.layout, pod("x", "a", "")).unwrap();
    for _ in 0..4200 {
        revision += 1;
        f.pods.apply(b"/registry/core/pods/x/a", Some(&draft), revision).unwrap();
        assert_eq!(fast.next().await.unwrap().object.revision(), revision);
    }
    let mut count = 0;
    while slow.next().await.is_some() {
        count += 1;
    }
    assert_eq!(count, 4096);
}

#[tokio::test]
async fn a_crowd_sees_every_change_in_order() {
    const CHANGES: u64 = 3000;
    let f = fixture("crowd").await;
    let cancel = CancellationToken::new();
    let (storage, stop) = (f.storage.clone(), cancel.clone());
    let running = tokio::spawn(async move { storage.run(stop).await });
    let before = f.pods.create(pod("x", "a", "")).await.unwrap().revision();
    let options = ListOptions { resource_version: Some(before), ..selecting("app=a", "") };
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let stream = f.pods.watch(None, &options).await.unwrap();
        let revisions = stream.map(|event| event.object.revision()).take(CHANGES as usize);
        readers.spawn(revisions.collect::<Vec<u64>>());
    }
    let draft = Draft::new(&f.pods.layout, pod("x", "a", "")).unwrap();
    let all: Vec<u64> = (before + 1..=before + CHANGES).collect();
    for revision in &all {
        f.pods.apply(b"/registry/core/pods/x/a", Some(&draft), *revision).unwrap();
        if revision % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let told = readers.join_all().await;
    assert!(told.iter().all(|revisions| *revisions == all));
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_and_the_watch_ends_in_time() {
    let f = fixture("bookmarks").await;
    let options = ListOptions { bookmarks: true, timeout_seconds: Some(100), ..ListOptions::default() };
    let stream = f.pods.watch(None, &options).await.unwrap();
    let began = tokio::time::Instant::now();
    let events: Vec<(u64, WatchKind)> = stream.map(|e| (began.elapsed().as_secs(), e.kind)).collect().await;
    assert_eq!(events, [(0, WatchKind::Bookmark), (60, WatchKind::Bookmark), (98, WatchKind::Bookmark)]);
    assert_eq!(began.elapsed().as_secs(), 100);
    let endless = ListOptions { timeout_seconds: Some(u64::MAX), ..ListOptions::default() };
    assert!(f.pods.watch(None, &endless).await.is_ok());
    let ahead = ListOptions { resource_version: Some(99), ..ListOptions::default() };
    let error = f.pods.list(None, &ahead).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (504, "Timeout: Too large resource version: 99, current: 1"));
}
