//! The configuration file: each key is a flag's name. A flag on the command line wins over the environment, which wins
//! over the file, which wins over the default.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use serde_json::Value;

use crate::cli::{self, Cli};

/// Largest configuration file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Why the command line or the configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    #[error("cannot read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {path} is not valid: {message}")]
    Invalid { path: PathBuf, message: String },
}

/// Parses the arguments with the configuration file's values as defaults.
///
/// A missing file is an error only when `--config` or the environment names it.
pub fn parse(args: &[OsString]) -> Result<Cli, ConfigError> {
    let plain = Cli::command();
    let matches = plain.clone().try_get_matches_from(args)?;
    let path = config_path(&matches);
    let Some((path, explicit)) = path else { return finished(&plain, &matches) };
    let Some(text) = read(&path, explicit)? else { return finished(&plain, &matches) };
    let invalid = |message: String| ConfigError::Invalid { path: path.clone(), message };
    let entries = entries(&text).map_err(invalid)?;
    let merged = with_defaults(plain, &matches, &entries).map_err(invalid)?;
    finished(&merged, &merged.clone().try_get_matches_from(args)?)
}

fn finished(command: &Command, matches: &ArgMatches) -> Result<Cli, ConfigError> {
    let mut cli = Cli::from_arg_matches(matches)?;
    match &mut cli.command {
        cli::Command::Server(args) => args.node.flags = cli::effective(command, matches),
        cli::Command::Agent(args) => args.node.flags = cli::effective(command, matches),
        _ => {}
    }
    Ok(cli)
}

/// The file, and whether somebody named it. None for commands that run nothing.
fn config_path(matches: &ArgMatches) -> Option<(PathBuf, bool)> {
    let (name, sub) = matches.subcommand()?;
    if !matches!(name, "server" | "agent") {
        return None;
    }
    let path = sub.get_one::<PathBuf>("config")?.clone();
    Some((path, sub.value_source("config") != Some(clap::parser::ValueSource::DefaultValue)))
}

fn read(path: &Path, explicit: bool) -> Result<Option<String>, ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => return Ok(None),
        Err(error) => return Err(read_error(error)),
        Ok(metadata) if metadata.len() > FILE_MAX => return Err(read_error(std::io::Error::other("too large"))),
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(read_error)
}

/// Keys with their values as flag texts.
fn entries(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let value: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let Value::Object(map) = value else { return Err("expected `flag: value` lines".to_owned()) };
    map.into_iter().map(|(key, value)| texts(&key, value).map(|texts| (key, texts))).collect()
}

fn texts(key: &str, value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Bool(_) | Value::Number(_) => Ok(vec![value.to_string()]),
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => {
            let items: Result<Vec<Vec<String>>, String> = items.into_iter().map(|item| texts(key, item)).collect();
            Ok(items?.into_iter().flatten().collect())
        }
        Value::Object(_) => Err(format!("{key}: expected a value or a list")),
    }
}

/// The command with the file's values as defaults of the chosen subcommand's flags.
fn with_defaults(command: Command, matches: &ArgMatches, entries: &[(String, Vec<String>)]) -> Result<Command, String> {
    let chosen = matches.subcommand_name().unwrap_or_default().to_owned();
    let sub = command.find_subcommand(&chosen).ok_or("no such command")?;
    let flags: Vec<Arg> = sub.get_arguments().chain(command.get_arguments()).cloned().collect();
    let mut wanted = Vec::new();
    for (key, values) in entries {
        let flag = flags.iter().find(|f| f.get_long() == Some(key)).ok_or_else(|| unknown(key, &chosen))?;
        if key == "config" {
            return Err("`config` cannot be set in the file itself".to_owned());
        }
        wanted.push((flag.get_id().clone(), values.clone()));
    }
    let top: Vec<clap::Id> = command.get_arguments().map(|a| a.get_id().clone()).collect();
    let (of_top, of_sub): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(id, _)| top.contains(id));
    let command = apply(command, of_top);
    Ok(command.mut_subcommand(chosen, |sub| apply(sub, of_sub)))
}

fn apply(command: Command, values: Vec<(clap::Id, Vec<String>)>) -> Command {
    values.into_iter().fold(command, |command, (id, values)| {
        command.mut_arg(id, |arg| match arg.get_action() {
            clap::ArgAction::Count => arg,
            _ => arg.default_values(values),
        })
    })
}

fn unknown(key: &str, command: &str) -> String {
    format!("`{key}` is no flag of `kube1 {command}`; `kube1 {command} --help` lists them")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::cli::{Command, ServerArgs};

    fn server(file: &str, flags: &[&str]) -> Result<ServerArgs, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, file).unwrap();
        let mut args: Vec<OsString> = vec!["kube1".into(), "server".into(), "--config".into(), path.into()];
        args.extend(flags.iter().map(OsString::from));
        match parse(&args)?.command {
            Command::Server(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_gives_defaults_and_the_command_line_wins() {
        let file = "https-listen-port: 7443\ntls-san: [a.example, b.example]\ndisable-agent: true\nnode-name: x\n";
        let args = server(file, &["--node-name", "y"]).unwrap();
        assert_eq!(args.https_listen_port, 7443);
        assert_eq!(args.tls_san, ["a.example", "b.example"]);
        assert!(args.disable_agent);
        assert_eq!(args.node.node_name.as_deref(), Some("y"));
        let flag = |name: &str| args.node.flags.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        for (name, value) in [
            ("https-listen-port", "7443"),
            ("node-name", "y"),
            ("tls-san", "a.example,b.example"),
            ("disable-agent", "true"),
            ("service-cidr", "10.43.0.0/16"),
            ("audit-log-path", ""),
            ("verbose", "0"),
            ("log-format", "text"),
        ] {
            assert_eq!(flag(name), Some(value), "{name}");
        }
    }

    #[test]
    fn mistakes_in_the_file_name_the_key() {
        let error = server("https-listen-prot: 1\n", &[]).unwrap_err().to_string();
        assert!(error.contains("`https-listen-prot` is no flag"), "{error}");
        let error = server("https-listen-port: seven\n", &[]).unwrap_err().to_string();
        assert!(error.contains("seven"), "{error}");
        assert!(server("- a\n", &[]).is_err());
        assert!(server("# nothing\n", &[]).is_ok());
    }

    #[test]
    fn any_file_survives() {
        fn read(bytes: &[u8]) {
            let Ok(entries) = entries(&String::from_utf8_lossy(bytes)) else { return };
            let plain = Cli::command();
            let args = ["kube1", "server"].map(OsString::from);
            let Ok(matches) = plain.clone().try_get_matches_from(&args) else { return };
            let _ = with_defaults(plain, &matches, &entries).map(|merged| merged.try_get_matches_from(&args).map(drop));
        }
        const SEEDS: &[&[u8]] = &[b"https-listen-port: 7443\ntls-san: [a.example, 'b']\ndisable-agent: true\nverbose: 2\naudit-webhook-batch-max-wait: 5s\n"];
        let words = &["- ", ": ", "&a", "*a", "<<: ", "null", "node-label: ", "-1", "true"];
        // A command line with all its flags is bulky before anything is read.
        kube1_mutate::run(&[kube1_mutate::Target::new("config", read, SEEDS, words).with_memory(4000)]);
    }

    #[test]
    fn a_named_file_must_exist() {
        let args = ["kube1", "server", "--config", "/nonexistent/config.yaml"].map(OsString::from);
        assert!(matches!(parse(&args), Err(ConfigError::Read { .. })));
    }
}
