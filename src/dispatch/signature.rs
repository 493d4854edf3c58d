//! Standard Webhooks signatures: what a receiver checks to know who sent something, and that nobody changed it.

use std::fmt;

use ::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;

use crate::clock::Timestamp;

static ID: HeaderName = HeaderName::from_static("webhook-id");
static TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What secrets begin with, so that they are recognised where they do not belong.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, by the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with one secret.
pub struct Signer(SecretBox<Vec<u8>>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// Takes a secret as it is written: `whsec_` (or not) and 24 to 64 bytes in base64.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn new(secret: &SecretString) -> Result<Self, String> {
        let text = secret.expose_secret();
        let decoded = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text));
        let key = decoded.map_err(|_| "is not base64, after whsec_".to_owned())?;
        if !SECRET_BYTES.contains(&key.len()) {
            let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            return Err(format!("holds {} bytes: {least} to {most} are allowed", key.len()));
        }
        Ok(Self(SecretBox::new(Box::new(key))))
    }

    /// The headers of a message: its id, when it was sent, and the signature of both with its body.
    pub fn headers(&self, id: &str, sent_at: Timestamp, body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
        let seconds = sent_at.as_micros().div_euclid(1_000_000).to_string();
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("a key of any length will do for HMAC");
        for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
            mac.update(part);
        }
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let value = |text: &str| HeaderValue::from_str(text).expect("visible ASCII");
        vec![(ID.clone(), value(id)), (TIMESTAMP.clone(), value(&seconds)), (SIGNATURE.clone(), value(&signature))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_own_example_is_signed_as_it_says() {
        // the vector that the reference libraries of standard-webhooks test themselves with
        let signer = Signer::new(&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()).expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let headers = signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", Timestamp::from_secs(1_614_265_330), body);
        let expected = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_secret_is_checked_and_never_shown() {
        for (secret, why) in [
            ("whsec_not base64!", "is not base64, after whsec_"),
            ("whsec_c2hvcnQ=", "holds 5 bytes: 24 to 64 are allowed"),
        ] {
            assert_eq!(Signer::new(&secret.into()).expect_err("refused"), why);
        }
        let plain = Signer::new(&"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()).expect("the prefix may be missing");
        assert_eq!(format!("{plain:?}"), "Signer");
    }
}
