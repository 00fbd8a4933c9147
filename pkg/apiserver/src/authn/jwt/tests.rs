use kube1_pki::{PrivateKey, ServiceAccountKeys, clock};
use serde_json::json;

use super::*;

fn config(rest: Value) -> JwtConfig {
    let mut config = json!({"issuer": {"url": "https://idp.example", "audiences": ["kube"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}, "groups": {"claim": "groups", "prefix": ""}}});
    for (key, value) in rest.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn authenticator(config: JwtConfig, keys: &ServiceAccountKeys) -> JwtAuthenticator {
    let authenticator = JwtAuthenticator::new(config, JwtMetrics::default()).unwrap();
    authenticator.keys.store(Arc::new(KeySet::from_jwks(&keys.jwks())));
    authenticator
}

fn claims(rest: Value) -> Value {
    let mut claims = json!({"iss": "https://idp.example", "aud": "kube", "sub": "alice", "exp": clock::unix_now() + 60,
        "groups": ["dev", "ops"]});
    for (key, value) in rest.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

#[tokio::test]
async fn claims_become_a_user() {
    let keys = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
    let simple = authenticator(config(json!({})), &keys);
    let token = keys.sign(&claims(json!({}))).unwrap();
    let (user, _) = simple.authenticate(&token).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.groups.join(" ").as_str()), ("oidc:alice", "dev ops system:authenticated"));

    let by_expression = authenticator(
        config(json!({"claimMappings": {
            "username": {"expression": "claims.sub + '@' + claims.org"},
            "groups": {"expression": "claims.groups.filter(g, g != 'ops')"},
            "uid": {"expression": "claims.sub"},
            "extra": [{"key": "example.com/org", "valueExpression": "claims.org"}]},
            "claimValidationRules": [{"claim": "org", "requiredValue": "acme"},
                {"expression": "claims.exp - claims.iat < 3600", "message": "too long"}],
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}]})),
        &keys,
    );
    let ask = async |rest: Value| {
        let mut all = json!({"org": "acme", "iat": clock::unix_now()});
        rest.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        by_expression.authenticate(&keys.sign(&claims(all)).unwrap()).await.map(|found| found.unwrap().0)
    };
    let user = ask(json!({})).await.unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str(), user.groups[0].as_str()), ("alice@acme", "alice", "dev"));
    assert_eq!(user.extra["example.com/org"], ["acme"]);
    for (rest, expected) in [
        (json!({"org": "other"}), "the claim \"org\" is not \"acme\""),
        (json!({"iat": 0}), "too long"),
        (json!({"sub": "system:x"}), "reserved"),
    ] {
        assert_eq!(ask(rest).await.unwrap_err(), TokenError::Refused(expected.to_owned()));
    }
}

#[tokio::test]
async fn only_good_tokens_of_the_issuer_count() {
    let keys = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
    let authenticator = authenticator(config(json!({})), &keys);
    let ask = async |keys: &ServiceAccountKeys, rest: Value| {
        authenticator.authenticate(&keys.sign(&claims(rest)).unwrap()).await
    };
    assert!(ask(&keys, json!({"iss": "https://else.example"})).await.unwrap().is_none());
    assert!(authenticator.authenticate("abc").await.unwrap().is_none());
    assert_eq!(ask(&keys, json!({"aud": ["x"]})).await.unwrap_err(), TokenError::Audience);
    assert_eq!(ask(&keys, json!({"exp": 1})).await.unwrap_err(), TokenError::Expired);
    assert!(matches!(ask(&keys, json!({"sub": ""})).await.unwrap_err(), TokenError::Refused(_)));
    // The key is unknown and there is no server that would tell it.
    let other = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
    assert!(matches!(ask(&other, json!({})).await.unwrap_err(), TokenError::Issuer { .. }));
}

#[test]
fn rsa_signatures_are_verified() {
    let jwks: Value = serde_json::from_str(include_str!("rsa_jwks.json")).unwrap();
    let keys = KeySet::from_jwks(&jwks);
    let token = include_str!("rsa_token.txt").trim();
    let signed = Signed::parse(token).unwrap();
    assert!(keys.knows(&signed) && keys.verify(&signed));
    assert_eq!(signed.claims["sub"], "alice");
    let (head, tail) = token.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", tail.replacen(|c| c != 'A', "A", 1));
    assert!(!keys.verify(&Signed::parse(&forged).unwrap()));
}

#[test]
fn a_bad_configuration_says_where() {
    let text = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "http://x", audiences: [a, b]}
  claimMappings: {username: {claim: sub}}
  claimValidationRules: [{expression: "claims.("}]
- issuer: {url: "https://own", audiences: [a]}
  claimMappings:
    username: {expression: "claims.email"}
    extra: [{key: "a.k8s.io/b", valueExpression: "claims.x"}]
anonymous: {enabled: false, conditions: [{path: /livez}]}
"#;
    let config: AuthenticationConfiguration = serde_saphyr::from_str(text).unwrap();
    let problems = check::problems(&config, &["https://own".into()]);
    for (problem, expected) in problems.iter().zip([
        "jwt[0].issuer.url: Invalid value: \"http://x\": URL scheme must be https",
        "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
        "jwt[0].claimValidationRules[0].expression: Invalid value: \"claims.(\": compilation failed",
        "jwt[0].claimMappings.username.prefix: Required value: prefix is required",
        "jwt[1].issuer.url: Invalid value: \"https://own\": URL must not overlap with disallowed issuers: [https://own]",
        "jwt[1].claimMappings.extra[0].key: Invalid value: \"a.k8s.io/b\": k8s.io, kubernetes.io",
        "jwt[1].claimMappings.username.expression: Invalid value: \"claims.email\": claims.email_verified must be used",
        "anonymous.conditions: Invalid value",
    ]) {
        assert!(problem.starts_with(expected), "{problem} / {expected}");
    }
    assert_eq!(problems.len(), 8, "{problems:#?}");
}

/// Answers each path with its document over TLS, one request a connection, until dropped.
fn issuer_server(
    listener: tokio::net::TcpListener,
    ca: &kube1_pki::Authority,
    documents: Vec<(&'static str, Value)>,
) -> tokio::task::JoinSet<()> {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let profile = kube1_pki::LeafProfile {
        subject: kube1_pki::Subject::new("idp", &[]),
        usages: vec![kube1_pki::Usage::ServerAuth],
        alt_names: vec![kube1_pki::AltName::parse("127.0.0.1")],
    };
    let leaf = ca.issue(&profile).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.certificate_der().unwrap()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = vec![0; 2048];
            let length = stream.read(&mut head).await.unwrap();
            let path = String::from_utf8_lossy(&head[..length]).split(' ').nth(1).unwrap().to_owned();
            let found = documents.iter().find(|(p, _)| *p == path);
            let (code, body) = found.map_or((404, String::new()), |(_, body)| (200, body.to_string()));
            let reply =
                format!("HTTP/1.1 {code} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            stream.write_all(reply.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    tasks
}

#[tokio::test]
async fn keys_are_fetched_from_the_issuer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/realm", listener.local_addr().unwrap());
    let ca = kube1_pki::Authority::create("idp-ca").unwrap();
    let keys = ServiceAccountKeys::new(PrivateKey::generate().unwrap());
    let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
    let documents = vec![("/realm/.well-known/openid-configuration", discovery), ("/realm/keys", keys.jwks())];
    let _server = issuer_server(listener, &ca, documents);
    let issuer = json!({"url": url, "audiences": ["kube"], "certificateAuthority": ca.certificate_pem()});
    let trusting = JwtAuthenticator::new(config(json!({ "issuer": issuer })), JwtMetrics::default()).unwrap();
    let token = keys.sign(&claims(json!({"iss": url}))).unwrap();
    assert_eq!(trusting.authenticate(&token).await.unwrap().unwrap().0.name, "oidc:alice");
    let other = kube1_pki::Authority::create("other").unwrap();
    let issuer = json!({"url": url, "audiences": ["kube"], "certificateAuthority": other.certificate_pem()});
    let distrusting = JwtAuthenticator::new(config(json!({ "issuer": issuer })), JwtMetrics::default()).unwrap();
    assert!(matches!(distrusting.authenticate(&token).await.unwrap_err(), TokenError::Issuer { .. }));
}
