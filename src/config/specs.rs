//! What a configuration says, as plain data: read once at start, handed to the parts, not kept.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use secrecy::SecretString;
use url::Url;

use crate::job::{EndpointName, LaneName, Tenant};
use crate::policy::backoff::RetryPolicy;
use crate::policy::classify::EndpointRules;
use crate::policy::health::{Kind, Severity};
use crate::policy::limit::Limit;
use crate::policy::pacing::EndpointBudget;

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Specs {
    /// Where jobs are queued.
    pub broker: BrokerSpec,
    /// Where jobs' states are kept.
    pub store: StoreSpec,
    /// The worker's own HTTP server.
    pub http: HttpSpec,
    /// Two publishes of one id within this time are one job.
    pub dedup_window: Duration,
    /// How a worker process behaves.
    pub worker: WorkerSpec,
    /// How long ended things are kept.
    pub retention: RetentionSpec,
    /// What is written to the log.
    pub log: LogSpec,
    /// What is told of calls elsewhere.
    pub telemetry: TelemetrySpec,
    /// The lanes, in the order of the file; never empty.
    pub lanes: Vec<LaneSpec>,
    /// The endpoints, in the order of the file.
    pub endpoints: Vec<EndpointSpec>,
    /// What is different for some tenants.
    pub tenants: Vec<TenantSpec>,
    /// Who is told of incidents.
    pub notify: Vec<NotifySpec>,
}

/// Where jobs are queued.
#[derive(Debug, Clone)]
pub struct BrokerSpec {
    /// `sqlite:PATH`, `amqp(s)://...` or `memory:`; may hold a password.
    pub url: SecretString,
}

/// Where jobs' states are kept.
#[derive(Debug, Clone)]
pub struct StoreSpec {
    /// `sqlite:PATH` or `postgres://...`; may hold a password.
    pub url: SecretString,
}

/// The worker's own HTTP server.
#[derive(Debug, Clone)]
pub struct HttpSpec {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it is started at all.
    pub enabled: bool,
    /// Begins every path of the dashboard: empty, or like `/lanes`.
    pub base_path: String,
    /// What the installation is called, shown on every page; empty = nothing.
    pub environment: String,
    /// Who may see the dashboard.
    pub auth: AuthSpec,
    /// Where people find the dashboard, for links in notices.
    pub public_url: Option<Url>,
}

/// How a sink is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyKind {
    /// JSON, signed where there is a secret.
    Webhook,
    /// Slack's incoming webhooks.
    Slack,
}

/// Somebody who is told of incidents.
#[derive(Clone)]
pub struct NotifySpec {
    /// Its name in logs and metrics, and by which it is known from one start to the next.
    pub name: EndpointName,
    /// How it is told.
    pub kind: NotifyKind,
    /// Where; may itself be a secret.
    pub url: Url,
    /// Only what is as bad as this, or worse.
    pub min_severity: Severity,
    /// Only these; empty = all.
    pub kinds: Vec<Kind>,
    /// Told again after so long.
    pub repeat: Option<Duration>,
    /// Signs what is sent.
    pub secret: Option<SecretString>,
}

impl fmt::Debug for NotifySpec {
    /// Only what cannot be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifySpec").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// How people are asked who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// They are not; only where nobody else can reach the address.
    None,
    /// By a token.
    Token,
    /// By name and password.
    Basic,
    /// A proxy has asked.
    Proxy,
}

/// What a user of the dashboard may do; each may do what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRole {
    /// Looks.
    Viewer,
    /// Also acts on jobs.
    Operator,
    /// Also changes what there is.
    Admin,
}

/// Who may see the dashboard.
#[derive(Debug, Clone)]
pub struct AuthSpec {
    /// How people are asked.
    pub mode: AuthMode,
    /// Mode proxy: the header that names the user.
    pub header: HeaderName,
    /// Mode proxy: who may send it.
    pub from: Vec<IpAddr>,
    /// Mode proxy: what users may do that are not named.
    pub role: UserRole,
    /// Users, in the order of the file.
    pub users: Vec<UserSpec>,
}

/// One user of the dashboard.
#[derive(Debug, Clone)]
pub struct UserSpec {
    /// The name.
    pub name: String,
    /// What he may do.
    pub role: UserRole,
    /// The token, or the hash of the password; empty in mode proxy.
    pub secret: SecretString,
}

/// How a worker process behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSpec {
    /// A worker that has not renewed its heartbeat for this long counts as dead.
    pub lease: Duration,
    /// Most time for calls in flight to end after SIGTERM.
    pub drain_timeout: Duration,
    /// Workers that a job may take down with it before it is a dead letter.
    pub poison_after: u32,
    /// Largest message that is accepted, in bytes.
    pub max_message_bytes: u64,
}

/// How long ended things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionSpec {
    /// Longest time an ended job's row is kept for deduplication, however long the lane's backlog is.
    pub done_cap: Duration,
    /// How long dead letters are kept.
    pub letters: Duration,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is written to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpec {
    /// Its form.
    pub format: LogFormat,
    /// A filter such as `info` or `lanes=debug,info`.
    pub level: String,
}

/// What is told of calls elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TelemetrySpec {
    /// Base url of the collector that takes calls as spans over OTLP/HTTP; `None` = nowhere.
    pub otlp: Option<String>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneSpec {
    /// Its name.
    pub name: LaneName,
    /// Calls in flight, per worker.
    pub concurrency: u32,
    /// Most calls in flight, over all workers.
    pub global_concurrency: Option<u32>,
    /// Deliveries held unsettled, per worker; at least `concurrency`.
    pub prefetch: u16,
    /// Share of every budget that other lanes cannot take, 0 to 1.
    pub reserve: f64,
    /// When its jobs are called again.
    pub retry: RetryPolicy,
    /// The endpoint of jobs that name none.
    pub default_endpoint: Option<EndpointName>,
}

/// One endpoint.
#[derive(Clone)]
pub struct EndpointSpec {
    /// Its name.
    pub name: EndpointName,
    /// Where it is.
    pub url: Url,
    /// The method of jobs that ask for none.
    pub default_method: Method,
    /// Methods that jobs may ask for, beside the default.
    pub allow_methods: Vec<Method>,
    /// Patterns of paths that jobs may ask for; empty = the url as it is.
    pub allow_paths: Vec<String>,
    /// Most time for a whole call.
    pub timeout: Duration,
    /// Most time to get a connection.
    pub connect_timeout: Duration,
    /// Sent with every call; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What its answers mean.
    pub rules: EndpointRules,
    /// Allow addresses of cloud metadata services.
    pub allow_metadata: bool,
    /// Never HTTP/2.
    pub http1_only: bool,
    /// How often it may be called, and what is learnt of that.
    pub budget: EndpointBudget,
}

/// What is different for one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantSpec {
    /// Its name.
    pub name: Tenant,
    /// Share in each round among tenants that wait for one budget.
    pub weight: u32,
    /// Limits that replace an endpoint's.
    pub limits: Vec<(EndpointName, Vec<Limit>)>,
}

impl TenantSpec {
    /// Whether it has limits of its own for `endpoint`.
    pub fn limits_of(&self, endpoint: &EndpointName) -> bool {
        self.limits.iter().any(|(of, _)| of == endpoint)
    }
}

impl fmt::Debug for EndpointSpec {
    /// Only what cannot be a secret: tokens are found in paths and queries too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSpec")
            .field("name", &self.name)
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}
