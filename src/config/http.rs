//! `[http]`: where the worker's own server listens, and who may see the dashboard there.

use std::net::IpAddr;

use argon2::password_hash::PasswordHash;
use http::HeaderName;
use url::Url;

use super::document::Node;
use super::reader::{Fault, Reader};
use super::secret::{Secret, reference_only};
use super::specs::{AuthMode, AuthSpec, HttpSpec, UserRole, UserSpec};
use super::value::{Shown, Word, flag, list, socket_address, text, word};

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Longest base path, and most characters of an environment's name.
const BASE_PATH_BYTES_MAX: usize = 100;
const ENVIRONMENT_MAX: usize = 30;
/// What the server answers beside the dashboard.
const PROBES: [&str; 3] = ["metrics", "healthz", "readyz"];
const MODES: &[(&str, AuthMode)] =
    &[("none", AuthMode::None), ("token", AuthMode::Token), ("basic", AuthMode::Basic), ("proxy", AuthMode::Proxy)];
const ROLES: &[(&str, UserRole)] =
    &[("viewer", UserRole::Viewer), ("operator", UserRole::Operator), ("admin", UserRole::Admin)];

/// `[http]`
pub fn http(root: &Reader<'_>) -> HttpSpec {
    root.table("http", |table| {
        let listen = table.get_or("listen", ([127, 0, 0, 1], 9464).into(), socket_address);
        let enabled = table.get_or("enabled", true, flag);
        let base_path = table.get_or("base_path", String::new(), base_path);
        let environment = table.get_or("environment", String::new(), environment);
        let auth = table.table("auth", auth);
        if enabled && !listen.ip().is_loopback() && auth.mode == AuthMode::None {
            table.warn(
                "listen",
                "can be reached from other machines, where nobody is asked who they are: only /metrics, /healthz and \
                 /readyz are served there, and no dashboard; set http.auth for that",
            );
        }
        let public_url = table.get("public_url", public_url).map(|PublicUrl(url)| url);
        HttpSpec { listen, enabled, base_path, environment, auth, public_url }
    })
}

/// An address that people are shown.
struct PublicUrl(Url);

impl Shown for PublicUrl {
    fn shown(&self) -> serde_json::Value {
        self.0.as_str().into()
    }
}

fn public_url(node: &Node) -> Result<PublicUrl, Fault> {
    let url = Url::parse(text(node)?.trim()).map_err(|error| {
        Fault::new(format!("is not a url: {error}")).help("write it like \"https://lanes.example.com/\"")
    })?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("must begin with http:// or https://, and hold no user or password"));
    }
    Ok(PublicUrl(url))
}

fn auth(table: &Reader<'_>) -> AuthSpec {
    let mode = table.get_or("mode", Word { word: "none", value: AuthMode::None }, word(MODES)).value;
    let default = HeaderName::from_static("x-forwarded-user");
    let header = table.get_or("header", default, header_name);
    let here = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let from = table.get_or("from", here, list(address));
    let role = table.get_or("role", Word { word: "viewer", value: UserRole::Viewer }, word(ROLES)).value;
    let users: Vec<UserSpec> =
        table.named_tables("users", |name, table| user(name, table, mode)).into_iter().flatten().collect();
    if matches!(mode, AuthMode::Token | AuthMode::Basic) && users.is_empty() && !table.is_set("users") {
        let help = "add one: [http.auth.users.NAME] with role and secret";
        table.problem("mode", "there is no user, so nobody could come in", Some(help));
    }
    if mode == AuthMode::None && !users.is_empty() {
        table.warn("users", "nobody is asked who they are, so this says nothing: set http.auth.mode");
    }
    if mode == AuthMode::Proxy && from.is_empty() {
        table.problem("from", "names nobody, so nobody could come in", None);
    }
    AuthSpec { mode, header, from, role, users }
}

fn user(name: &str, table: &Reader<'_>, mode: AuthMode) -> Option<UserSpec> {
    let role = table.required("role", "one of: viewer, operator, admin", word(ROLES)).map(|role| role.value);
    let secret = table.get("secret", |node| {
        let secret = reference_only(table.session)(node)?;
        check(mode, &secret)?;
        Ok(secret)
    });
    if matches!(mode, AuthMode::Token | AuthMode::Basic) && !table.is_set("secret") {
        table.problem("secret", "is missing", Some("write \"env:NAME\" and set that variable, or \"file:PATH\""));
    }
    if name.contains(':') && mode == AuthMode::Basic {
        table.table_problem("a name with a colon cannot be typed in", "choose another name");
    }
    let secret = secret.map(|secret| secret.value).unwrap_or_default();
    Some(UserSpec { name: name.to_owned(), role: role?, secret })
}

fn check(mode: AuthMode, secret: &Secret) -> Result<(), Fault> {
    match mode {
        AuthMode::Token if secret.expose().len() < TOKEN_BYTES_MIN => {
            Err(Fault::new(format!("the token is shorter than {TOKEN_BYTES_MIN} bytes: it could be guessed"))
                .help("make one: openssl rand -hex 24"))
        }
        AuthMode::Basic if PasswordHash::new(secret.expose()).is_err() => {
            Err(Fault::new("is not an argon2 hash of a password").help("make one: lanes dash --hash-password"))
        }
        _ => Ok(()),
    }
}

/// A path that begins every path of the dashboard; one `/` at its end means nothing.
fn base_path(node: &Node) -> Result<String, Fault> {
    let given = text(node)?;
    let path = given.strip_suffix('/').unwrap_or(&given);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let is_part = |part: &str| !part.is_empty() && part.chars().all(plain) && !part.chars().all(|c| c == '.');
    if path.is_empty() {
        return Ok(String::new());
    }
    let is_path = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_part));
    if !is_path || path.len() > BASE_PATH_BYTES_MAX {
        return Err(Fault::new(format!(
            "{given:?} is not a path that begins with / and holds only letters, digits and -._~"
        ))
        .help("write it like \"/lanes\""));
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    if PROBES.contains(&first) {
        return Err(
            Fault::new(format!("/{first} is asked for by machines")).help("choose another path, like \"/lanes\"")
        );
    }
    Ok(path.to_owned())
}

fn environment(node: &Node) -> Result<String, Fault> {
    let name = text(node)?.trim().to_owned();
    if name.chars().count() > ENVIRONMENT_MAX || name.chars().any(char::is_control) {
        return Err(Fault::new(format!("is longer than {ENVIRONMENT_MAX} characters, or holds what cannot be shown")));
    }
    Ok(name)
}

fn header_name(node: &Node) -> Result<HeaderName, Fault> {
    let name = text(node)?;
    name.trim().parse().map_err(|_| Fault::new(format!("{name:?} is not the name of a header")))
}

fn address(node: &Node) -> Result<IpAddr, Fault> {
    let address = text(node)?;
    address
        .trim()
        .parse()
        .map_err(|_| Fault::new(format!("{address:?} is not an address")).help("write it like 10.0.0.7"))
}
