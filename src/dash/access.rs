//! Who somebody is and what he may do: by a token, a password, or the word of a proxy that is trusted.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use axum::http::{HeaderMap, HeaderName, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// The cookie that remembers a token that was typed in.
pub(super) const SESSION: &str = "lanes-session";
/// Longest name or credential that is looked at.
const CREDENTIAL_BYTES_MAX: usize = 4 * 1024;

/// What somebody may do; each may do what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks; payloads are masked.
    Viewer,
    /// Also sees what cannot be masked, and acts on jobs.
    Operator,
    /// Also changes what there is.
    Admin,
}

impl Role {
    /// The role as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who; empty where nobody is asked.
    pub name: Arc<str>,
    /// What he may do.
    pub role: Role,
}

/// How people are asked who they are.
#[derive(Debug)]
pub enum Access {
    /// They are not: whoever reaches the address may do everything.
    Open,
    /// By a token.
    Token(Tokens),
    /// By name and password.
    Basic(Passwords),
    /// A proxy has asked.
    Proxy(Proxy),
}

impl Access {
    /// Who sent these headers from `peer`; `None` = nobody that is known.
    pub async fn user(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<User> {
        match self {
            Self::Open => Some(User { name: "".into(), role: Role::Admin }),
            Self::Token(tokens) => tokens.user(headers),
            Self::Basic(passwords) => passwords.user(headers).await,
            Self::Proxy(proxy) => proxy.user(headers, peer),
        }
    }

    /// What a browser is told that has to say who it is.
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::Open | Self::Proxy(_) => None,
            Self::Token(_) => Some("Bearer realm=\"lanes\""),
            Self::Basic(_) => Some("Basic realm=\"lanes\", charset=\"UTF-8\""),
        }
    }
}

/// Users by their tokens. Kept and compared as hashes, so that how long a comparison takes tells nothing of a token.
pub struct Tokens(Vec<TokenUser>);

struct TokenUser {
    user: User,
    token: [u8; 32],
    session: [u8; 32],
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|user| &user.user)).finish()
    }
}

impl Tokens {
    /// Users and their tokens.
    pub fn new(users: impl IntoIterator<Item = (User, SecretString)>) -> Self {
        let known = |(user, token): (User, SecretString)| {
            let token = token.expose_secret();
            TokenUser { user, token: sha256(token.as_bytes()), session: sha256(session_of(token).as_bytes()) }
        };
        Self(users.into_iter().map(known).collect())
    }

    /// Whose token this is.
    pub fn owner(&self, token: &str) -> Option<&User> {
        let hash = sha256(token.as_bytes());
        self.0.iter().find(|known| known.token == hash).map(|known| &known.user)
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        if let Some(token) = credential(headers, "bearer") {
            return self.owner(token).cloned();
        }
        let session = sha256(cookie(headers, SESSION)?.as_bytes());
        self.0.iter().find(|known| known.session == session).map(|known| known.user.clone())
    }
}

/// What the cookie holds: made of the token, which it does not show, and void when that is replaced.
pub(super) fn session_of(token: &str) -> String {
    hex(&Sha256::new().chain_update("lanes session\0").chain_update(token).finalize())
}

/// Users by name, with the argon2 hashes of their passwords.
pub struct Passwords {
    users: HashMap<String, (User, SecretString)>,
    /// Of each user the hash of the credential that was right: argon2 is slow by design, and browsers send it every time.
    right: Mutex<HashMap<String, [u8; 32]>>,
    /// One check at a time, so that guessing costs neither memory nor the processors that calls need.
    turn: Arc<Semaphore>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.users.keys()).finish()
    }
}

impl Passwords {
    /// Users and the hashes (PHC strings) of their passwords.
    pub fn new(users: impl IntoIterator<Item = (User, SecretString)>) -> Self {
        let users = users.into_iter().map(|(user, hash)| (user.name.to_string(), (user, hash))).collect();
        Self { users, right: Mutex::default(), turn: Arc::new(Semaphore::new(1)) }
    }

    async fn user(&self, headers: &HeaderMap) -> Option<User> {
        let decoded = STANDARD.decode(credential(headers, "basic")?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (name, password) = text.split_once(':')?;
        let digest = sha256(text.as_bytes());
        // a name that nobody has takes as long as one that somebody has
        let known = self.users.get(name);
        let (user, hash) = known.or_else(|| self.users.values().next())?;
        if known.is_some() && self.right().get(name) == Some(&digest) {
            return Some(user.clone());
        }
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let (hash, password) = (hash.clone(), SecretString::from(password));
        let check = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let hash = PasswordHash::new(hash.expose_secret()).ok();
            hash.is_some_and(|hash| {
                Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).is_ok()
            })
        });
        let is_right = check.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a password could not be checked");
            false
        });
        if !is_right || known.is_none() {
            return None;
        }
        self.right().insert(name.to_owned(), digest);
        Some(user.clone())
    }

    fn right(&self) -> std::sync::MutexGuard<'_, HashMap<String, [u8; 32]>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of a password, as the configuration takes it.
///
/// # Errors
/// The password is too long.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt = SaltString::encode_b64(Uuid::new_v4().as_bytes()).map_err(|error| error.to_string())?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

/// A proxy that has asked, and says who it is.
#[derive(Debug)]
pub struct Proxy {
    /// The header that names the user.
    pub header: HeaderName,
    /// Who may send it.
    pub from: Vec<IpAddr>,
    /// What users may do that are not named.
    pub others: Role,
    /// What those may do that are.
    pub users: HashMap<String, Role>,
}

impl Proxy {
    fn user(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<User> {
        let peer = peer?.to_canonical();
        let mut names = headers.get_all(&self.header).iter();
        let name = names.next()?.to_str().ok()?.trim();
        // two of them: one is not the proxy's
        if !self.from.iter().any(|from| from.to_canonical() == peer) || name.is_empty() || names.next().is_some() {
            return None;
        }
        Some(User { name: name.into(), role: self.users.get(name).copied().unwrap_or(self.others) })
    }
}

/// What follows the scheme in the one Authorization header.
fn credential<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (given, credential) = value.split_once(' ')?;
    let credential = credential.trim();
    (given.eq_ignore_ascii_case(scheme) && credential.len() <= CREDENTIAL_BYTES_MAX).then_some(credential)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Hexadecimal text.
pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, role: Role) -> User {
        User { name: name.into(), role }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), axum::http::HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[tokio::test]
    async fn a_token_is_taken_from_a_header_or_its_cookie() {
        let access = Access::Token(Tokens::new([
            (user("alice", Role::Operator), "a-long-token-of-alice".into()),
            (user("bob", Role::Viewer), "a-long-token-of-bob".into()),
        ]));
        let asked = async |pairs: &[(&'static str, &str)]| access.user(&headers(pairs), None).await;
        let alice = Some(user("alice", Role::Operator));
        assert_eq!(asked(&[("authorization", "Bearer a-long-token-of-alice")]).await, alice);
        assert_eq!(asked(&[("authorization", "bearer a-long-token-of-alice")]).await, alice);
        let session = session_of("a-long-token-of-alice");
        assert!(!session.contains("alice"));
        assert_eq!(asked(&[("cookie", &format!("x=1; {SESSION}={session}"))]).await, alice);
        for wrong in ["Bearer a-long-token-of-alic", "Bearer ", "Basic a-long-token-of-alice", "a-long-token-of-alice"]
        {
            assert_eq!(asked(&[("authorization", wrong)]).await, None, "{wrong}");
        }
        assert_eq!(asked(&[("cookie", &format!("{SESSION}=a-long-token-of-alice"))]).await, None);
        assert_eq!(asked(&[]).await, None);
        assert!(!format!("{access:?}").contains("a-long"), "no secret in a Debug text");
    }

    #[tokio::test]
    async fn a_password_is_checked_by_its_hash() {
        let hash = hash_password("correct horse").expect("hashed");
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        let access = Access::Basic(Passwords::new([(user("alice", Role::Admin), hash.into())]));
        let asked = async |text: &str| {
            let value = format!("Basic {}", STANDARD.encode(text));
            access.user(&headers(&[("authorization", &value)]), None).await
        };
        for _ in 0..2 {
            assert_eq!(asked("alice:correct horse").await, Some(user("alice", Role::Admin)));
        }
        for wrong in ["alice:wrong", "bob:correct horse", "alice", ":", ""] {
            assert_eq!(asked(wrong).await, None, "{wrong}");
        }
        assert_eq!(access.user(&headers(&[("authorization", "Basic !")]), None).await, None);
    }

    #[tokio::test]
    async fn a_proxy_is_believed_only_where_it_is() {
        let access = Access::Proxy(Proxy {
            header: HeaderName::from_static("x-forwarded-user"),
            from: vec!["10.0.0.1".parse().expect("an address")],
            others: Role::Viewer,
            users: [("alice".to_owned(), Role::Admin)].into(),
        });
        let asked = async |pairs: &[(&'static str, &str)], peer: &str| {
            access.user(&headers(pairs), Some(peer.parse().expect("an address"))).await
        };
        let named = [("x-forwarded-user", "alice")];
        assert_eq!(asked(&named, "10.0.0.1").await, Some(user("alice", Role::Admin)));
        assert_eq!(asked(&named, "::ffff:10.0.0.1").await, Some(user("alice", Role::Admin)));
        assert_eq!(asked(&[("x-forwarded-user", "bob")], "10.0.0.1").await, Some(user("bob", Role::Viewer)));
        assert_eq!(asked(&named, "10.0.0.2").await, None);
        assert_eq!(asked(&[], "10.0.0.1").await, None);
        let mut twice = headers(&named);
        twice.append("x-forwarded-user", "root".parse().expect("a value"));
        assert_eq!(access.user(&twice, Some("10.0.0.1".parse().expect("an address"))).await, None);
    }
}
