//! What this process does in the tree besides answering: its broker's registration, its
//! turn as the controller, and the nodes of its groups.
//!
//! ```text
//!   step, tick, multi, close_session
//!        |  changes
//!        v
//!   follow --> Agenda --> govern   elects where nobody is in office; in office, plans
//!                |          |      and changes until the agenda is empty
//!                +----------+
//! ```
//!
//! Other brokers write into the same tree through ZooKeeper's protocol. Which of them is
//! the controller is decided there, and this process is one of those that try. Where the
//! tree is a mirror, changes leave as multis, and those that somebody else was quicker
//! with are found out when they are not done.

use super::Core;
use crate::core::cluster::controller::{self, Agenda, Term};
use crate::core::cluster::{ClusterError, ClusterErrorKind as Kind, registration, znodes};
use crate::core::groups::Record;
use crate::core::image::Broker;
use crate::core::member_nodes;
use crate::core::sessions::{SessionId, SessionRecord};
use crate::core::tree::Op;
use crate::core::{Now, Zxid, offset_nodes};
use klamm_engine::units::TimestampMs;

/// A plan makes the next one necessary a few times at most: a topic gets its id, then
/// its state nodes. What goes on after that is two hands that work against each other.
const ROUNDS_MAX: usize = 8;

impl Core {
    /// This broker is there from now on, for as long as its process.
    pub(super) fn register(&mut self, broker: &Broker, now: Now) -> Result<(), ClusterError> {
        let session = self.own_session().0;
        let broker = Broker {
            hosts_coordinator: !self.is_mirror,
            ..broker.clone()
        };
        let mut ops = self.former_brokers(broker.id, session)?;
        let time = now.wall;
        ops.extend(registration::register(&self.tree, &broker, session, time)?);
        if !ops.is_empty() {
            self.carry_out(ops, now)?;
        }
        self.own_broker = Some(broker.id);
        self.agenda = Agenda::everything();
        Ok(())
    }

    /// Takes away what this process registered under another id. A folder of data belongs
    /// to the broker that its topics name.
    fn former_brokers(&self, id: i32, session: i64) -> Result<Vec<Op>, ClusterError> {
        let own = self.tree.ephemerals(session);
        let former: Vec<i32> = own
            .filter_map(|path| path.strip_prefix(znodes::BROKERS)?.strip_prefix('/'))
            .filter_map(|name| name.parse().ok())
            .filter(|other| *other != id)
            .collect();
        let has_data = |id: &&i32| {
            let mut partitions = self.cluster().topics().flat_map(|t| &t.partitions);
            partitions.any(|p| p.replicas.contains(id))
        };
        if let Some(other) = former.iter().find(has_data) {
            return Err(Kind::InvalidRequest.because(format!(
                "the topics in this data folder belong to broker {other}; start with broker.id={other}, or with another folder"
            )));
        }
        Ok(former
            .into_iter()
            .map(|id| Op::delete(znodes::broker(id)))
            .collect())
    }

    /// Does what the last changes have made necessary: here, where this broker is the
    /// controller or can become it, and among the groups in any case.
    pub(super) fn govern(&mut self, now: Now) {
        self.forget_topics(now);
        let Some((broker, session)) = self.own_broker.zip(self.own_session) else {
            self.agenda = Agenda::default();
            return;
        };
        for _ in 0..ROUNDS_MAX {
            if self.agenda.is_empty() || self.elected_at.is_some() {
                return;
            }
            if let Some((step, term)) = controller::elect(&self.tree, broker, session.0, now.wall) {
                if let Err((failed, _)) = self.change(now.wall, step) {
                    log::error!("broker {broker} cannot become the controller: {failed}");
                    break;
                }
                log::info!("broker {broker} is the controller, epoch {}", term.epoch);
                self.agenda = Agenda::everything();
                if self.is_mirror {
                    // A rival's epoch would have the same version as this one, and what
                    // is planned now would pass for the rival's.
                    self.elected_at = Some(self.zxid);
                    return;
                }
            }
            let agenda = std::mem::take(&mut self.agenda);
            let Some(term) = Term::of(&self.tree, broker, session.0) else {
                return;
            };
            let cluster = self.cluster.as_ref().expect("there is a session");
            let ids = &mut self.ids;
            let steps = controller::plan(&self.tree, cluster, &agenda, term, ids, now.wall);
            for step in steps {
                if let Err((failed, ops)) = self.change(now.wall, step) {
                    let path = ops[failed.index].path();
                    log::error!("the controller cannot change {path}: {}", failed.error);
                }
            }
            self.forget_topics(now);
        }
        if !self.agenda.is_empty() {
            log::error!(
                "the controller leaves something for later: what it does in the tree is undone again and again"
            );
            self.agenda = Agenda::default();
        }
    }

    /// What groups keep of topics that are gone goes too, whoever deleted them.
    fn forget_topics(&mut self, now: Now) {
        let cluster = self.cluster.as_mut().expect("changes come after the start");
        for topic in cluster.take_gone() {
            self.groups
                .forget_topic(&topic, now, &mut self.group_output);
            self.drain_groups(now);
        }
    }

    // -- nodes that follow from other commands, in a replay as when they were given out

    /// A record of the groups, in the tree.
    pub(super) fn show(&mut self, record: &Record, zxid: Zxid, time: TimestampMs) {
        let (tree, events) = (&mut self.tree, &mut self.events);
        match self.member_owner {
            Some(SessionId(owner)) => self.member_nodes.show(
                record,
                &mut member_nodes::Change {
                    tree,
                    owner,
                    zxid,
                    time,
                    events,
                },
            ),
            // Shown once there is a session again.
            None => self.member_nodes.note(record),
        }
        offset_nodes::show(&mut self.tree, zxid, time, record, &mut self.events);
    }

    /// The broker's own session takes the members' nodes on.
    pub(super) fn session_opened(&mut self, record: &SessionRecord, zxid: Zxid, time: TimestampMs) {
        if !record.internal {
            return;
        }
        self.member_owner = Some(record.id);
        self.member_nodes.show_again(&mut member_nodes::Change {
            tree: &mut self.tree,
            owner: record.id.0,
            zxid,
            time,
            events: &mut self.events,
        });
    }

    pub(super) fn session_closed(&mut self, id: SessionId, zxid: Zxid, time: TimestampMs) {
        self.tree.end_session(zxid, time, id.0, &mut self.events);
        if self.member_owner == Some(id) {
            self.member_owner = None;
        }
    }
}
