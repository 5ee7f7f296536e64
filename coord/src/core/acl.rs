//! Who may do what with a node: ZooKeeper's schemes, and what a client has shown to be.
//!
//! ```text
//!   auth request --authenticate--> Identity, Identity, ...   of one connection
//!                                      |
//!   a node's ACL  --allows(perm)-------+--> yes / NoAuth
//!   an ACL given  --expand, is_valid--> the ACL stored / InvalidAcl
//! ```
//!
//! The schemes are `world:anyone`, `ip` (an address or a network), and `digest`
//! (`user:base64(SHA-1(user:password))`); `auth` in an ACL that is given stands for all
//! that its client has authenticated as. `super` is whoever knows the super digest's
//! password; no ACL holds for it.

use crate::core::stat::{Acl, Perms};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::net::IpAddr;

/// One thing that a client is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub scheme: String,
    pub id: String,
}

impl Identity {
    /// What every client is from its first byte on.
    #[must_use]
    pub fn ip(address: IpAddr) -> Identity {
        Identity {
            scheme: "ip".into(),
            id: address.to_canonical().to_string(),
        }
    }
}

/// What a client becomes by an auth request. None: there is no such scheme.
/// `super_digest` is the digest of the one whom no ACL stops.
#[must_use]
pub fn authenticate(
    scheme: &str,
    auth: &[u8],
    address: IpAddr,
    super_digest: Option<&str>,
) -> Option<Vec<Identity>> {
    match scheme {
        "ip" => Some(vec![Identity::ip(address)]),
        "digest" => {
            let id = digest(&String::from_utf8_lossy(auth));
            let mut become_ = Vec::new();
            if super_digest == Some(id.as_str()) {
                become_.push(Identity {
                    scheme: "super".into(),
                    id: String::new(),
                });
            }
            become_.push(Identity {
                scheme: "digest".into(),
                id,
            });
            Some(become_)
        }
        _ => None,
    }
}

/// `user:password` as a digest ACL's id. Without a colon all of it is the user.
#[must_use]
pub fn digest(user_and_password: &str) -> String {
    let user = user_and_password
        .split_once(':')
        .map_or(user_and_password, |(user, _)| user);
    let hash = Sha1::digest(user_and_password.as_bytes());
    format!("{user}:{}", STANDARD.encode(hash))
}

/// An ACL as it is stored: without what is in it twice, and with the client's own
/// digests in the place of `auth`. What means nobody stays, for [`is_valid`] to refuse.
#[must_use]
pub fn expand(given: Vec<Acl>, who: &[Identity]) -> Vec<Acl> {
    let is_plain = given.len() == 1 && given[0].scheme != "auth";
    if is_plain {
        return given;
    }
    let mut stored: Vec<Acl> = Vec::with_capacity(given.len());
    let mut add = |acl: Acl| {
        if !stored.contains(&acl) {
            stored.push(acl);
        }
    };
    for acl in given {
        let mut own = who.iter().filter(|i| i.scheme == "digest").peekable();
        if acl.scheme != "auth" || own.peek().is_none() {
            add(acl);
            continue;
        }
        for identity in own {
            add(Acl {
                perms: acl.perms,
                scheme: identity.scheme.clone().into(),
                id: identity.id.clone().into(),
            });
        }
    }
    stored
}

/// Whether an entry means somebody.
#[must_use]
pub fn is_valid(acl: &Acl) -> bool {
    match &*acl.scheme {
        "world" => acl.id == "anyone",
        // Two parts; empty ones at the end are none, as ZooKeeper counts.
        "digest" => acl.id.trim_end_matches(':').split(':').count() == 2,
        "ip" => Network::parse(&acl.id).is_some(),
        _ => false,
    }
}

/// Whether one of the entries gives one of the permissions to one of the identities.
#[must_use]
pub fn allows(acl: &[Acl], perms: Perms, who: &[Identity]) -> bool {
    if acl.is_empty() || who.iter().any(|i| i.scheme == "super") {
        return true;
    }
    acl.iter()
        .filter(|entry| entry.perms.0 & perms.0 != 0)
        .any(|entry| {
            (entry.scheme == "world" && entry.id == "anyone")
                || who
                    .iter()
                    .any(|i| i.scheme == entry.scheme && matches(entry, i))
        })
}

fn matches(entry: &Acl, identity: &Identity) -> bool {
    match &*entry.scheme {
        "ip" => match (Network::parse(&entry.id), identity.id.parse()) {
            (Some(network), Ok(address)) => network.contains(address),
            _ => false,
        },
        _ => entry.id == identity.id,
    }
}

/// `10.1.2.3` or `10.1.0.0/16`; IPv6 likewise.
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= bits_max)?,
            None => bits_max,
        };
        Some(Network { address, bits })
    }

    fn contains(&self, other: IpAddr) -> bool {
        /// The bits from the left.
        fn bits(address: IpAddr) -> u128 {
            match address {
                IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
                IpAddr::V6(v6) => u128::from(v6),
            }
        }
        let apart = bits(self.address) ^ bits(other);
        self.address.is_ipv4() == other.is_ipv4() && apart.leading_zeros() >= self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(perms: Perms, scheme: &str, id: &str) -> Acl {
        Acl {
            perms,
            scheme: scheme.to_owned().into(),
            id: id.to_owned().into(),
        }
    }

    fn identity(scheme: &str, id: &str) -> Identity {
        Identity {
            scheme: scheme.to_owned(),
            id: id.to_owned(),
        }
    }

    /// The example of ZooKeeper's administrator's guide.
    #[test]
    fn a_digest_is_zookeepers() {
        assert_eq!(digest("super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
    }

    #[test]
    fn who_knows_the_password_is_it_and_nobody_is_a_scheme_that_is_not_there() {
        let address = "127.0.0.1".parse().unwrap();
        let become_ = |scheme, auth: &[u8]| {
            authenticate(
                scheme,
                auth,
                address,
                Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU="),
            )
        };
        assert_eq!(become_("ip", b""), Some(vec![identity("ip", "127.0.0.1")]));
        let root = become_("digest", b"super:test").unwrap();
        assert_eq!(root[0], identity("super", ""));
        let other = become_("digest", b"super:tesT").unwrap();
        assert_eq!(other.len(), 1);
        assert_eq!(become_("sasl", b"x"), None);
    }

    #[test]
    fn what_an_entry_must_be() {
        let valid = |scheme, id| is_valid(&acl(Perms::ALL, scheme, id));
        assert!(valid("world", "anyone") && !valid("world", "bob"));
        assert!(valid("digest", "a:b") && !valid("digest", "a") && !valid("digest", "a:b:c"));
        assert!(valid("ip", "10.0.0.0/8") && valid("ip", "::1/128") && valid("ip", "1.2.3.4"));
        assert!(!valid("ip", "10.0.0.0/33") && !valid("ip", "ten") && !valid("ip", ""));
        assert!(!valid("auth", "") && !valid("", "") && !valid("x509", "CN=a"));
    }

    #[test]
    fn an_entry_allows_whom_it_names() {
        let bob = [identity("ip", "10.1.2.3"), identity("digest", "bob:x")];
        let table = [
            (acl(Perms::READ, "world", "anyone"), true),
            (acl(Perms::WRITE, "world", "anyone"), false),
            (acl(Perms::ALL, "digest", "bob:x"), true),
            (acl(Perms::ALL, "digest", "bob:y"), false),
            (acl(Perms::ALL, "ip", "10.1.2.3"), true),
            (acl(Perms::ALL, "ip", "10.0.0.0/8"), true),
            (acl(Perms::ALL, "ip", "10.1.2.0/30"), true),
            (acl(Perms::ALL, "ip", "10.1.2.4/30"), false),
            (acl(Perms::ALL, "ip", "::a01:203"), false),
            (acl(Perms::ALL, "ip", "0.0.0.0/0"), true),
        ];
        for (entry, expected) in table {
            assert_eq!(
                allows(std::slice::from_ref(&entry), Perms::READ, &bob),
                expected,
                "{entry:?}"
            );
        }
        let nobody = [acl(Perms::WRITE, "digest", "x:y")];
        assert!(allows(&nobody, Perms::READ, &[identity("super", "")]));
    }

    #[test]
    fn auth_becomes_what_the_client_is() {
        let bob = [identity("ip", "10.1.2.3"), identity("digest", "bob:x")];
        let auth = || {
            vec![
                acl(Perms::ALL, "auth", ""),
                acl(Perms::ALL, "digest", "bob:x"),
            ]
        };
        assert_eq!(expand(auth(), &bob), [acl(Perms::ALL, "digest", "bob:x")]);
        let unknown = expand(auth(), &bob[..1]);
        assert!(!is_valid(&unknown[0]));
    }
}
