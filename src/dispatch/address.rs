//! Which addresses are never called: those where clouds hand out credentials, in every notation and behind every name.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Names under which clouds publish their metadata service. The resolver's answer is checked as well.
const METADATA_NAMES: [&str; 5] = [
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "instance-data",
    "instance-data.ec2.internal",
];

/// Looks a host name up; the port of the answers is not used.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's own resolver.
pub fn system_lookup() -> Lookup {
    Arc::new(|host| Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }))
}

/// An address that may not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is a cloud metadata address; set `allow_metadata = true` for the endpoint if it is really meant")]
pub struct Forbidden {
    what: String,
}

/// True for addresses where clouds serve credentials to anybody who can reach them.
///
/// All of 169.254.0.0/16 counts (AWS, Azure, Google, DigitalOcean and container credentials live there), and every IPv6
/// form that carries such an IPv4 address.
pub fn is_metadata_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_metadata_v4(v4),
        IpAddr::V6(v6) => is_metadata_v6(v6) || embedded_v4(v6).is_some_and(is_metadata_v4),
    }
}

fn is_metadata_v4(ip: Ipv4Addr) -> bool {
    // 100.100.100.200 Alibaba, 192.0.0.192 Oracle, 168.63.129.16 Azure's host agent
    ip.is_link_local() || matches!(ip.octets(), [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16])
}

fn is_metadata_v6(ip: Ipv6Addr) -> bool {
    // fd00:ec2::/32 Amazon, fd20:ce::254 Google
    matches!(ip.segments(), [0xfd00, 0x0ec2, ..] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254])
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x0064, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

/// True for a host name of a metadata service, with or without the final dot.
pub fn is_metadata_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    METADATA_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Checks a URL's host as it is written. The `url` crate has already turned decimal, octal and hex IPv4 into numbers.
///
/// # Errors
/// [`Forbidden`] when it is a metadata address or name.
pub fn check_literal(url: &Url) -> Result<(), Forbidden> {
    let forbidden = match url.host() {
        Some(Host::Ipv4(ip)) => is_metadata_ip(ip.into()),
        Some(Host::Ipv6(ip)) => is_metadata_ip(ip.into()),
        Some(Host::Domain(name)) => is_metadata_name(name),
        None => false,
    };
    if forbidden { Err(Forbidden { what: url.host_str().unwrap_or_default().to_owned() }) } else { Ok(()) }
}

/// A resolver whose answers never hold a metadata address; the connection goes to exactly what was checked.
pub struct FilteringResolver {
    lookup: Lookup,
}

impl FilteringResolver {
    /// Filters the answers of `lookup`.
    pub fn new(lookup: Lookup) -> Self {
        Self { lookup }
    }
}

impl fmt::Debug for FilteringResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilteringResolver")
    }
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let answer = (self.lookup)(host.clone());
        Box::pin(async move {
            let addresses = answer.await?;
            // one forbidden answer refuses all: a name that mixes them is an attack or a mistake, never a service
            if let Some(bad) = addresses.iter().find(|address| is_metadata_ip(address.ip())) {
                return Err(Forbidden { what: format!("{host} ({})", bad.ip()) }.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_known_in_every_notation() {
        let forbidden = [
            "http://169.254.169.254/",
            "http://169.254.170.2/v2/credentials",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0xA9.0xFE.0xA9.0xFE/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::a9fe:a9fe]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[64:ff9b:1::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fd00:0ec2:0:0:0:0:0:0254]/",
            "http://[fd20:ce::254]/",
            "http://100.100.100.200/",
            "http://192.0.0.192/",
            "http://168.63.129.16/",
            "http://metadata.google.internal/",
            "http://METADATA.google.internal./",
            "http://metadata.goog:80/",
            "http://\u{ff4d}etadata.goog/",
            "http://1\u{ff16}9.254.169.254/",
        ];
        for text in forbidden {
            let url = Url::parse(text).expect("a URL");
            assert!(check_literal(&url).is_err(), "{text}");
        }
    }

    #[test]
    fn the_operators_own_networks_are_allowed() {
        let allowed = [
            "http://127.0.0.1/",
            "http://localhost/",
            "http://[::1]/",
            "http://10.0.0.1/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://[fd00::1]/",
            "http://[::ffff:10.0.0.1]/",
            "https://api.example.com/169.254.169.254",
            "https://metadata.example.com/",
        ];
        for text in allowed {
            let url = Url::parse(text).expect("a URL");
            assert!(check_literal(&url).is_ok(), "{text}");
        }
    }
}
