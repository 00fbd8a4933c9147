#![allow(clippy::unwrap_used)]

use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_added_while_running_runs_once_more() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("a");
    let key = queue.get().await;
    queue.add("a");
    queue.add("a");
    assert!(queue.is_empty());
    queue.done(&key);
    assert_eq!(queue.len(), 1);
    let key = queue.get().await;
    queue.done(&key);
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_shown_in_the_metrics() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.metered("shown");
    queue.add("b");
    let key = queue.get().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    let shown = |name: &str| {
        let text = kube1_telemetry::metrics::render_shared().unwrap();
        let start = format!("workqueue_{name}{{name=\"shown\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&start)?.parse::<f64>().ok())
    };
    assert_eq!((shown("depth"), shown("adds_total")), (Some(1.0), Some(2.0)));
    assert_eq!((shown("longest_running_processor_seconds"), shown("unfinished_work_seconds")), (Some(3.0), Some(3.0)));
    queue.add_rate_limited("a");
    queue.done(&key);
    assert_eq!((shown("retries_total"), shown("work_duration_seconds_count")), (Some(1.0), Some(1.0)));
    assert_eq!((shown("unfinished_work_seconds"), shown("queue_duration_seconds_count")), (Some(0.0), Some(1.0)));
}

#[tokio::test(start_paused = true)]
async fn the_earliest_delay_counts_and_keys_come_when_due() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("late", Duration::from_secs(9));
    queue.add_after("soon", Duration::from_secs(5));
    queue.add_after("soon", Duration::from_secs(2));
    queue.add_after("soon", Duration::from_secs(7));
    assert_eq!(queue.get().await, "soon");
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(queue.get().await, "late");
    assert_eq!(start.elapsed().as_secs(), 9);
    queue.add_after("never", Duration::MAX);
    queue.add_after("a year on", Duration::from_secs(300 * 86_400));
    assert_eq!(queue.get().await, "a year on");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_until_success() {
    let queue = WorkQueue::new();
    queue.add(1);
    let shutdown = CancellationToken::new();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let (seen, stop, start) = (Arc::clone(&runs), shutdown.clone(), Instant::now());
    reconcile_all("test", &queue, 2, &shutdown, move |_key| {
        let (seen, stop) = (Arc::clone(&seen), stop.clone());
        async move {
            let mut seen = seen.lock();
            seen.push(start.elapsed());
            if seen.len() < 4 {
                return Err(std::io::Error::other("no"));
            }
            stop.cancel();
            Ok(Outcome::Done)
        }
    })
    .await;
    let times = runs.lock().clone();
    assert_eq!(times.len(), 4);
    assert!(times[3] - times[2] > times[2] - times[1]);
    assert_eq!(queue.failures(&1), 0);
}
