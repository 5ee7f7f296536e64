//! Words that list connections, sessions and watches.

use crate::zookeeper::front::Front;
use crate::zookeeper::requests::Turn;
use crate::zookeeper::words::server::brief;
use klamm_coord::core::zookeeper::{ConnectionId, SessionId};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Each connection, and how it fares.
pub fn cons(turn: &mut Turn<'_>) -> String {
    let mut text = String::new();
    for client in turn.out.front.all() {
        brief(&client, &mut text);
        if let Some(session) = client.session.get() {
            let (counts, latency) = (&client.counts, &client.counts.latency);
            let written = write!(
                text,
                ",sid=0x{:x},lop={},est={},to={},lcxid=0x{:x},lzxid={},lresp={},llat={},minlat={},avglat={},maxlat={}",
                session.0,
                name(counts.last_op.get()),
                counts.since.0,
                client.timeout_ms.get(),
                counts.last_xid.get(),
                counts.last_zxid.get(),
                counts.last_sent.get().0,
                latency.last_ms(),
                latency.min_ms(),
                latency.avg_ms().round(),
                latency.max_ms(),
            );
            written.expect("a String takes everything");
        }
        text += ")\n";
    }
    text + "\n"
}

/// An operation as ZooKeeper shortens it here.
fn name(op: i32) -> &'static str {
    use crate::zookeeper::records::op::*;
    match op {
        0 => "SESS",
        CREATE | CREATE2 | CREATE_TTL | CREATE_CONTAINER => "CREA",
        DELETE | DELETE_CONTAINER => "DELE",
        EXISTS => "EXIS",
        GET_DATA => "GETD",
        SET_DATA => "SETD",
        GET_ACL => "GETA",
        SET_ACL => "SETA",
        GET_CHILDREN | GET_CHILDREN2 => "GETC",
        SYNC => "SYNC",
        PING => "PING",
        MULTI => "MULT",
        MULTI_READ => "MLTR",
        RECONFIG => "RECO",
        CHECK_WATCHES => "CHKW",
        REMOVE_WATCHES => "REMW",
        SET_WATCHES => "SETW",
        SET_WATCHES2 => "STW2",
        ADD_WATCH => "ADDW",
        GET_EPHEMERALS => "GETE",
        GET_ALL_CHILDREN_NUMBER => "GETACN",
        WHO_AM_I => "HOMI",
        CLOSE_SESSION => "CLOS",
        _ => "NA",
    }
}

/// Sessions by when they end, and the nodes that end with them.
pub fn dump(turn: &mut Turn<'_>) -> String {
    let (core, now) = (&turn.core, turn.now.mono);
    let mut ends: BTreeMap<u64, Vec<SessionId>> = BTreeMap::new();
    let mut with_ephemerals = Vec::new();
    for session in core.sessions().iter() {
        let id = session.record.id;
        if !session.record.internal {
            let timeout = u64::from(session.record.timeout_ms.unsigned_abs());
            let silent = now.0.saturating_sub(session.heard.0) / 1_000_000;
            ends.entry(timeout.saturating_sub(silent))
                .or_default()
                .push(id);
        }
        if core.tree().ephemerals(id.0).next().is_some() {
            with_ephemerals.push(id);
        }
    }
    with_ephemerals.sort_unstable();
    let sessions: usize = ends.values().map(Vec::len).sum();
    let mut text = format!(
        "SessionTracker dump:\nSession Sets ({})/({sessions}):\n",
        ends.len()
    );
    for (in_ms, ids) in ends {
        text += &format!("{} expire in {in_ms} ms:\n", ids.len());
        for id in ids {
            text += &format!("\t0x{:x}\n", id.0);
        }
    }
    text += &format!(
        "ephemeral nodes dump:\nSessions with Ephemerals ({}):\n",
        with_ephemerals.len()
    );
    for id in with_ephemerals {
        text += &format!("0x{:x}:\n", id.0);
        for path in core.tree().ephemerals(id.0) {
            text += &format!("\t{path}\n");
        }
    }
    let clients = turn.out.front.all();
    text += &format!("Connections dump:\nConnections ({}):\n", clients.len());
    for client in clients {
        let session = client.session.get().map_or(0, |session| session.0);
        text += &format!("\tip: /{} sessionId: 0x{session:x}\n", client.address);
    }
    text
}

pub fn wchs(turn: &mut Turn<'_>) -> String {
    let all = turn.core.watches().summary();
    format!(
        "{} connections watching {} paths\nTotal watches:{}\n",
        all.connections, all.paths, all.watches
    )
}

pub fn wchc(turn: &mut Turn<'_>) -> String {
    let mut text = String::new();
    for (connection, paths) in turn.core.watches().by_connection() {
        text += &format!("0x{:x}\n", session(turn.out.front, connection));
        for path in paths {
            text += &format!("\t{path}\n");
        }
    }
    text + "\n"
}

pub fn wchp(turn: &mut Turn<'_>) -> String {
    let mut text = String::new();
    for (path, connections) in turn.core.watches().by_path() {
        text += &format!("{path}\n");
        for connection in connections {
            text += &format!("\t0x{:x}\n", session(turn.out.front, connection));
        }
    }
    text + "\n"
}

fn session(front: &Front, connection: ConnectionId) -> i64 {
    let client = front.client(connection);
    client
        .and_then(|client| client.session.get())
        .map_or(0, |session| session.0)
}
