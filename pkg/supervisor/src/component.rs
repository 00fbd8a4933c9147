//! What the supervisor runs.

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A component's failure; the supervisor logs its source chain, shows it in `kube1 status` and restarts the component.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A supervised part of a node: apiserver, scheduler, kubelet ...
#[async_trait]
pub trait Component: Send + Sync + 'static {
    /// Upstream's name of the component where there is one, such as `kube-scheduler`.
    fn name(&self) -> &str;

    /// Runs until `ctx.shutdown` is cancelled, then stops what it started and returns `Ok`.
    ///
    /// Called again after a failure, so it must start from the state it finds. Returning `Ok` before shutdown,
    /// returning an error and panicking all lead to a restart with back-off.
    async fn run(&self, ctx: Context) -> Result<(), BoxError>;
}

/// One run of a component, as seen by the component.
#[derive(Clone, Debug)]
pub struct Context {
    /// Cancelled when the component must stop.
    pub shutdown: CancellationToken,
    ready: watch::Sender<bool>,
}

impl Context {
    /// A context and the receiver that learns of [`Context::ready`].
    pub fn new(shutdown: CancellationToken) -> (Self, watch::Receiver<bool>) {
        let (ready, receiver) = watch::channel(false);
        (Self { shutdown, ready }, receiver)
    }

    /// Says that the component does its job from now on.
    pub fn ready(&self) {
        self.ready.send_replace(true);
    }
}
