//! What ZooKeeper's clients may do: sessions, reads, writes, watches.
//!
//! ```text
//!   connect --> SessionId
//!   write, multi, close_session --> Gated { zxid: its own change }
//!   exists, get_data, ...       --> Gated { zxid: the change that it shows }
//!                                        |
//!       sent once the changelog is committed up to that zxid, in the order of the
//!       calls on a connection, and behind what take_output gave out as fired before
//! ```
//!
//! A call changes the state at once and answers at once; that nobody sees what a crash
//! could take back is the front's part, by the gate. A read's gate is the last change of
//! what it shows, not the last of all: it does not wait for others' writes to be synced.

use super::Core;
use crate::core::acl::{self, Identity};
use crate::core::command::{Change, Command};
use crate::core::path;
use crate::core::sessions::{Password, SessionRecord, Sessions};
use crate::core::stat::{Acl, Lifetime, Perms, Stat};
use crate::core::tree::{
    ANY_VERSION, Access, BadArguments, Event, EventKind, MultiError, Op, OpResult, Tree, TreeError,
};
use crate::core::{Now, Zxid};
use klamm_engine::units::{Nanos, TimestampMs};

pub use crate::core::acl::{Identity as AuthIdentity, authenticate};
pub use crate::core::sessions::SessionId;
pub use crate::core::watches::{ConnectionId, Fired, Summary, WatcherType, Watches};

/// ZooKeeper's settings, as far as the state machine goes by them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperConfig {
    /// `minSessionTimeout` and `maxSessionTimeout`, ms: 2 and 20 ticks.
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    /// `enforceQuota`.
    pub enforce_quota: bool,
    /// `znode.container.checkIntervalMs`: how often containers and nodes with a time to
    /// live are looked through.
    pub container_check_interval_ms: u64,
}

impl Default for ZooKeeperConfig {
    fn default() -> ZooKeeperConfig {
        ZooKeeperConfig {
            min_session_timeout_ms: 4_000,
            max_session_timeout_ms: 40_000,
            enforce_quota: false,
            container_check_interval_ms: 60_000,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub connection: ConnectionId,
    pub session: SessionId,
    pub identities: &'a [Identity],
}

/// An answer, and the change that must be committed before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gated<T> {
    pub zxid: Zxid,
    pub value: T,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    pub last_zxid_seen: Zxid,
    pub timeout_ms: i32,
    /// 0: a new session.
    pub session: SessionId,
    pub password: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connected {
    Session {
        session: SessionId,
        password: Password,
        timeout_ms: i32,
        /// The gate of the answer.
        zxid: Zxid,
    },
    /// No such session, or another password: answered with zeros, then closed.
    Expired,
    /// The client has seen more than there is: closed, so that it tries another server.
    ZxidAhead,
}

/// What a client that comes back had watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetWatches<'a> {
    pub relative_zxid: Zxid,
    pub data: Vec<&'a str>,
    pub exist: Vec<&'a str>,
    pub child: Vec<&'a str>,
    pub persistent: Vec<&'a str>,
    pub recursive: Vec<&'a str>,
}

/// A read's outcome: a node's part and its stat, or why not.
pub type ReadResult<T> = Result<(T, Stat), TreeError>;

/// How many expired nodes one tick removes: one change each.
const REAPED_AT_ONCE: usize = 1_000;

impl Core {
    // -- sessions

    /// A new session, or one taken up again; then the connection it had is to be closed.
    pub fn connect(
        &mut self,
        connection: ConnectionId,
        request: &Connect<'_>,
        now: Now,
    ) -> Connected {
        if request.last_zxid_seen > self.zxid {
            return Connected::ZxidAhead;
        }
        let zookeeper = &self.config.zookeeper;
        let (min, max) = (
            zookeeper.min_session_timeout_ms,
            zookeeper.max_session_timeout_ms,
        );
        let timeout_ms = request.timeout_ms.min(max).max(min);
        let session = if request.session.0 == 0 {
            self.open_session(timeout_ms, false, now)
        } else {
            match self.sessions.get(request.session) {
                Some(held)
                    if !held.record.internal && held.record.password == *request.password => {}
                _ => return Connected::Expired,
            }
            self.sessions.resume(request.session, timeout_ms, now.mono);
            request.session
        };
        let held = self.sessions.get_mut(session).expect("it is there");
        let before = held.connection.replace(connection);
        let password = held.record.password;
        if let Some(before) = before.filter(|before| *before != connection) {
            self.watches.disconnect(before);
            self.output.hang_up.push(before);
        }
        Connected::Session {
            session,
            password,
            timeout_ms,
            // A session that is taken up may have been opened a moment ago.
            zxid: self.zxid,
        }
    }

    /// Something came from the session's client. False: the session has ended.
    pub fn heard(&mut self, session: SessionId, now: Now) -> bool {
        self.sessions.heard(session, now.mono)
    }

    /// The connection is gone, and its watches with it; the session waits for the client
    /// to come back.
    pub fn disconnect(&mut self, connection: ConnectionId, session: Option<SessionId>) {
        self.watches.disconnect(connection);
        let held = session.and_then(|id| self.sessions.get_mut(id));
        if let Some(held) = held.filter(|held| held.connection == Some(connection)) {
            held.connection = None;
        }
    }

    /// Ends a session, and its ephemeral nodes with it. It has a zxid even where the
    /// session is gone already.
    pub fn close_session(&mut self, session: SessionId, now: Now) -> Zxid {
        let held = self.sessions.close(session);
        let zxid = self.zxid.next();
        self.session_closed(session, zxid, now.wall);
        self.persist(now.wall, Change::SessionClosed(session));
        self.follow();
        self.govern(now);
        if let Some(connection) = held.and_then(|held| held.connection) {
            self.watches.disconnect(connection);
        }
        zxid
    }

    /// The session that the broker's own ephemeral nodes belong to.
    #[must_use]
    pub fn own_session(&self) -> SessionId {
        self.own_session.expect("it is opened at the start")
    }

    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    #[must_use]
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    // -- writes

    pub fn write(
        &mut self,
        client: &Client<'_>,
        op: Op,
        now: Now,
    ) -> Gated<Result<OpResult, TreeError>> {
        let op = self.take_in(client, op);
        let zxid = self.zxid.next();
        let access = Access::Of(client.identities);
        let value = self
            .tree
            .apply_as(access, zxid, now.wall, &op, &mut self.events);
        if value.is_ok() {
            let sets_acl = matches!(op, Op::SetAcl { .. });
            self.persist(now.wall, Change::Tree(vec![op]));
            self.follow();
            self.written(sets_acl, now);
        } else {
            self.refuse_write(now);
        }
        Gated { zxid, value }
    }

    /// What a client's change may have made necessary.
    fn written(&mut self, sets_acl: bool, now: Now) {
        if sets_acl {
            self.acl_zxid = self.zxid;
        }
        self.govern(now);
        self.arm_reaping(now);
    }

    /// As it is stored: with what the client is in the place of "auth".
    fn take_in(&self, client: &Client<'_>, mut op: Op) -> Op {
        if let Op::Create { acl, .. } | Op::SetAcl { acl, .. } = &mut op {
            *acl = acl::expand(std::mem::take(acl), client.identities);
        }
        op
    }

    /// All of them or none, under one zxid.
    pub fn multi(
        &mut self,
        client: &Client<'_>,
        ops: Vec<Op>,
        now: Now,
    ) -> Gated<Result<Vec<OpResult>, MultiError>> {
        let zxid = self.zxid.next();
        let ops: Vec<Op> = ops.into_iter().map(|op| self.take_in(client, op)).collect();
        let sets_acl = ops.iter().any(|op| matches!(op, Op::SetAcl { .. }));
        let value = self
            .change_as(Access::Of(client.identities), now.wall, ops)
            .map_err(|(failed, _)| failed);
        if value.is_ok() {
            self.written(sets_acl, now);
        } else {
            self.refuse_write(now);
        }
        Gated { zxid, value }
    }

    /// As the reaper does it: whatever the ACL, but no ephemeral node and none with
    /// children.
    pub fn delete_container(&mut self, path: &str, now: Now) -> Gated<Result<(), TreeError>> {
        let value = match self.tree.lifetime(path) {
            Some(Lifetime::Ephemeral(_)) => Err(TreeError::BadVersion),
            _ => self
                .change(now.wall, vec![Op::delete(path)])
                .map(drop)
                .map_err(|(failed, _)| failed.error),
        };
        if value.is_err() {
            self.refuse_write(now);
        }
        let zxid = self.zxid;
        self.govern(now);
        Gated { zxid, value }
    }

    /// A failed write has a zxid too; what was asked need not be kept.
    pub fn refuse_write(&mut self, now: Now) -> Zxid {
        self.zxid = self.zxid.next();
        self.output.persist.push((
            self.zxid,
            Command {
                time: now.wall,
                change: Change::Refused,
            },
        ));
        self.zxid
    }

    // -- reads

    /// The answer to a sync: everything that came before it.
    #[must_use]
    pub fn sync(&self) -> Zxid {
        self.zxid
    }

    pub fn exists(
        &mut self,
        client: &Client<'_>,
        path: &str,
        watch: bool,
    ) -> Gated<Result<Stat, TreeError>> {
        let of = Access::Of(client.identities);
        let (zxid, read) = self.tree.read_with_gate(path, of, Perms::READ);
        let value = if path.contains('\0') {
            Err(bad_path(path))
        } else {
            // Also for a node that is not there: that it comes is what is waited for.
            if watch && !matches!(read, Err(TreeError::NoAuth)) {
                self.watches.watch_data(path, client.connection);
            }
            read.map(|(_, stat)| stat)
        };
        let zxid = zxid.max(self.acl_zxid);
        Gated { zxid, value }
    }

    pub fn get_data(
        &mut self,
        client: &Client<'_>,
        path: &str,
        watch: bool,
    ) -> Gated<ReadResult<Option<&[u8]>>> {
        let of = Access::Of(client.identities);
        let (zxid, value) = self.tree.read_with_gate(path, of, Perms::READ);
        if watch && value.is_ok() {
            self.watches.watch_data(path, client.connection);
        }
        let zxid = zxid.max(self.acl_zxid);
        Gated { zxid, value }
    }

    /// Whoever may not change the ACL sees digests without their hashes.
    pub fn get_acl(&mut self, client: &Client<'_>, path: &str) -> Gated<ReadResult<Vec<Acl>>> {
        let zxid = self.gate(path);
        let of = Access::Of(client.identities);
        let value = self
            .tree
            .read(path, of, Perms(Perms::READ.0 | Perms::ADMIN.0))
            .map(|(_, stat)| {
                let mut acl = self.tree.acl(path).unwrap_or_default();
                if self.tree.read(path, of, Perms::ADMIN).is_err() {
                    for entry in acl.iter_mut().filter(|entry| entry.scheme == "digest") {
                        let user = entry.id.split(':').next().unwrap_or_default();
                        entry.id = format!("{user}:x").into();
                    }
                }
                (acl, stat)
            });
        Gated { zxid, value }
    }

    pub fn get_children<'a>(
        &'a mut self,
        client: &Client<'_>,
        path: &str,
        watch: bool,
    ) -> Gated<ReadResult<impl Iterator<Item = &'a str> + use<'a>>> {
        let zxid = self.gate(path);
        let read = self
            .tree
            .read(path, Access::Of(client.identities), Perms::READ);
        let value = match read {
            Ok((_, stat)) => {
                if watch {
                    self.watches.watch_children(path, client.connection);
                }
                let children = self.tree.children(path).expect("it was just read");
                Ok((children, stat))
            }
            Err(error) => Err(error),
        };
        Gated { zxid, value }
    }

    pub fn get_all_children_number(
        &mut self,
        client: &Client<'_>,
        path: &str,
    ) -> Gated<Result<i32, TreeError>> {
        let value = self
            .tree
            .read(path, Access::Of(client.identities), Perms::READ)
            .map(|_| {
                let count = self.tree.count_children(path).expect("it was just read");
                i32::try_from(count).unwrap_or(i32::MAX)
            });
        Gated {
            zxid: self.zxid,
            value,
        }
    }

    /// The session's ephemeral nodes whose paths begin so; "" and "/": all of them.
    pub fn get_ephemerals<'a>(
        &'a mut self,
        client: &Client<'_>,
        prefix: &'a str,
    ) -> Gated<impl Iterator<Item = &'a str> + use<'a>> {
        let prefix = match prefix.trim() {
            "" | "/" => "",
            _ => prefix,
        };
        let paths = self.tree.ephemerals(client.session.0);
        Gated {
            zxid: self.zxid,
            value: paths.filter(move |path| path.starts_with(prefix)),
        }
    }

    // -- watches

    /// What has changed since the client saw it last fires at once; the rest is set.
    pub fn set_watches(&mut self, client: &Client<'_>, set: &SetWatches<'_>) -> Gated<()> {
        let since = set.relative_zxid;
        let connection = client.connection;
        let mut fire = |zxid, kind, path: &str| {
            self.output.fired.push(Fired {
                zxid,
                event: Event::open(kind, path),
                connections: vec![connection],
            });
        };
        for path in &set.data {
            match self.tree.stat(path) {
                None => fire(self.zxid, EventKind::Deleted, path),
                Some(stat) if stat.mzxid > since => {
                    fire(self.zxid, EventKind::DataChanged, path);
                }
                Some(_) => self.watches.watch_data(path, connection),
            }
        }
        for path in &set.exist {
            if self.tree.exists(path) {
                fire(self.zxid, EventKind::Created, path);
            } else {
                self.watches.watch_data(path, connection);
            }
        }
        for path in &set.child {
            match self.tree.stat(path) {
                None => fire(self.zxid, EventKind::Deleted, path),
                Some(stat) if stat.pzxid > since => {
                    fire(self.zxid, EventKind::ChildrenChanged, path);
                }
                Some(_) => self.watches.watch_children(path, connection),
            }
        }
        for path in &set.persistent {
            self.watches.add(path, connection, false);
        }
        for path in &set.recursive {
            self.watches.add(path, connection, true);
        }
        Gated {
            zxid: self.zxid,
            value: (),
        }
    }

    pub fn add_watch(&mut self, client: &Client<'_>, path: &str, recursive: bool) -> Zxid {
        self.watches.add(path, client.connection, recursive);
        self.gate(path)
    }

    /// False where there is no such watch.
    pub fn remove_watches(&mut self, client: &Client<'_>, path: &str, which: WatcherType) -> bool {
        self.watches.remove(path, client.connection, which)
    }

    #[must_use]
    pub fn has_watches(&self, client: &Client<'_>, path: &str, which: WatcherType) -> bool {
        self.watches.has(path, client.connection, which)
    }

    /// What fired since the last call or `take_output`, in order.
    #[must_use]
    pub fn take_fired(&mut self) -> Vec<Fired> {
        std::mem::take(&mut self.output.fired)
    }

    // -- inside

    /// What must be committed before anyone is shown what is at `path`.
    fn gate(&self, path: &str) -> Zxid {
        self.tree.rests_on(path).max(self.acl_zxid)
    }

    fn open_session(&mut self, timeout_ms: i32, internal: bool, now: Now) -> SessionId {
        let id = self.sessions.next_id(now.wall);
        let record = SessionRecord {
            id,
            timeout_ms,
            password: Sessions::password(self.config.session_secret, id),
            internal,
        };
        self.sessions.open(record.clone(), now.mono);
        self.session_opened(&record, self.zxid.next(), now.wall);
        self.persist(now.wall, Change::SessionOpened(record));
        self.follow();
        id
    }

    /// The last process's own session ends, this one's begins, and everyone else has a
    /// whole timeout to come back.
    pub(super) fn start_sessions(&mut self, now: Now) {
        let internal = self.sessions.iter().filter(|s| s.record.internal);
        let mut left: Vec<SessionId> = internal.map(|s| s.record.id).collect();
        left.sort_unstable();
        for id in left {
            self.close_session(id, now);
        }
        self.sessions.hear_all(now.mono);
        self.own_session = Some(self.open_session(0, true, now));
        self.arm_reaping(now);
    }

    /// The broker stops: what was registered in its own session goes.
    pub fn end_own_session(&mut self, now: Now) {
        if let Some(own) = self.own_session.take() {
            self.own_broker = None;
            self.close_session(own, now);
        }
    }

    pub(super) fn tick_sessions(&mut self, now: Now) {
        while let Some(id) = self.sessions.next_expired(now.mono) {
            let connection = self.sessions.get(id).and_then(|s| s.connection);
            self.close_session(id, now);
            self.output.hang_up.extend(connection);
        }
        if self.reap_at.is_some_and(|at| at <= now.mono) {
            self.reap_at = None;
            self.reap(now);
            self.arm_reaping(now);
        }
    }

    fn arm_reaping(&mut self, now: Now) {
        if self.reap_at.is_none() && self.tree.has_reapable() {
            let interval = self.config.zookeeper.container_check_interval_ms * 1_000_000;
            self.reap_at = Some(Nanos(now.mono.0.saturating_add(interval)));
        }
    }

    /// Containers that are empty and were not always, and what has outlived its time.
    fn reap(&mut self, now: Now) {
        let TimestampMs(wall) = now.wall;
        let empty = |tree: &Tree, path: &str| tree.stat(path).filter(|stat| stat.num_children == 0);
        let containers = self
            .tree
            .containers()
            .filter(|path| empty(&self.tree, path).is_some_and(|stat| stat.cversion > 0));
        let outlived = self.tree.ttls().filter(|path| {
            let Some(Lifetime::Ttl(ttl)) = self.tree.lifetime(path) else {
                return false;
            };
            empty(&self.tree, path).is_some_and(|stat| wall.saturating_sub(stat.mtime.0) > ttl)
        });
        let due: Vec<String> = containers
            .chain(outlived)
            .take(REAPED_AT_ONCE)
            .map(str::to_owned)
            .collect();
        for path in due {
            let op = Op::Delete {
                path,
                version: ANY_VERSION,
            };
            // It was just seen to have no children.
            let deleted = self.change(now.wall, vec![op]);
            debug_assert!(deleted.is_ok());
        }
    }
}

fn bad_path(path: &str) -> TreeError {
    let error = path::validate(path).expect_err("it was seen to be none");
    TreeError::BadArguments(BadArguments::Path(error))
}

#[cfg(test)]
mod tests;
