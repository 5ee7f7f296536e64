//! exists, getData, getChildren, getChildren2, getACL, getEphemerals,
//! getAllChildrenNumber, sync: answered from the tree, encoded from what is borrowed
//! of it.

use crate::zookeeper::jute::{Field, List, Malformed, Reader, put_str, put_strs};
use crate::zookeeper::records::{PathRequest, ReadRequest};
use crate::zookeeper::requests::{Turn, path};
use klamm_coord::core::zookeeper::Gated;

type Done = Result<(), Malformed>;

pub(super) fn exists<'a>(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'a>) -> Done {
    let request: ReadRequest<'a> = from.take()?;
    let given = turn
        .core
        .exists(&turn.who.client(), path(&request.path)?, request.watch);
    turn.out.result(xid, given, |stat, to| stat.put(to));
    Ok(())
}

pub(super) fn get_data<'a>(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'a>) -> Done {
    let request: ReadRequest<'a> = from.take()?;
    let given = turn
        .core
        .get_data(&turn.who.client(), path(&request.path)?, request.watch);
    turn.out.result(xid, given, |(data, stat), to| {
        data.put(to);
        stat.put(to);
    });
    Ok(())
}

pub(super) fn get_children<'a>(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'a>) -> Done {
    let request: ReadRequest<'a> = from.take()?;
    let given = turn
        .core
        .get_children(&turn.who.client(), path(&request.path)?, request.watch);
    turn.out
        .result(xid, given, |(children, _), to| put_strs(children, to));
    Ok(())
}

pub(super) fn get_children2<'a>(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'a>) -> Done {
    let request: ReadRequest<'a> = from.take()?;
    let given = turn
        .core
        .get_children(&turn.who.client(), path(&request.path)?, request.watch);
    turn.out.result(xid, given, |(children, stat), to| {
        put_strs(children, to);
        stat.put(to);
    });
    Ok(())
}

pub(super) fn get_acl<'a>(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'a>) -> Done {
    let request: PathRequest<'a> = from.take()?;
    let given = turn.core.get_acl(&turn.who.client(), path(&request.path)?);
    turn.out.result(xid, given, |(acl, stat), to| {
        List::put(&Some(acl), to);
        stat.put(to);
    });
    Ok(())
}

pub(super) fn get_ephemerals<'a>(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'a>) -> Done {
    let request: PathRequest<'a> = from.take()?;
    let prefix = request.path.as_deref().unwrap_or_default();
    let Gated { zxid, value } = turn.core.get_ephemerals(&turn.who.client(), prefix);
    turn.out.reply(xid, zxid, |to| put_strs(value, to));
    Ok(())
}

pub(super) fn get_all_children_number<'a>(
    turn: &mut Turn<'_>,
    xid: i32,
    from: &mut Reader<'a>,
) -> Done {
    let request: PathRequest<'a> = from.take()?;
    let given = turn
        .core
        .get_all_children_number(&turn.who.client(), path(&request.path)?);
    turn.out.result(xid, given, |count, to| count.put(to));
    Ok(())
}

/// Behind everything that came before it from anyone.
pub(super) fn sync<'a>(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'a>) -> Done {
    let request: PathRequest<'a> = from.take()?;
    let gate = turn.core.sync();
    turn.out.reply(xid, gate, |to| match &request.path {
        Some(path) => put_str(path, to),
        None => request.path.put(to),
    });
    Ok(())
}
