//! The phases, one after the other, each in turns on all servers.

use crate::connection::Accept;
use crate::report::{self, Figure};
use crate::{Options, Target, memory, objects};

/// Figures are named after their phase.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Stores the pods, and tells what one of them takes of memory.
    Fill,
    /// One client that lists everything, again and again.
    ListLatency(Accept),
    List(usize, Accept),
    /// Memory after all lists.
    Memory,
    Get(usize, Accept),
    Create(usize),
    WatchLatency,
    FanOut,
}

const PHASES: [(&str, Phase); 15] = [
    ("fill", Phase::Fill),
    ("list", Phase::ListLatency(Accept::Json)),
    ("list_4", Phase::List(4, Accept::Json)),
    ("list_16", Phase::List(16, Accept::Json)),
    ("list_protobuf", Phase::ListLatency(Accept::Protobuf)),
    ("list_protobuf_4", Phase::List(4, Accept::Protobuf)),
    ("after_lists", Phase::Memory),
    ("get_1", Phase::Get(1, Accept::Json)),
    ("get_64", Phase::Get(64, Accept::Json)),
    ("get_protobuf_64", Phase::Get(64, Accept::Protobuf)),
    ("create_1", Phase::Create(1)),
    ("create_32", Phase::Create(32)),
    ("create_to_watch_event", Phase::WatchLatency),
    ("fan_out", Phase::FanOut),
    ("end", Phase::Memory),
];

/// Measures everything, then deletes what it made.
pub async fn run(targets: &[Target], options: &Options) -> anyhow::Result<()> {
    for target in targets {
        target.prepare().await?;
    }
    let measured = measure(targets, options).await;
    for target in targets {
        let path = format!("/api/v1/namespaces/{}", target.namespace);
        let request = target.server.request("DELETE", &path, Accept::Json, "");
        target.server.connect().await?.call(&request).await?;
    }
    measured
}

async fn measure(targets: &[Target], options: &Options) -> anyhow::Result<()> {
    println!("pods: {}\nwatchers: {}", options.pods, options.watchers);
    for (name, phase) in PHASES {
        let needed = matches!(phase, Phase::Fill) || options.only.is_empty();
        if !needed && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let rounds = if matches!(phase, Phase::Fill | Phase::Memory) { 1 } else { options.rounds };
        let mut figures = vec![Vec::new(); targets.len()];
        for round in 0..rounds {
            for (target, figures) in targets.iter().zip(&mut figures) {
                let name_of_round = format!("{name}-{round}").replace('_', "-");
                figures.push(phase.run(name, &name_of_round, target, options).await?);
            }
        }
        report::print(&figures);
    }
    Ok(())
}

impl Phase {
    /// `unique` is a part of names that no other round uses.
    async fn run(self, name: &str, unique: &str, target: &Target, options: &Options) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Fill => target.fill(options.pods).await,
            Self::ListLatency(accept) => target.list_latency(name, accept, options.duration).await,
            Self::List(clients, accept) => target.list(name, clients, accept, options.duration).await,
            Self::Memory => {
                let memory = memory::read(&target.pids);
                Ok(memory.map(|mb| report::less(format!("memory_{name}_mb"), mb)).into_iter().collect())
            }
            Self::Get(connections, accept) => target.get(name, connections, accept, options.duration).await,
            Self::Create(writers) => target.create(name, unique, writers, options.duration).await,
            Self::WatchLatency => target.watch_latency(name, unique).await,
            Self::FanOut => target.fan_out(name, unique, options.watchers).await,
        }
    }
}

impl Target {
    pub fn path(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.namespace)
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        let mut connection = self.server.connect().await?;
        let namespace = objects::namespace(&self.namespace);
        connection.call(&self.server.post("/api/v1/namespaces", &namespace)).await?;
        // A conflict says that a controller was faster.
        let account = self.server.post(&self.path("serviceaccounts"), objects::SERVICE_ACCOUNT);
        let _ = connection.call(&account).await;
        Ok(())
    }
}
