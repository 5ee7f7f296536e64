//! Who is to be told of which change: ZooKeeper's watches.
//!
//! ```text
//!   getData, exists  -> data      path -> connection: standard | persistent | recursive
//!   getChildren      -> children  path -> connection: standard | persistent
//!   addWatch         -> both, the recursive ones in data only
//!
//!   Event of the tree --fire--> Fired { zxid, event, connections }
//! ```
//!
//! A watch belongs to a connection, not to its session: a client that comes back on
//! another connection sets its watches again (setWatches). A standard watch fires once.
//! A connection is told of one change once, however many of its watches match. That its
//! client may read the node is for the front to see: it knows what the client is.

use crate::core::Zxid;
use crate::core::tree::{Event, EventKind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A client's connection. The front numbers them, and never uses a number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// An event and whom it is to be sent to. To be sent once `zxid` is committed, and
/// before any answer of a later call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    pub zxid: Zxid,
    pub event: Event,
    pub connections: Vec<ConnectionId>,
}

/// How a watch was set; a connection can watch a path in several ways at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Fires once.
    Standard = 1,
    Persistent = 2,
    /// For the node and all below it; not told of children as such.
    Recursive = 4,
}

/// Which watches are meant: `Watcher.WatcherType` and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherType {
    Children = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    Recursive = 5,
}

#[derive(Debug, Default)]
pub struct Watches {
    data: Table,
    children: Table,
}

/// How many of what, for the four-letter words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub connections: usize,
    pub paths: usize,
    pub watches: usize,
}

impl Watches {
    /// A watch of getData or exists.
    pub fn watch_data(&mut self, path: &str, connection: ConnectionId) {
        self.data.add(path, connection, Mode::Standard);
    }

    /// A watch of getChildren.
    pub fn watch_children(&mut self, path: &str, connection: ConnectionId) {
        self.children.add(path, connection, Mode::Standard);
    }

    /// A watch of addWatch.
    pub fn add(&mut self, path: &str, connection: ConnectionId, recursive: bool) {
        if recursive {
            self.data.add(path, connection, Mode::Recursive);
        } else {
            self.data.add(path, connection, Mode::Persistent);
            self.children.add(path, connection, Mode::Persistent);
        }
    }

    /// False where there is no such watch.
    pub fn remove(&mut self, path: &str, connection: ConnectionId, which: WatcherType) -> bool {
        let (data, children) = modes(which);
        let data = self.data.remove(path, connection, data);
        self.children.remove(path, connection, children) || data
    }

    #[must_use]
    pub fn has(&self, path: &str, connection: ConnectionId, which: WatcherType) -> bool {
        let (data, children) = modes(which);
        self.data.modes(path, connection) & data != 0
            || self.children.modes(path, connection) & children != 0
    }

    /// The connection is gone, and its watches with it.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.data.disconnect(connection);
        self.children.disconnect(connection);
    }

    /// Turns what happened into what is to be told, in the same order.
    pub fn fire(&mut self, zxid: Zxid, events: &[Event], fired: &mut Vec<Fired>) {
        if self.data.paths.is_empty() && self.children.paths.is_empty() {
            return;
        }
        for event in events {
            let path = event.path.as_str();
            let mut told = BTreeSet::new();
            match event.kind {
                EventKind::Created | EventKind::DataChanged => self.data.fire(path, &mut told),
                EventKind::ChildrenChanged => self.children.fire(path, &mut told),
                // Who watches both is told once.
                EventKind::Deleted => {
                    self.data.fire(path, &mut told);
                    self.children.fire(path, &mut told);
                }
            }
            if !told.is_empty() {
                fired.push(Fired {
                    zxid,
                    event: event.clone(),
                    connections: told.into_iter().collect(),
                });
            }
        }
    }

    /// As ZooKeeper counts it: data watches alone.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            connections: self.data.connections.len(),
            paths: self.data.paths.len(),
            watches: self.data.connections.values().map(BTreeSet::len).sum(),
        }
    }

    /// Each watched path with who watches it; data watches.
    pub fn by_path(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = ConnectionId>)> {
        self.data
            .paths
            .iter()
            .map(|(path, who)| (&**path, who.keys().copied()))
    }

    /// Each connection with what it watches; data watches.
    pub fn by_connection(
        &self,
    ) -> impl Iterator<Item = (ConnectionId, impl Iterator<Item = &str>)> {
        self.data
            .connections
            .iter()
            .map(|(connection, paths)| (*connection, paths.iter().map(|path| &**path)))
    }
}

/// The modes that a type means, in the data table and in that of children.
fn modes(which: WatcherType) -> (u8, u8) {
    const ALL: u8 = Mode::Standard as u8 | Mode::Persistent as u8 | Mode::Recursive as u8;
    match which {
        WatcherType::Children => (0, Mode::Standard as u8),
        WatcherType::Data => (Mode::Standard as u8, 0),
        WatcherType::Any => (ALL, ALL),
        WatcherType::Persistent => (Mode::Persistent as u8, Mode::Persistent as u8),
        WatcherType::Recursive => (Mode::Recursive as u8, 0),
    }
}

#[derive(Debug, Default)]
struct Table {
    /// Who watches a path, and in which modes.
    paths: HashMap<Arc<str>, BTreeMap<ConnectionId, u8>>,
    connections: HashMap<ConnectionId, BTreeSet<Arc<str>>>,
    /// How many watches are recursive: without any, nobody above need be looked for.
    recursive: usize,
}

impl Table {
    fn add(&mut self, path: &str, connection: ConnectionId, mode: Mode) {
        let path = match self.paths.get_key_value(path) {
            Some((known, _)) => known.clone(),
            None => Arc::from(path),
        };
        let modes = self.paths.entry(path.clone()).or_default();
        let modes = modes.entry(connection).or_default();
        if mode == Mode::Recursive && *modes & Mode::Recursive as u8 == 0 {
            self.recursive += 1;
        }
        *modes |= mode as u8;
        self.connections.entry(connection).or_default().insert(path);
    }

    fn modes(&self, path: &str, connection: ConnectionId) -> u8 {
        let who = self.paths.get(path);
        who.and_then(|who| who.get(&connection))
            .copied()
            .unwrap_or(0)
    }

    fn remove(&mut self, path: &str, connection: ConnectionId, modes: u8) -> bool {
        let Some(held) = self
            .paths
            .get_mut(path)
            .and_then(|who| who.get_mut(&connection))
        else {
            return false;
        };
        let gone = *held & modes;
        *held &= !modes;
        if gone & Mode::Recursive as u8 != 0 {
            self.recursive -= 1;
        }
        if *held == 0 {
            self.forget(path, connection);
        }
        gone != 0
    }

    /// Takes a pair out of both maps that has no mode left.
    fn forget(&mut self, path: &str, connection: ConnectionId) {
        if let Some(who) = self.paths.get_mut(path) {
            who.remove(&connection);
            if who.is_empty() {
                self.paths.remove(path);
            }
        }
        if let Some(paths) = self.connections.get_mut(&connection) {
            paths.remove(path);
            if paths.is_empty() {
                self.connections.remove(&connection);
            }
        }
    }

    fn disconnect(&mut self, connection: ConnectionId) {
        for path in self.connections.remove(&connection).unwrap_or_default() {
            let who = self.paths.get_mut(&path).expect("both maps have it");
            let modes = who.remove(&connection).expect("both maps have it");
            if modes & Mode::Recursive as u8 != 0 {
                self.recursive -= 1;
            }
            if who.is_empty() {
                self.paths.remove(&path);
            }
        }
    }

    fn fire(&mut self, path: &str, told: &mut BTreeSet<ConnectionId>) {
        let mut spent = Vec::new();
        if let Some(who) = self.paths.get_mut(path) {
            for (connection, modes) in who.iter_mut() {
                told.insert(*connection);
                *modes &= !(Mode::Standard as u8);
                if *modes == 0 {
                    spent.push(*connection);
                }
            }
        }
        for connection in spent {
            self.forget(path, connection);
        }
        let mut above = path;
        while self.recursive > 0 && above != "/" {
            above = match above.rfind('/') {
                Some(0) | None => "/",
                Some(at) => &above[..at],
            };
            for (connection, modes) in self.paths.get(above).into_iter().flatten() {
                if modes & Mode::Recursive as u8 != 0 {
                    told.insert(*connection);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    fn event(kind: EventKind, path: &str) -> Event {
        Event::open(kind, path)
    }

    fn told(watches: &mut Watches, kind: EventKind, path: &str) -> Vec<ConnectionId> {
        let mut fired = Vec::new();
        watches.fire(Zxid(7), &[event(kind, path)], &mut fired);
        fired.pop().map(|f| f.connections).unwrap_or_default()
    }

    fn is_empty(watches: &Watches) -> bool {
        [&watches.data, &watches.children]
            .iter()
            .all(|t| t.paths.is_empty() && t.connections.is_empty() && t.recursive == 0)
    }

    #[test]
    fn a_standard_watch_fires_once_and_for_its_own_kind() {
        let mut watches = Watches::default();
        watches.watch_data("/a", A);
        watches.watch_children("/a", B);
        assert_eq!(told(&mut watches, EventKind::ChildrenChanged, "/a"), [B]);
        assert_eq!(told(&mut watches, EventKind::ChildrenChanged, "/a"), []);
        assert_eq!(told(&mut watches, EventKind::Created, "/a/b"), []);
        assert_eq!(told(&mut watches, EventKind::DataChanged, "/a"), [A]);
        assert_eq!(told(&mut watches, EventKind::DataChanged, "/a"), []);
        assert!(is_empty(&watches));
    }

    #[test]
    fn a_deletion_is_told_once_to_who_watches_both() {
        let mut watches = Watches::default();
        watches.watch_data("/a", A);
        watches.watch_children("/a", A);
        watches.watch_children("/a", B);
        assert_eq!(told(&mut watches, EventKind::Deleted, "/a"), [A, B]);
        assert!(is_empty(&watches));
    }

    #[test]
    fn persistent_ones_stay_and_recursive_ones_reach_below() {
        let mut watches = Watches::default();
        watches.add("/a", A, false);
        watches.add("/", B, true);
        for _ in 0..2 {
            assert_eq!(told(&mut watches, EventKind::DataChanged, "/a"), [A, B]);
            assert_eq!(told(&mut watches, EventKind::ChildrenChanged, "/a"), [A]);
            assert_eq!(told(&mut watches, EventKind::Created, "/a/b/c"), [B]);
            assert_eq!(told(&mut watches, EventKind::ChildrenChanged, "/a/b"), []);
        }
        watches.disconnect(A);
        assert_eq!(told(&mut watches, EventKind::Deleted, "/a"), [B]);
        watches.disconnect(B);
        assert!(is_empty(&watches));
    }

    #[test]
    fn the_modes_of_one_path_are_apart() {
        let mut watches = Watches::default();
        watches.watch_data("/a", A);
        watches.add("/a", A, true);
        watches.add("/a", A, false);
        assert_eq!(told(&mut watches, EventKind::DataChanged, "/a"), [A]);
        assert!(!watches.has("/a", A, WatcherType::Data));
        assert!(watches.has("/a", A, WatcherType::Persistent));
        assert!(!watches.remove("/a", A, WatcherType::Children));
        assert!(watches.remove("/a", A, WatcherType::Recursive));
        assert!(watches.has("/a", A, WatcherType::Any));
        assert!(watches.remove("/a", A, WatcherType::Any));
        assert!(!watches.remove("/a", A, WatcherType::Any));
        assert!(is_empty(&watches));
    }
}
