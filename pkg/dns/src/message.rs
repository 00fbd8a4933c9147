//! Answers as DNS messages.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::seq::SliceRandom;

use crate::zone::{Found, Zone};

/// How long clients may keep an answer about the cluster, in seconds. Services change often.
const TTL: u32 = 5;
/// What fits into every network's packets; larger answers go over TCP.
const LARGEST_UDP: u16 = 1232;
const SMALLEST_UDP: u16 = 512;

/// The cluster's domain and the server's own address.
#[derive(Clone, Debug)]
pub struct Domain {
    pub name: Name,
    pub server: IpAddr,
}

/// What to do with a query.
pub enum Decision {
    Answer(Message),
    /// The cluster knows nothing of it.
    Forward,
    /// The answer so far is another name outside the cluster, which must be asked for too.
    Follow(Message, Name),
}

/// An answer without records.
pub fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP);
        message.set_edns(edns);
    }
    message
}

/// What is wrong with a query, if anything.
pub fn objection(query: &Message) -> Option<ResponseCode> {
    let metadata = &query.metadata;
    if metadata.op_code != OpCode::Query {
        Some(ResponseCode::NotImp)
    } else if query.queries.len() != 1 || metadata.message_type != MessageType::Query {
        Some(ResponseCode::FormErr)
    } else if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        Some(ResponseCode::BADVERS)
    } else if query.queries[0].query_class != DNSClass::IN {
        Some(ResponseCode::Refused)
    } else {
        None
    }
}

/// Answers from the zone what the zone knows. Without a zone it is not known that a name does not exist.
pub fn decide(zone: Option<&Zone>, domain: &Domain, query: &Message) -> Decision {
    let asked = &query.queries[0];
    let Some(zone) = zone else {
        let ours = domain.name.zone_of(&asked.name);
        return if ours { Decision::Answer(reply(query, ResponseCode::ServFail)) } else { Decision::Forward };
    };
    if !domain.name.zone_of(&asked.name) {
        return match reverse(zone, domain, query) {
            Some(message) => Decision::Answer(message),
            None => Decision::Forward,
        };
    }
    let labels = labels_below(&asked.name, &domain.name);
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if labels == ["ns", "dns"] {
        let found = Found { addresses: vec![domain.server], ..Found::default() };
        return Decision::Answer(with_records(query, domain, &found));
    }
    if labels.is_empty() && matches!(asked.query_type, RecordType::SOA | RecordType::NS) {
        return Decision::Answer(apex(query, domain, asked.query_type));
    }
    match zone.find(&labels) {
        None => Decision::Answer(negative(reply(query, ResponseCode::NXDomain), domain)),
        Some(Found { alias: Some(target), .. }) => follow(zone, domain, query, &target),
        Some(found) => Decision::Answer(with_records(query, domain, &found)),
    }
}

fn labels_below(name: &Name, zone: &Name) -> Vec<String> {
    let count = usize::from(name.num_labels().saturating_sub(zone.num_labels()));
    name.iter().take(count).map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// A name below the domain.
fn absolute(below: &str, domain: &Domain) -> Option<Name> {
    Name::from_ascii(below).ok()?.append_domain(&domain.name).ok()
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// Adds the records of the wanted type, addresses in random order since most clients take the first.
fn with_records(query: &Message, domain: &Domain, found: &Found) -> Message {
    let mut message = reply(query, ResponseCode::NoError);
    message.metadata.authoritative = true;
    let asked = &query.queries[0];
    let wanted = |kind: RecordType| asked.query_type == kind || asked.query_type == RecordType::ANY;
    let record = |data| Record::from_rdata(asked.name.clone(), TTL, data);
    let mut addresses: Vec<Record> = found.addresses.iter().map(|address| record(address_data(*address))).collect();
    addresses.retain(|one| wanted(one.record_type()));
    addresses.shuffle(&mut rand::rng());
    message.add_answers(addresses);
    if wanted(RecordType::TXT) {
        message.add_answers(found.texts.iter().map(|text| record(RData::TXT(TXT::new(vec![text.clone()])))));
    }
    if wanted(RecordType::SRV) {
        add_services(&mut message, domain, found);
    }
    if message.answers.is_empty() { negative(message, domain) } else { message }
}

fn add_services(message: &mut Message, domain: &Domain, found: &Found) {
    let owner = message.queries[0].name.clone();
    let weight = 100 / u16::try_from(found.services.len().max(1)).unwrap_or(u16::MAX);
    for (port, target, addresses) in &found.services {
        let Some(target) = absolute(target, domain) else { continue };
        let service = SRV::new(0, weight.max(1), *port, target.clone());
        message.add_answer(Record::from_rdata(owner.clone(), TTL, RData::SRV(service)));
        for address in addresses {
            let record = Record::from_rdata(target.clone(), TTL, address_data(*address));
            if !message.additionals.contains(&record) {
                message.add_additional(record);
            }
        }
    }
}

fn soa(domain: &Domain) -> Option<Record> {
    let (server, contact) = (absolute("ns.dns", domain)?, absolute("hostmaster", domain)?);
    let soa = SOA::new(server, contact, 1, 7200, 1800, 86_400, TTL);
    Some(Record::from_rdata(domain.name.clone(), TTL, RData::SOA(soa)))
}

/// Says with the zone's SOA how long the absence may be remembered.
fn negative(mut message: Message, domain: &Domain) -> Message {
    message.metadata.authoritative = true;
    message.add_authorities(soa(domain));
    message
}

fn apex(query: &Message, domain: &Domain, kind: RecordType) -> Message {
    let mut message = reply(query, ResponseCode::NoError);
    message.metadata.authoritative = true;
    if kind == RecordType::SOA {
        message.add_answers(soa(domain));
    } else if let Some(server) = absolute("ns.dns", domain) {
        let record = Record::from_rdata(domain.name.clone(), TTL, RData::NS(NS(server.clone())));
        message.add_answer(record);
        message.add_additional(Record::from_rdata(server, TTL, address_data(domain.server)));
    }
    message
}

fn reverse(zone: &Zone, domain: &Domain, query: &Message) -> Option<Message> {
    let asked = &query.queries[0];
    if asked.query_type != RecordType::PTR {
        return None;
    }
    let net = asked.name.parse_arpa_name().ok()?;
    let names = zone.reverse(net.addr());
    if names.is_empty() || net.prefix_len() != net.max_prefix_len() {
        return None;
    }
    let mut message = reply(query, ResponseCode::NoError);
    message.metadata.authoritative = true;
    for name in names.iter().filter_map(|name| absolute(name, domain)) {
        message.add_answer(Record::from_rdata(asked.name.clone(), TTL, RData::PTR(PTR(name))));
    }
    Some(message)
}

/// The alias, and what it leads to as far as that is in the cluster.
fn follow(zone: &Zone, domain: &Domain, query: &Message, target: &str) -> Decision {
    let asked = &query.queries[0];
    let Some(target) = Name::from_ascii(target).ok().map(|mut name| {
        name.set_fqdn(true);
        name
    }) else {
        return Decision::Answer(reply(query, ResponseCode::ServFail));
    };
    let mut message = reply(query, ResponseCode::NoError);
    message.metadata.authoritative = true;
    message.add_answer(Record::from_rdata(asked.name.clone(), TTL, RData::CNAME(CNAME(target.clone()))));
    if !matches!(asked.query_type, RecordType::A | RecordType::AAAA) {
        return Decision::Answer(message);
    }
    if !domain.name.zone_of(&target) {
        return Decision::Follow(message, target);
    }
    let labels = labels_below(&target, &domain.name);
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    // An alias of an alias is left to the client, which so cannot send us in circles.
    let addresses = zone.find(&labels).map(|found| found.addresses).unwrap_or_default();
    let records = addresses.into_iter().map(|address| Record::from_rdata(target.clone(), TTL, address_data(address)));
    message.add_answers(records.filter(|record| record.record_type() == asked.query_type));
    Decision::Answer(message)
}

/// The largest UDP answer that the client takes.
pub fn udp_limit(query: &Message) -> usize {
    let offered = query.edns.as_ref().map_or(SMALLEST_UDP, Edns::max_payload);
    usize::from(offered.clamp(SMALLEST_UDP, LARGEST_UDP))
}

/// The message's bytes, with fewer records and marked as truncated if they are more than `limit`.
pub fn encode(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = message.to_vec().ok()?;
    if bytes.len() > limit {
        message.additionals.clear();
        bytes = message.to_vec().ok()?;
    }
    while bytes.len() > limit {
        message.metadata.truncation = true;
        let kept = message.answers.len() * limit / bytes.len();
        if message.answers.is_empty() {
            message.authorities.clear();
        }
        message.answers.truncate(kept.min(message.answers.len().saturating_sub(1)));
        let shorter = message.to_vec().ok()?;
        if shorter.len() == bytes.len() {
            return None;
        }
        bytes = shorter;
    }
    Some(bytes)
}
