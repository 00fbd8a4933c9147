//! The garbage collector: deletes what lost its owners, orphans what was asked to stay, and holds owners in foreground
//! deletion until their dependents are gone. For every kind that the server has.

mod graph;
mod monitor;
mod sweep;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube1_client::{Outcome, WorkQueue};
use kube1_supervisor::BoxError;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::controller::{Controller, SyncResult};
use crate::discovery::Kinds;
use graph::{Graph, Work};
use monitor::Monitors;
use sweep::Sweeper;

const WORKERS: usize = 20;
/// Most UIDs of gone objects that are remembered.
const ABSENT_MAX: usize = 1000;
/// After a definition changed, its kind is served within this time.
const SETTLE: Duration = Duration::from_millis(300);
/// Kinds that cannot be listed must not keep all others from being collected.
const SYNC_MAX: Duration = Duration::from_secs(30);

/// What monitors and workers share.
struct Shared {
    graph: Mutex<Graph>,
    kinds: RwLock<Arc<Kinds>>,
    queue: WorkQueue<Work>,
    /// UIDs of objects that are known to be gone.
    absent: Mutex<HashSet<String>>,
    /// Told when kinds may have come or gone.
    kinds_changed: Notify,
}

impl Shared {
    fn is_absent(&self, uid: &str) -> bool {
        self.absent.lock().contains(uid)
    }

    fn remember_absent(&self, uid: &str) {
        let mut absent = self.absent.lock();
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(uid.to_owned());
    }

    fn add(&self, work: Vec<Work>) {
        work.into_iter().for_each(|item| self.queue.add(item));
    }
}

/// Runs the garbage collector.
pub async fn run(controller: Controller) -> Result<(), BoxError> {
    let shared = Arc::new(Shared {
        graph: Mutex::default(),
        kinds: RwLock::default(),
        queue: WorkQueue::new(),
        absent: Mutex::default(),
        kinds_changed: Notify::new(),
    });
    let mut monitors = Monitors::new(controller.client.clone(), Arc::clone(&shared));
    let sweeper = Arc::new(Sweeper::new(controller.client.clone(), Arc::clone(&shared)));
    discover(&controller, &shared, &mut monitors).await;
    let _ = tokio::time::timeout(SYNC_MAX, controller.stop.run_until_cancelled(monitors.synced())).await;
    let sync = |work: Work| {
        let sweeper = Arc::clone(&sweeper);
        async move {
            match work {
                Work::Examine(uid) => sweeper.examine(&uid).await?,
                Work::Orphan(uid) => sweeper.orphan(&uid).await?,
            }
            SyncResult::Ok(Outcome::Done)
        }
    };
    let follow = async {
        loop {
            shared.kinds_changed.notified().await;
            tokio::time::sleep(SETTLE).await;
            discover(&controller, &shared, &mut monitors).await;
        }
    };
    tokio::select! {
        () = controller.work(&shared.queue, WORKERS, sync) => {}
        () = follow => {}
    }
    Ok(())
}

/// Learns the kinds and watches each. Tries until it succeeds or the controller is stopped.
async fn discover(controller: &Controller, shared: &Shared, monitors: &mut Monitors) {
    let mut delay = Duration::from_millis(100);
    while !controller.stop.is_cancelled() {
        match Kinds::discover(&controller.client).await {
            Ok(kinds) => {
                monitors.follow(&kinds);
                *shared.kinds.write() = Arc::new(kinds);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot discover the kinds to collect garbage of, will retry");
                controller.stop.run_until_cancelled(tokio::time::sleep(delay)).await;
                delay = (delay * 2).min(Duration::from_secs(30));
            }
        }
    }
}
