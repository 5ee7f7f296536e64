//! create and its kin, setData, delete, setACL, deleteContainer; and reconfig, which is
//! switched off here as it is in ZooKeeper by default.

use crate::zookeeper::jute::{Field, Malformed, Reader, put_str};
use crate::zookeeper::records::{
    CreateRequest, CreateTtlRequest, PathRequest, ReconfigRequest, SetAclRequest, SetDataRequest,
    VersionRequest, err, op,
};
use crate::zookeeper::requests::{Turn, path};
use klamm_coord::core::stat::Lifetime;
use klamm_coord::core::tree::{Op, OpResult};
use klamm_coord::core::zookeeper::SessionId;

type Done = Result<(), Malformed>;

/// Why a create cannot be carried to the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadCreate {
    Malformed,
    /// Flags that are no mode, or a time to live that does not go with them.
    Arguments,
    /// No list of ACLs, not even an empty one, where the flags are a mode: in a multi.
    NullAcl,
}

impl From<Malformed> for BadCreate {
    fn from(_: Malformed) -> BadCreate {
        BadCreate::Malformed
    }
}

/// The longest time to live: 40 bits of ms in ZooKeeper's encoding of it.
const TTL_MS_MAX: i64 = 0xFF_FFFF_FFFF;

/// Whether a create stands by itself. Flags that belong to another of the four kinds of
/// create mean one thing there and another within a multi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Alone,
    InMulti,
}

/// create, create2, createContainer, createTTL as an operation on the tree. What comes
/// of flags that belong to another of the four is ZooKeeper's. Alone the kind counts: a
/// create with the flag of a container makes a persistent node, a createContainer a
/// container whatever the flag. In a multi the flags do: that create makes a container, a
/// createTTL without the flag for it a plain node.
pub(super) fn read_create(
    op: i32,
    session: SessionId,
    place: Place,
    from: &mut Reader<'_>,
) -> Result<Op, BadCreate> {
    let (request, ttl_ms) = if op == op::CREATE_TTL {
        let with_ttl: CreateTtlRequest<'_> = from.take()?;
        let request = CreateRequest {
            path: with_ttl.path,
            data: with_ttl.data,
            acl: with_ttl.acl,
            flags: with_ttl.flags,
        };
        (request, with_ttl.ttl_ms)
    } else {
        (from.take()?, -1)
    };
    let in_multi = place == Place::InMulti;
    let flags_say_ttl = matches!(request.flags, 5 | 6);
    if in_multi && op != op::CREATE_TTL {
        if request.acl.is_none() && (0..=6).contains(&request.flags) {
            return Err(BadCreate::NullAcl);
        }
        if flags_say_ttl {
            return Err(BadCreate::Arguments);
        }
    }
    let ttl_ms = if in_multi && !flags_say_ttl {
        -1
    } else {
        ttl_ms
    };
    let path = request.path.ok_or(BadCreate::Malformed)?.into_owned();
    let (lifetime, sequential) = match request.flags {
        4 if in_multi => (Lifetime::Container, false),
        0 | 4 => (Lifetime::Persistent, false),
        1 => (Lifetime::Ephemeral(session.0), false),
        2 => (Lifetime::Persistent, true),
        3 => (Lifetime::Ephemeral(session.0), true),
        5 => (Lifetime::Ttl(ttl_ms), false),
        6 => (Lifetime::Ttl(ttl_ms), true),
        _ => return Err(BadCreate::Arguments),
    };
    let lifetime = match lifetime {
        Lifetime::Ttl(1..=TTL_MS_MAX) => lifetime,
        // The tree refuses it, in its turn among the operations of a multi.
        Lifetime::Ttl(_) => Lifetime::Ttl(0),
        _ if ttl_ms >= 0 => Lifetime::Ttl(0),
        _ if op == op::CREATE_CONTAINER => Lifetime::Container,
        _ => lifetime,
    };
    Ok(Op::Create {
        path,
        data: request.data.map(<[u8]>::to_vec),
        acl: request.acl.unwrap_or_default(),
        lifetime,
        sequential,
    })
}

pub(super) fn create(turn: &mut Turn<'_>, xid: i32, op: i32, from: &mut Reader<'_>) -> Done {
    match read_create(op, turn.who.session, Place::Alone, from) {
        Ok(create) => write(turn, xid, create, |result, to| match result {
            OpResult::Create { path, stat } => {
                put_str(&path, to);
                if op != op::CREATE {
                    stat.put(to);
                }
            }
            other => unreachable!("a create gave {other:?}"),
        }),
        Err(BadCreate::Malformed | BadCreate::NullAcl) => return Err(Malformed),
        Err(BadCreate::Arguments) => refuse(turn, xid, err::BAD_ARGUMENTS),
    }
    Ok(())
}

pub(super) fn set_data(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: SetDataRequest<'_> = from.take()?;
    write(turn, xid, set_data_op(request)?, put_stat);
    Ok(())
}

pub(super) fn set_data_op(request: SetDataRequest<'_>) -> Result<Op, Malformed> {
    Ok(Op::Set {
        path: or_none(request.path),
        data: request.data.map(<[u8]>::to_vec),
        version: request.version,
    })
}

pub(super) fn delete(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: VersionRequest<'_> = from.take()?;
    write(turn, xid, delete_op(request)?, |_, _| {});
    Ok(())
}

pub(super) fn delete_op(request: VersionRequest<'_>) -> Result<Op, Malformed> {
    Ok(Op::Delete {
        path: request.path.ok_or(Malformed)?.into_owned(),
        version: request.version,
    })
}

pub(super) fn check_op(request: VersionRequest<'_>) -> Op {
    Op::Check {
        path: or_none(request.path),
        version: request.version,
    }
}

pub(super) fn set_acl(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: SetAclRequest<'_> = from.take()?;
    let op = Op::SetAcl {
        path: or_none(request.path),
        acl: request.acl.unwrap_or_default(),
        version: request.version,
    };
    write(turn, xid, op, put_stat);
    Ok(())
}

pub(super) fn delete_container(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: PathRequest<'_> = from.take()?;
    let given = turn.core.delete_container(path(&request.path)?, turn.now);
    turn.tell();
    turn.out.result(xid, given, |(), _| {});
    Ok(())
}

pub(super) fn reconfig(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let _: ReconfigRequest<'_> = from.take()?;
    refuse(turn, xid, err::RECONFIG_DISABLED);
    Ok(())
}

fn write(turn: &mut Turn<'_>, xid: i32, op: Op, fill: impl FnOnce(OpResult, &mut Vec<u8>)) {
    let given = turn.core.write(&turn.who.client(), op, turn.now);
    turn.tell();
    turn.out.result(xid, given, fill);
}

/// A write that never reaches the tree has its zxid too.
fn refuse(turn: &mut Turn<'_>, xid: i32, err: i32) {
    let gate = turn.core.refuse_write(turn.now);
    turn.out.error(xid, gate, err);
}

fn put_stat(result: OpResult, to: &mut Vec<u8>) {
    match result {
        OpResult::Set { stat } | OpResult::SetAcl { stat } => stat.put(to),
        other => unreachable!("a set gave {other:?}"),
    }
}

/// Where ZooKeeper takes null for a bad path: the empty one is as bad.
fn or_none(path: Option<std::borrow::Cow<'_, str>>) -> String {
    path.map(std::borrow::Cow::into_owned).unwrap_or_default()
}
