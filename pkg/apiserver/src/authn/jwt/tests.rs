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
    let authenticator = JwtAuthenticator::new(config).unwrap();
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
"#;
    let config: AuthenticationConfiguration = serde_saphyr::from_str(text).unwrap();
    let problems = config.problems();
    for (problem, expected) in problems.iter().zip([
        "jwt[0].issuer.url: must be an https URL",
        "jwt[0].issuer.audienceMatchPolicy: must be MatchAny for several audiences",
        "jwt[0].claimMappings.username.prefix: is required",
        "jwt[0].claimValidationRules[0].expression: compilation failed",
    ]) {
        assert!(problem.starts_with(expected), "{problem}");
    }
    assert_eq!(problems.len(), 4);
}
