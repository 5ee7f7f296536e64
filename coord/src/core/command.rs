//! What the changelog stores: one change of the state, with its time.
//!
//! ```text
//!   command = version u8 = 1 | time i64 | kind u8 | body
//!   kind 1  tree     count | op*
//!   kind 2  group    a group record, in its own format
//!   kind 3  refused  nothing: a write that failed; it has a zxid, as in ZooKeeper
//!   kind 4  session opened   id i64 | timeout i32 | internal u8 | password
//!   kind 5  session closed   id i64; its ephemeral nodes go with it
//!
//!   op      = 1 create  path | data? | acl | lifetime | sequential u8
//!             2 delete  path | version i32
//!             3 set     path | data? | version i32
//!             4 set ACL path | acl | version i32
//!             5 check   path | version i32
//! ```
//!
//! Operations are stored as they were asked for and done anew at a replay; they give
//! the same because everything they depend on, the zxid and the time with it, is in
//! the changelog too.

use crate::core::codec::{
    DecodeError, Reader, put_bytes, put_i32, put_i64, put_len, put_option, put_u8,
};
use crate::core::groups::Record;
use crate::core::sessions::{self, SessionId, SessionRecord};
use crate::core::tree::{Op, get_acl, get_lifetime, put_acl, put_lifetime};
use klamm_engine::units::TimestampMs;

const VERSION: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// When it was decided, by the wall clock: the time in every node that it makes.
    pub time: TimestampMs,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All of them or none.
    Tree(Vec<Op>),
    /// Of groups and their offsets; the offsets show in the tree too.
    Group(Record),
    /// Nothing but the zxid.
    Refused,
    SessionOpened(SessionRecord),
    SessionClosed(SessionId),
}

impl Command {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, VERSION);
        put_i64(out, self.time.0);
        match &self.change {
            Change::Tree(ops) => {
                put_u8(out, 1);
                put_len(out, ops.len());
                for op in ops {
                    put_op(out, op);
                }
            }
            Change::Group(record) => {
                put_u8(out, 2);
                record.encode(out);
            }
            Change::Refused => put_u8(out, 3),
            Change::SessionOpened(record) => {
                put_u8(out, 4);
                sessions::put_record(out, record);
            }
            Change::SessionClosed(id) => {
                put_u8(out, 5);
                put_i64(out, id.0);
            }
        }
    }

    /// Reads a whole command; whatever the bytes, there is no panic.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(reader.fail("a command of a version that is not known"));
        }
        let time = TimestampMs(reader.i64()?);
        let change = match reader.u8()? {
            1 => {
                // The smallest operation: a delete of nothing.
                let count = reader.count(1 + 4 + 4)?;
                Change::Tree(
                    (0..count)
                        .map(|_| get_op(&mut reader))
                        .collect::<Result<_, _>>()?,
                )
            }
            2 => {
                let at = reader.at();
                let record =
                    Record::decode(&bytes[at..]).map_err(|bad| DecodeError { at, what: bad.0 })?;
                return Ok(Command {
                    time,
                    change: Change::Group(record),
                });
            }
            3 => Change::Refused,
            4 => Change::SessionOpened(sessions::get_record(&mut reader)?),
            5 => Change::SessionClosed(SessionId(reader.i64()?)),
            _ => return Err(reader.fail("a command of a kind that is not known")),
        };
        reader.end()?;
        Ok(Command { time, change })
    }
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    let kind = match op {
        Op::Create { .. } => 1,
        Op::Delete { .. } => 2,
        Op::Set { .. } => 3,
        Op::SetAcl { .. } => 4,
        Op::Check { .. } => 5,
    };
    put_u8(out, kind);
    put_bytes(out, op.path().as_bytes());
    match op {
        Op::Create {
            data,
            acl,
            lifetime,
            sequential,
            ..
        } => {
            put_option(out, data.as_deref());
            put_acl(out, acl);
            put_lifetime(out, *lifetime);
            put_u8(out, u8::from(*sequential));
        }
        Op::Delete { version, .. } | Op::Check { version, .. } => put_i32(out, *version),
        Op::Set { data, version, .. } => {
            put_option(out, data.as_deref());
            put_i32(out, *version);
        }
        Op::SetAcl { acl, version, .. } => {
            put_acl(out, acl);
            put_i32(out, *version);
        }
    }
}

fn get_op(reader: &mut Reader<'_>) -> Result<Op, DecodeError> {
    let kind = reader.u8()?;
    let path = reader.text()?.to_owned();
    Ok(match kind {
        1 => Op::Create {
            path,
            data: reader.option()?.map(<[u8]>::to_vec),
            acl: get_acl(reader)?,
            lifetime: get_lifetime(reader)?,
            sequential: reader.bool()?,
        },
        2 => Op::Delete {
            path,
            version: reader.i32()?,
        },
        3 => Op::Set {
            path,
            data: reader.option()?.map(<[u8]>::to_vec),
            version: reader.i32()?,
        },
        4 => Op::SetAcl {
            path,
            acl: get_acl(reader)?,
            version: reader.i32()?,
        },
        5 => Op::Check {
            path,
            version: reader.i32()?,
        },
        _ => return Err(reader.fail("an operation that is not known")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tree::tests::any_op;
    use proptest::prelude::*;

    fn encoded(command: &Command) -> Vec<u8> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        bytes
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let change = prop_oneof![
            5 => prop::collection::vec(any_op(), 0..5).prop_map(Change::Tree),
            1 => ".{0,8}".prop_map(|group| Change::Group(Record::GroupRemoved { group })),
            1 => ".{0,8}".prop_map(|topic| Change::Group(Record::TopicForgotten { topic })),
            1 => Just(Change::Refused),
            1 => (any::<i64>(), any::<i32>(), any::<bool>(), any::<[u8; 16]>()).prop_map(
                |(id, timeout_ms, internal, password)| Change::SessionOpened(SessionRecord {
                    id: SessionId(id),
                    timeout_ms,
                    password,
                    internal,
                })
            ),
            1 => any::<i64>().prop_map(|id| Change::SessionClosed(SessionId(id))),
        ];
        (any::<i64>(), change).prop_map(|(ms, change)| Command {
            time: TimestampMs(ms),
            change,
        })
    }

    /// Stored data must stay readable: these bytes are what version 1 is.
    #[test]
    fn the_format_is_pinned() {
        let command = |change| Command {
            time: TimestampMs(258),
            change,
        };
        let tree = command(Change::Tree(vec![Op::create("/a", "x"), Op::delete("/b")]));
        #[rustfmt::skip]
        let bytes = [
            1, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 2,
            1, 0, 0, 0, 2, b'/', b'a', 1, 0, 0, 0, 1, b'x',
            0, 0, 0, 1, 0, 0, 0, 31, 0, 0, 0, 5, b'w', b'o', b'r', b'l', b'd', 0, 0, 0, 6, b'a', b'n', b'y', b'o', b'n', b'e',
            0, 0,
            2, 0, 0, 0, 2, b'/', b'b', 255, 255, 255, 255,
        ];
        assert_eq!(encoded(&tree), bytes);
        assert_eq!(
            encoded(&command(Change::Refused)),
            [1, 0, 0, 0, 0, 0, 0, 1, 2, 3]
        );
    }

    #[test]
    fn counts_beyond_the_bytes_are_refused_unallocated() {
        let mut bytes = encoded(&Command {
            time: TimestampMs(0),
            change: Change::Tree(vec![]),
        });
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&[0xff; 4]);
        let error = Command::decode(&bytes).unwrap_err();
        assert_eq!(error.what, "a count beyond the bytes that are left");
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(command in any_command()) {
            prop_assert_eq!(Command::decode(&encoded(&command)), Ok(command));
        }

        #[test]
        fn every_cut_and_every_tail_is_refused(command in any_command(), cut in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&command);
            let cut = cut.index(bytes.len());
            prop_assert!(Command::decode(&bytes[..cut]).is_err());
            bytes.push(0);
            prop_assert!(Command::decode(&bytes).is_err());
        }

        #[test]
        fn a_flipped_byte_never_panics(command in any_command(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encoded(&command);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Command::decode(&bytes);
        }

        #[test]
        fn noise_never_panics(mut noise in prop::collection::vec(any::<u8>(), 0..200), kind in 0..7u8) {
            let _ = Command::decode(&noise);
            noise.splice(0..0, [1, 0, 0, 0, 0, 0, 0, 0, 0, kind]);
            let _ = Command::decode(&noise);
        }
    }
}
