//! What was asked and answered, under CoreDNS's names, and the port where monitoring reads it.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use kube1_telemetry::port::{self, METRICS, StatusCode, answer, not_found};
use kube1_telemetry::{Counters, Histograms};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// In seconds: doubled from 0.25 ms on.
const BOUNDS: &[f64] = &[
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
];
/// Labels that CoreDNS has and that have one value here.
const SERVER: &str = "server=\"dns://:53\",view=\"\",zone=\".\"";

/// Counts since the process started.
pub struct Meters {
    requests: Counters,
    responses: Counters,
    seconds: Histograms,
    hits: Counters,
    misses: Counters,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            requests: Counters::new("coredns_dns_requests_total", "Counter of DNS requests made per zone and type."),
            responses: Counters::new("coredns_dns_responses_total", "Counter of response status codes."),
            seconds: Histograms::new(
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone.",
                BOUNDS,
            ),
            hits: Counters::new("coredns_cache_hits_total", "The count of cache hits."),
            misses: Counters::new("coredns_cache_misses_total", "The count of cache misses."),
        }
    }
}

impl Meters {
    /// An answer to a query; `plugin` is CoreDNS's name for who gave it.
    pub fn answered(&self, query: &Message, answer: &Message, tcp: bool, v6: bool, plugin: &str, took: Duration) {
        let (family, proto) = (if v6 { 2 } else { 1 }, if tcp { "tcp" } else { "udp" });
        let kind = query.queries.first().map_or("other", |query| known_type(&query.query_type.to_string()));
        self.requests.add(&format!("family=\"{family}\",proto=\"{proto}\",{SERVER},type=\"{kind}\""), 1.0);
        let code = code(answer.metadata.response_code);
        self.responses.add(&format!("plugin=\"{plugin}\",rcode=\"{code}\",{SERVER}"), 1.0);
        self.seconds.observe(SERVER, took.as_secs_f64());
    }

    /// Whether an answer of an upstream server was known already.
    pub fn looked_up(&self, hit: bool, negative: bool) {
        let kind = if negative { "denial" } else { "success" };
        match hit {
            true => self.hits.add(&format!("server=\"dns://:53\",type=\"{kind}\",view=\"\",zones=\".\""), 1.0),
            false => self.misses.add("server=\"dns://:53\",view=\"\",zones=\".\"", 1.0),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.requests.write(&mut out);
        self.responses.write(&mut out);
        self.seconds.write(&mut out);
        self.hits.write(&mut out);
        self.misses.write(&mut out);
        out.push_str(&kube1_telemetry::process_metrics());
        out
    }
}

/// A type by its name if it is a common one: what clients make up must not fill the memory.
fn known_type(name: &str) -> &'static str {
    const TYPES: [&str; 16] = [
        "A", "AAAA", "ANY", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SVCB",
        "TXT",
    ];
    TYPES.into_iter().find(|known| *known == name).unwrap_or("other")
}

fn code(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        _ => "OTHER",
    }
}

/// Answers `/metrics` until stopped.
pub async fn serve(listener: TcpListener, meters: Arc<Meters>, stop: CancellationToken) {
    let reply = move |path: &str| match path {
        "/metrics" => answer(StatusCode::OK, METRICS, meters.text()),
        _ => not_found(),
    };
    port::serve(listener, stop, reply).await;
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn queries_are_counted_by_type_and_outcome() {
        let meters = Meters::default();
        for kind in [RecordType::A, RecordType::A, RecordType::Unknown(4711)] {
            let mut query = Message::query();
            query.add_query(Query::query(Name::root(), kind));
            meters.answered(&query, &query, false, false, "kubernetes", Duration::from_millis(1));
        }
        meters.looked_up(true, true);
        let text = meters.text();
        for line in [
            "coredns_dns_requests_total{family=\"1\",proto=\"udp\",server=\"dns://:53\",view=\"\",zone=\".\",type=\"A\"} 2",
            "coredns_dns_requests_total{family=\"1\",proto=\"udp\",server=\"dns://:53\",view=\"\",zone=\".\",type=\"other\"} 1",
            "coredns_dns_responses_total{plugin=\"kubernetes\",rcode=\"NOERROR\",server=\"dns://:53\",view=\"\",zone=\".\"} 3",
            "coredns_dns_request_duration_seconds_count{server=\"dns://:53\",view=\"\",zone=\".\"} 3",
            "coredns_cache_hits_total{server=\"dns://:53\",type=\"denial\",view=\"\",zones=\".\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in {text}");
        }
    }
}
