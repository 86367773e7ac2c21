//! Where a callback may go: never into the operator's own network.
//!
//! The check is made twice: on the URL when the batch is submitted, and on the addresses that its name resolves to at the
//! moment of the call, which are the only ones that are connected to; so a name that is pointed elsewhere later does not
//! help.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::Url;

/// Longest callback URL, in bytes.
pub const URL_BYTES_MAX: usize = 2048;

/// Why a URL is no callback.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// It is no URL, or too long.
    #[error("the callback is not a URL of at most {URL_BYTES_MAX} bytes")]
    NotUrl,
    /// Anything but `https`, or `http` where that is configured.
    #[error("the callback's scheme must be https")]
    Scheme,
    /// It has a user name or a password.
    #[error("the callback must not have a user name or password")]
    Credentials,
    /// It leads into a network that is not public.
    #[error("the callback's address is not public")]
    Private,
}

/// What callbacks are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackPolicy {
    /// Loopback, private and other addresses that are not public, and plain `http`: for tests and closed networks.
    pub allow_private: bool,
}

impl CallbackPolicy {
    /// Checks a URL as far as that is possible without resolving its name.
    ///
    /// # Errors
    /// [`CallbackError`].
    pub fn check(self, text: &str) -> Result<Url, CallbackError> {
        if text.len() > URL_BYTES_MAX {
            return Err(CallbackError::NotUrl);
        }
        let url = Url::parse(text).map_err(|_| CallbackError::NotUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_private => {}
            _ => return Err(CallbackError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(CallbackError::Credentials);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(CallbackError::NotUrl)?;
        if self.allow_private {
            return Ok(url);
        }
        // The parser has turned every spelling of an address (octal, one number, …) into the usual one.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_local = host == "localhost" || host.ends_with(".localhost");
        if is_local || literal.is_ok_and(|ip| !is_public(ip)) {
            return Err(CallbackError::Private);
        }
        Ok(url)
    }
}

/// Whether an address belongs to the public internet. Unknown ranges are not public.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = a == 0                              // this network
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()                            // cloud metadata among them
        || (a == 100 && (64..128).contains(&b))          // carrier-grade NAT
        || (a == 192 && b == 0 && (c == 0 || c == 2))    // protocol assignments, documentation
        || (a == 192 && b == 88 && c == 99)              // 6to4 relays
        || (a == 198 && (b == 18 || b == 19))            // benchmarks
        || (a == 198 && b == 51 && c == 100)             // documentation
        || (a == 203 && b == 0 && c == 113)              // documentation
        || a >= 224; // multicast, reserved, broadcast
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    // An address that stands for an IPv4 one is judged as that: mapped, translated (64:ff9b::/96), 6to4.
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let s = ip.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Global unicast is 2000::/3; of it Teredo and other assignments (2001::/23) and documentation are not for us.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        _ => (0x2000..0x4000).contains(&s[0]),
    }
}

/// Resolves names with the system's resolver and drops addresses that are not public.
#[derive(Clone, Debug)]
pub(super) struct PublicOnly(pub(super) CallbackPolicy);

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| policy.allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err(CallbackError::Private.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

pub(super) fn resolver(policy: CallbackPolicy) -> Arc<PublicOnly> {
    Arc::new(PublicOnly(policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: CallbackPolicy = CallbackPolicy { allow_private: false };

    #[test]
    fn public_addresses_pass() {
        for url in
            ["https://example.com/hook?x=1", "https://93.184.216.34/", "https://[2606:4700::1111]:8443/a"]
        {
            assert!(STRICT.check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn other_addresses_do_not_however_they_are_spelt() {
        let private = [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://10.0.0.1/",
            "https://172.16.3.4/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://255.255.255.255/",
            "https://224.0.0.1/",
            "https://198.18.0.1/",
            "https://[::1]/",
            "https://[::]/",
            "https://[fe80::1]/",
            "https://[fc00::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:10.1.2.3]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001:db8::1]/",
            "https://[2001::1]/",
            "https://[ff02::1]/",
        ];
        for url in private {
            assert_eq!(STRICT.check(url), Err(CallbackError::Private), "{url}");
        }
        for (url, error) in [
            ("http://example.com/", CallbackError::Scheme),
            ("file:///etc/passwd", CallbackError::Scheme),
            ("gopher://example.com/", CallbackError::Scheme),
            ("https://user@example.com/", CallbackError::Credentials),
            ("https://user:word@example.com/", CallbackError::Credentials),
            ("/relative", CallbackError::NotUrl),
            ("", CallbackError::NotUrl),
            ("https://", CallbackError::NotUrl),
        ] {
            assert_eq!(STRICT.check(url), Err(error), "{url}");
        }
        assert_eq!(
            STRICT.check(&format!("https://example.com/{}", "x".repeat(3000))),
            Err(CallbackError::NotUrl)
        );
        assert!(CallbackPolicy { allow_private: true }.check("http://127.0.0.1:9/").is_ok());
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_not_called() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(PublicOnly(STRICT).resolve(name()).await.is_err());
        assert!(PublicOnly(CallbackPolicy { allow_private: true }).resolve(name()).await.is_ok());
    }
}
