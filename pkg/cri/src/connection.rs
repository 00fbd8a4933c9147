//! The connection to the runtime's socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::{CriError, ErrorKind};

/// Lists of many containers are larger than gRPC's default of 4 MiB.
const MESSAGE_MAX: usize = 64 << 20;

/// A container runtime, reached through its CRI socket. Cloning shares the connection.
#[derive(Clone, Debug)]
pub struct Runtime {
    socket: PathBuf,
    pub(crate) channel: Channel,
    calls: Arc<Mutex<BTreeMap<&'static str, Calls>>>,
}

/// What calls of one operation amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    pub count: u64,
    pub failed: u64,
    /// Time they took in all.
    pub seconds: f64,
    /// How many took up to each of [`Calls::BOUNDS`], and longer than the one before.
    pub buckets: [u64; 14],
}

impl Calls {
    /// In seconds: from 5 ms on, each 2.5 times the one before.
    pub const BOUNDS: [f64; 14] = [
        0.005,
        0.0125,
        0.03125,
        0.078125,
        0.1953125,
        0.48828125,
        1.220703125,
        3.0517578125,
        7.62939453125,
        19.073486328125,
        47.6837158203125,
        119.20928955078125,
        298.0232238769531,
        745.0580596923828,
    ];

    fn add(&mut self, failed: bool, seconds: f64) {
        self.count += 1;
        self.failed += u64::from(failed);
        self.seconds += seconds;
        if let Some(at) = Self::BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[at] += 1;
        }
    }
}

impl Runtime {
    /// A client of the socket at `path`. Connects at the first call, and again whenever the connection was lost.
    pub fn new(path: &Path) -> Self {
        Self { socket: path.to_owned(), channel: kube1_grpc::unix_channel(path), calls: Arc::default() }
    }

    /// Where the runtime listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }

    /// How often each operation was asked for and failed, and the seconds it took in all, by its name in the CRI.
    pub fn calls(&self) -> Vec<(&'static str, Calls)> {
        self.calls.lock().iter().map(|(name, calls)| (*name, *calls)).collect()
    }

    /// Runs a call under a time limit and gives its failure a type.
    pub(crate) async fn limited<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CriError> {
        let started = Instant::now();
        let span =
            kube1_trace::begin(operation, || vec![("rpc.system", "grpc".into()), ("rpc.method", operation.into())]);
        let result = match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CriError::status(operation, &status)),
            Err(_) => Err(CriError::timeout(operation, limit.as_secs())),
        };
        if let (Err(_), Some(span)) = (&result, &span) {
            span.fail();
        }
        drop(span);
        let took = started.elapsed();
        tracing::trace!(operation, ?took, "the runtime was called");
        self.calls.lock().entry(operation).or_default().add(result.is_err(), took.as_secs_f64());
        result
    }

    pub(crate) fn image(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX)
    }
}

/// An error for an answer that lacks what it must have.
pub(crate) fn incomplete(operation: &'static str) -> CriError {
    CriError::new(operation, ErrorKind::Failed, format!("the container runtime's answer to {operation} is incomplete"))
}
