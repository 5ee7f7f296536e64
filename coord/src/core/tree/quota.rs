//! Quotas: how many nodes and bytes stand below a node, and how many may.
//!
//! ```text
//!   /zookeeper/quota/a/zookeeper_limits   "count=10,bytes=-1=;byteHardLimit=1000"   set by hand
//!   /zookeeper/quota/a/zookeeper_stats    "count=3,bytes=17"                        kept here
//! ```
//!
//! As in ZooKeeper: the deepest node above with a quota counts; the stats node changes
//! without a version or an event; limits are only held to where that is switched on
//! (`enforceQuota`), and then the hard ones.

use super::{Node, Tree, bytes_of};
use std::collections::BTreeMap;

const QUOTA: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// The node that a quota node speaks of, where `path` is one called `name`.
fn subject<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let (above, last) = path.rsplit_once('/')?;
    let subject = above.strip_prefix(QUOTA)?;
    (last == name && subject.starts_with('/')).then_some(subject)
}

impl Tree {
    /// A node came: `path` may be a limit, a stats node, or below a limit.
    pub(super) fn quota_created(&mut self, path: &str, bytes: i64) {
        if let Some(of) = subject(path, LIMITS) {
            self.quotas.insert(of.into());
        }
        if let Some(of) = subject(path, STATS) {
            let (count, bytes) = self.count_below(of);
            self.put_stats(of, count, bytes);
        }
        self.quota_changed(path, bytes, 1);
    }

    /// A node was read back from a snapshot.
    pub(super) fn quota_restored(&mut self, path: &str) {
        if let Some(of) = subject(path, LIMITS) {
            self.quotas.insert(of.into());
        }
    }

    pub(super) fn quota_deleted(&mut self, path: &str, bytes: i64) {
        if let Some(of) = subject(path, LIMITS) {
            self.quotas.remove(of);
        }
        self.quota_changed(path, -bytes, -1);
    }

    /// Adds to the stats of the deepest quota above `path`.
    pub(super) fn quota_changed(&mut self, path: &str, bytes: i64, count: i64) {
        let Some(of) = self.quota_above(path) else {
            return;
        };
        let Some(track) = self.track(&format!("{QUOTA}{of}/{STATS}")) else {
            return;
        };
        let of = of.to_owned();
        self.put_stats(&of, track.count() + count, track.bytes() + bytes);
    }

    /// Whether a hard limit stands against so much more below `path`.
    pub(super) fn exceeds_quota(&self, path: &str, bytes: i64, count: i64) -> bool {
        if !self.enforce_quota {
            return false;
        }
        let Some(of) = self.quota_above(path) else {
            return false;
        };
        let limits = self.track(&format!("{QUOTA}{of}/{LIMITS}"));
        let stats = self.track(&format!("{QUOTA}{of}/{STATS}"));
        let (Some(limits), Some(stats)) = (limits, stats) else {
            return false;
        };
        let over = |limit: i64, now: i64, more: i64| more != 0 && limit > -1 && now + more > limit;
        over(limits.value("countHardLimit"), stats.count(), count)
            || over(limits.value("byteHardLimit"), stats.bytes(), bytes)
    }

    fn quota_above(&self, path: &str) -> Option<&str> {
        if self.quotas.is_empty() {
            return None;
        }
        let mut above = path;
        while !above.is_empty() {
            if let Some(found) = self.quotas.get(above) {
                return Some(found);
            }
            above = above.rfind('/').map_or("", |at| &above[..at]);
        }
        None
    }

    fn track(&self, path: &str) -> Option<Track> {
        Some(Track::parse(self.data(path)?.unwrap_or_default()))
    }

    fn put_stats(&mut self, of: &str, count: i64, bytes: i64) {
        let path = format!("{QUOTA}{of}/{STATS}");
        if let Some(id) = self.find(&path) {
            self.keep(&path);
            let node = self.nodes.get_mut(id);
            let mut track = Track::parse(node.data.as_deref().unwrap_or_default());
            track.0.insert("count".to_owned(), count);
            track.0.insert("bytes".to_owned(), bytes);
            let text = track.text().into_bytes();
            self.data_size += bytes_of(Some(&text)) - node.data_bytes();
            node.data = Some(text.into());
        }
    }

    /// The nodes from `path` on, itself with them, and their bytes.
    fn count_below(&self, path: &str) -> (i64, i64) {
        let (mut count, mut bytes) = (0, 0);
        let mut open: Vec<&Node> = self
            .find(path)
            .map(|id| self.nodes.get(id))
            .into_iter()
            .collect();
        while let Some(node) = open.pop() {
            count += 1;
            bytes += node.data_bytes();
            open.extend(
                node.children
                    .iter()
                    .flat_map(|c| c.values())
                    .map(|id| self.nodes.get(*id)),
            );
        }
        (count, bytes)
    }
}

/// The text of a quota node. What a hand spoilt in it counts as not there.
struct Track(BTreeMap<String, i64>);

impl Track {
    fn parse(data: &[u8]) -> Track {
        let text = String::from_utf8_lossy(data);
        let pairs = text.split([',', ';']).filter_map(|pair| {
            let mut parts = pair.split('=');
            let (name, value) = (parts.next()?, parts.next()?);
            Some((name.to_owned(), value.trim().parse().ok()?))
        });
        Track(pairs.collect())
    }

    fn value(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(-1)
    }

    fn count(&self) -> i64 {
        self.value("count")
    }

    fn bytes(&self) -> i64 {
        self.value("bytes")
    }

    fn text(&self) -> String {
        let mut text = format!("count={},bytes={}", self.count(), self.bytes());
        let rest = self
            .0
            .iter()
            .filter(|(name, _)| *name != "count" && *name != "bytes");
        for (i, (name, value)) in rest.enumerate() {
            // Old clients stop reading at the second `=`.
            text.push_str(if i == 0 { "=;" } else { ";" });
            text.push_str(&format!("{name}={value}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Zxid;
    use crate::core::tree::{Access, Op, TreeError};
    use klamm_engine::units::TimestampMs;

    fn run(tree: &mut Tree, op: Op) -> Result<(), TreeError> {
        tree.multi_as(
            Access::Of(&[]),
            Zxid(1),
            TimestampMs(1),
            &[op],
            &mut Vec::new(),
        )
        .map(drop)
        .map_err(|e| e.error)
    }

    fn stats(tree: &Tree) -> String {
        let data = tree.data("/zookeeper/quota/a/zookeeper_stats").unwrap();
        String::from_utf8(data.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn what_stands_below_is_counted_and_limited() {
        let mut tree = Tree::new();
        tree.set_enforce_quota(true);
        for (path, data) in [
            ("/a", "12"),
            ("/a/b", "345"),
            ("/zookeeper/quota/a", ""),
            (
                "/zookeeper/quota/a/zookeeper_limits",
                "count=-1,bytes=-1=;byteHardLimit=9;countHardLimit=4",
            ),
            ("/zookeeper/quota/a/zookeeper_stats", "count=0,bytes=0"),
        ] {
            run(&mut tree, Op::create(path, data)).unwrap();
        }
        assert_eq!(stats(&tree), "count=2,bytes=5");
        run(&mut tree, Op::create("/a/c", "67")).unwrap();
        run(&mut tree, Op::set("/a/b", "3")).unwrap();
        assert_eq!(stats(&tree), "count=3,bytes=5");
        assert_eq!(
            run(&mut tree, Op::set("/a/b", "34567x")),
            Err(TreeError::QuotaExceeded)
        );
        run(&mut tree, Op::create("/a/d", "")).unwrap();
        assert_eq!(
            run(&mut tree, Op::create("/a/e", "")),
            Err(TreeError::QuotaExceeded)
        );
        run(&mut tree, Op::delete("/a/d")).unwrap();
        run(&mut tree, Op::create("/ab", "outside")).unwrap();
        assert_eq!(stats(&tree), "count=3,bytes=5");
        run(&mut tree, Op::delete("/zookeeper/quota/a/zookeeper_limits")).unwrap();
        run(&mut tree, Op::create("/a/e", "")).unwrap();
        assert_eq!(stats(&tree), "count=3,bytes=5");
    }

    #[test]
    fn a_multi_that_fails_leaves_the_stats_as_they_were() {
        let mut tree = Tree::new();
        for (path, data) in [
            ("/a", ""),
            ("/zookeeper/quota/a", ""),
            ("/zookeeper/quota/a/zookeeper_limits", "count=1,bytes=1"),
            ("/zookeeper/quota/a/zookeeper_stats", ""),
        ] {
            run(&mut tree, Op::create(path, data)).unwrap();
        }
        let ops = [
            Op::create("/a/b", "x"),
            Op::set("/a", "yy"),
            Op::delete("/a/b"),
            Op::delete("/none"),
        ];
        tree.multi(Zxid(2), TimestampMs(2), &ops, &mut Vec::new())
            .unwrap_err();
        assert_eq!(stats(&tree), "count=1,bytes=0");
    }
}
