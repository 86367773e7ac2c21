//! The connection to Redis, shared by all calls of a process, made again with growing pauses when it is lost.
//!
//! Every call that goes through [`Link::call`] may be carried out twice when an answer is lost, so the scripts are
//! idempotent. Rings (RESP3 pushes) come over a second connection, made when somebody first waits: Redis closes a
//! connection with subscriptions when an answer of more than 32 MiB waits on it. They may get lost; whoever waits looks
//! again after a reconnect and every [`RECHECK`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand::Rng as _;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ErrorKind, IntoConnectionInfo as _, Pipeline,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates,
    Value,
};
use tokio::time::{timeout, timeout_at, Instant};

use super::call::Call;
use super::inspect::inspect;
use super::url::{RedisConfig, Target, TargetKind};
use crate::bells::{Bells, Ear};
use crate::error::{BackendError, Refusal};
use crate::queue::deadline;

/// Whoever waits for a ring looks by himself this often: a ring can be lost with its connection.
pub(crate) const RECHECK: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Channels that nobody listened to for this long are unsubscribed.
const CHANNEL_IDLE: Duration = Duration::from_secs(60);
const CHANNELS_SWEPT_MAX: usize = 256;
/// How often idle channels are looked for.
const CHANNEL_SWEEP: Duration = Duration::from_secs(5);

/// Handle to the connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    config: RedisConfig,
    target: Target,
    source: Source,
    bells: Bells,
    current: RwLock<Option<Live>>,
    /// Held while a connection is made.
    connecting: tokio::sync::Mutex<Pause>,
    generations: AtomicU64,
    warnings: Mutex<Vec<String>>,
    swept: Mutex<Instant>,
}

/// Where connections come from.
enum Source {
    Server(Box<Client>),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
    /// Built for each connection, because the receiver of pushes belongs to the client.
    Cluster(Option<TlsCertificates>),
}

#[derive(Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    fn grow(&mut self) {
        let backoff = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + jittered(backoff));
    }
}

#[derive(Clone)]
struct Live {
    generation: u64,
    connection: Connection,
    /// For subscriptions; as long as nobody waits there is none.
    rings: Arc<tokio::sync::Mutex<Option<Connection>>>,
    /// One of the two is lost.
    is_dead: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Something that can be done twice.
enum Request<'a> {
    Script { call: &'a Call<'a>, by_hash: Cmd },
    Pipeline(&'a Pipeline),
    Info,
    Subscribe { name: &'a str, ear: &'a Ear },
}

/// The answer to the [`Request`] of the same kind.
enum Reply {
    Value(Value),
    Values(Vec<Value>),
    Info(Vec<(String, String)>),
    Subscribed { is_old: bool },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Unfit(#[from] Refusal),
    #[error(transparent)]
    Failed(#[from] RedisError),
}

/// What to do after a failed call.
enum Verdict {
    /// Again, over a new connection.
    Reconnect,
    /// Again, later.
    Wait,
    /// Never.
    Fail(BackendError),
}

impl Link {
    /// Connects and checks the server.
    ///
    /// # Errors
    /// [`BackendError::Config`], [`BackendError::Refused`], [`BackendError::Unavailable`]; [`BackendError::File`].
    pub(crate) async fn open(config: RedisConfig) -> Result<Self, BackendError> {
        install_tls();
        let target = Target::read(&config)?;
        let source = Source::new(&config, &target)?;
        let shared = Shared {
            config,
            target,
            source,
            bells: Bells::new(true),
            current: RwLock::default(),
            connecting: tokio::sync::Mutex::default(),
            generations: AtomicU64::new(0),
            warnings: Mutex::default(),
            swept: Mutex::new(Instant::now()),
        };
        let link = Self { shared: Arc::new(shared) };
        link.live(Instant::now(), link.deadline()).await?;
        Ok(link)
    }

    pub(crate) fn bells(&self) -> &Bells {
        &self.shared.bells
    }

    /// What was found wrong with the servers at the last connection.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.shared.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a script; again after a lost connection.
    ///
    /// # Errors
    /// [`BackendError`].
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Value, BackendError> {
        match self.repeat(&Request::Script { call, by_hash: call.by_hash() }).await? {
            Reply::Value(value) => Ok(value),
            _ => Err(BackendError::internal("a script's reply of another kind")),
        }
    }

    /// Runs commands that only read, next to each other but not as one.
    ///
    /// # Errors
    /// [`BackendError`].
    pub(crate) async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BackendError> {
        match self.repeat(&Request::Pipeline(pipeline)).await? {
            Reply::Values(values) => Ok(values),
            _ => Err(BackendError::internal("a pipeline's reply of another kind")),
        }
    }

    /// What `INFO` says, of each server.
    ///
    /// # Errors
    /// [`BackendError`].
    pub(crate) async fn info(&self) -> Result<Vec<(String, String)>, BackendError> {
        match self.repeat(&Request::Info).await? {
            Reply::Info(info) => Ok(info),
            _ => Err(BackendError::internal("a reply to INFO of another kind")),
        }
    }

    /// Makes sure that rings of `name` reach `ear` from now on; false if rings before this call may have been missed.
    ///
    /// # Errors
    /// [`BackendError`].
    pub(crate) async fn subscribe(&self, name: &str, ear: &Ear) -> Result<bool, BackendError> {
        self.sweep_idle();
        if self.subscribed(ear).is_some() {
            return Ok(true);
        }
        match self.repeat(&Request::Subscribe { name, ear }).await? {
            Reply::Subscribed { is_old } => Ok(is_old),
            _ => Err(BackendError::internal("a reply to SUBSCRIBE of another kind")),
        }
    }

    /// The connection over which rings reach `ear`, if they do.
    pub(crate) fn subscribed(&self, ear: &Ear) -> Option<u64> {
        // Held while somebody subscribes.
        let subscribed = *ear.state().try_lock().ok()?;
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        let live = current.as_ref().filter(|live| !live.is_dead.load(Ordering::Acquire))?;
        (live.generation == subscribed).then_some(subscribed)
    }

    async fn perform(&self, live: &mut Live, request: &Request<'_>) -> Result<Reply, RedisError> {
        match request {
            Request::Script { call, by_hash } => {
                let answer = match live.connection.command(by_hash).await {
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                        live.connection.command(&call.by_code()).await?
                    }
                    answer => answer?,
                };
                if call.is_write() && self.shared.config.replicas_min > 0 {
                    self.wait_for_replicas(live, call.first_key()).await?;
                }
                Ok(Reply::Value(answer))
            }
            Request::Pipeline(pipeline) => Ok(Reply::Values(live.connection.pipeline(pipeline).await?)),
            Request::Info => Ok(Reply::Info(live.connection.info(&self.shared.target.to_string()).await?)),
            Request::Subscribe { name, ear } => {
                let mut generation = ear.state().lock().await;
                let is_old = *generation == live.generation;
                if !is_old {
                    self.rings(live).await?.subscribe(name).await?;
                    // Rings before this one were not heard, perhaps.
                    ear.set_quiet(None);
                    *generation = live.generation;
                }
                Ok(Reply::Subscribed { is_old })
            }
        }
    }

    /// The connection for rings; made if this is the first one who waits.
    async fn rings(&self, live: &Live) -> Result<Connection, RedisError> {
        let mut rings = live.rings.lock().await;
        if let Some(rings) = &*rings {
            return Ok(rings.clone());
        }
        let shared = &self.shared;
        let listener = self.listener(live.is_dead.clone());
        let connected = shared.source.connect(&shared.config, &shared.target, Some(listener)).await?;
        Ok(rings.insert(connected).clone())
    }

    /// Unsubscribes, now and then and in the background, from what nobody listens to any more.
    fn sweep_idle(&self) {
        let mut swept = self.shared.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.elapsed() >= CHANNEL_SWEEP {
            *swept = Instant::now();
            let link = self.clone();
            tokio::spawn(async move { link.unsubscribe_idle().await });
        }
    }

    async fn unsubscribe_idle(&self) {
        for (name, state) in self.shared.bells.idle(CHANNEL_IDLE, CHANNELS_SWEPT_MAX) {
            let mut generation = state.lock().await;
            // Whoever listens from here on finds 0 and subscribes again, after this.
            let subscribed = std::mem::take(&mut *generation);
            if let Some(live) = self.current().filter(|live| live.generation == subscribed) {
                let rings = live.rings.lock().await.clone();
                if let Some(mut rings) = rings {
                    if let Err(error) = rings.unsubscribe(&name).await {
                        tracing::debug!(%error, "redis: not unsubscribed");
                    }
                }
            }
            drop(generation);
            self.shared.bells.drop_idle(&name);
        }
    }

    fn deadline(&self) -> Instant {
        deadline(self.shared.config.retry_for)
    }

    /// Performs a request until it succeeds, fails for good, or the time is over.
    async fn repeat(&self, request: &Request<'_>) -> Result<Reply, BackendError> {
        let started = Instant::now();
        let deadline = self.deadline();
        let mut pause = BACKOFF_MIN;
        loop {
            let mut live = self.live(started, deadline).await?;
            let error = match self.perform(&mut live, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match verdict(&error, &self.shared.target) {
                Verdict::Fail(error) => return Err(error),
                Verdict::Reconnect => live.is_dead.store(true, Ordering::Release),
                Verdict::Wait => {}
            }
            tracing::debug!(%error, "redis: trying again");
            if Instant::now() + pause >= deadline {
                return Err(BackendError::Unavailable {
                    tried: started.elapsed(),
                    reason: error.to_string(),
                });
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (2 * pause).min(BACKOFF_MAX);
        }
    }

    fn current(&self) -> Option<Live> {
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|live| !live.is_dead.load(Ordering::Acquire))
    }

    /// The connection; made anew if there is none that works.
    async fn live(&self, started: Instant, deadline: Instant) -> Result<Live, BackendError> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let unavailable = |reason: String| BackendError::Unavailable { tried: started.elapsed(), reason };
        let waited = timeout_at(deadline, self.shared.connecting.lock()).await;
        let mut pause = waited.map_err(|_| unavailable("another call is connecting".to_owned()))?;
        let mut reason = "not connected yet".to_owned();
        loop {
            if let Some(live) = self.current() {
                return Ok(live);
            }
            if let Some(until) = pause.until.filter(|until| *until > Instant::now()) {
                if until >= deadline {
                    return Err(unavailable(reason));
                }
                tokio::time::sleep_until(until).await;
            }
            let refused = match timeout(self.shared.config.response_timeout, self.connect()).await {
                Ok(Ok(live)) => {
                    *pause = Pause::default();
                    *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
                    self.shared.bells.ring_all();
                    return Ok(live);
                }
                Ok(Err(ConnectError::Unfit(refusal))) => Some(refusal.into()),
                Ok(Err(ConnectError::Failed(error))) => {
                    reason = format!("{}: {error}", self.shared.target);
                    match verdict(&error, &self.shared.target) {
                        Verdict::Fail(error) => Some(error),
                        Verdict::Reconnect | Verdict::Wait => None,
                    }
                }
                Err(_) => {
                    reason = format!("{} does not answer", self.shared.target);
                    None
                }
            };
            pause.grow();
            if let Some(error) = refused {
                return Err(error);
            }
            tracing::warn!(reason, "redis: not connected");
            if Instant::now() >= deadline {
                return Err(unavailable(reason));
            }
        }
    }

    async fn connect(&self) -> Result<Live, ConnectError> {
        let shared = &self.shared;
        let generation = shared.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let mut connection = shared.source.connect(&shared.config, &shared.target, None).await?;
        let mut warnings = Vec::new();
        for (server, info) in connection.info(&shared.target.to_string()).await? {
            warnings.extend(inspect(&server, &info, shared.target.may_be_unlimited)?);
        }
        let mut known = shared.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != warnings {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            *known = warnings;
        }
        tracing::debug!(server = %shared.target, generation, "redis: connected");
        Ok(Live { generation, connection, rings: Arc::default(), is_dead: Arc::default() })
    }

    fn listener(&self, is_dead: Arc<AtomicBool>) -> Listener {
        let bells = self.shared.bells.clone();
        // A Cluster connection mends itself: losing one node is not losing the connection.
        let is_cluster = matches!(self.shared.source, Source::Cluster(_));
        Arc::new(move |push: PushInfo| match push.kind {
            PushKind::Message => {
                if let Some(Value::BulkString(channel)) = push.data.first() {
                    if let Ok(channel) = std::str::from_utf8(channel) {
                        bells.ring(channel);
                    }
                }
            }
            PushKind::Disconnection => {
                is_dead.store(!is_cluster, Ordering::Release);
                bells.ring_all();
            }
            _ => {}
        })
    }

    async fn wait_for_replicas(&self, live: &mut Live, key: &str) -> Result<(), RedisError> {
        let replicas = self.shared.config.replicas_min;
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg(self.shared.config.response_timeout.as_millis() as u64 / 2);
        let reached: u32 = redis::from_redis_value(live.connection.command_at(&wait, key).await?)?;
        if reached < replicas {
            let reason = format!("{reached} of {replicas} replicas have the change");
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into());
        }
        Ok(())
    }
}

/// Chooses the cryptography of all TLS connections of this process, unless that is done already.
pub(crate) fn install_tls() {
    // Fails only if there is a provider, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

type Listener = Arc<dyn Fn(PushInfo) + Send + Sync>;

impl Source {
    fn new(config: &RedisConfig, target: &Target) -> Result<Self, BackendError> {
        let certificates = certificates(config)?;
        if certificates.is_some() && !target.has_tls {
            let reason = "certificates are given, but the Redis URL does not begin with rediss".to_owned();
            return Err(BackendError::Config { reason });
        }
        let bad = |error: RedisError| BackendError::Config { reason: format!("{target}: {error}") };
        let addresses = target.addresses();
        match &target.kind {
            TargetKind::Server => {
                let address = addresses.into_iter().next();
                let address = address.ok_or_else(|| BackendError::internal("a URL without hosts"))?;
                let info = address.into_connection_info().map_err(bad)?;
                let info = info.set_redis_settings(login(target)).set_tcp_settings(tcp(config));
                let client = match certificates {
                    Some(certificates) => Client::build_with_tls(info, certificates),
                    None => Client::open(info),
                };
                Ok(Self::Server(Box::new(client.map_err(bad)?)))
            }
            TargetKind::Sentinel { master, user, password } => {
                let sentinels = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master);
                let mut builder = sentinels
                    .map_err(bad)?
                    .set_client_to_redis_db(target.db)
                    .set_client_to_redis_protocol(ProtocolVersion::RESP3)
                    .set_client_to_redis_tcp_settings(tcp(config))
                    .set_client_to_sentinel_tcp_settings(tcp(config));
                if target.has_tls {
                    builder = builder.set_client_to_redis_tls_mode(redis::TlsMode::Secure);
                }
                if let Some(certificates) = certificates {
                    builder = builder
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_certificates(certificates);
                }
                if let Some(user) = &target.user {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = &target.password {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(user) = user {
                    builder = builder.set_client_to_sentinel_username(user);
                }
                if let Some(password) = password {
                    builder = builder.set_client_to_sentinel_password(password);
                }
                Ok(Self::Sentinel(Box::new(tokio::sync::Mutex::new(builder.build().map_err(bad)?))))
            }
            TargetKind::Cluster => Ok(Self::Cluster(certificates)),
        }
    }

    async fn connect(
        &self,
        config: &RedisConfig,
        target: &Target,
        listener: Option<Listener>,
    ) -> Result<Connection, RedisError> {
        let listener = listener.map(|listener| {
            move |push: PushInfo| -> Result<(), redis::aio::SendError> {
                listener(push);
                Ok(())
            }
        });
        let wait = config.response_timeout;
        let mut settings = AsyncConnectionConfig::new()
            .set_response_timeout(Some(wait))
            .set_connection_timeout(Some(wait))
            .set_pipeline_buffer_size(1024);
        if let (Some(listener), false) = (&listener, matches!(self, Self::Cluster(_))) {
            settings = settings.set_push_sender(listener.clone());
        }
        match self {
            Self::Server(client) => {
                Ok(Connection::One(client.get_multiplexed_async_connection_with_config(&settings).await?))
            }
            Self::Sentinel(client) => {
                Ok(Connection::One(client.lock().await.get_async_connection_with_config(&settings).await?))
            }
            Self::Cluster(certificates) => {
                let nodes: Vec<_> = target.addresses().into_iter().collect();
                let mut builder = ClusterClientBuilder::new(nodes)
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(wait)
                    .response_timeout(wait)
                    .tcp_settings(tcp(config));
                if let Some(listener) = listener {
                    builder = builder.push_sender(listener);
                }
                if target.has_tls {
                    builder = builder.tls(redis::TlsMode::Secure);
                }
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates.clone());
                }
                if let Some(user) = &target.user {
                    builder = builder.username(user);
                }
                if let Some(password) = &target.password {
                    builder = builder.password(password);
                }
                Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
            }
        }
    }
}

impl Connection {
    async fn command(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(connection) => connection.req_packed_command(command).await?.extract_error(),
            Self::Cluster(connection) => connection.req_packed_command(command).await?.extract_error(),
        }
    }

    /// To the server that has `key`, for a command that does not name it.
    async fn command_at(&mut self, command: &Cmd, key: &str) -> Result<Value, RedisError> {
        match self {
            Self::One(_) => self.command(command).await,
            Self::Cluster(connection) => {
                let route = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
                connection.route_command(command.clone(), RoutingInfo::SingleNode(route)).await
            }
        }
    }

    async fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::One(connection) => pipeline.query_async(connection).await,
            Self::Cluster(connection) => pipeline.query_async(connection).await,
        }
    }

    async fn subscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        match self {
            Self::One(connection) => connection.subscribe(channel).await,
            Self::Cluster(connection) => connection.subscribe(channel).await,
        }
    }

    async fn unsubscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        match self {
            Self::One(connection) => connection.unsubscribe(channel).await,
            Self::Cluster(connection) => connection.unsubscribe(channel).await,
        }
    }

    async fn info(&mut self, name: &str) -> Result<Vec<(String, String)>, RedisError> {
        let info = redis::cmd("INFO");
        match self {
            Self::One(_) => Ok(vec![(name.to_owned(), redis::from_redis_value(self.command(&info).await?)?)]),
            Self::Cluster(connection) => {
                let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, None));
                let answers: std::collections::BTreeMap<String, String> =
                    redis::from_redis_value(connection.route_command(info, everywhere).await?)?;
                Ok(answers.into_iter().collect())
            }
        }
    }
}

fn login(target: &Target) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(target.db);
    if let Some(user) = &target.user {
        login = login.set_username(user);
    }
    if let Some(password) = &target.password {
        login = login.set_password(password);
    }
    login
}

fn tcp(config: &RedisConfig) -> redis::io::tcp::TcpSettings {
    redis::io::tcp::TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(config.response_timeout.saturating_mul(2))
}

fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, BackendError> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).map_err(BackendError::configured("read the certificate or key", path))
    };
    if config.ca_file.is_none() && config.client_files.is_none() {
        return Ok(None);
    }
    let client_tls = match &config.client_files {
        Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        None => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert: config.ca_file.as_ref().map(read).transpose()? }))
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::thread_rng().gen_range(0.5..1.0))
}

fn verdict(error: &RedisError, target: &Target) -> Verdict {
    let reason = error.to_string();
    let forbidden = |reason| Verdict::Fail(Refusal::Forbidden { server: target.to_string(), reason }.into());
    let refused = |refusal: Refusal| Verdict::Fail(refusal.into());
    let server = || target.to_string();
    match error.code() {
        Some("NOAUTH") => return refused(Refusal::NoPassword { server: server() }),
        Some("WRONGPASS") => return refused(Refusal::WrongPassword { server: server() }),
        _ => {}
    }
    // It has no code of its own; the server closes the connection after it.
    if reason.contains("max number of clients") {
        return Verdict::Reconnect;
    }
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel
        | ErrorKind::ClusterConnectionNotFound => Verdict::Reconnect,
        ErrorKind::Server(kind) => match kind {
            // The server is no master any more: find out who is.
            ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown => {
                Verdict::Reconnect
            }
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask => Verdict::Wait,
            ServerErrorKind::NoPerm => forbidden(reason),
            // How scripts are told, in 7.0 and later.
            _ if reason.contains("The user executing the script")
                || reason.contains("ACL failure in script") =>
            {
                forbidden(reason)
            }
            _ => Verdict::Fail(BackendError::Protocol { reason }),
        },
        ErrorKind::AuthenticationFailed => refused(Refusal::WrongPassword { server: server() }),
        ErrorKind::InvalidClientConfig => Verdict::Fail(BackendError::Config { reason }),
        _ => match error.code() {
            Some("OOM") => Verdict::Fail(BackendError::OutOfMemory { reason }),
            // A disk that is full, replicas that are away, a script of somebody else that takes long.
            Some("MISCONF" | "NOREPLICAS" | "BUSY" | "UNBLOCKED") => Verdict::Wait,
            _ => Verdict::Fail(BackendError::Protocol { reason }),
        },
    }
}
