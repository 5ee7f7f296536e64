//! One member of a group: who it says it is, what it can follow, what it was
//! assigned, and what it waits for.

use std::sync::Arc;

use bytes::Bytes;

use super::context::Context;
use super::message::{GroupError, JoinGroup, Protocol};
use super::record::MemberRecord;
use super::sync;
use super::timer::Deadline;
use crate::core::groups::Token;

#[derive(Debug)]
pub struct Member {
    pub id: Arc<str>,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In its order of preference; no name twice.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// It waits in JoinGroup, and so needs no heartbeat.
    pub awaiting_join: Option<Token>,
    /// It waits in SyncGroup, and so needs no heartbeat.
    pub awaiting_sync: Option<Token>,
    /// It joins for the first time and waits: it may not know its id yet, so it
    /// is timed although it waits.
    pub is_new: bool,
    pub session: Deadline,
}

impl Member {
    /// `request` has been through `join::normalized`.
    pub fn joining(id: Arc<str>, request: JoinGroup, token: Token) -> Self {
        Self {
            id,
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(token),
            awaiting_sync: None,
            is_new: true,
            session: Deadline::default(),
        }
    }

    pub fn load(record: &MemberRecord) -> Self {
        Self {
            id: record.member_id.as_str().into(),
            instance_id: record.instance_id.clone(),
            client_id: record.client_id.clone(),
            client_host: record.client_host.clone(),
            rebalance_timeout_ms: record.rebalance_timeout_ms,
            session_timeout_ms: record.session_timeout_ms,
            protocols: record.protocols.clone(),
            assignment: record.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            session: Deadline::default(),
        }
    }

    pub fn to_record(&self) -> MemberRecord {
        MemberRecord {
            member_id: self.id.as_ref().to_owned(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            protocols: self.protocols.clone(),
            assignment: self.assignment.clone(),
        }
    }

    pub fn metadata(&self, protocol: &str) -> &[u8] {
        self.protocols
            .iter()
            .find(|p| p.name == protocol)
            .map_or(&[], |p| &p.metadata)
    }

    pub fn metadata_bytes(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|p| p.name == protocol)
            .map(|p| p.metadata.clone())
            .unwrap_or_default()
    }

    /// Whoever waits for us cannot heartbeat.
    pub fn is_excused(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub fn answer_sync_with_error(&mut self, why: GroupError, ctx: &mut Context) {
        if let Some(token) = self.awaiting_sync.take() {
            ctx.answer_parked(token, sync::refused(why));
        }
    }
}
