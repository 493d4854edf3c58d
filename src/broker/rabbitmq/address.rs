//! The broker's url without its secrets, and the broker's refusals in words that say what to do.

use std::fmt;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::uri::{AMQPScheme, AMQPUri};

use crate::broker::BrokerError;
use crate::db::redact;

/// Seconds between heartbeats unless the url says otherwise: a dead peer is noticed within two of them.
const HEARTBEAT_SECS: u16 = 10;

/// Where the broker is.
pub(super) struct Address {
    uri: AMQPUri,
    shown: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    pub(super) fn parse(url: &str, connect_timeout: Duration) -> Result<Self, BrokerError> {
        let parsed = url::Url::parse(url).ok().filter(|parsed| !parsed.cannot_be_a_base());
        let shown = parsed.as_ref().map_or_else(|| "(malformed url)".to_owned(), |_| redact(url));
        // the parser's own text may repeat the url with its password
        let refuse = |why: &str| BrokerError::Refused { address: shown.clone(), why: why.to_owned() };
        let mut uri: AMQPUri = url.parse().map_err(|_| {
            refuse("the url is malformed: write amqp://USER:PASSWORD@HOST:PORT/VHOST (vhost `/` is %2f)")
        })?;
        if let Some(url::Host::Ipv6(ip)) = parsed.as_ref().and_then(url::Url::host) {
            uri.authority.host = ip.to_string(); // the parser only knows names and falls back to localhost
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
        let limit = u64::try_from(connect_timeout.as_millis()).unwrap_or(u64::MAX);
        uri.query.connection_timeout.get_or_insert(limit);
        Ok(Self { uri, shown })
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    pub(super) fn unavailable(&self, why: impl Into<String>) -> BrokerError {
        BrokerError::Unavailable { address: self.shown.clone(), why: why.into() }
    }

    pub(super) fn refused(&self, why: impl Into<String>) -> BrokerError {
        BrokerError::Refused { address: self.shown.clone(), why: why.into() }
    }

    /// Says what an error of the client means: a refusal with a hint, or a broker that is not there.
    pub(super) fn explain(&self, doing: &str, error: &lapin::Error) -> BrokerError {
        let ErrorKind::ProtocolError(said) = error.kind() else {
            let hint = tls_hint(&error.to_string()).map(|hint| format!(". {hint}")).unwrap_or_default();
            return self.unavailable(format!("{doing}: {error}{hint}"));
        };
        let text = said.get_message().to_string();
        match (said.get_id(), hint(&text, &self.uri.vhost)) {
            (_, Some(hint)) => self.refused(format!("{doing}: {text}. {hint}")),
            (403 | 404 | 405 | 406 | 530, None) => self.refused(format!("{doing}: {text}")),
            (_, None) => self.unavailable(format!("{doing}: {text}")),
        }
    }
}

fn tls_hint(text: &str) -> Option<&'static str> {
    if text.contains("UnknownIssuer") {
        return Some(
            "This machine does not trust the authority that signed it: add the authority's certificate to the system's \
             (update-ca-certificates), or to the file that SSL_CERT_FILE names, which stands in for the system's",
        );
    }
    text.contains("InvalidContentType")
        .then_some("This port does not speak TLS: write the broker's TLS port (usually 5671), or amqp://")
}

fn hint(text: &str, vhost: &str) -> Option<String> {
    if text.contains("inequivalent arg") {
        return Some(
            "It exists with other settings, and those of a queue cannot be changed. Drain it, delete it \
             (`rabbitmqctl delete_queue NAME`) and start again"
                .to_owned(),
        );
    }
    if text.contains("vhost") && text.contains("not found") {
        return Some(format!(
            "The part of the url after the host names the vhost, here {vhost:?}; the usual one is called `/` and written %2f"
        ));
    }
    if text.contains("access to vhost") {
        return Some("Give the user permissions: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'".to_owned());
    }
    if text.contains("Login was refused") || text.contains("ACCESS_REFUSED - Login") {
        return Some("Check user and password; `guest` may log in from the broker's own host only".to_owned());
    }
    if text.contains("ACCESS_REFUSED") {
        return Some(
            "The user lacks a permission (configure, write, read) on it: see rabbitmqctl set_permissions".to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn parse(url: &str) -> Result<Address, BrokerError> {
        Address::parse(url, Duration::from_secs(5))
    }

    #[test]
    fn passwords_are_shown_nowhere() {
        for url in
            ["amqp://u:s3cret@host/%2f", "amqp:u:s3cret@host", "http://u:s3cret@host/", "amqp://u:s3cret@host:99999/"]
        {
            let shown = match parse(url) {
                Ok(address) => format!("{address:?} {} {}", address.unavailable("x"), address.refused("y")),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn what_fails_in_tls_says_what_to_do() {
        let address = parse("amqps://host/%2f").expect("valid");
        let explained = |failure: rustls::Error| {
            let error = ErrorKind::IOError(Arc::new(std::io::Error::other(failure))).into();
            address.explain("connecting", &error).to_string()
        };
        let untrusted = explained(rustls::CertificateError::UnknownIssuer.into());
        assert!(untrusted.contains("invalid peer certificate") && untrusted.contains("SSL_CERT_FILE"), "{untrusted}");
        let plain = explained(rustls::InvalidMessage::InvalidContentType.into());
        assert!(plain.contains("TLS port"), "{plain}");
        let expired = explained(rustls::CertificateError::Expired.into());
        assert!(!expired.contains("SSL_CERT_FILE"), "trusting more does not help: {expired}");
    }

    #[test]
    fn defaults_are_ours_and_the_url_wins() {
        let plain = parse("amqp://host/%2f").expect("valid").uri();
        assert_eq!((plain.query.heartbeat, plain.query.connection_timeout), (Some(10), Some(5_000)));
        assert_eq!(parse("amqp://host/%2f?heartbeat=30").expect("valid").uri().query.heartbeat, Some(30));
        assert_eq!(parse("amqp://[::1]:5673/v").expect("valid").uri().authority.host, "::1");
    }
}
