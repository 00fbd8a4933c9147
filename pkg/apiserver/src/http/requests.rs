//! How long requests may take and how they end: deadlines, and closing of connections.

use std::time::Duration;

use kube1_api::status::Status;

use crate::query::Query;

/// The flags about requests, with upstream's defaults.
#[derive(Clone, Debug)]
pub struct RequestOptions {
    /// How long a request that is not long-running may take; `?timeout=` may shorten it.
    pub timeout: Duration,
    /// Watches without a timeout of their own end after this to twice this.
    pub min_watch_timeout: Duration,
    /// Reading and changing requests at once; together the seats of flow control.
    pub max_inflight: u32,
    pub max_mutating_inflight: u32,
    /// Chance from 0 to 0.02 that an HTTP/2 connection is asked to be made anew, so that clients spread over servers.
    pub goaway_chance: f64,
    /// How long requests are still taken after shutdown began, while `/readyz` already says no.
    pub shutdown_delay: Duration,
    /// Requests of one HTTP/2 connection at a time.
    pub http2_max_streams: u32,
    /// A connection is closed when its TLS handshake takes longer than this.
    pub handshake_timeout: Duration,
    /// A connection is closed when the headers of its first request do not come within this, or those of a later one once
    /// they have begun.
    pub header_timeout: Duration,
    /// A connection is closed when it has carried no request for so long.
    pub idle_timeout: Duration,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            min_watch_timeout: Duration::from_secs(1800),
            max_inflight: 400,
            max_mutating_inflight: 200,
            goaway_chance: 0.0,
            shutdown_delay: Duration::ZERO,
            http2_max_streams: 1000,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(32),
            idle_timeout: Duration::from_secs(90),
        }
    }
}

/// The deadline of a request: `?timeout=` may shorten what the server allows.
pub fn deadline(query: &Query, most: Duration) -> Result<Duration, Status> {
    let Some(text) = query.text("timeout") else { return Ok(most) };
    let bad = || {
        Status::bad_request(format!("invalid timeout specified in the request URL - time: invalid duration \"{text}\""))
    };
    let asked = parse_duration(text).ok_or_else(bad)?;
    Ok(if asked.is_zero() { most } else { asked.min(most) })
}

/// A duration as Go writes it, such as `32s`, `1m30s` or `500ms`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        total += number
            * match &rest[digits..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_as_go_writes_them() {
        for (text, expected) in [
            ("32s", Some(Duration::from_secs(32))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("500ms", Some(Duration::from_millis(500))),
            ("1.5h", Some(Duration::from_secs(5400))),
            ("0", Some(Duration::ZERO)),
            ("5", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn clients_may_only_shorten() {
        let most = Duration::from_secs(60);
        for (query, expected) in [("", 60), ("timeout=5s", 5), ("timeout=2h", 60), ("timeout=0s", 60)] {
            assert_eq!(deadline(&Query::parse(query), most).unwrap().as_secs(), expected, "{query}");
        }
        assert_eq!(deadline(&Query::parse("timeout=abc"), most).unwrap_err().code(), 400);
    }
}
