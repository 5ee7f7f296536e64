//! setWatches, setWatches2, addWatch, checkWatches, removeWatches.

use crate::zookeeper::jute::{Field, List, Malformed, Reader, Str};
use crate::zookeeper::records::{
    ErrorResponse, SetWatches2Request, SetWatchesRequest, WatchesRequest, err,
};
use crate::zookeeper::requests::{Turn, path};
use klamm_coord::core::zookeeper::{SetWatches, WatcherType};

type Done = Result<(), Malformed>;

pub(super) fn set_watches(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: SetWatchesRequest<'_> = from.take()?;
    set(
        turn,
        xid,
        &SetWatches {
            relative_zxid: request.relative_zxid,
            data: paths(&request.data)?,
            exist: paths(&request.exist)?,
            child: paths(&request.child)?,
            ..SetWatches::default()
        },
    );
    Ok(())
}

pub(super) fn set_watches2(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: SetWatches2Request<'_> = from.take()?;
    set(
        turn,
        xid,
        &SetWatches {
            relative_zxid: request.relative_zxid,
            data: paths(&request.data)?,
            exist: paths(&request.exist)?,
            child: paths(&request.child)?,
            persistent: paths(&request.persistent)?,
            recursive: paths(&request.recursive)?,
        },
    );
    Ok(())
}

/// What was missed fires before the answer.
fn set(turn: &mut Turn<'_>, xid: i32, watches: &SetWatches<'_>) {
    let given = turn.core.set_watches(&turn.who.client(), watches);
    turn.tell_missed();
    turn.out.reply(xid, given.zxid, |_| {});
}

fn paths<'a>(list: &'a List<Str<'_>>) -> Result<Vec<&'a str>, Malformed> {
    list.as_ref().ok_or(Malformed)?.iter().map(path).collect()
}

pub(super) fn add_watch(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: WatchesRequest<'_> = from.take()?;
    let is_recursive = match request.kind {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    let client = turn.who.client();
    let gate = turn
        .core
        .add_watch(&client, path(&request.path)?, is_recursive);
    turn.out
        .reply(xid, gate, |to| ErrorResponse { err: err::OK }.put(to));
    Ok(())
}

pub(super) fn check_watches(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: WatchesRequest<'_> = from.take()?;
    let (path, which) = (path(&request.path)?, which(request.kind)?);
    let found = turn.core.has_watches(&turn.who.client(), path, which);
    answer(turn, xid, found);
    Ok(())
}

pub(super) fn remove_watches(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Done {
    let request: WatchesRequest<'_> = from.take()?;
    let (path, which) = (path(&request.path)?, which(request.kind)?);
    let found = turn.core.remove_watches(&turn.who.client(), path, which);
    answer(turn, xid, found);
    Ok(())
}

fn answer(turn: &mut Turn<'_>, xid: i32, found: bool) {
    let gate = turn.core.sync();
    let err = if found { err::OK } else { err::NO_WATCHER };
    turn.out.error(xid, gate, err);
}

fn which(kind: i32) -> Result<WatcherType, Malformed> {
    Ok(match kind {
        1 => WatcherType::Children,
        2 => WatcherType::Data,
        3 => WatcherType::Any,
        4 => WatcherType::Persistent,
        5 => WatcherType::Recursive,
        _ => return Err(Malformed),
    })
}
