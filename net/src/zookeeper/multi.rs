//! multi and multiRead.
//!
//! ```text
//!   asked     | header{op} request |* header{-1, done}
//!   done      | header{op} answer  |* header{-1, done}
//!   not done  | header{-1, err} err |* header{-1, done}    multi: for every operation;
//!                                                          multiRead: for those that failed
//! ```

use crate::zookeeper::jute::{Field, Malformed, Reader, put_str, put_strs};
use crate::zookeeper::records::{ErrorResponse, MultiHeader, ReadRequest, err, op};
use crate::zookeeper::requests::{Turn, path};
use crate::zookeeper::writes::{BadCreate, Place, check_op, delete_op, read_create, set_data_op};
use klamm_coord::core::Zxid;
use klamm_coord::core::stat::Lifetime;
use klamm_coord::core::tree::{Op, OpResult};
use klamm_coord::core::zookeeper::SessionId;

type Done = Result<(), Malformed>;

/// All of them or none. One that cannot be read makes all of them unreadable.
pub(super) fn multi(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let (ops, kinds) = match read(turn.who.session, from) {
        Ok(read) => read,
        // The one thing that ZooKeeper trips over before it has drawn a zxid.
        Err(BadCreate::NullAcl) => return Err(Malformed),
        // That it is a multi is known from its header: it counts as a write that failed.
        Err(BadCreate::Malformed | BadCreate::Arguments) => {
            let gate = turn.core.refuse_write(turn.now);
            turn.out.error(xid, gate, err::MARSHALLING);
            return Ok(());
        }
    };
    let given = turn.core.multi(&turn.who.client(), ops, turn.now);
    turn.tell();
    // That it failed is said of each operation, not of the whole.
    turn.out.reply(xid, given.zxid, |to| {
        match given.value {
            Ok(results) => {
                assert_eq!(results.len(), kinds.len(), "one for one");
                for (kind, result) in kinds.iter().zip(results) {
                    put_header(*kind, err::OK, to);
                    put_result(*kind, result, to);
                }
            }
            Err(failed) => {
                for index in 0..kinds.len() {
                    put_error(failed.code_of(index), to);
                }
            }
        }
        put_end(to);
    });
    Ok(())
}

/// The operations, and as what each is answered.
fn read(session: SessionId, from: &mut Reader<'_>) -> Result<(Vec<Op>, Vec<i32>), BadCreate> {
    let (mut ops, mut kinds) = (Vec::new(), Vec::new());
    let mut reads = false;
    loop {
        let header: MultiHeader = from.take()?;
        if header.done {
            return match reads {
                true => Err(BadCreate::Malformed),
                false => Ok((ops, kinds)),
            };
        }
        let op = match header.op {
            op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                read_create(header.op, session, Place::InMulti, from)?
            }
            op::DELETE => delete_op(from.take()?)?,
            op::SET_DATA => set_data_op(from.take()?)?,
            op::CHECK => check_op(from.take()?),
            // Not to be done here, but ZooKeeper goes on, and may trip over what follows.
            op::GET_DATA | op::GET_CHILDREN if ops.is_empty() => {
                from.take::<ReadRequest<'_>>()?;
                reads = true;
                continue;
            }
            _ => return Err(BadCreate::Malformed),
        };
        if reads {
            return Err(BadCreate::Malformed);
        }
        ops.push(op);
        kinds.push(answered_as(header.op, ops.last()));
    }
}

/// Whatever it was asked as: what made a container or a node with a time to live is
/// answered as a create2, what made another one of a createTTL as a create.
fn answered_as(kind: i32, op: Option<&Op>) -> i32 {
    match (kind, op) {
        (_, Some(Op::Create { lifetime, .. })) => match lifetime {
            Lifetime::Container | Lifetime::Ttl(_) => op::CREATE2,
            _ if kind == op::CREATE_TTL => op::CREATE,
            _ => kind,
        },
        _ => kind,
    }
}

/// Each for itself. Watches are not set, whatever is asked.
pub(super) fn multi_read(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let mut reads: Vec<(i32, ReadRequest<'_>)> = Vec::new();
    loop {
        let header: MultiHeader = from.take()?;
        if header.done {
            break;
        }
        if !matches!(header.op, op::GET_DATA | op::GET_CHILDREN) {
            return Err(Malformed);
        }
        let read: ReadRequest<'_> = from.take()?;
        path(&read.path)?;
        reads.push((header.op, read));
    }
    let mut body = Vec::new();
    let mut gate = Zxid::ZERO;
    let room = turn.out.front.limits.outbox_bytes_limit;
    for (kind, read) in &reads {
        // Each may be as large as a node, and an answer is one piece.
        if body.len() > room {
            turn.out.error(xid, gate, err::BAD_ARGUMENTS);
            return Ok(());
        }
        let path = path(&read.path)?;
        let client = turn.who.client();
        if *kind == op::GET_DATA {
            let given = turn.core.get_data(&client, path, false);
            gate = gate.max(given.zxid);
            match given.value {
                Ok((data, stat)) => {
                    put_header(*kind, err::OK, &mut body);
                    data.put(&mut body);
                    stat.put(&mut body);
                }
                Err(error) => put_error(error.code(), &mut body),
            }
        } else {
            let given = turn.core.get_children(&client, path, false);
            gate = gate.max(given.zxid);
            match given.value {
                Ok((children, _)) => {
                    put_header(*kind, err::OK, &mut body);
                    put_strs(children, &mut body);
                }
                Err(error) => put_error(error.code(), &mut body),
            }
        }
    }
    put_end(&mut body);
    turn.out.reply(xid, gate, |to| to.extend_from_slice(&body));
    Ok(())
}

fn put_result(kind: i32, result: OpResult, to: &mut Vec<u8>) {
    match result {
        OpResult::Create { path, stat } => {
            put_str(&path, to);
            if kind != op::CREATE {
                stat.put(to);
            }
        }
        OpResult::Set { stat } | OpResult::SetAcl { stat } => stat.put(to),
        OpResult::Delete | OpResult::Check => {}
    }
}

fn put_header(op: i32, err: i32, to: &mut Vec<u8>) {
    let done = false;
    MultiHeader { op, done, err }.put(to);
}

fn put_error(err: i32, to: &mut Vec<u8>) {
    put_header(op::ERROR, err, to);
    ErrorResponse { err }.put(to);
}

fn put_end(to: &mut Vec<u8>) {
    let end = MultiHeader {
        op: op::ERROR,
        done: true,
        err: -1,
    };
    end.put(to);
}
