//! The assembled server.

mod front;
mod identity;
mod in_process;
mod objects;
mod parts;
mod sync;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Request;
use ipnet::IpNet;
use kube1_api::resource::ResourceTable;
use kube1_api::status::Status;
use kube1_pki::{PkiError, ServerPki, ServingCertificates};
use kube1_store::Store;
use kube1_trace::{Exporter, Tracer, TracingConfigError};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use front::{EncryptionOptions, Front, ServingOptions};
pub use in_process::InProcess;
use parts::Parts;

use crate::admission::{self, Admission, AdmissionConfigError, Configured, PluginConfig, RbacEscalation};
use crate::aggregate::AvailabilityController;
use crate::aggregate::RemoteOpenApi;
use crate::aggregate::discovery::RemoteDiscovery;
use crate::allocator::{AllocatorConfig, ServiceAllocator};
use crate::audit::{Audit, AuditError, AuditWriter};
use crate::authn::{
    self, AuthenticationConfigError, Authenticator, AuthoritiesError, ExternalSigner, SignerError, Trust,
};
use crate::authz::{AuthorizationError, Authorizer, AuthorizerMetrics, ConfiguredAuthorizer, NodeAuthorizer, Rbac};
use crate::bootstrap;
use crate::component_status::Components;
use crate::custom::DefinitionController;
use crate::dial::Resolver;
use crate::flow::{FlowControl, FlowMetrics};
use crate::http::body::RequestBody;
use crate::http::health::Health;
use crate::http::pipeline::{Client, Origin};
use crate::http::respond::Reply;
use crate::http::serve::{self, Handler};
use crate::http::tls::tls_config;
use crate::http::zpages::Pages;
use crate::metrics::{AdmissionMetrics, Metrics, Registrar};
use crate::reader::{Reader, StorageReader};
use crate::reload::Reloads;
use crate::resource_metrics::ResourceMetrics;
use crate::review;
use crate::storage::{Encryption, EncryptionError, OpenError, SecretKey, Storage};
use crate::user::UserInfo;

/// Background work gets this long to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// What a server is made of and how it calls itself.
pub struct Config {
    pub store: Arc<dyn Store>,
    pub pki: Arc<ServerPki>,
    /// Encrypts Secrets in the store.
    pub secret_key: Option<SecretKey>,
    /// Where other nodes reach this server.
    pub advertise_address: IpAddr,
    pub port: u16,
    pub service_cidr: IpNet,
    pub node_ports: std::ops::RangeInclusive<u16>,
    pub cluster_domain: String,
    pub front: Front,
}

/// Why a server could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot load the stored objects")]
    Storage(#[from] OpenError),
    #[error("cannot use the certificate authorities of clients")]
    Authorities(#[from] AuthoritiesError),
    #[error("cannot use the keys and certificates that flags name")]
    Keys(#[from] PkiError),
    #[error("cannot use the service that signs service-account tokens")]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Authentication(#[from] AuthenticationConfigError),
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
    #[error(transparent)]
    Admission(#[from] AdmissionConfigError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Tracing(#[from] TracingConfigError),
    #[error("cannot bring the cluster's start objects up to date: {0}")]
    Bootstrap(Status),
    #[error("cannot build the TLS configuration of the apiserver")]
    Tls(#[from] rustls::Error),
}

/// What handlers share.
pub struct Server {
    pub config: Config,
    pub table: Arc<ArcSwap<ResourceTable>>,
    pub storage: Storage,
    pub admission: Admission,
    pub allocator: Arc<ServiceAllocator>,
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    authorization: Arc<ConfiguredAuthorizer>,
    encryption: Arc<Encryption>,
    pub reviews: review::Context,
    pub flow: FlowControl,
    pub remote_discovery: RemoteDiscovery,
    pub remote_openapi: RemoteOpenApi,
    pub audit: Audit,
    /// Nothing where requests are not traced.
    pub tracer: Option<Tracer>,
    pub health: Health,
    /// The other parts of the control plane, as ComponentStatus shows them.
    pub components: Components,
    pub metrics: Metrics,
    pub pages: Pages,
    pub resource_metrics: ResourceMetrics,
    reloads: Reloads,
    serving: Arc<ServingCertificates>,
    /// For connections from now on.
    tls: ArcSwap<rustls::ServerConfig>,
    /// What the cluster is told of this server has changed.
    republish: Notify,
    /// Streams that are passed on between a client and another server.
    pub streams: TaskTracker,
    /// Shutdown has begun: nothing new should be sent here.
    pub stopping: CancellationToken,
    /// Ends watches and other long answers.
    pub shutdown: CancellationToken,
    /// All requests of the listener are answered.
    pub drained: CancellationToken,
}

/// A server that is ready to answer. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Server>,
    background: Arc<tokio::sync::Mutex<JoinSet<()>>>,
}

impl ApiServer {
    /// Loads the stored objects, brings the start objects up to date and starts the background work.
    pub async fn new(mut config: Config) -> Result<Self, ServerError> {
        let table = Arc::new(ArcSwap::from_pointee(ResourceTable::builtin().with_resource_metrics()));
        let secret_key = config.secret_key.take();
        let encryption = Arc::new(Encryption::open(secret_key, config.front.encryption.config_file.clone())?);
        let storage = Storage::open(config.store.clone(), &table.load(), Some(encryption.clone())).await?;
        let signer = connect_signer(&mut config).await?;
        let mut metrics = Registrar::default();
        let (audit, writers) = Audit::open(&config.front.audit, &mut metrics)?;
        let (tracer, exporter) = open_tracer(&config.front)?.unzip();
        let parts = Opened { table, storage, encryption, signer, audit, tracer, metrics };
        let server = Arc::new(Server::assemble(config, parts)?);
        let api = Self { server, background: Arc::default() };
        if let Some(exporter) = exporter {
            api.background.lock().await.spawn(exporter.run(api.server.drained.clone()));
        }
        api.start(writers).await?;
        Ok(api)
    }

    /// A service that answers requests as `user`, without a connection.
    pub fn in_process(&self, user: UserInfo) -> InProcess {
        InProcess::new(self.server.clone(), user)
    }

    /// Serves HTTPS until `shutdown`, then lets requests finish for a few seconds and ends watches.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServerError> {
        let server = &self.server;
        let ending = async {
            shutdown.cancelled().await;
            server.stopping.cancel();
            tokio::time::sleep(server.config.front.requests.shutdown_delay).await;
            server.shutdown.cancel();
        };
        let options = &server.config.front.requests;
        tokio::join!(
            serve::serve(listener, || server.tls.load_full(), server.clone(), options, server.shutdown.clone()),
            ending
        );
        server.drained.cancel();
        let mut tasks = self.background.lock().await;
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tasks.shutdown().await;
        }
        Ok(())
    }

    /// What handlers share; for parts of the same process that add checks or look at the storage.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    async fn start(&self, writers: Vec<AuditWriter>) -> Result<(), ServerError> {
        let server = &self.server;
        let mut tasks = self.background.lock().await;
        for writer in writers {
            tasks.spawn(writer.run(server.drained.clone()));
        }
        let parts = Parts::new(&server.health);
        parts.admission.begun();
        let (storage, cancel) = (server.storage.clone(), server.shutdown.clone());
        tasks.spawn(parts.stored.run(async move { storage.run(cancel).await }));
        let table = server.table.load_full();
        let writer = bootstrap::StorageWriter::new(&server.storage, &table);
        let mut start = bootstrap::objects();
        let pki = &server.config.pki;
        start.push(bootstrap::authentication_config(server.authenticator.trust()));
        bootstrap::reconcile(&writer, start).await.map_err(ServerError::Bootstrap)?;
        parts.start_objects.begun();
        objects::publish(server).await.map_err(ServerError::Bootstrap)?;
        sync::start(server, &parts, &mut tasks).await.map_err(ServerError::Bootstrap)?;
        sync::keep_api_services(server, &parts, &mut tasks);
        sync::keep_published(server, &parts, &mut tasks);
        identity::keep(server, &parts, &mut tasks);
        sync::follow_files(server, &mut tasks);
        sync::keep_token_keys(server, &mut tasks);
        let identity = server.config.pki.proxy_client.clone();
        if let Some(availability) = AvailabilityController::new(&server.storage, &table, identity) {
            let cancel = server.shutdown.clone();
            tasks.spawn(parts.availability.run(async move { availability.run(cancel).await }));
        }
        let (allocator, cancel) = (server.allocator.clone(), server.shutdown.clone());
        tasks.spawn(parts.addresses.run(async move { allocator.run(cancel).await }));
        let (storage, cancel) = (server.storage.clone(), server.shutdown.clone());
        let keys = pki.service_account_keys.clone();
        let tokens = authn::TokenSecrets::new(&storage, &table, keys, pki.ca.certificate_pem());
        tasks.spawn(parts.token_secrets.run({
            let cancel = cancel.clone();
            async move { tokens.run(cancel).await }
        }));
        tasks.spawn(parts.roles.run(async move { bootstrap::keep_aggregated(&storage, &table, &cancel).await }));
        if let Some(definitions) = DefinitionController::new(server.storage.clone(), server.table.clone()) {
            definitions.load();
            let cancel = server.shutdown.clone();
            tasks.spawn(parts.definitions.run(async move { definitions.run(cancel).await }));
        }
        parts.synced.begun();
        if server.encryption.has_services() || server.config.front.encryption.automatic_reload {
            let encryption = server.encryption.clone();
            server.health.add_asking("kms-providers", move || {
                let encryption = encryption.clone();
                async move { encryption.check().await }
            });
        }
        let stopping = server.stopping.clone();
        server.health.add("shutdown", false, move || match stopping.is_cancelled() {
            true => Err("process is shutting down".into()),
            false => Ok(()),
        });
        Ok(())
    }
}

/// The service that signs tokens, where there is one. Its longest life of tokens counts.
async fn connect_signer(config: &mut Config) -> Result<Option<Arc<ExternalSigner>>, SignerError> {
    let tokens = &mut config.front.authentication.service_accounts;
    let Some(socket) = tokens.signing_endpoint.clone() else { return Ok(None) };
    let signer =
        ExternalSigner::connect(socket, config.pki.service_account_keys.clone(), tokens.max_expiration).await?;
    tokens.max_expiration.get_or_insert(signer.longest());
    Ok(Some(Arc::new(signer)))
}

/// Spans of requests, and who sends them, where the flags say so.
fn open_tracer(front: &Front) -> Result<Option<(Tracer, Exporter)>, TracingConfigError> {
    let Some(file) = &front.tracing_config_file else { return Ok(None) };
    let settings = kube1_trace::Settings::read(file)?;
    Ok(Some(Tracer::new(&settings, "apiserver", &identity::instance())))
}

/// What a server is assembled of, beside its configuration.
struct Opened {
    table: Arc<ArcSwap<ResourceTable>>,
    storage: Storage,
    encryption: Arc<Encryption>,
    signer: Option<Arc<ExternalSigner>>,
    audit: Audit,
    tracer: Option<Tracer>,
    metrics: Registrar,
}

impl Server {
    fn assemble(config: Config, parts: Opened) -> Result<Self, ServerError> {
        let Opened { table, storage, encryption, signer, audit, tracer, mut metrics } = parts;
        let objects = Arc::new(StorageReader::new(&storage, &table.load()));
        let reader: Arc<dyn Reader> = objects.clone();
        let issuer = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
        let (pki, authentication) = (&config.pki, &config.front.authentication);
        let tokens = authentication.service_accounts.clone();
        let issuers = if tokens.issuers.is_empty() { vec![issuer] } else { tokens.issuers.clone() };
        let issuer = issuers.first().cloned().unwrap_or_default();
        let outside = authn::Outside::open(authentication, &issuers, authn::JwtMetrics::new(&mut metrics))?;
        pki.service_account_keys.use_files(tokens.key_files.clone())?;
        let proxies = pki.request_header_ca.certificate_pem();
        let authenticator = Arc::new(Authenticator::new(authn::Config {
            trust: Trust::open(pki.ca.certificate_pem(), Some(proxies), authentication.trust.clone())?,
            service_account_keys: pki.service_account_keys.clone(),
            signer: signer.clone(),
            issuers,
            api_audiences: tokens.api_audiences.clone(),
            outside,
            reader: reader.clone(),
        }));
        let options = &config.front.serving;
        let serving = ServingCertificates::open(pki.serving.clone(), options.default.clone(), options.named.clone())?;
        let serving = Arc::new(serving);
        let verifier = authenticator.certificate_verifier();
        let tls = ArcSwap::new(tls_config(serving.clone(), verifier, &options.tls)?);
        let rbac = Arc::new(Rbac::of_storage(&storage, &table.load()));
        let node = Arc::new(NodeAuthorizer::new(objects.clone()));
        let authorization = Arc::new(ConfiguredAuthorizer::open(
            config.front.authorization.clone(),
            node,
            rbac.clone(),
            AuthorizerMetrics::new(&mut metrics),
        )?);
        let authorizer: Arc<dyn Authorizer> = authorization.clone();
        let admission_metrics = AdmissionMetrics::new(&mut metrics);
        let plugin_config = PluginConfig::read(&config.front.admission)?;
        let mut plugins = admission::default_plugins(&objects, &authorizer, &plugin_config);
        plugins.push(Arc::new(RbacEscalation::new(rbac, authorizer.clone())));
        if let Some(resolver) = Resolver::new(&storage, &table.load()) {
            let (reader, storage, table) = (objects.clone(), storage.clone(), table.clone());
            let authorizer = authorizer.clone();
            let metrics = admission_metrics.clone();
            let credentials = Default::default();
            let configured = Configured { reader, storage, table, resolver, authorizer, metrics, credentials };
            plugins.extend(configured.plugins(&plugin_config));
        }
        let reviews = review::Context {
            authenticator: authenticator.clone(),
            authorizer: authorizer.clone(),
            reader: reader.clone(),
            service_account_keys: config.pki.service_account_keys.clone(),
            signer,
            issuer,
            tokens,
        };
        let ranges =
            AllocatorConfig { service_cidrs: vec![config.service_cidr], node_ports: config.node_ports.clone() };
        let allocator = ServiceAllocator::new(&storage, &table.load(), ranges);
        let stopping = CancellationToken::new();
        let health = parts::checks(config.store.clone(), stopping.clone());
        let requests = &config.front.requests;
        let seats = requests.max_inflight.saturating_add(requests.max_mutating_inflight);
        Ok(Self {
            admission: Admission::new(plugins).with_metrics(admission_metrics),
            allocator,
            flow: FlowControl::new(seats, FlowMetrics::new(&mut metrics)),
            remote_discovery: RemoteDiscovery::default(),
            remote_openapi: RemoteOpenApi::default(),
            reloads: Reloads::new(&mut metrics),
            serving,
            tls,
            republish: Notify::new(),
            pages: Pages::new(config.front.flags.clone()),
            metrics: Metrics::new(metrics),
            resource_metrics: ResourceMetrics::default(),
            stopping,
            shutdown: CancellationToken::new(),
            drained: CancellationToken::new(),
            streams: TaskTracker::new(),
            config,
            table,
            storage,
            authenticator,
            authorizer,
            authorization,
            encryption,
            reviews,
            audit,
            tracer,
            health,
            components: Components::default(),
        })
    }
}

impl Server {
    /// Takes over whose client certificates are believed, and tells aggregated servers.
    fn reload_trust(&self) -> Result<(), ServerError> {
        self.authenticator.trust().reload()?;
        // Clients with several certificates are told anew which to choose.
        let (verifier, options) = (self.authenticator.certificate_verifier(), &self.config.front.serving.tls);
        self.tls.store(tls_config(self.serving.clone(), verifier, options)?);
        self.republish.notify_one();
        Ok(())
    }
}

impl Handler for Server {
    type Client = Client;

    fn connected(&self, certificates: &[CertificateDer<'_>], address: SocketAddr) -> Client {
        let peer = self.authenticator.peer(certificates);
        if let Some(left) = peer.lifetime() {
            self.metrics.client_certificate(left);
        }
        Client { peer, address }
    }

    fn handshake_failed(&self) {
        self.metrics.tls_errors.inc(&[]);
    }

    fn sends_away(&self, _request: &Request<RequestBody>) -> bool {
        let chance = self.config.front.requests.goaway_chance;
        chance > 0.0 && rand::random_bool(chance.min(1.0))
    }

    fn is_leaving(&self) -> bool {
        self.stopping.is_cancelled()
    }

    fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
        client: Arc<Client>,
    ) -> impl Future<Output = Reply> + Send {
        self.answer(request, Origin::Peer(client))
    }
}
