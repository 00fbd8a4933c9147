//! Several authorizers asked in turn.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Authorizer, Decision, Rules};
use crate::request_info::RequestInfo;
use crate::user::{MASTERS, UserInfo};

/// Asks its authorizers in order; the first `Allow` or `Deny` wins. Group `system:masters` is allowed before any is asked.
#[derive(Default)]
pub struct Chain {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl Chain {
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self { authorizers }
    }
}

#[async_trait]
impl Authorizer for Chain {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow;
        }
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(user, request).await {
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(join(reasons))
    }

    fn authorize_now(&self, user: &UserInfo, request: &RequestInfo) -> Option<Decision> {
        if user.in_group(MASTERS) {
            return Some(Decision::Allow);
        }
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize_now(user, request)? {
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return Some(decided),
            }
        }
        Some(Decision::NoOpinion(join(reasons)))
    }

    async fn explain(&self, user: &UserInfo, request: &RequestInfo) -> (Decision, String) {
        if user.in_group(MASTERS) {
            return (Decision::Allow, String::new());
        }
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.explain(user, request).await {
                (Decision::NoOpinion(reason), _) => reasons.push(reason),
                decided => return decided,
            }
        }
        (Decision::NoOpinion(join(reasons)), String::new())
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        if user.in_group(MASTERS) {
            all.rules.push(super::Rule::resources(&["*"], &["*"], &["*"], &[]));
            all.rules.push(super::Rule {
                verbs: vec!["*".into()],
                non_resource_urls: vec!["*".into()],
                ..super::Rule::default()
            });
        }
        for authorizer in &self.authorizers {
            let found = authorizer.rules(user, namespace).await;
            all.rules.extend(found.rules);
            all.incomplete |= found.incomplete;
            all.errors.extend(found.errors);
        }
        all
    }
}

fn join(mut reasons: Vec<String>) -> String {
    reasons.retain(|r| !r.is_empty());
    reasons.join("\n")
}
