//! Private PostgreSQL, RabbitMQ and Prometheus servers for tests: own ports, own data, gone when the test process is gone, however it dies.
//!
//! They are started from the installed Debian packages and never touch the machine's own services. One shared server of each
//! kind per test process ([`postgres`], [`rabbit`]), with a fresh database or vhost per test; a test that stops, pauses or kills
//! its server starts one of its own ([`Postgres::start`], [`Rabbit::start`]). `TEST_RABBITMQ_BIN` names a directory with another
//! RabbitMQ's `rabbitmq-server` and `rabbitmqctl`; `scripts/rabbitmq-4` makes one.
//!
//! Nothing is left behind: each server has a small shell beside it that waits for the end of a pipe which only this process
//! holds open, then kills whatever still carries the server's mark and removes its directory. That also works after `kill -9`.

#![allow(dead_code, reason = "shared by several binaries, each of which uses a part")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use sqlx::{Connection, Executor};

/// Between two looks at a server that is starting or stopping.
const POLL: Duration = Duration::from_millis(20);
/// Looks at a starting server before giving up (60 s: the machine may be busy).
const START_POLLS: u32 = 3_000;
/// Looks at a stopping server before it is killed (20 s).
const STOP_POLLS: u32 = 1_000;
/// Attempts to start a server, each on new ports.
const START_ATTEMPTS: u32 = 3;
/// Ports are taken from below the range that the kernel gives to outgoing connections, so a restart finds its port free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Vhosts that the shared RabbitMQ has from the start, and that are added when they run out.
const VHOSTS_AT_A_TIME: u32 = 32;
/// The environment variable by which a server's processes are recognised.
const MARK: &str = "LANES_PRIVATE_SERVER";
/// What to do when a server's programs are missing.
const FIX: &str = "apt-get install -y postgresql rabbitmq-server prometheus, or run scripts/test";

/// The shared PostgreSQL of this test process.
pub fn postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}

/// The shared RabbitMQ of this test process.
pub fn rabbit() -> &'static Rabbit {
    static SHARED: OnceLock<Rabbit> = OnceLock::new();
    SHARED.get_or_init(|| Rabbit::start_with(VHOSTS_AT_A_TIME))
}

/// The url of a new, empty database on the shared PostgreSQL.
pub async fn fresh_database() -> String {
    postgres().fresh_database().await
}

/// The url of a new, empty vhost on the shared RabbitMQ.
pub async fn fresh_vhost() -> String {
    tokio::task::spawn_blocking(|| rabbit().fresh_vhost()).await.expect("a vhost")
}

/// A private PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts one for tests: commits survive a killed server, not a power cut (`fsync=off`).
    pub fn start() -> Self {
        Self::start_with(&["-c", "fsync=off", "-c", "full_page_writes=off"])
    }

    /// Starts one that syncs every commit to the disk as in production, for measurements.
    pub fn start_durable() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments for `postgres`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let bin = postgres_bin();
        let server = Server::start("postgres", &["postgres", "nobody"], |dir, user, ports| {
            let data = dir.join("data");
            let initdb = user
                .command(&bin.join("initdb"), dir)
                .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
                .arg(&data)
                .output()
                .expect("initdb runs");
            assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
            let mut command = user.command(&bin.join("postgres"), dir);
            command.arg("-D").arg(&data).arg("-k").arg(dir).args(["-h", "127.0.0.1", "-p", &ports[0].to_string()]);
            command.args(["-c", "max_connections=400", "-c", "shared_buffers=64MB"]).args(arguments);
            command
        });
        Self { server, databases: AtomicU32::new(0) }
    }

    /// The url of its database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// The port it listens on, of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.ports[0]
    }

    /// The url of a new, empty database.
    pub async fn fresh_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut admin = sqlx::PgConnection::connect(&self.url()).await.expect("the private PostgreSQL answers");
        admin
            .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0")))
            .await
            .expect("a database is created");
        admin.close().await.expect("the connection closes");
        self.url_of(&name)
    }

    /// Kills all its processes at once, as a crash of the machine does.
    pub fn kill9(&self) {
        self.server.kill9();
    }

    /// Stops it in order (open connections are ended).
    pub fn stop(&self) {
        self.server.stop("INT");
    }

    /// Starts it again on the same port with the same data, after stopping it if it runs.
    pub fn restart(&self) {
        self.stop();
        self.server.launch().expect("it starts again");
    }

    /// Freezes it: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.server.signal_tree("STOP");
    }

    /// Lets it go on after [`Postgres::pause`].
    pub fn resume(&self) {
        self.server.signal_tree("CONT");
    }
}

/// A private RabbitMQ.
#[derive(Debug)]
pub struct Rabbit {
    server: Server,
    /// Given away, and existing.
    vhosts: Mutex<(u32, u32)>,
}

impl Rabbit {
    /// Starts one. It takes about five seconds.
    pub fn start() -> Self {
        Self::start_with(2)
    }

    fn start_with(vhosts: u32) -> Self {
        let script = rabbit_bin().join("rabbitmq-server");
        assert!(script.exists(), "RabbitMQ is not installed ({} is missing). {FIX}", script.display());
        let server = Server::start("rabbit", &["rabbitmq", "nobody"], |dir, user, ports| {
            fs::write(dir.join("rabbitmq.conf"), rabbit_conf(dir)).expect("the configuration is written");
            fs::write(dir.join("definitions.json"), definitions(vhosts)).expect("the definitions are written");
            fs::write(dir.join("enabled_plugins"), "[].").expect("the plugin list is written");
            let mut command = user.command(&script, dir);
            rabbit_env(&mut command, dir, ports);
            command
        });
        Self { server, vhosts: Mutex::new((0, vhosts)) }
    }

    /// The port it listens on, of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.ports[0]
    }

    /// The url of its default vhost.
    pub fn url(&self) -> String {
        self.url_of("%2f")
    }

    fn url_of(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.port())
    }

    /// The url of a new, empty vhost.
    pub fn fresh_vhost(&self) -> String {
        let mut vhosts = lock(&self.vhosts);
        let (given, existing) = &mut *vhosts;
        if given == existing {
            self.add_vhosts(*existing);
            *existing += VHOSTS_AT_A_TIME;
        }
        *given += 1;
        self.url_of(&vhost_name(*given - 1))
    }

    fn add_vhosts(&self, from: u32) {
        let each = "rabbit_vhost:add(V, <<\"guest\">>), \
                    rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, V, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"guest\">>)";
        let names: Vec<_> = (from..from + VHOSTS_AT_A_TIME).map(|n| format!("<<\"{}\">>", vhost_name(n))).collect();
        self.ctl(&["eval", &format!("[begin {each} end || V <- [{}]].", names.join(","))]);
    }

    /// Runs `rabbitmqctl` on it and returns what it printed. It takes one to two seconds.
    ///
    /// # Panics
    /// When the command fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let server = &self.server;
        let mut command = server.user.command(&rabbit_bin().join("rabbitmqctl"), &server.dir);
        rabbit_env(&mut command, &server.dir, &server.ports);
        let output = command.arg("--quiet").args(arguments).output().expect("rabbitmqctl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Kills it at once.
    pub fn kill9(&self) {
        self.server.kill9();
    }

    /// Stops it in order.
    pub fn stop(&self) {
        self.server.stop("TERM");
    }

    /// Starts it again on the same port with the same data, after stopping it if it runs.
    pub fn restart(&self) {
        self.stop();
        self.server.launch().expect("it starts again");
    }

    /// Freezes it: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.server.signal_tree("STOP");
    }

    /// Lets it go on after [`Rabbit::pause`].
    pub fn resume(&self) {
        self.server.signal_tree("CONT");
    }
}

/// A private Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    server: Server,
}

impl Prometheus {
    /// Starts one with these files in its directory (name and text); the first is its configuration.
    pub fn start(files: &[(&str, String)]) -> Self {
        let places = ["/usr/local/bin/prometheus", "/usr/bin/prometheus"].map(Path::new);
        let program = places.into_iter().find(|place| place.exists());
        let program = program.unwrap_or_else(|| panic!("Prometheus is not installed (none of {places:?}). {FIX}"));
        let server = Server::start("prometheus", &["prometheus", "nobody"], |dir, user, ports| {
            for (name, text) in files {
                fs::write(dir.join(name), text).expect("a file of its configuration is written");
            }
            let mut command = user.command(program, dir);
            command.arg(format!("--config.file={}", dir.join(files[0].0).display()));
            command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{}", ports[0])).arg("--log.level=warn");
            command
        });
        Self { server }
    }

    /// What its API answers to this path and query.
    pub fn get(&self, path: &str) -> serde_json::Value {
        let (_, body) = http_get(self.server.ports[0], path);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }
}

/// The status line and the body of what a server of this machine answers to a GET.
pub fn http_get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    // 1.0: the end of the connection is the end of the body
    write!(stream, "GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn vhost_name(number: u32) -> String {
    format!("test-{number}")
}

fn rabbit_conf(dir: &Path) -> String {
    format!(
        "loopback_users = none\n\
         load_definitions = {}\n\
         disk_free_limit.absolute = 50MB\n\
         vm_memory_high_watermark.absolute = 2GB\n\
         raft.wal_max_size_bytes = 64000000\n\
         log.file.level = warning\n",
        dir.join("definitions.json").display()
    )
}

/// The user and the first vhosts: adding a vhost later costs a run of `rabbitmqctl`.
fn definitions(vhosts: u32) -> String {
    let mut names: Vec<_> = (0..vhosts).map(vhost_name).collect();
    names.push("/".to_owned());
    let vhosts: Vec<_> = names.iter().map(|name| serde_json::json!({ "name": name })).collect();
    let permissions: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"user": "guest", "vhost": name, "configure": ".*", "write": ".*", "read": ".*"}))
        .collect();
    serde_json::json!({
        "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
        "vhosts": vhosts,
        "permissions": permissions,
    })
    .to_string()
}

fn rabbit_env(command: &mut Command, dir: &Path, ports: &[u16]) {
    command
        .env("RABBITMQ_NODENAME", format!("lanes-{}@localhost", ports[0]))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", ports[0].to_string())
        .env("RABBITMQ_DIST_PORT", ports[1].to_string())
        .env("ERL_EPMD_PORT", ports[2].to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_SCHEMA_DIR", dir.join("schema"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_PID_FILE", dir.join("rabbit.pid"))
        // two schedulers that sleep when idle: several of these run beside each other
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
        )
        // makes the script become the server instead of watching over it, so that our child is the server
        .env("RUNNING_UNDER_SYSTEMD", "true");
}

fn rabbit_bin() -> PathBuf {
    let chosen = std::env::var_os("TEST_RABBITMQ_BIN").unwrap_or_else(|| "/usr/lib/rabbitmq/bin".into());
    std::path::absolute(chosen).expect("TEST_RABBITMQ_BIN names a directory") // servers run in directories of their own
}

fn postgres_bin() -> PathBuf {
    let newest = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").exists() && bin.join("initdb").exists())
        .max_by_key(|bin| bin.parent()?.file_name()?.to_str()?.parse::<u32>().ok());
    newest.unwrap_or_else(|| panic!("PostgreSQL is not installed (nothing in /usr/lib/postgresql/*/bin). {FIX}"))
}

/// A server's processes, directory and ports.
#[derive(Debug)]
struct Server {
    kind: &'static str,
    dir: PathBuf,
    user: User,
    ports: Vec<u16>,
    command: Mutex<Command>,
    leader: Mutex<Option<Child>>,
    guard: Mutex<Guard>,
}

impl Server {
    /// Prepares a directory, starts what `prepare` returns and waits until it answers.
    fn start(kind: &'static str, users: &[&str], prepare: impl Fn(&Path, &User, &[u16]) -> Command) -> Self {
        let mut complaints = String::new();
        for _ in 0..START_ATTEMPTS {
            let user = User::find(users);
            let dir = private_dir(kind, &user);
            let guard = Guard::over(&dir);
            let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
            let command = Mutex::new(prepare(&dir, &user, &ports));
            let server = Self { kind, dir, user, ports, command, leader: Mutex::new(None), guard: Mutex::new(guard) };
            match server.launch() {
                Ok(()) => return server,
                Err(why) => complaints.push_str(&why), // most often a port that somebody else took meanwhile
            }
        }
        panic!("a private {kind} does not start: {complaints}");
    }

    fn launch(&self) -> Result<(), String> {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("output.log")).expect("a log file");
        let copy = log.try_clone().expect("a second handle of the log file");
        let mut leader =
            lock(&self.command).stdin(Stdio::null()).stdout(log).stderr(copy).spawn().expect("the server is spawned");
        for _ in 0..START_POLLS {
            if self.answers() {
                *lock(&self.leader) = Some(leader);
                return Ok(());
            }
            if let Some(status) = leader.try_wait().expect("its state is known") {
                return Err(format!("{} ended with {status}: {}\n", self.kind, self.log_tail()));
            }
            pause_between_polls();
        }
        leader.kill().expect("it can be killed");
        leader.wait().expect("it ends");
        Err(format!("{} does not answer on port {}: {}\n", self.kind, self.ports[0], self.log_tail()))
    }

    /// Whether the server speaks its protocol, not only accepts connections.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[0])) else { return false };
        let limit = Some(Duration::from_secs(2));
        if stream.set_read_timeout(limit).and(stream.set_write_timeout(limit)).is_err() {
            return false;
        }
        let (hello, expected): (&[u8], &[u8]) = match self.kind {
            "rabbit" => (b"AMQP\x00\x00\x09\x01", b"\x01"), // a method frame: Connection.Start
            "prometheus" => (b"GET /-/ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"HTTP/1.1 200"),
            _ => (POSTGRES_HELLO, b"R"), // authentication; 'E' while it is starting up
        };
        let mut first = vec![0; expected.len()];
        stream.write_all(hello).and_then(|()| stream.read_exact(&mut first)).is_ok() && first == expected
    }

    fn log_tail(&self) -> String {
        let text = fs::read(self.dir.join("output.log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2_000)..]).into_owned()
    }

    fn kill9(&self) {
        let Some(mut leader) = lock(&self.leader).take() else { return };
        send("STOP", &[leader.id()]); // so that it starts nothing between the look and the kill
        let tree = tree_of(leader.id());
        send("KILL", &tree);
        leader.wait().expect("a killed process ends");
        // PostgreSQL does not start again while a process of the old one still has its shared memory
        for _ in 0..STOP_POLLS {
            if tree.iter().all(|pid| has_ended(*pid)) {
                return;
            }
            pause_between_polls();
        }
        panic!("processes of the killed {} are still there", self.kind);
    }

    fn stop(&self, signal: &str) {
        let Some(mut leader) = lock(&self.leader).take() else { return };
        send(signal, &[leader.id()]);
        for _ in 0..STOP_POLLS {
            if leader.try_wait().expect("its state is known").is_some() {
                return;
            }
            pause_between_polls();
        }
        leader.kill().expect("it can be killed");
        leader.wait().expect("a killed process ends");
    }

    /// Sends `signal` to the server and to everything it has started.
    fn signal_tree(&self, signal: &str) {
        let leader = lock(&self.leader).as_ref().map(Child::id);
        if let Some(leader) = leader {
            send(signal, &tree_of(leader));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.guard).finish();
        if let Some(mut leader) = lock(&self.leader).take() {
            leader.wait().expect("the guard has killed it");
        }
    }
}

/// A startup packet of protocol 3.0 for user and database `postgres`.
const POSTGRES_HELLO: &[u8] = b"\x00\x00\x00\x29\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00";

/// Cleans up after a server when this process drops it or dies.
#[derive(Debug)]
struct Guard {
    shell: Child,
    /// While this end is open the server lives.
    lifeline: Option<ChildStdin>,
}

impl Guard {
    /// Waits for the end of its input, then ends what carries the mark `$1`: asks PostgreSQL to leave at once (so that
    /// it frees its shared memory), kills the rest, again until nothing is left, and removes the directory.
    const SCRIPT: &str = r#"
        trap '' INT TERM HUP QUIT
        cat >/dev/null
        marked() { grep -lsz "^$2=$1\$" /proc/[0-9]*/environ | sed 's|^/proc/||; s|/environ$||'; }
        pidfile="$1/data/postmaster.pid"
        if [ -s "$pidfile" ]; then
            kill -CONT $(marked "$@") 2>/dev/null
            kill -QUIT "$(head -n 1 "$pidfile")" 2>/dev/null
            for i in 1 2 3 4 5 6 7 8 9 10; do [ -e "$pidfile" ] || break; sleep 0.1; done
        fi
        for i in 1 2 3 4 5 6 7 8 9 10; do
            pids=$(marked "$@")
            [ -n "$pids" ] || break
            kill -KILL $pids 2>/dev/null
            sleep 0.05
        done
        if [ -e "$pidfile" ]; then # it could not clean up after itself
            shm=$(sed -n '7s/^ *[0-9]*  *//p' "$pidfile")
            [ -n "$shm" ] && ipcrm -m "$shm" 2>/dev/null
        fi
        for i in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && break; sleep 0.1; done
    "#;

    fn over(dir: &Path) -> Self {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", Self::SCRIPT, "guard"])
            .arg(dir)
            .arg(MARK)
            .env_remove(MARK)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C at the terminal must not reach it before its work is done
            .spawn()
            .expect("/bin/sh runs");
        let lifeline = shell.stdin.take();
        Self { shell, lifeline }
    }

    fn finish(&mut self) {
        self.lifeline = None;
        self.shell.wait().expect("the guard ends");
    }
}

/// The account a server runs as: PostgreSQL refuses to run as root.
#[derive(Debug)]
struct User {
    /// Name, uid and gid to change to; `None` when we are not root.
    change_to: Option<(String, u32, u32)>,
}

impl User {
    fn find(names: &[&str]) -> Self {
        if fs::metadata("/proc/self").expect("/proc is mounted").uid() != 0 {
            return Self { change_to: None };
        }
        let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let find = |name: &str| {
            let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map(|id| id.parse::<u32>().ok());
            Some((name.to_owned(), fields.next()??, fields.next()??))
        };
        let found = names.iter().find_map(|name| find(name));
        Self { change_to: Some(found.unwrap_or_else(|| panic!("none of the accounts {names:?} exists"))) }
    }

    /// `program` as this user, in `dir`, with a clean environment that carries the mark.
    fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = match &self.change_to {
            Some((_, uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", dir)
            .env("TMPDIR", dir)
            .env(MARK, dir)
            .current_dir(dir)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }
}

fn private_dir(kind: &str, user: &User) -> PathBuf {
    let prefix = format!("lanes-{kind}-");
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory").keep();
    if let Some((name, uid, gid)) = &user.change_to {
        chown(&dir, Some(*uid), Some(*gid))
            .unwrap_or_else(|error| panic!("{name} cannot be given {}: {error}", dir.display()));
    }
    dir
}

fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = u32::from(PORTS.end - PORTS.start);
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // processes that run at the same time begin at different places
        let offset = std::process::id().wrapping_mul(97).wrapping_add(step) % span;
        let port = PORTS.start + u16::try_from(offset).expect("the span fits 16 bits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// A process and everything it has started.
fn tree_of(leader: u32) -> Vec<u32> {
    let parents = processes_and_parents();
    let mut tree = vec![leader];
    let mut next = 0;
    while let Some(this) = tree.get(next).copied() {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == this).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// Whether a process is gone, or only waits for its parent to take note.
fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Every process with its parent.
fn processes_and_parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?; // it may have ended meanwhile
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

fn send(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let script = format!("kill -{signal} {pids} 2>/dev/null; true"); // some may have ended by themselves
    let status = Command::new("/bin/sh").args(["-c", &script]).status().expect("/bin/sh runs");
    assert!(status.success(), "kill -{signal} {pids}: {status}");
}

#[expect(clippy::disallowed_methods, reason = "start-up polling of another process, not waiting for a result")]
fn pause_between_polls() {
    std::thread::sleep(POLL);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn postgres_keeps_commits_over_a_kill() {
        let server = Postgres::start();
        let url = server.fresh_database().await;
        let mut before = sqlx::PgConnection::connect(&url).await.expect("it answers");
        before.execute("CREATE TABLE kept (n int)").await.expect("a table is made");
        server.kill9();
        assert!(before.ping().await.is_err(), "the connection ended with the server");
        server.restart();
        let mut after = sqlx::PgConnection::connect(&url).await.expect("it answers again");
        after.execute("INSERT INTO kept VALUES (1)").await.expect("the table is still there");
        let dir = server.server.dir.clone();
        drop(server);
        assert!(!dir.exists(), "{} is left", dir.display());
    }

    #[test]
    fn rabbit_has_vhosts_and_leaves_nothing() {
        let server = Rabbit::start();
        for _ in 0..3 {
            server.fresh_vhost(); // the third has to be made
        }
        let names = server.ctl(&["list_vhosts", "name"]);
        assert!((0..3).all(|number| names.contains(&vhost_name(number))), "{names}");
        server.kill9();
        assert!(!server.server.answers());
        server.restart();
        assert!(server.server.answers());
        let dir = server.server.dir.clone();
        drop(server);
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}
