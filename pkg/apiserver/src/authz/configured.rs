//! The authorizers of a server, as flags or a file choose them; exchanged as a whole when the file changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use kube1_telemetry::metrics::Counter;

use super::abac::Abac;
use super::config::{AuthorizationConfiguration, AuthorizationError, AuthorizationOptions};
use super::meters::AuthorizerMetrics;
use super::webhook::WebhookAuthorizer;
use super::{Authorizer, Chain, Decision, Rule, Rules};
use crate::dial::Remote;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// Asks the chosen authorizers.
pub struct ConfiguredAuthorizer {
    options: AuthorizationOptions,
    node: Arc<dyn Authorizer>,
    rbac: Arc<dyn Authorizer>,
    metrics: AuthorizerMetrics,
    current: ArcSwap<Chain>,
}

impl ConfiguredAuthorizer {
    pub fn open(
        options: AuthorizationOptions,
        node: Arc<dyn Authorizer>,
        rbac: Arc<dyn Authorizer>,
        metrics: AuthorizerMetrics,
    ) -> Result<Self, AuthorizationError> {
        let this = Self { options, node, rbac, metrics, current: ArcSwap::from_pointee(Chain::default()) };
        this.reload()?;
        Ok(this)
    }

    /// The files to be followed: the configuration, and what says where its webhooks are.
    pub fn files(&self) -> Vec<PathBuf> {
        let Some(file) = &self.options.config_file else { return Vec::new() };
        let mut files = vec![file.clone()];
        if let Ok(config) = AuthorizationConfiguration::read(file) {
            let webhooks = config.authorizers.into_iter().filter_map(|a| a.webhook);
            files.extend(webhooks.filter_map(|w| w.connection_info.kube_config_file));
        }
        files
    }

    fn policy_file(&self) -> Result<&Path, AuthorizationError> {
        let needed = || AuthorizationError::Flags("the authorizer ABAC needs --authorization-policy-file".into());
        self.options.policy_file.as_deref().ok_or_else(needed)
    }

    /// Takes the file over again; on error nothing changes.
    pub fn reload(&self) -> Result<(), AuthorizationError> {
        let config = match &self.options.config_file {
            Some(file) => AuthorizationConfiguration::read(file)?,
            None => AuthorizationConfiguration::of_flags(&self.options)?,
        };
        let mut chosen: Vec<Arc<dyn Authorizer>> = Vec::new();
        for authorizer in config.authorizers {
            let (kind, name) = (authorizer.kind, authorizer.name);
            let inner: Arc<dyn Authorizer> = match (kind.as_str(), authorizer.webhook) {
                ("Node", _) => self.node.clone(),
                ("RBAC", _) => self.rbac.clone(),
                ("AlwaysAllow", _) => Arc::new(Always(true)),
                ("AlwaysDeny", _) => Arc::new(Always(false)),
                ("ABAC", _) => Arc::new(Abac::read(self.policy_file()?)?),
                (_, Some(webhook)) => {
                    let file = webhook.connection_info.kube_config_file.clone().unwrap_or_default();
                    let remote = Remote::from_kubeconfig(&file)?;
                    let built = WebhookAuthorizer::new(&name, webhook, remote, self.metrics.clone());
                    Arc::new(built.map_err(AuthorizationError::Flags)?)
                }
                (kind, None) => return Err(AuthorizationError::Flags(format!("there is no authorizer {kind}"))),
            };
            let metrics = self.metrics.clone();
            chosen.push(Arc::new(Counted { inner, kind, name, metrics, allowed: OnceLock::new() }));
        }
        self.current.store(Arc::new(Chain::new(chosen)));
        Ok(())
    }
}

#[async_trait]
impl Authorizer for ConfiguredAuthorizer {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        self.current.load_full().authorize(user, request).await
    }

    fn authorize_now(&self, user: &UserInfo, request: &RequestInfo) -> Option<Decision> {
        self.current.load().authorize_now(user, request)
    }

    async fn explain(&self, user: &UserInfo, request: &RequestInfo) -> (Decision, String) {
        self.current.load_full().explain(user, request).await
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        self.current.load_full().rules(user, namespace).await
    }
}

/// Counts what an authorizer decides.
struct Counted {
    inner: Arc<dyn Authorizer>,
    kind: String,
    name: String,
    metrics: AuthorizerMetrics,
    /// Found once, as nearly every request needs it.
    allowed: OnceLock<Counter>,
}

impl Counted {
    fn count(&self, decision: &Decision) {
        match decision {
            Decision::Allow => {
                self.allowed.get_or_init(|| self.metrics.decisions(&self.kind, &self.name, "allowed")).inc();
            }
            Decision::Deny(_) => {
                self.metrics.decisions(&self.kind, &self.name, "denied").inc();
            }
            Decision::NoOpinion(_) => {}
        }
    }
}

#[async_trait]
impl Authorizer for Counted {
    async fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let decision = self.inner.authorize(user, request).await;
        self.count(&decision);
        decision
    }

    fn authorize_now(&self, user: &UserInfo, request: &RequestInfo) -> Option<Decision> {
        let decision = self.inner.authorize_now(user, request)?;
        self.count(&decision);
        Some(decision)
    }

    async fn explain(&self, user: &UserInfo, request: &RequestInfo) -> (Decision, String) {
        let decided = self.inner.explain(user, request).await;
        self.count(&decided.0);
        decided
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        self.inner.rules(user, namespace).await
    }
}

/// Lets everybody do everything, or nobody anything.
struct Always(bool);

#[async_trait]
impl Authorizer for Always {
    async fn authorize(&self, _: &UserInfo, _: &RequestInfo) -> Decision {
        if self.0 { Decision::Allow } else { Decision::NoOpinion("Everything is forbidden.".into()) }
    }

    fn authorize_now(&self, _: &UserInfo, _: &RequestInfo) -> Option<Decision> {
        Some(if self.0 { Decision::Allow } else { Decision::NoOpinion("Everything is forbidden.".into()) })
    }

    async fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        if !self.0 {
            return Rules::default();
        }
        let paths = Rule { verbs: vec!["*".into()], non_resource_urls: vec!["*".into()], ..Rule::default() };
        Rules { rules: vec![Rule::resources(&["*"], &["*"], &["*"], &[]), paths], ..Rules::default() }
    }
}
