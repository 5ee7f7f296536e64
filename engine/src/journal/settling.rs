//! Brings what a full file of the journal has into the segments, synced.
//!
//! ```text
//!   few partitions     each: placed, its segment synced, marked
//!   many               each: placed --- all of them: one sync of the file system --- marked
//! ```
//!
//! A sync costs some 100 µs of a core, so a thousand of them a tenth of a second for each
//! file. A sync of everything waits for what others wrote to that file system, but nobody
//! waits for this one, unless the next file is full before it ends.

use super::Member;
use crate::appender::Settling;
use crate::error::Offline;
use crate::io::{File, Io};
use crate::units::Offset;
use futures_util::stream::{self, StreamExt};
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;

/// Partitions that are written, or synced, at a time.
const AT_A_TIME: usize = 32;

/// What the members have in a journal's file, each up to its offset, is settled when this
/// returns, but for those that are offline by then.
pub(super) async fn settle<I: Io>(
    io: &I,
    journal: &Rc<I::File>,
    dir: &Path,
    members: Vec<(Rc<Member<I>>, Offset)>,
    all_from: usize,
) {
    if members.len() < all_from {
        return each(members).await;
    }
    // All of it before the first waits for the sync, with what it keeps others from.
    stream::iter(&members)
        .for_each_concurrent(AT_A_TIME, |(member, upto)| member.place_below(*upto))
        .await;
    let begun: Vec<_> = stream::iter(&members)
        .map(|(member, upto)| member.begin_settling(*upto))
        .buffer_unordered(AT_A_TIME)
        .filter_map(async |settling| settling)
        .collect()
        .await;
    let (beside, elsewhere): (Vec<_>, Vec<_>) = begun
        .into_iter()
        .partition(|settling: &Settling<I>| is_beside::<I>(journal, settling));
    drop(elsewhere);
    match io.sync_all(dir).await {
        Ok(()) => ended(beside, Ok(())).await,
        Err(e) if e.kind() == ErrorKind::Unsupported => drop(beside),
        Err(e) => ended(beside, Err(Offline::failed("sync all of", dir, e))).await,
    }
    each(members).await;
}

/// Those that are settled by now cost nothing.
async fn each<I: Io>(members: Vec<(Rc<Member<I>>, Offset)>) {
    stream::iter(members)
        .for_each_concurrent(AT_A_TIME, |(member, upto)| async move {
            member.settle(upto).await;
        })
        .await;
}

async fn ended<I: Io>(settling: Vec<Settling<I>>, synced: Result<(), Offline>) {
    stream::iter(settling)
        .for_each_concurrent(AT_A_TIME, |settling| settling.ended(synced.clone()))
        .await;
}

/// Whether a segment is on the journal's file system: its folder may be a link to another.
fn is_beside<I: Io>(journal: &Rc<I::File>, settling: &Settling<I>) -> bool {
    let segment = settling.segment().file();
    let (Some(segment), Ok(journal)) = (segment, journal.device()) else {
        return false;
    };
    segment.device().is_ok_and(|device| device == journal)
}
