//! What the front of ZooKeeper's clients goes by.

use crate::zookeeper::words::Whitelist;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The names in quotes are ZooKeeper's settings.
#[derive(Clone, Debug)]
pub struct Limits {
    /// "jute.maxbuffer": the longest request.
    pub frame_bytes_max: usize,
    /// A frame that has begun, or the first frame of a connection, must be whole after
    /// this long.
    pub frame_time_max: Duration,
    /// "maxCnxns"; none there by default, and here what descriptors allow.
    pub connections_max: usize,
    /// "maxClientCnxns": connections from one address.
    pub connections_per_ip_max: usize,
    /// Bytes of one connection that wait to be sent before no more of its requests are
    /// taken.
    pub outbox_bytes_max: usize,
    /// Watch events come unasked: at this many waiting bytes a client that does not read
    /// is let go.
    pub outbox_bytes_limit: usize,
    /// Bytes of begun frames of all connections. A claim takes nothing: this bounds what
    /// has really come.
    pub partial_bytes_max: usize,
    /// How long a stopping broker waits for answers to be sent, and a connection that was
    /// refused for its client to close.
    pub drain_time_max: Duration,
    /// "4lw.commands.whitelist"
    pub words: Whitelist,
    /// "DigestAuthenticationProvider.superDigest": who has the password to this is
    /// stopped by no ACL.
    pub super_digest: Option<String>,
}

impl Default for Limits {
    fn default() -> Limits {
        const MIB: usize = 1 << 20;
        Limits {
            frame_bytes_max: 1_048_575,
            frame_time_max: Duration::from_secs(30),
            connections_max: usize::MAX,
            connections_per_ip_max: 60,
            outbox_bytes_max: MIB,
            outbox_bytes_limit: 16 * MIB,
            partial_bytes_max: 128 * MIB,
            drain_time_max: Duration::from_secs(2),
            words: Whitelist::default(),
            super_digest: None,
        }
    }
}

/// What only the four-letter words tell of.
#[derive(Clone, Debug)]
pub struct About {
    /// Klamm's own version.
    pub version: &'static str,
    pub address: SocketAddr,
    pub data: PathBuf,
    pub tick_time_ms: u32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
}
