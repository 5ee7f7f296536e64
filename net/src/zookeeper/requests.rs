//! Frames of one receive -> the state machine -> the outbox, in one go.
//!
//! ```text
//!   bytes:  | frame | frame | frame | part        one batch, one Keeper::with
//!              |
//!            RequestHeader -> by op:  session  reads  writes  multi  watches  auth
//!              |                           |
//!              |                     core: what fired is put into the outboxes first,
//!              v                           then the answer, behind its gate
//!            malformed: MARSHALLINGERROR where there is a header, the connection lives
//! ```
//!
//! The zxid in an answer's header is one that is committed when it leaves, and no older
//! than what the answer shows: a client asks by it, after a reconnect, which of its
//! watches it missed.

use crate::zookeeper::frame::{self, Front as Begin};
use crate::zookeeper::front::{Client, Front};
use crate::zookeeper::jute::{Field, Malformed, Reader};
use crate::zookeeper::records::{ReplyHeader, RequestHeader, err, op};
use crate::zookeeper::{auth, multi, reads, session, watches, words, writes};
use klamm_coord::core::acl::Identity;
use klamm_coord::core::coordinator::Core;
use klamm_coord::core::tree::TreeError;
use klamm_coord::core::zookeeper::{self as core, ConnectionId, Gated, SessionId};
use klamm_coord::core::{Now, Zxid};
use klamm_engine::units::Nanos;
use std::borrow::Cow;
use std::rc::Rc;

/// What is to be done after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes more are no frame: the rest of one that was refused for its length.
    PassOver(usize),
    /// What is left is a part of a frame, or nothing.
    Receive,
    /// The outbox is full: what is left waits until some of it is sent.
    Send,
    /// The last answer is in the outbox: close once it is sent.
    Close(&'static str),
    /// Close without another word.
    Drop(&'static str),
}

/// What a request says about what comes after it.
pub(super) enum After {
    Go,
    Close(&'static str),
    Drop(&'static str),
}

/// What a client may have passed over. More than this is no request.
const PASSED_OVER_MAX: usize = 64 << 20;

/// In a header: there is no change that this tells of.
const NO_CHANGE: Zxid = Zxid(-1);

/// A request under way.
pub(super) struct Turn<'t> {
    pub core: &'t mut Core,
    pub now: Now,
    pub who: Who,
    pub out: Out<'t>,
}

/// The client, as the state machine is told of it.
pub(super) struct Who {
    pub connection: ConnectionId,
    pub session: SessionId,
    pub identities: Rc<[Identity]>,
}

impl Who {
    pub fn client(&self) -> core::Client<'_> {
        core::Client {
            connection: self.connection,
            session: self.session,
            identities: &self.identities,
        }
    }
}

/// Where answers go.
pub(super) struct Out<'t> {
    pub front: &'t Front,
    pub client: &'t Rc<Client>,
    committed: Zxid,
    now: Nanos,
}

/// Takes as many frames from `bytes` as there are and may be taken; how many bytes, and
/// how to go on.
pub(super) fn serve(front: &Front, client: &Rc<Client>, bytes: &[u8]) -> (usize, Next) {
    let mut done = (0, Next::Receive);
    let committed = front.keeper.committed();
    front.keeper.with(&mut |core, now| {
        let mut turn = Turn {
            core,
            now,
            who: Who {
                connection: client.id,
                session: client.session.get().unwrap_or(SessionId(0)),
                identities: client.identities.borrow().clone(),
            },
            out: Out {
                front,
                client,
                committed,
                now: now.mono,
            },
        };
        done = turn.batch(bytes);
    });
    front.wake_told();
    done
}

impl Turn<'_> {
    fn batch(&mut self, bytes: &[u8]) -> (usize, Next) {
        let mut used = 0;
        if self.out.client.session.get().is_some() && !self.core.heard(self.who.session, self.now) {
            return (0, Next::Drop("its session has ended"));
        }
        loop {
            let limits = &self.out.front.limits;
            if self.out.client.outbox.borrow().bytes() >= limits.outbox_bytes_max {
                return (used, Next::Send);
            }
            let rest = &bytes[used..];
            let is_greeted = self.out.client.session.get().is_some();
            if !is_greeted && let Some(word) = words::word(rest) {
                let answer = words::answer(self, word);
                self.out.text(&answer);
                return (used + 4, Next::Close("a four-letter word was answered"));
            }
            if self.out.front.is_stopped() {
                return (used, Next::Drop("the coordinator has stopped"));
            }
            let payload = match frame::front(rest, limits.frame_bytes_max) {
                Begin::Whole(payload) => payload,
                Begin::Partial => return (used, Next::Receive),
                Begin::Nonsense(_) => return (used, Next::Drop("a frame of negative length")),
                Begin::TooLong(len, payload) if is_greeted => {
                    let (passed, next) = self.too_long(len, payload);
                    return (used + passed, next);
                }
                Begin::TooLong(..) => {
                    return (used, Next::Drop("a frame longer than jute.maxbuffer"));
                }
            };
            used += 4 + payload.len();
            let after = if is_greeted {
                self.answer(payload)
            } else {
                session::connect(self, payload)
            };
            match after {
                After::Go => {}
                After::Close(why) => return (used, Next::Close(why)),
                After::Drop(why) => return (used, Next::Drop(why)),
            }
        }
    }

    fn answer(&mut self, payload: &[u8]) -> After {
        let mut from = Reader::new(payload);
        let Ok(header) = from.take::<RequestHeader>() else {
            return After::Drop("a frame too short for a request");
        };
        let RequestHeader { xid, op } = header;
        self.out.saw(xid, op);
        let from = &mut from;
        let done = match op {
            op::GET_DATA => reads::get_data(self, xid, from),
            op::EXISTS => reads::exists(self, xid, from),
            op::GET_CHILDREN => reads::get_children(self, xid, from),
            op::GET_CHILDREN2 => reads::get_children2(self, xid, from),
            op::GET_ACL => reads::get_acl(self, xid, from),
            op::GET_EPHEMERALS => reads::get_ephemerals(self, xid, from),
            op::GET_ALL_CHILDREN_NUMBER => reads::get_all_children_number(self, xid, from),
            op::SYNC => reads::sync(self, xid, from),
            op::CREATE | op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                writes::create(self, xid, op, from)
            }
            op::SET_DATA => writes::set_data(self, xid, from),
            op::DELETE => writes::delete(self, xid, from),
            op::SET_ACL => writes::set_acl(self, xid, from),
            op::DELETE_CONTAINER => writes::delete_container(self, xid, from),
            op::RECONFIG => writes::reconfig(self, xid, from),
            op::MULTI => multi::multi(self, xid, from),
            op::MULTI_READ => multi::multi_read(self, xid, from),
            op::SET_WATCHES => watches::set_watches(self, xid, from),
            op::SET_WATCHES2 => watches::set_watches2(self, xid, from),
            op::ADD_WATCH => watches::add_watch(self, xid, from),
            op::CHECK_WATCHES => watches::check_watches(self, xid, from),
            op::REMOVE_WATCHES => watches::remove_watches(self, xid, from),
            op::PING => session::ping(self),
            op::WHO_AM_I => auth::who_am_i(self, xid),
            op::SASL => auth::sasl(self, xid, from),
            op::AUTH => return auth::auth(self, xid, from),
            op::CLOSE_SESSION => return session::close(self, xid),
            _ => {
                self.out.header(xid, NO_CHANGE, err::UNIMPLEMENTED);
                return After::Close("an operation that there is not");
            }
        };
        if done == Err(Malformed) {
            let gate = self.core.sync();
            self.out.error(xid, gate, err::MARSHALLING);
        }
        After::Go
    }

    /// ZooKeeper closes without a word, and its client tries again for ever. Here it is
    /// told, and goes on: what else it asked for, and its session, are not at fault. A
    /// length that comes alone may be anything: that closes.
    fn too_long(&mut self, len: usize, payload: &[u8]) -> (usize, Next) {
        let why = "a frame longer than jute.maxbuffer";
        let Ok(header) = Reader::new(payload).take::<RequestHeader>() else {
            return (0, Next::Drop(why));
        };
        log::warn!(
            "{} sent a request of {len} bytes, more than {} (jute.maxbuffer): it was refused",
            self.out.client.address,
            self.out.front.limits.frame_bytes_max
        );
        let gate = self.core.sync();
        self.out.error(header.xid, gate, err::MARSHALLING);
        let passed = len.min(payload.len());
        match len - passed {
            left if len <= PASSED_OVER_MAX => (4 + passed, Next::PassOver(left)),
            _ => (4 + passed, Next::Close(why)),
        }
    }

    /// Has everyone told what a change fired; before the answer to it.
    pub fn tell(&mut self) {
        self.tell_of(None);
    }

    /// Has the client told what it missed, which is no change of now.
    pub fn tell_missed(&mut self) {
        self.tell_of(Some(NO_CHANGE));
    }

    fn tell_of(&mut self, zxid: Option<Zxid>) {
        let fired = self.core.take_fired();
        if !fired.is_empty() {
            let out = &self.out;
            out.front.deliver(&fired, zxid, out.committed, out.now);
        }
    }
}

impl Out<'_> {
    /// An answer: its header, and what `fill` appends.
    pub fn reply(&self, xid: i32, gate: Zxid, fill: impl FnOnce(&mut Vec<u8>)) {
        self.frame(xid, gate, err::OK, fill);
    }

    pub fn error(&self, xid: i32, gate: Zxid, err: i32) {
        self.frame(xid, gate, err, |_| {});
    }

    /// An answer that rests on nothing, and so says that it does.
    pub fn header(&self, xid: i32, zxid: Zxid, err: i32) {
        self.front
            .put(self.client, Zxid::ZERO, self.committed, self.now, |to| {
                ReplyHeader { xid, zxid, err }.put(to);
            });
    }

    /// What a call gave: an answer, or the tree's error alone.
    pub fn result<T>(
        &self,
        xid: i32,
        given: Gated<Result<T, TreeError>>,
        fill: impl FnOnce(T, &mut Vec<u8>),
    ) {
        match given.value {
            Ok(value) => self.reply(xid, given.zxid, |to| fill(value, to)),
            Err(error) => self.error(xid, given.zxid, error.code()),
        }
    }

    fn frame(&self, xid: i32, gate: Zxid, err: i32, fill: impl FnOnce(&mut Vec<u8>)) {
        let zxid = self.shown(gate);
        self.client.counts.last_zxid.set(zxid);
        self.front
            .put(self.client, gate, self.committed, self.now, |to| {
                ReplyHeader { xid, zxid, err }.put(to);
                fill(to);
            });
    }

    /// The newest change that is committed once an answer with this gate leaves.
    fn shown(&self, gate: Zxid) -> Zxid {
        let before = self.client.outbox.borrow().last_gate();
        gate.max(before).max(self.committed)
    }

    /// The answer to a connect: the one frame without a header.
    pub fn bare(&self, gate: Zxid, fill: impl FnOnce(&mut Vec<u8>)) {
        self.front
            .put(self.client, gate, self.committed, self.now, fill);
    }

    fn text(&self, text: &str) {
        let mut pool = self.front.pool.borrow_mut();
        self.client.outbox.borrow_mut().push_text(&mut pool, text);
        self.front.stats.sent();
    }

    pub fn saw(&self, xid: i32, op: i32) {
        let counts = &self.client.counts;
        self.front.stats.saw_request();
        counts.received.set(counts.received.get() + 1);
        counts.last_op.set(op);
        counts.last_xid.set(xid);
    }
}

/// A path that is not null.
pub(super) fn path<'a>(given: &'a Option<Cow<'_, str>>) -> Result<&'a str, Malformed> {
    given.as_deref().ok_or(Malformed)
}
