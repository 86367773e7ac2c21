//! Signatures of webhooks, after the Standard Webhooks specification 1.0.
//!
//! Three headers go with each call:
//! ```text
//! webhook-id         the same for every try of the same message: receivers drop repetitions by it
//! webhook-timestamp  seconds since the Unix epoch at this try: receivers refuse what is older than 5 minutes
//! webhook-signature  "v1," and base64 of HMAC-SHA256(secret, id "." timestamp "." body)
//! ```
//! The secret is the base64 part of the tenant's `whsec_…`.

use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The value of `webhook-signature`.
pub fn signature(secret: &[u8], id: &str, timestamp: u64, body: &[u8]) -> String {
    format!("v1,{}", STANDARD.encode(mac(secret, id, timestamp, body).finalize().into_bytes()))
}

/// Whether one of the signatures in `header` (there may be several, between spaces) is right. For receivers.
pub fn verify(secret: &[u8], id: &str, timestamp: u64, body: &[u8], header: &str) -> bool {
    let mac = mac(secret, id, timestamp, body);
    header
        .split(' ')
        .filter_map(|one| one.strip_prefix("v1,"))
        .filter_map(|one| STANDARD.decode(one).ok())
        .any(|bytes| {
            // Constant time.
            mac.clone().verify_slice(&bytes).is_ok()
        })
}

fn mac(secret: &[u8], id: &str, timestamp: u64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes keys of every length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the specification's reference libraries.
    #[test]
    fn the_published_vector_is_met() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, br#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature(&secret, id, timestamp, body), expected);
        assert!(verify(&secret, id, timestamp, body, &format!("v1,AAAA {expected}")));
    }

    #[test]
    fn every_change_breaks_it() {
        let (secret, id, at, body) = (b"0123456789abcdef01234567".as_slice(), "msg", 17, b"body".as_slice());
        let good = signature(secret, id, at, body);
        assert!(verify(secret, id, at, body, &good));
        assert!(!verify(b"0123456789abcdef01234568", id, at, body, &good));
        assert!(!verify(secret, "msg2", at, body, &good));
        assert!(!verify(secret, id, 18, body, &good));
        assert!(!verify(secret, id, at, b"bodY", &good));
        assert!(!verify(secret, id, at, body, good.trim_start_matches("v1,")));
        assert!(!verify(secret, id, at, body, ""));
    }
}
