//! The encoding of X.509 certificates and the names in them.

use std::net::IpAddr;

use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, Tag};

use crate::PkiError;
use crate::key::PrivateKey;

/// The subject of a certificate: a user (common name) and its groups (organizations).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

impl Subject {
    pub fn new(common_name: impl Into<String>, organizations: &[&str]) -> Self {
        Self { common_name: common_name.into(), organizations: organizations.iter().map(|o| (*o).to_owned()).collect() }
    }

    /// DER Name: one relative name with all organizations, then the common name.
    pub(crate) fn to_der(&self) -> Vec<u8> {
        yasna::construct_der(|w| {
            w.write_sequence_of(|w| {
                if !self.organizations.is_empty() {
                    w.next().write_set_of(|w| {
                        for o in &self.organizations {
                            write_attribute(w.next(), &[2, 5, 4, 10], o);
                        }
                    });
                }
                if !self.common_name.is_empty() {
                    w.next().write_set_of(|w| write_attribute(w.next(), &[2, 5, 4, 3], &self.common_name));
                }
            });
        })
    }
}

fn write_attribute(w: DERWriter<'_>, oid: &[u64], value: &str) {
    w.write_sequence(|w| {
        w.next().write_oid(&ObjectIdentifier::from_slice(oid));
        w.next().write_utf8_string(value);
    });
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AltName {
    Dns(String),
    Ip(IpAddr),
    Email(String),
    Uri(String),
}

impl AltName {
    /// An IP address when `text` is one, else a DNS name.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

/// Extended key usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    ServerAuth,
    ClientAuth,
}

/// The bits of the key usage extension that certificates of a cluster use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage {
    pub digital_signature: bool,
    pub key_encipherment: bool,
    pub cert_sign: bool,
}

/// Everything a certificate says.
pub(crate) struct Template<'a> {
    pub issuer: &'a [u8],
    pub issuer_key_id: &'a [u8],
    pub subject: &'a [u8],
    pub public_key_info: &'a [u8],
    pub not_before: i64,
    pub not_after: i64,
    pub is_ca: bool,
    pub key_usage: KeyUsage,
    pub usages: &'a [Usage],
    pub alt_names: &'a [AltName],
}

/// Identifier of a public key inside certificates: the first 20 bytes of its SHA-256.
pub(crate) fn key_identifier(public_key_info: &[u8]) -> Vec<u8> {
    Sha256::digest(public_key_info)[..20].to_vec()
}

/// Encodes and signs `template`.
pub(crate) fn sign(template: &Template<'_>, key: &PrivateKey) -> Result<Vec<u8>, PkiError> {
    let mut serial = [0u8; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| PkiError::Random)?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let body = yasna::construct_der(|w| write_body(w, template, &serial));
    sign_body(&body, key)
}

/// SEQUENCE { body, ecdsa-with-SHA256, signature }: certificates and requests alike.
pub(crate) fn sign_body(body: &[u8], key: &PrivateKey) -> Result<Vec<u8>, PkiError> {
    let signature = key.sign_asn1(body)?;
    Ok(yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_der(body);
            write_algorithm(w.next());
            w.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

fn write_algorithm(w: DERWriter<'_>) {
    w.write_sequence(|w| w.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 10045, 4, 3, 2])));
}

fn write_body(w: DERWriter<'_>, t: &Template<'_>, serial: &[u8]) {
    w.write_sequence(|w| {
        w.next().write_tagged(Tag::context(0), |w| w.write_u8(2));
        w.next().write_bigint_bytes(serial, true);
        write_algorithm(w.next());
        w.next().write_der(t.issuer);
        w.next().write_sequence(|w| {
            write_time(w.next(), t.not_before);
            write_time(w.next(), t.not_after);
        });
        w.next().write_der(t.subject);
        w.next().write_der(t.public_key_info);
        w.next().write_tagged(Tag::context(3), |w| w.write_sequence(|w| write_extensions(w, t)));
    });
}

/// UTCTime up to 2049 and GeneralizedTime after, as RFC 5280 demands.
fn write_time(w: DERWriter<'_>, unix: i64) {
    let at = OffsetDateTime::from_unix_timestamp(unix).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    if at.year() < 2050 {
        w.write_utctime(&UTCTime::from_datetime(at));
    } else {
        w.write_generalized_time(&GeneralizedTime::from_datetime(at));
    }
}

fn write_extensions(w: &mut yasna::DERWriterSeq<'_>, t: &Template<'_>) {
    extension(w, &[2, 5, 29, 15], true, &yasna::construct_der(|w| write_key_usage(w, t.key_usage)));
    if !t.usages.is_empty() {
        extension(w, &[2, 5, 29, 37], false, &yasna::construct_der(|w| write_usages(w, t.usages)));
    }
    let basic = yasna::construct_der(|w| {
        w.write_sequence(|w| {
            if t.is_ca {
                w.next().write_bool(true);
            }
        });
    });
    extension(w, &[2, 5, 29, 19], true, &basic);
    if t.is_ca {
        let id = key_identifier(t.public_key_info);
        extension(w, &[2, 5, 29, 14], false, &yasna::construct_der(|w| w.write_bytes(&id)));
    }
    let authority = yasna::construct_der(|w| {
        w.write_sequence(|w| w.next().write_tagged_implicit(Tag::context(0), |w| w.write_bytes(t.issuer_key_id)));
    });
    extension(w, &[2, 5, 29, 35], false, &authority);
    if !t.alt_names.is_empty() {
        extension(w, &[2, 5, 29, 17], false, &alt_names_der(t.alt_names));
    }
}

pub(crate) fn extension(w: &mut yasna::DERWriterSeq<'_>, oid: &[u64], critical: bool, content: &[u8]) {
    w.next().write_sequence(|w| {
        w.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            w.next().write_bool(true);
        }
        w.next().write_bytes(content);
    });
}

fn write_key_usage(w: DERWriter<'_>, usage: KeyUsage) {
    let mut bits = 0u8;
    let mut length = 0;
    for (set, position) in [(usage.digital_signature, 0), (usage.key_encipherment, 2), (usage.cert_sign, 5)] {
        if set {
            bits |= 0x80 >> position;
            length = position + 1;
        }
    }
    w.write_bitvec_bytes(&[bits], length);
}

pub(crate) fn write_usages(w: DERWriter<'_>, usages: &[Usage]) {
    w.write_sequence_of(|w| {
        for usage in usages {
            let last = match usage {
                Usage::ServerAuth => 1,
                Usage::ClientAuth => 2,
            };
            w.next().write_oid(&ObjectIdentifier::from_slice(&[1, 3, 6, 1, 5, 5, 7, 3, last]));
        }
    });
}

pub(crate) fn alt_names_der(names: &[AltName]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence_of(|w| {
            for name in names {
                let (tag, bytes) = match name {
                    AltName::Email(s) => (1, s.as_bytes().to_vec()),
                    AltName::Dns(s) => (2, s.as_bytes().to_vec()),
                    AltName::Uri(s) => (6, s.as_bytes().to_vec()),
                    AltName::Ip(IpAddr::V4(ip)) => (7, ip.octets().to_vec()),
                    AltName::Ip(IpAddr::V6(ip)) => (7, ip.octets().to_vec()),
                };
                w.next().write_tagged_implicit(Tag::context(tag), |w| w.write_bytes(&bytes));
            }
        });
    })
}
