//! A connection's first frame, its pings and its session's end.

use crate::zookeeper::jute::{Field, Malformed, Reader};
use crate::zookeeper::records::{ConnectRequest, ConnectResponse, xid};
use crate::zookeeper::requests::{After, Turn};
use klamm_coord::core::Zxid;
use klamm_coord::core::zookeeper::{Connect, Connected, SessionId};

/// The record alone, without a header, both ways.
pub(super) fn connect(turn: &mut Turn<'_>, payload: &[u8]) -> After {
    turn.out.front.stats.saw_request();
    let Ok(request) = Reader::new(payload).take::<ConnectRequest<'_>>() else {
        return After::Drop("its first frame was no connect request");
    };
    let client = turn.out.client;
    let connect = Connect {
        last_zxid_seen: request.last_zxid_seen,
        timeout_ms: request.timeout_ms,
        session: SessionId(request.session),
        password: request.password.unwrap_or_default(),
    };
    let connected = turn.core.connect(client.id, &connect, turn.now);
    let (gate, answer, after) = match &connected {
        Connected::Session {
            session,
            password,
            timeout_ms,
            zxid,
        } => {
            client.session.set(Some(*session));
            client.timeout_ms.set(*timeout_ms);
            // From here on the session's own deadline is the connection's too.
            client.give_time(turn.out.front, None);
            turn.who.session = *session;
            let answer = (session.0, *timeout_ms, password);
            (*zxid, answer, After::Go)
        }
        Connected::Expired => (
            Zxid::ZERO,
            (0, 0, &[0; 16]),
            After::Close("its session is unknown or has ended"),
        ),
        Connected::ZxidAhead => {
            return After::Drop("it has seen changes that are not here");
        }
    };
    turn.tell();
    turn.out.bare(gate, |to| {
        let (session, timeout_ms, password) = answer;
        ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session,
            password: Some(password),
            // What is not asked is not understood.
            read_only: request.read_only.map(|_| false),
        }
        .put(to);
    });
    after
}

/// It was heard with its batch.
pub(super) fn ping(turn: &mut Turn<'_>) -> Result<(), Malformed> {
    turn.out.reply(xid::PING, Zxid::ZERO, |_| {});
    Ok(())
}

pub(super) fn close(turn: &mut Turn<'_>, xid: i32) -> After {
    let gate = turn.core.close_session(turn.who.session, turn.now);
    turn.tell();
    turn.out.reply(xid, gate, |_| {});
    After::Close("it closed its session")
}
