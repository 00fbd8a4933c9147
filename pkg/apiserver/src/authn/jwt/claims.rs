//! From a token's claims to a user.

use kube1_api::cel::Env;
use kube1_api::expression::{Bindings, Expression};
use serde_json::{Value, json};

use super::config::{JwtConfig, Mapping};
use crate::user::{AUTHENTICATED, UserInfo};

/// Rules of one issuer, compiled.
pub struct Claims {
    config: JwtConfig,
    username: Option<Expression>,
    groups: Option<Expression>,
    uid: Option<Expression>,
    extra: Vec<(String, Expression)>,
    claim_rules: Vec<(Expression, String)>,
    user_rules: Vec<(Expression, String)>,
}

impl Claims {
    /// Fails on an expression that does not compile.
    pub fn new(config: JwtConfig) -> Result<Self, String> {
        let (claims, user) = (Env::claims(), Env::user());
        let optional = |mapping: &Mapping| match mapping.expression.as_str() {
            "" => Ok(None),
            text => Expression::compile(text, &claims).map(Some),
        };
        let mappings = &config.claim_mappings;
        let with_message = |expression: &str, message: &str, env: &Env| {
            let message =
                if message.is_empty() { format!("failed expression: {expression}") } else { message.to_owned() };
            Expression::compile(expression, env).map(|compiled| (compiled, message))
        };
        let claim_rules = config.claim_validation_rules.iter().filter(|r| !r.expression.is_empty());
        Ok(Self {
            username: optional(&mappings.username)?,
            groups: optional(&mappings.groups)?,
            uid: optional(&mappings.uid)?,
            extra: mappings
                .extra
                .iter()
                .map(|e| Expression::compile(&e.value_expression, &claims).map(|compiled| (e.key.clone(), compiled)))
                .collect::<Result<_, _>>()?,
            claim_rules: claim_rules
                .map(|r| with_message(&r.expression, &r.message, &claims))
                .collect::<Result<_, _>>()?,
            user_rules: config
                .user_validation_rules
                .iter()
                .map(|r| with_message(&r.expression, &r.message, &user))
                .collect::<Result<_, _>>()?,
            config,
        })
    }

    /// The user that verified claims stand for, or why they are refused.
    pub fn user(&self, claims: &Value) -> Result<UserInfo, String> {
        for rule in self.config.claim_validation_rules.iter().filter(|r| !r.claim.is_empty()) {
            if claims[rule.claim.as_str()] != rule.required_value {
                return Err(format!("the claim {:?} is not {:?}", rule.claim, rule.required_value));
            }
        }
        let mut bindings = Bindings::new();
        bindings.set("claims", claims.clone());
        check(&self.claim_rules, &bindings)?;
        let user = self.map(claims, &bindings)?;
        if !self.user_rules.is_empty() {
            let mut bindings = Bindings::new();
            bindings.set(
                "user",
                json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra}),
            );
            check(&self.user_rules, &bindings)?;
        }
        Ok(user)
    }

    fn map(&self, claims: &Value, bindings: &Bindings) -> Result<UserInfo, String> {
        let mappings = &self.config.claim_mappings;
        let value = |mapping: &Mapping, expression: &Option<Expression>| match expression {
            Some(expression) => expression.evaluate(bindings),
            None => Ok(claims[mapping.claim.as_str()].clone()),
        };
        let prefix = |mapping: &Mapping| mapping.prefix.clone().unwrap_or_default();
        let name = value(&mappings.username, &self.username)?;
        let name = name.as_str().filter(|n| !n.is_empty()).ok_or("there is no user name in the token")?;
        if mappings.username.claim == "email" && claims.get("email_verified").is_some_and(|v| *v != Value::Bool(true)) {
            return Err("the email address in the token is not verified".into());
        }
        let mut groups = texts(&value(&mappings.groups, &self.groups)?)?;
        groups.iter_mut().for_each(|group| group.insert_str(0, &prefix(&mappings.groups)));
        groups.push(AUTHENTICATED.into());
        let uid = match value(&mappings.uid, &self.uid)? {
            Value::String(uid) => uid,
            Value::Null => String::new(),
            _ => return Err("the uid is not a string".into()),
        };
        let mut user = UserInfo { name: prefix(&mappings.username) + name, uid, groups, ..UserInfo::default() };
        for (key, expression) in &self.extra {
            let values = texts(&expression.evaluate(bindings)?)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        Ok(user)
    }
}

fn check(rules: &[(Expression, String)], bindings: &Bindings) -> Result<(), String> {
    for (expression, message) in rules {
        if !expression.holds(bindings)? {
            return Err(message.clone());
        }
    }
    Ok(())
}

/// A string or a list of strings; nothing is an empty list, and empty strings are left out.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    let one =
        |value: &Value| value.as_str().map(str::to_owned).ok_or("a list in the token has something else than strings");
    let mut found = match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().map(one).collect::<Result<_, _>>()?,
        value => vec![one(value)?],
    };
    found.retain(|text| !text.is_empty());
    Ok(found)
}
