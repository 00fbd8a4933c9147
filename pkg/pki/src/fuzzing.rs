//! What hostile input is tried on: certificates, requests for them and keys.

use kube1_mutate::Target;

use crate::{
    Authority, CertificateRequest, JwtError, PrivateKey, ServiceAccountKeys, Subject, certificates_from_pem,
    create_csr, describe_pem, to_pem,
};

/// All that `fuzz/` runs.
pub fn targets() -> Vec<Target> {
    let words = ["-----BEGIN ", "CERTIFICATE REQUEST-----", "\n", "\x30\x7f", "\x06\x03\x55\x04\x03", "\x02\x01", "="];
    vec![Target::new("pki", files, &[], &words).with_seeds(seeds())]
}

/// A request, a certificate and a key, and each as DER.
fn seeds() -> Vec<Vec<u8>> {
    let (Ok(key), Ok(authority)) = (PrivateKey::generate(), Authority::create("ca")) else { return Vec::new() };
    let names = [crate::AltName::parse("a.example"), crate::AltName::parse("192.0.2.1")];
    let request = create_csr(&Subject::new("system:node:n", &["system:nodes"]), &names, &key).unwrap_or_default();
    let texts = [request, authority.certificate_pem().to_owned(), key.to_pem()];
    let der = texts.each_ref().map(|text| der_of(text));
    texts.map(String::into_bytes).into_iter().chain(der).collect()
}

fn der_of(pem: &str) -> Vec<u8> {
    use base64::Engine;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap_or_default()
}

/// The bytes as text, and as what each kind of text holds.
fn files(bytes: &[u8]) {
    text(&String::from_utf8_lossy(bytes));
    for label in ["CERTIFICATE REQUEST", "CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY"] {
        text(&to_pem(label, bytes));
    }
    let _ = Subject::of_certificate(bytes);
}

fn text(text: &str) {
    let _ = CertificateRequest::from_pem(text);
    let _ = certificates_from_pem(text).map(|all| all.len());
    let _ = describe_pem("a.crt".as_ref(), text);
    let Ok(key) = PrivateKey::from_pem(text) else {
        let _ = Authority::from_pem(text, text);
        return;
    };
    let verified: Result<_, JwtError> = ServiceAccountKeys::new(key).verify(text);
    assert!(verified.is_err(), "a key is a token");
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive() {
        kube1_mutate::run(&super::targets());
    }
}
