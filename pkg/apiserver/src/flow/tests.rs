use serde_json::json;

use super::*;
use crate::metrics::Registrar;
use crate::query::Query;

const PATIENCE: Duration = Duration::from_secs(15);

fn control(response: &Value) -> FlowControl {
    let control = FlowControl::new(600, FlowMetrics::new(&mut Registrar::default()));
    // One seat: 1 share of 600 levels' worth.
    let level = json!({"metadata": {"name": "small", "uid": "l"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "limitResponse": response}}});
    let big =
        json!({"metadata": {"name": "big"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 599}}});
    let schema = json!({"metadata": {"name": "s", "uid": "s"}, "spec": {"matchingPrecedence": 1,
        "priorityLevelConfiguration": {"name": "small"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    control.load(&[schema], &[level, big]);
    control
}

fn queue(queues: u64, length: u64) -> Value {
    json!({"type": "Queue", "queuing": {"queues": queues, "handSize": 1, "queueLengthLimit": length}})
}

async fn admit(control: &FlowControl, user: &str, work: Work) -> Option<Seat> {
    let user = UserInfo::authenticated(user, if user == "root" { &[MASTERS] } else { &[] });
    let info = RequestInfo { verb: "get".into(), path: "/x".into(), ..RequestInfo::default() };
    control.admit(&user, &info, PATIENCE, |_| work).await.1
}

#[tokio::test(start_paused = true)]
async fn a_full_level_rejects_or_queues() {
    let reject = control(&json!({"type": "Reject"}));
    let seat = admit(&reject, "a", Work::ONE).await.unwrap();
    assert!(admit(&reject, "a", Work::ONE).await.is_none());
    assert!(admit(&reject, "root", Work::ONE).await.is_some(), "masters are exempt");
    drop(seat);
    assert!(admit(&reject, "a", Work::ONE).await.is_some());

    let queue = control(&queue(2, 1));
    let seat = admit(&queue, "a", Work::ONE).await.unwrap();
    let mut waiting = Box::pin(admit(&queue, "a", Work::ONE));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(admit(&queue, "a", Work::ONE).await.is_none(), "the flow's queue is full");
    let shown = queue.dump("dump_requests", &Query::parse("includeRequestDetails=1")).unwrap();
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split(',').map(str::trim).collect();
    assert_eq!((row[0], row[1], row[4], row[10], row[12]), ("small", "s", "a", "a", "/x"));
    drop(seat);
    let second = waiting.await.unwrap();
    let mut late = Box::pin(admit(&queue, "a", Work::ONE));
    assert!(futures::poll!(&mut late).is_pending());
    assert!(late.await.is_none(), "nobody waits for ever");
    drop(second);
    assert!(admit(&queue, "a", Work::ONE).await.is_some());
    let shown = queue.dump("dump_priority_levels", &Query::default()).unwrap();
    let row = shown.lines().find(|l| l.starts_with("small")).unwrap().replace(' ', "");
    assert_eq!(row, "small,0,true,false,0,0,3,1,1,0");
}

#[tokio::test]
async fn a_waiter_that_gave_up_loses_no_seat() {
    let queue = control(&queue(1, 5));
    let seat = admit(&queue, "a", Work::ONE).await.unwrap();
    let mut gone = Box::pin(admit(&queue, "a", Work::ONE));
    assert!(futures::poll!(&mut gone).is_pending());
    drop(gone);
    drop(seat);
    assert!(admit(&queue, "a", Work::ONE).await.is_some());
}

/// A level may have ten million queues.
#[tokio::test]
async fn only_queues_in_use_take_memory() {
    let queue = control(&queue(10_000_000, 50));
    for user in 0..1000 {
        drop(admit(&queue, &format!("user-{user}"), Work::ONE).await.unwrap());
    }
    let rows = queue.dump("dump_queues", &Query::default()).unwrap().lines().count();
    assert!(rows < 200, "{rows} queues are kept");
}

#[tokio::test(start_paused = true)]
async fn a_busy_flow_does_not_starve_another() {
    let queue = control(&queue(64, 50));
    let seat = admit(&queue, "busy", Work::ONE).await.unwrap();
    let mut busy: Vec<_> = (0..10).map(|_| Box::pin(admit(&queue, "busy", Work::ONE))).collect();
    for waiting in &mut busy {
        assert!(futures::poll!(waiting).is_pending());
    }
    let mut other = Box::pin(admit(&queue, "other", Work::ONE));
    assert!(futures::poll!(&mut other).is_pending());
    let mut seat = Some(seat);
    let mut before = 0;
    loop {
        // Each request takes its time.
        tokio::time::advance(Duration::from_millis(20)).await;
        drop(seat.take());
        if futures::poll!(&mut other).is_ready() {
            break;
        }
        let std::task::Poll::Ready(next) = futures::poll!(&mut busy[before]) else { panic!("somebody is served") };
        (seat, before) = (next, before + 1);
    }
    assert!(before <= 1, "{before} of the busy flow came first");
}

#[tokio::test(start_paused = true)]
async fn seats_are_held_while_watchers_are_told() {
    let level = Arc::new(control(&json!({"type": "Reject"})));
    let stop = CancellationToken::new();
    let (run, cancel) = (level.clone(), stop.clone());
    let running = tokio::spawn(async move { run.run(cancel).await });
    let work = Work { initial_seats: 1, final_seats: 1, additional_latency: Duration::from_millis(50) };
    drop(admit(&level, "a", work).await.unwrap());
    let began = tokio::time::Instant::now();
    while admit(&level, "a", Work::ONE).await.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let held = began.elapsed();
    assert!((50..60).contains(&held.as_millis()), "{held:?}");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_wide_request_runs_alone_and_is_not_overtaken() {
    let queue = control(&queue(8, 50));
    let seat = admit(&queue, "a", Work::ONE).await.unwrap();
    let wide = Work { initial_seats: 3, ..Work::ONE };
    let mut waiting = Box::pin(admit(&queue, "wide", wide));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(seat);
    assert!(waiting.await.is_some());
}
