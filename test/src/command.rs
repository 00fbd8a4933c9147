//! Runs programs and keeps what they print.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};

/// What a program printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    pub command: String,
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nstdout: {}\nstderr: {}", self.command, self.stdout.trim(), self.stderr.trim())
    }
}

/// Runs a command to its end with `input` on its standard input.
pub fn try_run(command: &mut Command, input: &str) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let failed = |error: std::io::Error| Output {
        command: shown.clone(),
        success: false,
        stdout: String::new(),
        stderr: error.to_string(),
    };
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is free to.
        let _ = stdin.write_all(input.as_bytes());
    }
    match child.wait_with_output() {
        Err(error) => failed(error),
        Ok(output) => Output {
            command: shown,
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
    }
}

/// Runs a command that must succeed and returns its standard output.
///
/// # Panics
/// If the command fails, with what it printed.
pub fn run(command: &mut Command) -> String {
    let output = try_run(command, "");
    assert!(output.success, "{output}");
    output.stdout
}
