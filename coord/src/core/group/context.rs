//! What a group works with during one request or timer: the clocks of the
//! moment, the timers, the durable state, and the way out.

use std::collections::BTreeSet;

use klamm_engine::units::Nanos;

use super::config::GroupConfig;
use super::durable::Durable;
use super::member_id::MemberIds;
use super::message::Response;
use super::record::Record;
use super::timer::Timers;
use crate::core::groups::{Now, Output, Token};

/// What all groups share.
#[derive(Debug)]
pub struct Shared {
    pub config: GroupConfig,
    pub timers: Timers,
    pub ids: MemberIds,
    pub durable: Durable,
    /// Who waits in JoinGroup or SyncGroup and still has a connection.
    pub parked: BTreeSet<Token>,
}

impl Shared {
    pub fn new(config: GroupConfig) -> Self {
        Self {
            timers: Timers::default(),
            ids: MemberIds::new(config.member_id_seed),
            durable: Durable::default(),
            parked: BTreeSet::new(),
            config,
        }
    }

    pub fn at<'a>(&'a mut self, now: Now, out: &'a mut Output) -> Context<'a> {
        Context {
            shared: self,
            now,
            out,
        }
    }
}

#[derive(Debug)]
pub struct Context<'a> {
    pub shared: &'a mut Shared,
    pub now: Now,
    pub out: &'a mut Output,
}

impl Context<'_> {
    pub fn config(&self) -> &GroupConfig {
        &self.shared.config
    }

    pub fn timers(&mut self) -> &mut Timers {
        &mut self.shared.timers
    }

    /// At least a millisecond from now: a timer that is due at once when it is
    /// armed would keep a tick going for ever.
    pub fn after_ms(&self, ms: i32) -> Nanos {
        let ms = u64::try_from(ms).unwrap_or(0).max(1);
        Nanos(self.now.mono.0.saturating_add(ms * 1_000_000))
    }

    pub fn persist(&mut self, record: Record) {
        self.shared.durable.apply(&record);
        self.out.persist.push(record);
    }

    pub fn answer(&mut self, token: Token, response: Response) {
        self.out.send.push((token, response));
    }

    pub fn park(&mut self, token: Token) {
        let is_new = self.shared.parked.insert(token);
        assert!(is_new, "{token:?} was given to two requests at once");
    }

    /// Dropped if the connection went away in the meantime.
    pub fn answer_parked(&mut self, token: Token, response: Response) {
        if self.shared.parked.remove(&token) {
            self.out.send.push((token, response));
        }
    }
}
