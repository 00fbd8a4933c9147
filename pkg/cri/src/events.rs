//! Container events at the moment they happen.

use std::pin::Pin;

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::types::Envelope;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_cri::v1::{ContainerEventResponse, ContainerEventType, GetEventsRequest};
use prost::Message;

use crate::{CriError, ErrorKind, Runtime};

/// Something that happened to a container or a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// Its main process ended. The runtime's own records follow a moment later.
    Exited { container_id: String },
    /// The kernel killed a process in it for want of memory.
    OutOfMemory { container_id: String },
}

/// Events as they come; ends with an error when the connection is lost.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<ContainerEvent, CriError>> + Send>>;

impl Runtime {
    /// Subscribes to events: containerd's own, or CRI's where the runtime is not containerd.
    ///
    /// The request goes out when the stream is first polled. Events of the time before are lost, so list once after
    /// that. An error with `Unimplemented` says that the runtime has no events at all.
    pub fn events(&self) -> EventStream {
        let cri = self.clone();
        let first = self.containerd_events().boxed();
        let events = stream::unfold(Some((first, true)), move |state| {
            let cri = cri.clone();
            async move {
                let (mut events, fresh) = state?;
                match events.next().await? {
                    Err(error) if fresh && error.kind == ErrorKind::Unimplemented => {
                        let mut events = cri.cri_events().boxed();
                        Some((events.next().await?, Some((events, false))))
                    }
                    item => Some((item, Some((events, false)))),
                }
            }
        });
        Box::pin(events)
    }

    fn containerd_events(&self) -> impl Stream<Item = Result<ContainerEvent, CriError>> + Send + use<> {
        let topics = ["/tasks/exit", "/tasks/oom"];
        let filters = topics.iter().map(|topic| format!("namespace==\"k8s.io\",topic==\"{topic}\"")).collect();
        let mut client = EventsClient::new(self.channel.clone());
        // A server in Go sends its headers with the first event, so the call itself is part of the stream.
        let call = async move { client.subscribe(SubscribeRequest { filters }).await.map(tonic::Response::into_inner) };
        stream::once(call).try_flatten().filter_map(async |envelope: Result<Envelope, _>| match envelope {
            Ok(envelope) => decode(&envelope).map(Ok),
            Err(status) => Some(Err(CriError::status("Subscribe", &status))),
        })
    }

    fn cri_events(&self) -> impl Stream<Item = Result<ContainerEvent, CriError>> + Send + use<> {
        let mut client = self.runtime();
        let call =
            async move { client.get_container_events(GetEventsRequest {}).await.map(tonic::Response::into_inner) };
        stream::once(call).try_flatten().filter_map(async |event: Result<ContainerEventResponse, _>| match event {
            Ok(event) if event.container_event_type() == ContainerEventType::ContainerStoppedEvent => {
                Some(Ok(ContainerEvent::Exited { container_id: event.container_id }))
            }
            Ok(_) => None,
            Err(status) => Some(Err(CriError::status("GetContainerEvents", &status))),
        })
    }
}

fn decode(envelope: &Envelope) -> Option<ContainerEvent> {
    let bytes = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit = TaskExit::decode(bytes).ok()?;
            // An exec's process has its own id; only the container's first process ends the container.
            (exit.id == exit.container_id).then_some(ContainerEvent::Exited { container_id: exit.container_id })
        }
        "/tasks/oom" => Some(ContainerEvent::OutOfMemory { container_id: TaskOom::decode(bytes).ok()?.container_id }),
        _ => None,
    }
}
