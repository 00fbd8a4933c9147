//! The kube1 binary: command line, configuration, and assembly of a node's roles.
//!
//! Called under the name of a CNI plugin it is that plugin: containerd starts it so for every pod.

mod addons;
mod agent;
mod api_coverage;
mod certificates;
mod check;
mod cli;
mod config_file;
mod containerd;
mod frontend;
mod images;
mod kubeconfig;
mod layout;
mod mounts;
mod node;
mod node_identity;
mod process_guard;
mod reset;
mod server;
mod snapshot;
mod status;
mod token;
mod version;
mod worker;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use cli::{Cli, Command};
use config_file::ConfigError;

/// Names under which containerd starts this binary for every pod.
const CNI_NAMES: [&str; 2] = [kube1_network::cni::PLUGIN, kube1_network::cni::LOOPBACK];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called = args.first().map(Path::new).and_then(Path::file_name);
    if called.is_some_and(|name| CNI_NAMES.iter().any(|cni| name == *cni)) {
        return kube1_network::cni::main();
    }
    let cli = match config_file::parse(&args) {
        Ok(cli) => cli,
        Err(ConfigError::CommandLine(error)) => error.exit(),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    version::build().tell();
    kube1_telemetry::start_logging(cli.global.log_format.into(), cli.global.verbose);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", kube1_telemetry::plain(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Version => {
            println!("kube1 {}", version::LONG);
            Ok(())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kube1", &mut script);
            // A closed pipe is the reader's choice, not an error.
            let _ = std::io::stdout().write_all(&script);
            Ok(())
        }
        Command::Server(args) => {
            if !args.disable_agent {
                mounts::follow_containerd(&cli.global, &args.node);
            }
            node_runtime()?.block_on(server::run(&cli.global, &args))
        }
        Command::Agent(args) => {
            mounts::follow_containerd(&cli.global, &args.node);
            node_runtime()?.block_on(agent::run(&cli.global, &args))
        }
        Command::Token(command) => client_runtime()?.block_on(token::run(&cli.global, &command)),
        Command::Images(command) => client_runtime()?.block_on(images::run(&cli.global, &command)),
        Command::Snapshot(command) => client_runtime()?.block_on(snapshot::run(&cli.global, &command)),
        Command::Reset(args) => client_runtime()?.block_on(reset::run(&cli.global, &args)),
        Command::ApiCoverage(args) => client_runtime()?.block_on(api_coverage::run(&args)),
        Command::Kubeconfig(args) => kubeconfig::run(&cli.global, &args),
        Command::Check(args) => check::run(&cli.global, &args),
        Command::Status(args) => client_runtime()?.block_on(status::run(&cli.global, &args)),
    }
}

/// The runtime of a node: few threads, as most work waits for others.
fn node_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    kube1_supervisor::share_heaps();
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// A small runtime for commands that ask and print.
fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
