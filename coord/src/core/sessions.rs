//! ZooKeeper's sessions: who is there, until when, and on which connection.
//!
//! ```text
//!   connect --> open (a command) --> heard, heard, ...  --> expired at its deadline
//!                  ^                    |                      or closed (a command)
//!                  |                    v
//!   the process ends: the session lives on, with a whole timeout from the next start
//! ```
//!
//! What is durable is a session's id, timeout and password; when it was heard of last
//! is not. Deadlines are exact and lazily kept: hearing of a session costs one look-up
//! and one store, and only a session that comes to the head of the queue is looked at.

use crate::core::codec::{DecodeError, Reader, put_i32, put_i64, put_len, put_u8};
use crate::core::watches::ConnectionId;
use klamm_engine::units::{Nanos, TimestampMs};
use sha1::{Digest, Sha1};
use std::collections::{BTreeSet, HashMap};

/// Never 0, which is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

pub type Password = [u8; 16];

/// What is kept of a session on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    pub id: SessionId,
    pub timeout_ms: i32,
    pub password: Password,
    /// The broker's own, which lives as long as its process and has no deadline.
    pub internal: bool,
}

#[derive(Debug)]
pub struct Session {
    pub record: SessionRecord,
    /// When a request of it came last, by the monotonic clock.
    pub heard: Nanos,
    pub connection: Option<ConnectionId>,
    /// Its place in the queue, at its deadline or before it.
    queued: Option<Nanos>,
}

impl Session {
    fn deadline(&self) -> Nanos {
        let timeout = u64::from(self.record.timeout_ms.unsigned_abs()) * 1_000_000;
        Nanos(self.heard.0.saturating_add(timeout))
    }
}

#[derive(Debug, Default)]
pub struct Sessions {
    by_id: HashMap<SessionId, Session>,
    queue: BTreeSet<(Nanos, SessionId)>,
    /// The highest id given out: none comes twice, also where the wall clock goes back.
    last: i64,
}

impl Sessions {
    /// An id for a new session: the time, and a count where that is not enough.
    #[must_use]
    pub fn next_id(&self, wall: TimestampMs) -> SessionId {
        // 41 bits of ms in the 63 there are: ids stay positive until 2039, and after it.
        let by_time = (wall.0 & 0x1FF_FFFF_FFFF) << 20;
        SessionId(by_time.max(self.last + 1))
    }

    /// Nobody who lacks the secret can guess it from other sessions'.
    #[must_use]
    pub fn password(secret: u128, id: SessionId) -> Password {
        let mut hash = Sha1::new();
        hash.update(secret.to_be_bytes());
        hash.update(id.0.to_be_bytes());
        let hash = hash.finalize();
        *hash.first_chunk().expect("20 bytes begin with 16")
    }

    /// A session begins, or is read back; its time runs from `now`.
    pub fn open(&mut self, record: SessionRecord, now: Nanos) {
        let id = record.id;
        self.last = self.last.max(id.0);
        let is_internal = record.internal;
        let before = self.by_id.insert(
            id,
            Session {
                record,
                heard: now,
                connection: None,
                queued: None,
            },
        );
        assert!(before.is_none(), "an id comes once");
        if !is_internal {
            self.queue(id);
        }
    }

    pub fn close(&mut self, id: SessionId) -> Option<Session> {
        let session = self.by_id.remove(&id)?;
        if let Some(at) = session.queued {
            self.queue.remove(&(at, id));
        }
        Some(session)
    }

    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    /// A session is taken up again, maybe with another timeout.
    pub fn resume(&mut self, id: SessionId, timeout_ms: i32, now: Nanos) {
        if let Some(session) = self.by_id.get_mut(&id) {
            session.heard = now;
            session.record.timeout_ms = timeout_ms;
            // A shorter timeout may end before the place in the queue.
            self.queue(id);
        }
    }

    /// At a start: everyone has a whole timeout to come back.
    pub fn hear_all(&mut self, now: Nanos) {
        let ids: Vec<SessionId> = self.by_id.keys().copied().collect();
        for id in ids {
            let session = self.by_id.get_mut(&id).expect("just listed");
            session.heard = now;
            if !session.record.internal {
                self.queue(id);
            }
        }
    }

    /// False: there is no such session any more.
    pub fn heard(&mut self, id: SessionId, now: Nanos) -> bool {
        match self.by_id.get_mut(&id) {
            Some(session) => {
                session.heard = session.heard.max(now);
                true
            }
            None => false,
        }
    }

    /// The next one whose deadline has come, the earliest first.
    pub fn next_expired(&mut self, now: Nanos) -> Option<SessionId> {
        loop {
            let (at, id) = *self.queue.first()?;
            if at > now {
                return None;
            }
            let deadline = self.by_id[&id].deadline();
            if deadline <= at {
                return Some(id);
            }
            self.queue(id);
        }
    }

    /// No later than the first deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.queue.first().map(|(at, _)| *at)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_id.values()
    }

    fn queue(&mut self, id: SessionId) {
        let session = self.by_id.get_mut(&id).expect("a session that is there");
        if let Some(at) = session.queued.replace(session.deadline()) {
            self.queue.remove(&(at, id));
        }
        self.queue.insert((session.deadline(), id));
    }

    // -- on disk

    /// ```text
    ///   highest id i64 | count | (id i64 | timeout i32 | internal u8 | password)*
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.last);
        put_len(out, self.by_id.len());
        let mut records: Vec<&SessionRecord> = self.by_id.values().map(|s| &s.record).collect();
        records.sort_unstable_by_key(|r| r.id);
        for record in records {
            put_record(out, record);
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Sessions, DecodeError> {
        let mut sessions = Sessions {
            last: reader.i64()?,
            ..Sessions::default()
        };
        for _ in 0..reader.count(RECORD_BYTES)? {
            let record = get_record(reader)?;
            if sessions.by_id.contains_key(&record.id) {
                return Err(reader.fail("two sessions of the same id"));
            }
            sessions.open(record, Nanos(0));
        }
        Ok(sessions)
    }
}

const RECORD_BYTES: usize = 8 + 4 + 1 + 16;

pub fn put_record(out: &mut Vec<u8>, record: &SessionRecord) {
    put_i64(out, record.id.0);
    put_i32(out, record.timeout_ms);
    put_u8(out, u8::from(record.internal));
    out.extend_from_slice(&record.password);
}

pub fn get_record(reader: &mut Reader<'_>) -> Result<SessionRecord, DecodeError> {
    Ok(SessionRecord {
        id: SessionId(reader.i64()?),
        timeout_ms: reader.i32()?,
        internal: reader.bool()?,
        password: *reader.take(16)?.first_chunk().expect("16 were taken"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: i64, timeout_ms: i32) -> SessionRecord {
        SessionRecord {
            id: SessionId(id),
            timeout_ms,
            password: [7; 16],
            internal: false,
        }
    }

    fn ms(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    #[test]
    fn sessions_expire_at_their_deadlines_the_earliest_first() {
        let mut sessions = Sessions::default();
        sessions.open(record(1, 300), ms(0));
        sessions.open(record(2, 100), ms(0));
        sessions.open(record(3, 200), ms(0));
        assert!(sessions.heard(SessionId(2), ms(150)));
        assert_eq!(sessions.next_deadline(), Some(ms(100)));
        assert_eq!(sessions.next_expired(ms(199)), None);
        assert_eq!(sessions.next_deadline(), Some(ms(200)));
        let mut order = Vec::new();
        while let Some(id) = sessions.next_expired(ms(1000)) {
            sessions.close(id).unwrap();
            order.push(id.0);
        }
        assert_eq!(order, [3, 2, 1]);
        assert!(sessions.is_empty() && sessions.next_deadline().is_none());
        assert!(!sessions.heard(SessionId(1), ms(2000)));
    }

    #[test]
    fn a_shorter_timeout_at_a_reconnect_counts() {
        let mut sessions = Sessions::default();
        sessions.open(record(1, 10_000), ms(0));
        sessions.resume(SessionId(1), 100, ms(50));
        assert_eq!(sessions.next_expired(ms(150)), Some(SessionId(1)));
    }

    #[test]
    fn an_internal_session_has_no_deadline() {
        let mut sessions = Sessions::default();
        sessions.open(
            SessionRecord {
                internal: true,
                ..record(1, 0)
            },
            ms(0),
        );
        sessions.hear_all(ms(5));
        assert_eq!(sessions.next_expired(Nanos(u64::MAX)), None);
    }

    #[test]
    fn no_id_comes_twice_and_what_was_written_comes_back() {
        let mut sessions = Sessions::default();
        let first = sessions.next_id(TimestampMs(1_000));
        assert!(first.0 > 0);
        sessions.open(record(first.0, 100), ms(0));
        let second = sessions.next_id(TimestampMs(999));
        assert!(second > first, "also where the clock goes back");
        sessions.open(record(second.0, 200), ms(0));
        sessions.close(second);
        let mut bytes = Vec::new();
        sessions.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let read = Sessions::decode(&mut reader).unwrap();
        reader.end().unwrap();
        assert!(read.next_id(TimestampMs(0)) > second);
        assert_eq!(read.get(first).unwrap().record, record(first.0, 100));
        assert_eq!(read.len(), 1);
        for cut in 0..bytes.len() {
            assert!(Sessions::decode(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }
}
