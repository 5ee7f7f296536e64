//! One sequence on two servers, step by step, until they differ.
//!
//! ```text
//!   step --> left  server   sessions 0..4     answers and events, a session at a time
//!        --> right server   sessions 0..4     answers and events      |
//!                                             compare  <--------------+
//! ```
//!
//! After each step every session asks one thing more (the fence): what the step has
//! sent to a session comes before the fence's answer, so that nothing is waited for
//! by the clock and the place of an event among the answers is part of what is compared.

use crate::compare::{Outcome, Pairs};
use crate::steps::{SLOTS, Step};
use klamm_tests::zookeeper::records::{Create, Request, Watches, code};
use klamm_tests::zookeeper::{Connect, Connected, Message, Session, Wire, is_end};
use std::collections::BTreeMap;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SESSION_TIMEOUT_MS: i32 = 30_000;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where the runs' nodes are: in the root there may be other things on one side, which
/// show in its stat and in the numbers of sequential nodes.
const HOME: &str = "/differential";

/// Changes what the right side is taken to have said: see the tests of the test.
pub type Lie = fn(&Step, &mut Vec<Outcome>);

pub struct Servers {
    pub left: SocketAddr,
    pub right: SocketAddr,
    pub event_zxids: bool,
    pub lie: Option<Lie>,
}

/// What ran: a count by opcode and error, events by type.
#[derive(Default)]
pub struct Ran {
    pub operations: usize,
    pub answers: BTreeMap<(i32, i32), usize>,
    pub events: BTreeMap<i32, usize>,
}

#[derive(Debug)]
pub struct Difference {
    /// Of the step.
    pub at: usize,
    pub what: String,
}

struct Side {
    address: SocketAddr,
    sessions: Vec<Session>,
}

/// Runs the whole sequence below a node that no run had before.
pub fn run(
    servers: &Servers,
    steps: &[Step],
    ran: &mut Ran,
) -> std::result::Result<(), Difference> {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let base = format!("{HOME}/d{}", RUN.fetch_add(1, Ordering::Relaxed));
    let mut run = Run {
        servers,
        base,
        sides: [servers.left, servers.right].map(|address| Side {
            address,
            sessions: Vec::new(),
        }),
        pairs: Pairs::new(servers.event_zxids),
    };
    let before = |what: String| Difference { at: 0, what };
    for slot in 0..SLOTS {
        run.begin(slot).map_err(before)?;
    }
    run.make_home().map_err(before)?;
    for (at, step) in steps.iter().enumerate() {
        run.step(step, ran)
            .map_err(|what| Difference { at, what })?;
    }
    Ok(())
}

/// Nobody's sessions are left to expire in the middle of another run.
impl Drop for Run<'_> {
    fn drop(&mut self) {
        for session in self.sides.iter_mut().flat_map(|side| &mut side.sessions) {
            if session.send(&Request::CloseSession).is_ok() {
                hear(session);
            }
        }
    }
}

struct Run<'a> {
    servers: &'a Servers,
    base: String,
    sides: [Side; 2],
    pairs: Pairs,
}

impl Run<'_> {
    fn step(&mut self, step: &Step, ran: &mut Ran) -> std::result::Result<(), String> {
        match step {
            Step::Calls(slot, requests) => {
                if self.calls(step, *slot, requests, ran)? {
                    self.reconnect(*slot, step)?;
                }
                self.fence(step)?;
            }
            Step::Reconnect(slot, watches) => {
                self.reconnect(*slot, step)?;
                if let Some(watches) = watches {
                    self.calls(step, *slot, std::slice::from_ref(watches), ran)?;
                }
                self.fence(step)?;
            }
            Step::WrongPassword(slot) => {
                let attempts = self.each(|side| {
                    let session = &side.sessions[*slot];
                    cut(session);
                    let mut connect = Connect::again(session);
                    connect.password.as_mut().expect("a password")[3] ^= 0x55;
                    attempt(side.address, &connect)
                });
                self.compare(step, "the wrong password", attempts)?;
                self.reconnect(*slot, step)?;
                self.fence(step)?;
            }
            Step::UnknownSession(id) => {
                let attempts = self.each(|side| {
                    let mut connect = Connect::new(SESSION_TIMEOUT_MS);
                    connect.session = *id;
                    attempt(side.address, &connect)
                });
                self.compare(step, "the unknown session", attempts)?;
            }
            Step::Close(slot) => {
                self.calls(step, *slot, &[Request::CloseSession], ran)?;
                self.begin(*slot)?;
                self.fence(step)?;
            }
        }
        ran.operations += step.operations();
        Ok(())
    }

    /// Made by the first run that comes.
    fn make_home(&mut self) -> std::result::Result<(), String> {
        for session in self.sides.iter_mut().map(|side| &mut side.sessions[0]) {
            for path in [HOME.to_owned(), format!("/zookeeper/quota{HOME}")] {
                let made = session.call(&Request::create(&path, b"", 0));
                let err = made.map_err(|e| format!("creating {path}: {e}"))?.err;
                if ![code::OK, code::NODE_EXISTS].contains(&err) {
                    return Err(format!("creating {path}: {err}"));
                }
            }
        }
        Ok(())
    }

    fn each(&mut self, mut ask: impl FnMut(&mut Side) -> Vec<Outcome>) -> [Vec<Outcome>; 2] {
        let [left, right] = &mut self.sides;
        [ask(left), ask(right)]
    }

    fn compare(
        &mut self,
        step: &Step,
        who: &str,
        [mut left, mut right]: [Vec<Outcome>; 2],
    ) -> std::result::Result<(), String> {
        if let Some(lie) = self.servers.lie {
            lie(step, &mut right);
        }
        // A closed session's ephemerals go in one transaction, whose order is that of
        // a set; what each watcher is told of it is compared as a set, too.
        if matches!(step, Step::Close(_)) {
            left.sort_by_key(event_first);
            right.sort_by_key(event_first);
        }
        let base = self.base.clone();
        self.pairs
            .compare(&left, &right)
            .map_err(|why| format!("{who}, {why}").replace(&base, "~"))
    }

    /// A new session in the slot.
    fn begin(&mut self, slot: usize) -> std::result::Result<(), String> {
        let mut ids = Vec::new();
        for side in &mut self.sides {
            let session = Session::new(side.address, SESSION_TIMEOUT_MS)
                .map_err(|e| format!("a new session at {}: {e}", side.address))?;
            if session.timeout_ms != SESSION_TIMEOUT_MS {
                return Err(format!("a timeout of {} ms", session.timeout_ms));
            }
            ids.push(session.id);
            match side.sessions.get_mut(slot) {
                Some(old) => *old = session,
                None => side.sessions.push(session),
            }
        }
        self.pairs.session(ids[0], ids[1]);
        Ok(())
    }

    /// Cuts the connection, if it is there still, and goes on over another.
    fn reconnect(&mut self, slot: usize, step: &Step) -> std::result::Result<(), String> {
        let mut opened = Vec::new();
        let answers = self.each(|side| {
            let session = &side.sessions[slot];
            cut(session);
            match Session::open(side.address, &Connect::again(session)) {
                Err(e) => vec![Outcome::Wrong(format!("reconnect: {e}"))],
                Ok(new) => {
                    let kept = new.password == session.password;
                    let answer = Outcome::Connected(Connected {
                        version: 0,
                        timeout_ms: new.timeout_ms,
                        session: new.id,
                        password: if kept { vec![0; 16] } else { vec![] },
                        read_only: new.read_only,
                    });
                    opened.push(new);
                    vec![answer]
                }
            }
        });
        self.compare(step, &format!("session {slot} reconnects"), answers)?;
        for (side, new) in self.sides.iter_mut().zip(opened) {
            side.sessions[slot] = new;
        }
        Ok(())
    }

    /// Sends all in one write, takes what comes until all is answered; true where the
    /// server closed the connection.
    fn calls(
        &mut self,
        step: &Step,
        slot: usize,
        requests: &[Request],
        ran: &mut Ran,
    ) -> std::result::Result<bool, String> {
        let mut sent = Vec::new();
        for side in &mut self.sides {
            let session = &mut side.sessions[slot];
            let zxid = session.last_zxid;
            let requests: Vec<_> = requests.iter().map(|r| at(r, &self.base, zxid)).collect();
            sent.push(session.send_all(&requests));
        }
        // What closes the connection may do so behind its answer.
        let closes = requests.iter().any(closes);
        let mut sent = sent.into_iter();
        let answers = self.each(|side| {
            let mut heard = match sent.next().expect("two sides") {
                Ok(()) => hear(&mut side.sessions[slot]),
                Err(e) => vec![failure(&e)],
            };
            if closes && heard.last() != Some(&Outcome::Ended) {
                let wire = &mut side.sessions[slot].wire;
                heard.push(match wire.until_close(CLOSE_WITHIN) {
                    Ok(Some(rest)) if rest.is_empty() => Outcome::Ended,
                    Ok(None) => Outcome::Wrong("the connection stays open".into()),
                    other => Outcome::Wrong(format!("before the end: {other:?}")),
                });
            }
            heard
        });
        count(requests, &answers[0], ran);
        if let Some(Outcome::Wrong(what)) = answers[0].last() {
            eprintln!("{requests:?}: {what}");
        }
        let ended = answers[0].last() == Some(&Outcome::Ended);
        self.compare(step, &format!("session {slot}"), answers)?;
        Ok(ended)
    }

    fn fence(&mut self, step: &Step) -> std::result::Result<(), String> {
        let fence = Request::Exists(format!("{}/fence", self.base), false);
        for slot in 0..SLOTS {
            for side in &mut self.sides {
                // A side that cannot be written to is found out by what is heard.
                side.sessions[slot].send(&fence).ok();
            }
        }
        for slot in 0..SLOTS {
            let heard = self.each(|side| hear(&mut side.sessions[slot]));
            self.compare(step, &format!("session {slot}, up to the fence"), heard)?;
        }
        Ok(())
    }
}

/// A server that refuses may close; one that does not is asked no further.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

fn closes(request: &Request) -> bool {
    match request {
        Request::CloseSession => true,
        Request::Auth(scheme, _) => !["digest", "ip"].contains(&scheme.as_str()),
        // Opcodes that there are not, or not outside of a multi.
        Request::Raw(opcode, _) => !matches!(opcode, -11 | 1..=9 | 11 | 12 | 14..=22 | 103..=107),
        _ => false,
    }
}

fn hear(session: &mut Session) -> Vec<Outcome> {
    let mut heard = Vec::new();
    while session.outstanding() > 0 {
        match session.receive_within(ANSWER_WITHIN) {
            Ok(Some(message)) => heard.push(Outcome::Message(message)),
            Ok(None) => {
                heard.push(Outcome::Wrong(format!("no answer in {ANSWER_WITHIN:?}")));
                break;
            }
            Err(e) => {
                heard.push(failure(&e));
                break;
            }
        }
    }
    heard
}

fn failure(error: &std::io::Error) -> Outcome {
    match is_end(error) {
        true => Outcome::Ended,
        false => Outcome::Wrong(error.to_string()),
    }
}

/// A connect request that is to be refused: the answer, and the close behind it.
fn attempt(address: SocketAddr, connect: &Connect) -> Vec<Outcome> {
    let heard = || -> Result<Vec<Outcome>> {
        let mut wire = Wire::open(address)?;
        let answer = Outcome::Connected(wire.connect(connect)?);
        let rest = wire.until_close(CLOSE_WITHIN)?;
        Ok(match rest.as_deref() {
            Some([]) => vec![answer, Outcome::Ended],
            other => vec![answer, Outcome::Wrong(format!("for a close: {other:?}"))],
        })
    };
    heard().unwrap_or_else(|e| vec![failure(&e)])
}

/// As a network cut would, but told to the server.
fn cut(session: &Session) {
    session
        .wire
        .socket()
        .shutdown(std::net::Shutdown::Both)
        .ok();
}

fn event_first(outcome: &Outcome) -> (bool, Option<(String, i32)>) {
    let event = outcome.event();
    (event.is_none(), event.map(|e| (e.path.clone(), e.kind)))
}

fn count(requests: &[Request], heard: &[Outcome], ran: &mut Ran) {
    let replies = heard.iter().filter_map(|o| match o {
        Outcome::Message(Message::Reply(reply)) => Some(reply),
        _ => None,
    });
    for (request, reply) in requests.iter().zip(replies) {
        let key = (request.opcode(), reply.err);
        *ran.answers.entry(key).or_default() += 1;
    }
    for event in heard.iter().filter_map(Outcome::event) {
        *ran.events.entry(event.kind).or_default() += 1;
    }
}

/// The request with the run's own node for ~, and the session's zxid for -1.
fn at(request: &Request, base: &str, zxid: i64) -> Request {
    let path = |p: &String| p.replace('~', base);
    let paths = |p: &[String]| p.iter().map(path).collect();
    let create = |c: &Create| Create {
        path: path(&c.path),
        ..c.clone()
    };
    let watches = |w: &Watches| Watches {
        relative_zxid: match w.relative_zxid {
            -1 => zxid,
            other => other,
        },
        data: paths(&w.data),
        exist: paths(&w.exist),
        child: paths(&w.child),
        persistent: paths(&w.persistent),
        recursive: paths(&w.recursive),
    };
    let all = |rs: &[Request]| rs.iter().map(|r| at(r, base, zxid)).collect();
    match request {
        Request::Create(c) => Request::Create(create(c)),
        Request::Create2(c) => Request::Create2(create(c)),
        Request::CreateContainer(c) => Request::CreateContainer(create(c)),
        Request::CreateTtl(c, ttl_ms) => Request::CreateTtl(create(c), *ttl_ms),
        Request::Delete(p, n) => Request::Delete(path(p), *n),
        Request::Check(p, n) => Request::Check(path(p), *n),
        Request::CheckWatches(p, n) => Request::CheckWatches(path(p), *n),
        Request::RemoveWatches(p, n) => Request::RemoveWatches(path(p), *n),
        Request::AddWatch(p, n) => Request::AddWatch(path(p), *n),
        Request::Exists(p, w) => Request::Exists(path(p), *w),
        Request::GetData(p, w) => Request::GetData(path(p), *w),
        Request::GetChildren(p, w) => Request::GetChildren(path(p), *w),
        Request::GetChildren2(p, w) => Request::GetChildren2(path(p), *w),
        Request::SetData(p, data, n) => Request::SetData(path(p), data.clone(), *n),
        Request::GetAcl(p) => Request::GetAcl(path(p)),
        Request::SetAcl(p, acl, n) => Request::SetAcl(path(p), acl.clone(), *n),
        Request::Sync(p) => Request::Sync(path(p)),
        Request::GetEphemerals(p) => Request::GetEphemerals(path(p)),
        Request::GetAllChildrenNumber(p) => Request::GetAllChildrenNumber(path(p)),
        Request::Multi(rs) => Request::Multi(all(rs)),
        Request::MultiRead(rs) => Request::MultiRead(all(rs)),
        Request::SetWatches(w) => Request::SetWatches(watches(w)),
        Request::SetWatches2(w) => Request::SetWatches2(watches(w)),
        // The place of the run is in the middle of what was cut short: it stays short.
        Request::Raw(..)
        | Request::Ping
        | Request::Reconfig(..)
        | Request::Auth(..)
        | Request::Sasl(_)
        | Request::WhoAmI
        | Request::CloseSession => request.clone(),
    }
}
