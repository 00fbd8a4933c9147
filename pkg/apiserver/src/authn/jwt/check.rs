//! What may be wrong with an AuthenticationConfiguration.

use kube1_api::cel::Env;
use kube1_api::expression::Expression;
use kube1_api::field::{FieldError, FieldPath};
use kube1_pki::certificates_from_pem;

use super::config::{
    AuthenticationConfiguration, ClaimMappings, ClaimRule, IssuerConfig, JwtConfig, Mapping, UserRule,
};

const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
const MOST: usize = 64;
const UNVERIFIED: &str = "claims.email_verified must be used in claimMappings.username.expression or \
    claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
    claimMappings.username.expression";

/// Everything that is wrong, with the place. `own_issuers` are those of this cluster's own tokens.
pub fn problems(config: &AuthenticationConfiguration, own_issuers: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let known = API_VERSIONS.contains(&config.api_version.as_str()) && config.kind == "AuthenticationConfiguration";
    if !known {
        found.push("apiVersion and kind must be apiserver.config.k8s.io/v1 and AuthenticationConfiguration".to_owned());
    }
    let mut errors = Vec::new();
    let path = FieldPath::new("jwt");
    if config.jwt.len() > MOST {
        errors.push(FieldError::invalid(&path, config.jwt.len() as u64, format!("must have at most {MOST} items")));
    }
    for (index, issuer) in config.jwt.iter().enumerate() {
        let at = path.index(index);
        let before = &config.jwt[..index];
        Check { errors: &mut errors }.jwt(issuer, before, own_issuers, &at);
    }
    if let Some(anonymous) = &config.anonymous
        && !anonymous.enabled
        && !anonymous.conditions.is_empty()
    {
        let paths: Vec<&str> = anonymous.conditions.iter().map(|c| c.path.as_str()).collect();
        let path = FieldPath::new("anonymous").child("conditions");
        errors.push(FieldError::invalid(
            &path,
            paths.join(","),
            "enabled should be set to true when conditions are defined",
        ));
    }
    found.extend(errors.iter().map(ToString::to_string));
    found
}

struct Check<'a> {
    errors: &'a mut Vec<FieldError>,
}

impl Check<'_> {
    fn invalid(&mut self, path: &FieldPath, value: &str, why: &str) {
        self.errors.push(FieldError::invalid(path, value, why));
    }

    fn required(&mut self, path: &FieldPath, why: &str) {
        self.errors.push(FieldError::required(path, why));
    }

    fn duplicate(&mut self, path: &FieldPath, value: &str) {
        self.errors.push(FieldError::duplicate(path, value));
    }

    fn jwt(&mut self, config: &JwtConfig, before: &[JwtConfig], own: &[String], path: &FieldPath) {
        let at = path.child("issuer");
        self.issuer(&config.issuer, own, &at);
        self.claim_rules(&config.claim_validation_rules, &path.child("claimValidationRules"));
        self.mappings(&config.claim_mappings, &config.claim_validation_rules, &path.child("claimMappings"));
        self.user_rules(&config.user_validation_rules, &path.child("userValidationRules"));
        let (url, discovery) = (&config.issuer.url, &config.issuer.discovery_url);
        if before.iter().any(|other| other.issuer.url == *url) {
            self.duplicate(&at.child("url"), url);
        }
        if !discovery.is_empty() && before.iter().any(|other| other.issuer.discovery_url == *discovery) {
            self.duplicate(&at.child("discoveryURL"), discovery);
        }
    }

    fn issuer(&mut self, issuer: &IssuerConfig, own: &[String], path: &FieldPath) {
        if issuer.url.is_empty() {
            self.required(&path.child("url"), "");
        } else {
            if own.contains(&issuer.url) {
                let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
                self.invalid(&path.child("url"), &issuer.url, &why);
            }
            self.url(&issuer.url, &path.child("url"));
        }
        let discovery = &issuer.discovery_url;
        if !discovery.is_empty() {
            let at = path.child("discoveryURL");
            if issuer.url.trim_end_matches('/') == discovery.trim_end_matches('/') {
                self.invalid(&at, discovery, "discoveryURL must be different from URL");
            }
            self.url(discovery, &at);
        }
        self.audiences(issuer, path);
        let authority = &issuer.certificate_authority;
        if !authority.is_empty() && certificates_from_pem(authority).is_err() {
            let why = "data does not contain any valid RSA or ECDSA certificates";
            self.invalid(&path.child("certificateAuthority"), "<omitted>", why);
        }
        let why = match issuer.egress_selector_type.as_str() {
            "" => return,
            "controlplane" | "cluster" => {
                "this server has no egress selectors: issuers are reached by the host's own routes"
            }
            _ => "egress selector must be either controlplane or cluster",
        };
        self.invalid(&path.child("egressSelectorType"), &issuer.egress_selector_type, why);
    }

    fn url(&mut self, url: &str, path: &FieldPath) {
        let Some((scheme, rest)) = url.split_once("://") else {
            return self.invalid(path, url, "URL scheme must be https");
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        for (wrong, why) in [
            (scheme != "https", "URL scheme must be https"),
            (authority.contains('@'), "URL must not contain a username or password"),
            (rest.split('#').next().is_some_and(|r| r.contains('?')), "URL must not contain a query"),
            (rest.contains('#'), "URL must not contain a fragment"),
        ] {
            if wrong {
                self.invalid(path, url, why);
            }
        }
    }

    fn audiences(&mut self, issuer: &IssuerConfig, path: &FieldPath) {
        let (at, audiences) = (path.child("audiences"), &issuer.audiences);
        if audiences.is_empty() {
            return self.required(&at, &format!("at least one {at} is required"));
        }
        for (index, audience) in audiences.iter().enumerate() {
            if audience.is_empty() {
                self.required(&at.index(index), "");
            }
            if audiences[..index].contains(audience) {
                self.duplicate(&at.index(index), audience);
            }
        }
        let (at, policy) = (path.child("audienceMatchPolicy"), issuer.audience_match_policy.as_str());
        if audiences.len() > 1 && policy != "MatchAny" {
            self.invalid(&at, policy, "audienceMatchPolicy must be MatchAny for multiple audiences");
        }
        if audiences.len() == 1 && !matches!(policy, "" | "MatchAny") {
            self.invalid(&at, policy, "audienceMatchPolicy must be empty or MatchAny for single audience");
        }
    }

    fn claim_rules(&mut self, rules: &[ClaimRule], path: &FieldPath) {
        for (index, rule) in rules.iter().enumerate() {
            let (at, before) = (path.index(index), &rules[..index]);
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => self.required(&at, "claim or expression is required"),
                (claim, "") => {
                    if !rule.message.is_empty() {
                        self.invalid(&at.child("message"), &rule.message, "may not be specified when claim is set");
                    }
                    if before.iter().any(|other| other.claim == claim) {
                        self.duplicate(&at.child("claim"), claim);
                    }
                }
                ("", text) => {
                    if !rule.required_value.is_empty() {
                        let why = "may not be specified when expression is set";
                        self.invalid(&at.child("requiredValue"), &rule.required_value, why);
                    }
                    if before.iter().any(|other| other.expression == text) {
                        self.duplicate(&at.child("expression"), text);
                    } else {
                        self.expression(text, &at.child("expression"));
                    }
                }
                (claim, _) => self.invalid(&at, claim, "claim and expression can't both be set"),
            }
        }
    }

    fn mappings(&mut self, mappings: &ClaimMappings, rules: &[ClaimRule], path: &FieldPath) {
        self.mapping(&mappings.username, &path.child("username"), true);
        self.mapping(&mappings.groups, &path.child("groups"), false);
        let uid = &mappings.uid;
        match (uid.claim.is_empty(), uid.expression.is_empty()) {
            (false, false) => self.invalid(&path.child("uid"), "", "claim and expression can't both be set"),
            (_, false) => self.expression(&uid.expression, &path.child("uid").child("expression")),
            _ => {}
        }
        for (index, extra) in mappings.extra.iter().enumerate() {
            let at = path.child("extra").index(index);
            self.extra_key(&extra.key, &at.child("key"));
            if mappings.extra[..index].iter().any(|other| other.key == extra.key) {
                self.duplicate(&at.child("key"), &extra.key);
            } else if extra.value_expression.is_empty() {
                self.required(&at.child("valueExpression"), "");
            } else {
                self.expression(&extra.value_expression, &at.child("valueExpression"));
            }
        }
        let name = mappings.username.expression.as_str();
        let extra = mappings.extra.iter().map(|e| e.value_expression.as_str());
        let mut readers = extra.chain(rules.iter().map(|r| r.expression.as_str())).chain([name]);
        if reads_claim(name, "email") && !readers.any(|text| reads_claim(text, "email_verified")) {
            self.invalid(&path.child("username").child("expression"), name, UNVERIFIED);
        }
    }

    fn mapping(&mut self, mapping: &Mapping, path: &FieldPath, required: bool) {
        match (mapping.claim.as_str(), mapping.expression.as_str()) {
            ("", "") if required => self.required(path, "claim or expression is required"),
            ("", "") => {}
            ("", text) => {
                if let Some(prefix) = &mapping.prefix {
                    self.invalid(&path.child("prefix"), prefix, "may not be specified when expression is set");
                }
                self.expression(text, &path.child("expression"));
            }
            (_, "") if mapping.prefix.is_none() => {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                self.required(&path.child("prefix"), why);
            }
            (_, "") => {}
            _ => self.invalid(path, "", "claim and expression can't both be set"),
        }
    }

    fn extra_key(&mut self, key: &str, path: &FieldPath) {
        let domain = match key.split_once('/') {
            Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => domain,
            _ if key.is_empty() => return self.required(path, ""),
            _ => return self.invalid(path, key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        };
        if key.to_lowercase() != key {
            self.invalid(path, key, "must be lowercase");
        }
        let reserved = |own: &str| domain == own || domain.ends_with(&format!(".{own}"));
        if reserved("k8s.io") || reserved("kubernetes.io") {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            self.invalid(path, key, why);
        }
    }

    fn user_rules(&mut self, rules: &[UserRule], path: &FieldPath) {
        for (index, rule) in rules.iter().enumerate() {
            let at = path.index(index).child("expression");
            if rule.expression.is_empty() {
                self.required(&at, "");
            } else if rules[..index].iter().any(|other| other.expression == rule.expression) {
                self.duplicate(&at, &rule.expression);
            } else {
                self.expression(&rule.expression, &at);
            }
        }
    }

    fn expression(&mut self, text: &str, path: &FieldPath) {
        // Rules are about the claims or about the user that is made of them.
        let env = if path.to_string().contains("userValidationRules") { Env::user() } else { Env::claims() };
        if let Err(error) = Expression::compile(text, &env) {
            self.invalid(path, text, &error);
        }
    }
}

/// Whether an expression reads a claim as `claims.NAME` or `claims.?NAME`.
fn reads_claim(text: &str, name: &str) -> bool {
    ["claims.", "claims.?"].iter().any(|access| {
        text.match_indices(&format!("{access}{name}")).any(|(at, found)| {
            let after = text[at + found.len()..].chars().next();
            !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    })
}
