//! The controller: the one broker that sees to what all of them need done.
//!
//! ```text
//!   events --> Agenda   what to look at     /brokers/ids     leaders gone, or back
//!                |                          /brokers/topics  an id, state nodes
//!                v                          /admin           deletions, elections
//!   Tree --> plan(term) --> [Step]          /..notification  taken note of, removed
//!                             |
//!                             v   a multi each: check /controller_epoch, then the rest
//!                           Tree --> events --> Agenda ... until a plan is empty
//! ```
//!
//! A plan is a function of the tree, and its steps are operations that expect the
//! versions that it saw. So it makes no difference whether the tree is this process's
//! own or the mirror of one across the network, and whether a hand, a tool or another
//! broker wrote what is found. A controller that was voted out without knowing cannot
//! do harm: its term's check fails, and with it the whole step.
//!
//! Partitions are not replicated yet. A partition is therefore in sync only where it
//! is led, whatever its assignment says: electing a replica that never fetched would
//! lose what was acknowledged.

pub(super) mod leaders;
mod requests;
mod steps;

use self::steps::Steps;
use super::ids::IdSource;
use super::state::{Cluster, within};
use super::znodes;
use crate::core::stat::{Acl, Lifetime};
use crate::core::tree::{Event, EventKind, Op, Tree};
use klamm_engine::units::TimestampMs;
use std::collections::BTreeSet;

/// Operations of one multi: done all, or none of them.
pub type Step = Vec<Op>;

/// A controller's time in office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Grows with each election; told with everything that the controller decides.
    pub epoch: i32,
    /// Of `/controller_epoch`: no longer this, no longer in office.
    pub version: i32,
}

impl Term {
    /// The term of this broker, if it is the one in office by this session.
    #[must_use]
    pub fn of(tree: &Tree, broker: i32, session: i64) -> Option<Term> {
        let holds = is_held_by(tree, session)
            && znodes::read_controller(tree.data(znodes::CONTROLLER)??) == Some(broker);
        let epoch = tree.data(znodes::CONTROLLER_EPOCH)??;
        holds.then_some(Term {
            epoch: znodes::read_controller_epoch(epoch)?,
            version: tree.stat(znodes::CONTROLLER_EPOCH)?.version,
        })
    }
}

fn is_held_by(tree: &Tree, session: i64) -> bool {
    tree.stat(znodes::CONTROLLER)
        .is_some_and(|stat| stat.ephemeral_owner == session)
}

/// What makes this broker the controller, and the term that it then has; None where
/// somebody is in office. Of those who try at the same time one succeeds: the others
/// find the node there, or the epoch at another version.
#[must_use]
pub fn elect(tree: &Tree, broker: i32, session: i64, time: TimestampMs) -> Option<(Step, Term)> {
    let mut step = Step::new();
    if tree.exists(znodes::CONTROLLER) {
        if !is_held_by(tree, session) || Term::of(tree, broker, session).is_some() {
            return None;
        }
        // This session's own, in the name of another broker or without an epoch: the
        // broker's id was changed, or a hand was here.
        step.push(Op::delete(znodes::CONTROLLER));
    }
    step.push(Op::Create {
        path: znodes::CONTROLLER.to_owned(),
        data: Some(znodes::controller_json(broker, time)),
        acl: Acl::open(),
        lifetime: Lifetime::Ephemeral(session),
        sequential: false,
    });
    let term = match tree.stat(znodes::CONTROLLER_EPOCH) {
        Some(stat) => {
            let data = tree.data(znodes::CONTROLLER_EPOCH).flatten();
            // Each election sets it once, so its version is never ahead of it.
            let before = data
                .and_then(znodes::read_controller_epoch)
                .unwrap_or(stat.version);
            let term = Term {
                epoch: before.max(0).saturating_add(1),
                version: stat.version.wrapping_add(1),
            };
            step.push(Op::Set {
                path: znodes::CONTROLLER_EPOCH.to_owned(),
                data: Some(term.epoch.to_string().into_bytes()),
                version: stat.version,
            });
            term
        }
        None => {
            step.push(Op::create(znodes::CONTROLLER_EPOCH, "1"));
            Term {
                epoch: 1,
                version: 0,
            }
        }
    };
    Some((step, term))
}

/// What of the tree is to be looked at: where it changed since the last plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agenda {
    everything: bool,
    /// Who is in office.
    office: bool,
    /// Brokers came or went: every partition's leader.
    brokers: bool,
    topics: BTreeSet<String>,
    deletions: bool,
    /// Elections and reassignments that were asked for.
    requests: bool,
    notices: bool,
    config_changes: bool,
}

impl Agenda {
    /// All of it: for a controller that has just come into office.
    #[must_use]
    pub fn everything() -> Agenda {
        Agenda {
            everything: true,
            ..Agenda::default()
        }
    }

    /// Takes in what changed.
    pub fn note(&mut self, events: &[Event]) {
        for event in events {
            // What happened to a child has an event of its own.
            if event.kind == EventKind::ChildrenChanged {
                continue;
            }
            let path = event.path.as_str();
            if let Some(rest) = within(path, znodes::TOPICS) {
                let name = rest.split('/').next().unwrap_or(rest);
                if !self.topics.contains(name) {
                    self.topics.insert(name.to_owned());
                }
            } else if within(path, znodes::BROKERS).is_some() {
                self.brokers = true;
            } else if within(path, znodes::DELETIONS).is_some() {
                self.deletions = true;
            } else if path == znodes::CONTROLLER || path == znodes::CONTROLLER_EPOCH {
                self.office = true;
            } else if path == znodes::REASSIGNMENT || path == znodes::PREFERRED_ELECTION {
                self.requests = true;
            } else if within(path, znodes::CONFIG_CHANGES).is_some() {
                self.config_changes = true;
            } else if within(path, znodes::ISR_CHANGES).is_some()
                || within(path, znodes::LOG_DIR_EVENTS).is_some()
            {
                self.notices = true;
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Agenda::default()
    }
}

/// What there is to do, in order. `cluster` must be up to date with the tree. Empty
/// once everything is as it should be; what the steps change may call for another plan.
#[must_use]
pub fn plan(
    tree: &Tree,
    cluster: &Cluster,
    agenda: &Agenda,
    term: Term,
    ids: &mut IdSource,
    now: TimestampMs,
) -> Vec<Step> {
    let mut steps = Steps::new(term);
    let all = agenda.everything;
    let doomed = requests::doomed(tree, cluster);
    if all || agenda.deletions {
        requests::plan_deletions(tree, cluster, &mut steps);
    }
    if all {
        let topics = tree.children(znodes::TOPICS).into_iter().flatten();
        for name in topics {
            leaders::plan_topic(tree, cluster, name, &doomed, ids, &mut steps);
        }
    } else {
        for name in &agenda.topics {
            leaders::plan_topic(tree, cluster, name, &doomed, ids, &mut steps);
        }
        let rest = cluster
            .topics()
            .filter(|t| agenda.brokers && !agenda.topics.contains(&*t.name));
        for topic in rest {
            leaders::plan_states(tree, cluster, topic, &doomed, &mut steps);
        }
    }
    if all || agenda.requests {
        requests::plan_elections(tree, cluster, &mut steps);
        requests::plan_reassignment(tree, cluster, &mut steps);
    }
    if all || agenda.notices {
        requests::plan_notices(tree, &mut steps);
    }
    if all || agenda.config_changes {
        requests::plan_purge(tree, now, &mut steps);
    }
    steps.take()
}

#[cfg(test)]
mod tests;
