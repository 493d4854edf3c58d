//! What is shipped for production (docker-compose.yml, image, systemd unit) agrees with itself, with Compose and with lanes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use lanes::config;
use secrecy::ExposeSecret;
use serde_yaml_ng::Value;

use crate::observability::promtool;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn compose() -> Value {
    serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap_or_else(|error| panic!("docker-compose.yml: {error}"))
}

fn services(file: &Value) -> Vec<(String, Value)> {
    let services = file["services"].as_mapping().expect("docker-compose.yml has services");
    services.iter().map(|(name, service)| (name.as_str().expect("a name").to_owned(), service.clone())).collect()
}

fn texts(list: &Value) -> Vec<String> {
    let entries = list.as_sequence().unwrap_or_else(|| panic!("{list:?} is no list"));
    entries.iter().map(|entry| entry.as_str().unwrap_or_else(|| panic!("{entry:?} is no text")).to_owned()).collect()
}

/// The environment of the worker in docker-compose.yml, with the defaults for development filled in.
///
/// A test that runs the same processes without containers starts from this and replaces the hosts.
pub fn worker_environment() -> BTreeMap<String, String> {
    let file = compose();
    let environment = file["services"]["worker"]["environment"].as_mapping().expect("the worker has an environment");
    environment
        .iter()
        .map(|(name, value)| (name.as_str().expect("a name").to_owned(), filled_in(value.as_str().expect("a text"))))
        .collect()
}

/// `${NAME:-default}` becomes `default`.
fn filled_in(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else { return text.to_owned() };
    let (variable, after) = rest.split_once('}').expect("a closed ${");
    let (_, default) = variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has no default: {text}"));
    format!("{before}{default}{}", filled_in(after))
}

/// `"25s"` in seconds.
fn seconds(text: &str) -> u64 {
    text.strip_suffix('s').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{text:?} is no number of seconds"))
}

#[test]
fn compose_accepts_the_file() {
    for profile in [&[][..], &["--profile", "monitoring"]] {
        let output = Command::new("docker-compose")
            .args(["-f", "docker-compose.yml"])
            .args(profile)
            .args(["config", "-q"])
            .current_dir(root())
            .env_remove("RABBITMQ_PASSWORD")
            .env_remove("POSTGRES_PASSWORD")
            .env_remove("GRAFANA_PASSWORD")
            .output()
            .unwrap_or_else(|error| {
                panic!("docker-compose does not run ({error}): apt-get install -y docker-compose, or run scripts/test")
            });
        assert!(output.status.success(), "docker-compose config: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn ports_are_open_to_this_machine_only() {
    for (name, service) in services(&compose()) {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port} beyond this machine");
        }
    }
}

#[test]
fn every_service_is_watched_pinned_and_restarted() {
    for (name, service) in services(&compose()) {
        let check = texts(&service["healthcheck"]["test"]);
        assert!(check.len() > 1 && check[0] == "CMD", "{name} has no healthcheck: {check:?}");
        assert_eq!(service["restart"].as_str(), Some("unless-stopped"), "{name}: restart");
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        let tag = image.split_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image} has no fixed tag");
        if let Some(others) = service["depends_on"].as_mapping() {
            for (other, how) in others {
                assert_eq!(how["condition"].as_str(), Some("service_healthy"), "{name} waits for {other:?}");
            }
        }
    }
    let worker = &compose()["services"]["worker"];
    assert_eq!(worker["depends_on"].as_mapping().map(serde_yaml_ng::Mapping::len), Some(2), "broker and store");
}

#[test]
fn data_lives_in_named_volumes() {
    let file = compose();
    let named = file["volumes"].as_mapping().expect("volumes");
    for (name, service) in services(&file) {
        for volume in texts(&service["volumes"]) {
            let (source, _) = volume.split_once(':').expect("source:target");
            let bound =
                source.strip_prefix("./").is_some_and(|path| root().join(path).exists() && volume.ends_with(":ro"));
            assert!(
                bound || named.contains_key(source),
                "{name}: {volume} is neither a named volume nor a read-only part of the repository"
            );
        }
    }
}

#[test]
fn passwords_come_from_the_environment() {
    for (name, service) in services(&compose()) {
        for (variable, value) in service["environment"].as_mapping().into_iter().flatten() {
            let (variable, value) = (variable.as_str().expect("a name"), value.as_str().expect("a text"));
            let url_with_user = value.contains("://") && value.contains('@');
            if variable.contains("PASS") || url_with_user {
                assert!(value.contains("_PASSWORD:-lanes-development}"), "{name}: {variable} holds a fixed password");
            }
        }
    }
}

/// Where a service of docker-compose.yml finds a directory of the repository.
fn mounted(service: &str, directory: &str) -> PathBuf {
    let volumes = texts(&compose()["services"][service]["volumes"]);
    let target = volumes.iter().find_map(|volume| volume.strip_prefix(&format!("./{directory}:"))?.strip_suffix(":ro"));
    PathBuf::from(target.unwrap_or_else(|| panic!("{service} does not see {directory}: {volumes:?}")))
}

fn yaml(name: &str) -> Value {
    serde_yaml_ng::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn prometheus_scrapes_the_worker_and_reads_the_rules() {
    let checked = promtool(&root().join("deploy/prometheus"), &["check", "config", "prometheus.yml"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()));
    let config = yaml("deploy/prometheus/prometheus.yml");
    assert_eq!(texts(&config["rule_files"]), ["lanes.rules.yml"]);
    let jobs = config["scrape_configs"].as_sequence().expect("jobs");
    assert_eq!(jobs.iter().map(|job| job["job_name"].as_str()).collect::<Vec<_>>(), [Some("lanes")]);
    let port = worker_settings().specs.http.listen.port();
    assert_eq!(texts(&jobs[0]["static_configs"][0]["targets"]), [format!("worker:{port}")]);
    let command = texts(&compose()["services"]["prometheus"]["command"]);
    let file = mounted("prometheus", "deploy/prometheus").join("prometheus.yml");
    assert!(command.contains(&format!("--config.file={}", file.display())), "{command:?}");
}

#[test]
fn grafana_finds_its_source_and_every_dashboard() {
    let provisioning = mounted("grafana", "deploy/grafana/provisioning");
    assert_eq!(provisioning, PathBuf::from("/etc/grafana/provisioning"), "where Grafana looks");
    let sources = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    let source = &sources["datasources"][0];
    assert_eq!(source["type"].as_str(), Some("prometheus"));
    let port = texts(&compose()["services"]["prometheus"]["ports"])[0].rsplit(':').next().map(str::to_owned);
    assert_eq!(source["url"].as_str(), port.map(|port| format!("http://prometheus:{port}")).as_deref());
    let scraped = yaml("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"].clone();
    assert_eq!(source["jsonData"]["timeInterval"], scraped, "what $__rate_interval is made of");

    let providers = yaml("deploy/grafana/provisioning/dashboards/lanes.yml");
    let dashboards = mounted("grafana", "deploy/grafana/dashboards");
    assert_eq!(providers["providers"][0]["options"]["path"].as_str().map(PathBuf::from), Some(dashboards.clone()));
    let environment = &compose()["services"]["grafana"]["environment"];
    let home = PathBuf::from(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().expect("a home"));
    let home = home.strip_prefix(&dashboards).expect("one of the dashboards");
    assert!(root().join("deploy/grafana/dashboards").join(home).is_file(), "no {}", home.display());
}

#[test]
fn monitoring_starts_only_where_it_is_asked_for() {
    for (name, service) in services(&compose()) {
        let asked_for = ["prometheus", "grafana"].contains(&name.as_str());
        let profiles = if asked_for { texts(&service["profiles"]) } else { Vec::new() };
        assert_eq!(profiles == ["monitoring"], asked_for, "{name}");
        assert!(asked_for || service["profiles"].is_null(), "{name} does not start by itself");
    }
}

/// What the worker of docker-compose.yml runs with: its file, and its environment over it.
fn worker_settings() -> config::Loaded {
    let (file, environment) = ("deploy/lanes.docker.toml", worker_environment());
    config::load(Some(&root().join(file)), &environment).unwrap_or_else(|problems| panic!("{file}:\n{problems}"))
}

#[test]
fn the_workers_settings_are_real_and_its_environment_wins() {
    let (loaded, environment) = (worker_settings(), worker_environment());
    // in the container it listens for the other side of the published port, which is open to this machine only
    let unexpected: Vec<_> = loaded.warnings.iter().filter(|line| !line.starts_with("LANES_HTTP__LISTEN:")).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let specs = loaded.specs;
    assert_eq!(specs.broker.url.expose_secret(), "amqp://lanes:lanes-development@rabbitmq:5672/%2f");
    assert_eq!(specs.store.url.expose_secret(), "postgres://lanes:lanes-development@postgres:5432/lanes");
    assert_eq!(specs.http.listen.to_string(), "0.0.0.0:9464");
    let known = ["LANES_CONFIG", "LANES_BROKER__URL", "LANES_STORE__URL", "LANES_HTTP__LISTEN"];
    for variable in environment.keys() {
        assert!(known.contains(&variable.as_str()), "{variable} is not looked at by this test");
    }
    let mounted = texts(&compose()["services"]["worker"]["volumes"]);
    assert_eq!(mounted, [format!("./deploy/lanes.docker.toml:{}:ro", environment["LANES_CONFIG"])]);
    let ports = texts(&compose()["services"]["worker"]["ports"]);
    assert!(ports.iter().any(|port| port.ends_with(&format!(":{}", specs.http.listen.port()))), "{ports:?}");
}

#[test]
fn a_stopping_worker_has_time_to_drain() {
    let shipped = worker_settings().specs.worker.drain_timeout.as_secs();
    let default =
        config::read_default(&BTreeMap::new(), &|path| fs::read_to_string(path)).expect("the default is valid");
    let default = default.specs.worker.drain_timeout.as_secs();
    let grace = seconds(compose()["services"]["worker"]["stop_grace_period"].as_str().expect("stop_grace_period"));
    let unit = read("deploy/lanes.service");
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).expect("TimeoutStopSec");
    assert!(grace >= shipped + 5, "docker-compose.yml: stop_grace_period {grace} s, drain_timeout {shipped} s");
    assert!(seconds(stop) >= default + 5, "deploy/lanes.service: TimeoutStopSec {stop}, drain_timeout {default} s");
}

#[test]
fn the_image_runs_as_nobody_in_particular_and_copies_what_exists() {
    let dockerfile = read("deploy/Dockerfile");
    let last = |start: &str| dockerfile.lines().filter_map(|line| line.strip_prefix(start)).next_back();
    let user = last("USER ").expect("a USER").split(':').next().and_then(|id| id.parse::<u32>().ok());
    assert!(user.is_some_and(|id| id >= 1_000), "USER {user:?}");
    let rust = last("FROM rust:").and_then(|tag| tag.split('-').next()).expect("a builder");
    let oldest = read("Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = \"")).map(str::to_owned);
    let minor = |version: &str| version.trim_end_matches('"').split('.').nth(1).and_then(|n| n.parse::<u32>().ok());
    assert!(
        minor(rust) >= oldest.as_deref().and_then(minor),
        "the builder is Rust {rust}, Cargo.toml wants {oldest:?}"
    );
    let sent = read(".dockerignore");
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.contains("--from"))
    {
        let source = line.split(' ').find(|word| !word.starts_with("--")).expect("a source");
        assert!(root().join(source).exists(), "COPY {line}: no {source}");
        let top = source.split('/').next().expect("a first part");
        assert!(source == "." || sent.contains(&format!("!{top}\n")), ".dockerignore keeps {source} from the builder");
    }
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "lanes.toml", "src", "migrations"] {
        assert!(sent.contains(&format!("!{needed}\n")), ".dockerignore keeps {needed} from the builder");
    }
    let check = texts(&compose()["services"]["worker"]["healthcheck"]["test"]);
    assert!(dockerfile.contains(&format!("deploy/{} /usr/local/bin/", check[1])), "no {} in the image", check[1]);
}

/// What a client sends, up to the empty line.
fn request_head(stream: &TcpStream) -> String {
    BufReader::new(stream)
        .lines()
        .map(|line| line.expect("a line"))
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_healthcheck_tells_ready_from_not_ready_and_from_absent() {
    let check = |port: u16| {
        let output = Command::new("bash").arg("deploy/lanes-ready").arg(port.to_string()).current_dir(root()).output();
        let output = output.expect("bash runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let answering = |answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let request = request_head(&stream);
            stream.write_all(answer.as_bytes()).expect("an answer");
            request
        });
        let result = check(port);
        (result, server.join().expect("the server ends"))
    };
    let ((code, problem), request) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((code, problem.as_str()), (Some(0), ""));
    assert!(request.starts_with("GET /readyz HTTP/1.1\nHost: 127.0.0.1"), "{request}");
    let ((code, problem), _) = answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(code, Some(1));
    assert!(problem.contains("/readyz answers 503"), "{problem}");
    let ((code, problem), _) = answering("");
    assert_eq!(code, Some(1), "{problem}");
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address").port();
    let (code, problem) = check(closed);
    assert_eq!(code, Some(1));
    assert!(problem.contains("nothing listens"), "{problem}");
}

#[test]
fn the_unit_starts_what_is_installed_and_gives_it_one_place_to_write() {
    let unit = read("deploy/lanes.service");
    for line in [
        "ExecStart=/usr/local/bin/lanes worker",
        "Environment=LANES_CONFIG=/etc/lanes/lanes.toml",
        "RestartPreventExitStatus=2",
        "DynamicUser=yes",
        "StateDirectory=lanes",
        "WorkingDirectory=/var/lib/lanes",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
    ] {
        assert!(unit.lines().any(|present| present == line), "deploy/lanes.service lacks {line}");
    }
}

/// There is no engine to run the file on: the same binary, with the same settings and environment, against servers of the
/// same kinds, judged by the same health check, stopped as a container is stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_composed_worker_gets_ready_and_stops_in_order() {
    let (broker, store) = (crate::services::fresh_vhost().await, crate::services::fresh_database().await);
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut worker = Command::new(env!("CARGO_BIN_EXE_lanes"))
        .arg("--config")
        .arg(root().join("deploy/lanes.docker.toml"))
        .arg("worker")
        .envs(worker_environment())
        .env("LANES_BROKER__URL", broker)
        .env("LANES_STORE__URL", store)
        .env("LANES_HTTP__LISTEN", free.to_string())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the worker starts");
    let ready = || {
        let mut check = Command::new(root().join("deploy/lanes-ready"));
        let output = check.arg(free.port().to_string()).output().expect("bash is there");
        output.status.success()
    };
    let patience = std::time::Duration::from_secs(60);
    let waited = lanes::clock::within(patience, async {
        while !ready() {
            tokio::task::yield_now().await;
        }
    });
    let got_ready = waited.await.is_ok();
    let asked = Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().expect("kill is there");
    let ended = worker.wait().expect("reaped");
    assert!(got_ready, "not ready within {patience:?}");
    assert!(asked.success() && ended.success(), "ended with {ended}");
}
