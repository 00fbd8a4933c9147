//! The apiserver as a supervised component.

use std::net::SocketAddr;

use async_trait::async_trait;
use kube1_apiserver::server::ApiServer;
use kube1_supervisor::{BoxError, Component, Context};
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// Serves the API over HTTPS. The first run uses the socket that was bound at start; later ones bind it again.
pub struct Frontend {
    api: ApiServer,
    address: std::io::Result<SocketAddr>,
    bound: Mutex<Option<TcpListener>>,
}

impl Frontend {
    pub fn new(api: ApiServer, listener: TcpListener) -> Self {
        Self { api, address: listener.local_addr(), bound: Mutex::new(Some(listener)) }
    }

    async fn listener(&self) -> Result<TcpListener, BoxError> {
        if let Some(listener) = self.bound.lock().take() {
            return Ok(listener);
        }
        let address = self.address.as_ref().map_err(|error| error.to_string())?;
        Ok(TcpListener::bind(address).await?)
    }
}

#[async_trait]
impl Component for Frontend {
    fn name(&self) -> &str {
        "kube-apiserver"
    }

    async fn run(&self, ctx: Context) -> Result<(), BoxError> {
        let listener = self.listener().await?;
        ctx.ready();
        Ok(self.api.serve(listener, ctx.shutdown.clone()).await?)
    }
}
