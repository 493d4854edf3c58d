//! Who may see the dashboard: what is understood, and what a person is told when nobody or everybody could come in.

use lanes::config::specs::{AuthMode, UserRole};
use secrecy::ExposeSecret as _;

use super::{Env, loaded, read};

const TOKEN: Env<'static> = &[("T", "a-token-that-is-long-enough"), ("SHORT", "abc")];

#[test]
fn users_have_roles_and_secrets() {
    let text =
        "[lanes.a]\n[http.auth]\nmode = \"token\"\n[http.auth.users.alice]\nrole = \"operator\"\nsecret = \"env:T\"\n";
    let all = loaded(text, TOKEN);
    let auth = &all.specs.http.auth;
    assert_eq!((auth.mode, auth.users.len(), auth.users[0].role), (AuthMode::Token, 1, UserRole::Operator));
    assert_eq!(auth.users[0].secret.expose_secret(), "a-token-that-is-long-enough");
    let shown = lanes::config::show(&all);
    assert!(shown.contains("env:T") && !shown.contains("long-enough"), "{shown}");
    assert!(!format!("{:?}", all.specs.http).contains("long-enough"));
    let open = text.replace("[http.auth]", "[http]\nlisten = \"0.0.0.0:1\"\n[http.auth]");
    assert!(loaded(&open, TOKEN).warnings.iter().all(|warning| !warning.contains("http.listen")), "somebody is asked");
}

#[test]
fn an_access_that_lets_nobody_or_everybody_in_is_refused() {
    let user = |rest: &str| format!("[http.auth.users.alice]\nrole = \"viewer\"\n{rest}\n");
    for (mode, users, expect) in [
        ("token", String::new(), "http.auth.mode: there is no user, so nobody could come in"),
        ("token", user(""), "http.auth.users.alice.secret: is missing"),
        ("token", user("secret = \"hunter2\""), "http.auth.users.alice.secret: a secret must not be written here"),
        ("token", user("secret = \"env:SHORT\""), "is shorter than 16 bytes: it could be guessed"),
        ("basic", user("secret = \"env:T\""), "is not an argon2 hash of a password"),
        ("oauth", String::new(), "http.auth.mode: \"oauth\" is not known here"),
        ("token", "[http.auth.users.alice]\nsecret = \"env:T\"\n".to_owned(), "http.auth.users.alice.role: is missing"),
    ] {
        let text = format!("[lanes.a]\n[http.auth]\nmode = \"{mode}\"\n{users}");
        let problems = read(&text, TOKEN).expect_err("must be refused").to_string();
        assert!(problems.contains(expect), "{expect}: {problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
    let proxy = "[lanes.a]\n[http.auth]\nmode = \"proxy\"\nfrom = []\n";
    assert!(read(proxy, &[]).expect_err("nobody").to_string().contains("http.auth.from: names nobody"));
    let idle = format!("[lanes.a]\n{}", user(""));
    assert!(loaded(&idle, &[]).warnings.iter().any(|warning| warning.contains("set http.auth.mode")));
}
