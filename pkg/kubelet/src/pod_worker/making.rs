//! What is being made holds off the end of a pod.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;

use super::wants_end;
use crate::node::PodUpdate;

/// A sandbox in the making holds the pod's end off for this long: a network plugin may wait for what does not come.
const SANDBOX_MAX: Duration = Duration::from_secs(10);

/// Returns when the pod is to end and nothing is being made that a cut call would leave half done: a container of
/// which the runtime says that its start failed would look as if it had failed by itself, and of a
/// sandbox a process may stay for good (containerd 1.6 forgets the shim of a call that was cut).
pub(super) async fn interruption(
    mut updates: watch::Receiver<PodUpdate>,
    ended: bool,
    mut making: watch::Receiver<bool>,
) {
    let to_end = updates.wait_for(|update| wants_end(update, ended)).await.is_ok();
    if !to_end || making.wait_for(|making| !making).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Holds interruptions off for as long as it lives.
pub(super) struct Making(watch::Sender<bool>);

impl Making {
    pub(super) fn new(flag: &watch::Sender<bool>) -> Self {
        flag.send_replace(true);
        Self(flag.clone())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Makes a sandbox, uninterrupted for a while.
pub(super) async fn make_sandbox<T>(flag: &watch::Sender<bool>, make: impl Future<Output = T>) -> T {
    let mut make = pin!(make);
    let making = Making::new(flag);
    if let Ok(made) = tokio::time::timeout(SANDBOX_MAX, &mut make).await {
        return made;
    }
    drop(making);
    make.await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_container_in_the_making_is_not_interrupted() {
        let update = PodUpdate { pod: Arc::default(), mirror: None, removed: false, evicted: None };
        let (updates, making) = (watch::Sender::new(update), watch::Sender::new(false));
        let interruption = interruption(updates.subscribe(), false, making.subscribe());
        tokio::pin!(interruption);
        assert!(interruption.as_mut().now_or_never().is_none());
        let guard = Making::new(&making);
        updates.send_modify(|update| update.removed = true);
        assert!(interruption.as_mut().now_or_never().is_none());
        drop(guard);
        assert!(interruption.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_in_the_making_is_not_interrupted_for_a_while() {
        let making = watch::Sender::new(false);
        let mut seen = making.subscribe();
        let (done, wait) = tokio::sync::oneshot::channel::<u8>();
        let mut make = pin!(make_sandbox(&making, wait));
        assert!(make.as_mut().now_or_never().is_none());
        assert!(*seen.borrow_and_update(), "held off");
        assert!(tokio::time::timeout(SANDBOX_MAX * 2, make.as_mut()).await.is_err());
        assert!(!*seen.borrow_and_update(), "but not for ever");
        assert!(done.send(7).is_ok());
        assert_eq!(make.await, Ok(7));
        assert_eq!(make_sandbox(&making, std::future::ready(1)).await, 1);
        assert!(!*seen.borrow_and_update());
    }
}
