#![allow(clippy::unwrap_used)]

use tokio_util::sync::CancellationToken;

use super::*;
use crate::storage::object::{Layout, Object};
use crate::storage::watch::WatchKind;

fn event(revision: u64) -> WatchEvent {
    let layout = Arc::new(Layout::new("v1", "Pod", &[]));
    WatchEvent::shared(WatchKind::Added, Arc::new(Object::free(&layout, b"{}", revision)))
}

/// The revisions of the next round; why there is none.
fn read(reader: &Reader) -> Result<Vec<u64>, &'static str> {
    match reader.read(&Context::from_waker(Waker::noop())) {
        Next::Round(round) => Ok(round.events().iter().map(|e| e.object.revision()).collect()),
        Next::Wait { complete: true } => Err("nothing"),
        Next::Wait { complete: false } => Err("later"),
        Next::Ended => Err("end"),
    }
}

async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_told_of_the_first_event_at_once_and_of_later_ones_together() {
    let (feed, pacer, cancel) = (Arc::new(Feed::default()), Arc::new(Pacer::default()), CancellationToken::new());
    let running = tokio::spawn({
        let (pacer, cancel) = (pacer.clone(), cancel.clone());
        async move { pacer.run(&cancel).await }
    });
    settle().await;
    let crowd: Vec<Reader> = (0..1000).map(|_| feed.join()).collect();
    let began = Instant::now();
    feed.push(event(1), &pacer);
    settle().await;
    assert!(crowd.iter().all(|reader| read(reader) == Ok(vec![1])));
    assert_eq!(began.elapsed(), Duration::ZERO);
    feed.push(event(2), &pacer);
    let late = feed.join();
    feed.push(event(3), &pacer);
    feed.push(event(4), &pacer);
    settle().await;
    assert!(crowd.iter().chain([&late]).all(|reader| read(reader) == Err("later")), "nothing is told in between");
    tokio::time::sleep(Duration::from_millis(9)).await;
    assert_eq!(read(&late), Err("later"));
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(read(&late), Ok(vec![3, 4]), "who came between is told of what came after");
    assert!(
        crowd
            .iter()
            .all(|reader| (read(reader), read(reader), read(reader)) == (Ok(vec![2]), Ok(vec![3, 4]), Err("nothing")))
    );
    assert!(feed.inner.lock().rounds.is_empty(), "what everybody read is forgotten");
    feed.push(event(5), &pacer);
    crowd[0].hurry();
    assert_eq!(read(&crowd[0]), Ok(vec![5]));
    feed.push(event(6), &pacer);
    cancel.cancel();
    running.await.unwrap();
    assert_eq!((read(&late), read(&late)), (Ok(vec![5]), Ok(vec![6])), "nothing is kept back at the end");
    feed.push(event(7), &pacer);
    assert_eq!(read(&late), Ok(vec![7]));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_has_time_to_read_and_more_when_much_happens() {
    let (feed, pacer, cancel) = (Arc::new(Feed::default()), Pacer::default(), CancellationToken::new());
    // It takes what is to be told, and is never asked again.
    let mut running = Box::pin(pacer.run(&cancel));
    assert!(running.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let crowd: Vec<Reader> = (0..800).map(|_| feed.join()).collect();
    // The events of a round, after how many milliseconds so many have read it, and when the next one may begin.
    for (events, reads, due) in [
        (1, vec![(0, 800)], 8),
        (4, vec![(1, 800)], 8),
        (4, vec![(0, 699), (4, 1), (9, 100)], 16),
        (1, vec![(0, 400), (5, 400)], 8),
        (1, vec![(0, 400), (12, 400)], 12),
        (2, vec![(0, 400), (5, 400)], 10),
        (9, vec![(5, 800)], 20),
        (9, vec![(0, 400), (30, 400)], 50),
        (9, vec![(0, 400)], 50),
    ] {
        (0..events).for_each(|revision| feed.push(event(revision), &pacer));
        feed.tell();
        let began = Instant::now();
        let after = |milliseconds| began + Duration::from_millis(milliseconds);
        let (mut left, mut known) = (crowd.iter(), began);
        for (time, readers) in reads {
            tokio::time::advance(after(time) - Instant::now()).await;
            assert!(feed.due(Instant::now()) >= known, "what is known of it holds");
            known = feed.due(Instant::now());
            for reader in left.by_ref().take(readers) {
                assert_eq!(read(reader), Ok((0..events).collect()));
            }
        }
        tokio::time::advance(after(60) - Instant::now()).await;
        assert_eq!(feed.due(Instant::now()), after(due));
        left.for_each(|reader| assert!(read(reader).is_ok()));
    }
}

#[test]
fn who_falls_behind_or_leaves_keeps_nothing_from_the_others() {
    let (feed, pacer) = (Arc::new(Feed::default()), Pacer::default());
    let (fast, slow, gone) = (feed.join(), feed.join(), feed.join());
    for revision in 0..QUEUE + 10 {
        feed.push(event(revision), &pacer);
        assert_eq!(read(&fast), Ok(vec![revision]));
    }
    assert!(feed.inner.lock().rounds.len() <= 10);
    drop(gone);
    for revision in 0..QUEUE {
        assert_eq!(read(&slow), Ok(vec![revision]));
    }
    assert_eq!((read(&slow), read(&fast)), (Err("end"), Err("nothing")));
    drop((slow, fast));
    assert!(feed.is_empty() && feed.inner.lock().rounds.is_empty());
}
