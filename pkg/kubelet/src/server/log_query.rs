//! Queries of the logs of the node's services (`/logs/?query=…`, KEP-2258): from the journal, or else from `/var/log`.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use tokio::process::Command;

use super::{Reply, system_logs, text};

/// How long the journal may take.
const LIMIT: Duration = Duration::from_secs(30);
const LINES_MAX: u32 = 100_000;
const SERVICES_MAX: usize = 4;
const NAME_MAX: usize = 256;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    services: Vec<String>,
    files: Vec<String>,
    /// Arguments of `journalctl` besides the services.
    options: Vec<String>,
}

/// Whether a request for logs is a query.
pub(super) fn is_query(pairs: &[(String, String)]) -> bool {
    pairs.iter().any(|(key, _)| key == "query")
}

/// Answers a query; 400 with every mistake of a wrong one.
pub(super) async fn serve(pairs: &[(String, String)]) -> Reply {
    let query = match Query::parse(pairs) {
        Ok(query) => query,
        Err(wrong) => return text(StatusCode::BAD_REQUEST, format!("{}\n", wrong.join("; "))),
    };
    if let Some(file) = query.files.first() {
        return system_logs::serve(&[file.trim_start_matches('/')]).await;
    }
    let mut out = Vec::new();
    for service in &query.services {
        out.extend(of_service(service, &query.options).await);
    }
    text(StatusCode::OK, out)
}

async fn of_service(service: &str, options: &[String]) -> Vec<u8> {
    let mut command = Command::new("journalctl");
    command.args(["--utc", "--no-pager", "--output=short-precise", &format!("--unit={service}")]);
    command.args(options).kill_on_drop(true);
    let found = tokio::time::timeout(LIMIT, command.output()).await;
    if let Ok(Ok(Output { status, stdout, .. })) = found
        && status.success()
        && !stdout.starts_with(b"-- No entries --")
        && !stdout.is_empty()
    {
        return stdout;
    }
    for name in [service.to_owned(), format!("{service}.log"), format!("{service}/{service}.log")] {
        match system_logs::text_of(Path::new(&name)).await {
            Ok(_) if !options.is_empty() => {
                let why = "options present and query resolved to log files for";
                return format!("\n{why} {service}\ntry without specifying options\n").into_bytes();
            }
            Ok(text) => return text,
            Err(_) => {}
        }
    }
    format!("\nlog not found for {service}\n").into_bytes()
}

impl Query {
    fn parse(pairs: &[(String, String)]) -> Result<Self, Vec<String>> {
        let (mut query, mut wrong) = (Self::default(), Vec::new());
        for (_, asked) in pairs.iter().filter(|(key, value)| key == "query" && !value.trim().is_empty()) {
            if asked.contains(['/', '\\']) {
                query.files.push(asked.clone());
            } else {
                query.services.push(asked.clone());
            }
        }
        let safe = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_@".contains(&b));
        for service in query.services.iter().filter(|name| !safe(name) || name.len() > NAME_MAX) {
            wrong.push(format!("query: Invalid value: {service:?}: input contains unsupported characters"));
        }
        for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let time = || value.parse::<Timestamp>().ok().map(|t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
            let option = match key.as_str() {
                "sinceTime" => time().map(|at| format!("--since={at}")),
                "untilTime" => time().map(|at| format!("--until={at}")),
                "tailLines" => value
                    .parse::<u32>()
                    .ok()
                    .filter(|lines| *lines <= LINES_MAX)
                    .map(|lines| format!("--lines={lines}")),
                "boot" => value.parse::<i32>().ok().filter(|boot| *boot <= 0).map(|boot| format!("--boot={boot}")),
                "pattern" => Some(format!("--grep={value}")),
                _ => continue,
            };
            match option {
                Some(option) => query.options.push(option),
                None => wrong.push(format!("{key}: Invalid value: {value:?}")),
            }
        }
        match (query.files.len(), query.services.len()) {
            (0, 0) => wrong.push("query: Invalid value: query cannot be empty".to_owned()),
            (0, services) if services > SERVICES_MAX => {
                wrong.push(format!("query: Too many: {services}: must have at most {SERVICES_MAX} items"));
            }
            (0, _) => {}
            (1, 0) if query.options.is_empty() => {}
            (1, 0) => wrong.push("query: Invalid value: cannot specify file with options".to_owned()),
            (_, 0) => wrong.push("query: Invalid value: cannot specify more than one file".to_owned()),
            _ => wrong.push("query: Invalid value: cannot specify a file and service".to_owned()),
        }
        if wrong.is_empty() { Ok(query) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs;
    use super::*;

    #[test]
    fn queries_are_checked_before_anything_runs() {
        let services = |names: &[&str], options: &[&str]| Query {
            services: names.iter().map(|n| (*n).to_owned()).collect(),
            files: Vec::new(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        };
        for (text, expected) in [
            ("query=kubelet&query=ssh", Some(services(&["kubelet", "ssh"], &[]))),
            ("query=k&tailLines=5&boot=-1", Some(services(&["k"], &["--lines=5", "--boot=-1"]))),
            (
                "query=k&sinceTime=2026-01-02T03%3A04%3A05%2B01%3A00&pattern=a.b",
                Some(services(&["k"], &["--since=2026-01-02 02:04:05 UTC", "--grep=a.b"])),
            ),
            ("query=/a.log", Some(Query { files: vec!["/a.log".to_owned()], ..Query::default() })),
            ("query=%20", None),
            ("query=a;b", None),
            ("query=--file%3Dx", None),
            ("query=a&boot=1", None),
            ("query=a&tailLines=100001", None),
            ("query=a&sinceTime=now", None),
            ("query=/a&query=b", None),
            ("query=/a&query=/b", None),
            ("query=/a&tailLines=1", None),
            ("query=a&query=b&query=c&query=d&query=e", None),
        ] {
            assert_eq!(Query::parse(&pairs(text)).ok(), expected, "{text}");
        }
        assert!(!is_query(&pairs("tailLines=1")) && is_query(&pairs("query=")));
    }
}
