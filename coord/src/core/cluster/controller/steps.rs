//! Operations gathered into multis that any coordinator takes.

use super::{Step, Term};
use crate::core::cluster::znodes;
use crate::core::tree::Op;

/// A coordinator refuses a request beyond `jute.maxbuffer`, 1 MiB less a byte, and
/// holds everyone else up while it does a long one. Half of that is left for what is
/// not counted here; and with its check a step stays below `remote::MULTI_OPS`, so that
/// it travels whole.
const BYTES_MAX: usize = 512 << 10;
const OPS_MAX: usize = 900;
/// Of an operation besides its path and data: an ACL, lengths, header, version.
const BYTES_EACH: usize = 64;

/// Steps that begin with the check of a term.
pub struct Steps {
    term: Term,
    done: Vec<Step>,
    /// What many partitions share; the check of the term comes in when it is closed.
    open: Step,
    open_bytes: usize,
}

impl Steps {
    pub fn new(term: Term) -> Steps {
        Steps {
            term,
            done: Vec::new(),
            open: Step::new(),
            open_bytes: 0,
        }
    }

    pub fn term(&self) -> Term {
        self.term
    }

    /// Adds operations that must be done together to those that gather.
    pub fn add(&mut self, ops: impl IntoIterator<Item = Op>) {
        let mut ops: Vec<Op> = ops.into_iter().collect();
        let bytes: usize = ops.iter().map(bytes_of).sum();
        if self.open_bytes + bytes > BYTES_MAX || self.open.len() + ops.len() > OPS_MAX {
            self.close();
        }
        self.open_bytes += bytes;
        self.open.append(&mut ops);
    }

    /// Ends the step that gathers: what comes next may fail without it, and it without
    /// what comes next.
    pub fn close(&mut self) {
        self.open_bytes = 0;
        if self.open.is_empty() {
            return;
        }
        let mut step = Vec::with_capacity(1 + self.open.len());
        step.push(Op::Check {
            path: znodes::CONTROLLER_EPOCH.to_owned(),
            version: self.term.version,
        });
        step.append(&mut self.open);
        self.done.push(step);
    }

    pub fn take(mut self) -> Vec<Step> {
        self.close();
        self.done
    }
}

fn bytes_of(op: &Op) -> usize {
    let data = match op {
        Op::Create { data, .. } | Op::Set { data, .. } => data.as_ref().map_or(0, Vec::len),
        _ => 0,
    };
    BYTES_EACH + op.path().len() + data
}
