//! One client.
//!
//! ```text
//!            recv                 dispatch              done
//!   socket -------> frames ---------------> in flight -------> outbox -------> socket
//!            ^                 ^            (ordered)    ^                send
//!            |                 |                         |
//!      not while the next two stand          not while the outbox is full:
//!      too many in flight, or their          a slow reader's answers are not
//!      bytes; the shard's budget taken       even made
//! ```
//!
//! One task a connection, one poll function: each turn moves whatever can move, and
//! stops where nothing does. Requests start in the order in which they came (each is
//! polled once before the next is looked at), run beside each other, and leave in
//! order. When the connection goes, what is in flight is dropped with it.

use crate::kafka::answer::Answer;
use crate::kafka::closing::Heard;
use crate::kafka::context::{Local, Peer};
use crate::kafka::frame::{Frames, Front};
use crate::kafka::limits::{Acquire, Permit};
use crate::kafka::outbox::Outbox;
use crate::kafka::profile::{Departures, Watch};
use crate::kafka::route::{self, Answering};
use crate::kafka::turns::Turns;
use crate::socket::Socket;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesOrdered, Stream};
use klamm_engine::io::Io;
use klamm_engine::units::Nanos;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A frame of which this much has come takes its whole length out of the shard's
/// budget before more of it is received: a claim alone takes nothing.
const CLAIM_HEARD_FROM: usize = 64 << 10;

/// Frames of one connection in a row, and receives of up to 64 KiB or more, before
/// others have their turn.
const FRAMES_A_POLL: usize = 64;
const TURNS_A_POLL: usize = 64;

/// Answer bytes, likewise: some 2 ms of a core, where the client takes them as fast as
/// they are sent.
const SEND_BYTES_A_POLL: usize = 4 << 20;

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// The client closed it.
    Client,
    /// It was told to: the sentence goes on from "the connection was closed: ".
    Refused(String),
    Socket(io::Error),
    /// The broker is stopping, and everything in flight was answered.
    Drained,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Client => write!(f, "the client closed it"),
            End::Refused(why) => write!(f, "{why}"),
            End::Socket(e) => write!(f, "{e}"),
            End::Drained => write!(f, "the broker is stopping"),
        }
    }
}

pub struct Connection<I: Io, S> {
    local: Rc<Local<I>>,
    peer: Rc<Peer>,
    socket: S,
    frames: Frames,
    in_flight: FuturesOrdered<InFlight<I>>,
    in_flight_bytes: usize,
    turns: Turns,
    outbox: Outbox<I>,
    /// Of [`SEND_BYTES_A_POLL`].
    send_left: usize,
    departures: Departures<I>,
    /// When the frames that are whole became so.
    received_at: Nanos,
    /// That was a moment ago, and nothing was done since.
    just_received: bool,
    /// The budget for the frame at the front, once it has it.
    permit: Option<Permit>,
    acquire: Option<Acquire>,
    /// Nothing more is read; the connection ends with this once the outbox is empty.
    ending: Option<End>,
    heard: Heard,
    /// When the frame at the front began, or when reading was last resumed.
    frame_since: Option<Nanos>,
    /// The last time that bytes went either way.
    moved_at: Nanos,
    drain_until: Option<Nanos>,
    timer: Option<(Nanos, LocalBoxFuture<'static, ()>)>,
}

impl<I: Io, S: Socket> Connection<I, S> {
    pub fn new(local: Rc<Local<I>>, peer: Peer, socket: S) -> Connection<I, S> {
        Connection {
            peer: Rc::new(peer),
            socket,
            frames: Frames::new(local.limits.frame_bytes_max),
            in_flight: FuturesOrdered::new(),
            in_flight_bytes: 0,
            turns: Turns::default(),
            outbox: Outbox::new(local.io.clone()),
            send_left: 0,
            departures: Departures::default(),
            received_at: local.io.now(),
            just_received: false,
            permit: None,
            acquire: None,
            ending: None,
            heard: local.closing.heard(),
            frame_since: None,
            moved_at: local.io.now(),
            drain_until: None,
            timer: None,
            local,
        }
    }

    /// Runs it to its end.
    pub async fn run(mut self) -> End {
        poll_fn(|cx| self.poll_turns(cx)).await
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.drain_until.is_none() && Pin::new(&mut self.heard).poll(cx).is_ready() {
            let until = self.local.io.now().plus(self.local.limits.drain_time_max);
            self.drain_until = Some(until);
        }
        self.just_received = false;
        let mut frames_left = FRAMES_A_POLL;
        let mut turns_left = TURNS_A_POLL;
        self.send_left = SEND_BYTES_A_POLL;
        loop {
            turns_left -= 1;
            match self.turn(cx, &mut frames_left) {
                Ok(true) if frames_left == 0 || turns_left == 0 || self.send_left == 0 => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(true) => {}
                Ok(false) => match self.poll_timer(cx) {
                    Poll::Ready(Some(end)) => return Poll::Ready(end),
                    Poll::Ready(None) => turns_left = TURNS_A_POLL,
                    Poll::Pending => return Poll::Pending,
                },
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// Moves what can move. False: nothing did, and what would be is being waited for.
    fn turn(&mut self, cx: &mut Context<'_>, frames_left: &mut usize) -> Result<bool, End> {
        let mut moved = self.collect(cx);
        moved |= self.send(cx)?;
        if self.outbox.is_empty() {
            if let Some(end) = self.ending.take() {
                return Err(end);
            }
            if self.drain_until.is_some() && self.in_flight.is_empty() {
                return Err(End::Drained);
            }
        }
        // Nothing has taken time since bytes were received: the clock need not be read again.
        let is_now = std::mem::take(&mut self.just_received) && !moved;
        let now = is_now.then_some(self.received_at);
        moved |= self.dispatch(cx, frames_left, now);
        // More bytes only where the next frame is not whole: what has come and was not
        // dispatched, for whatever reason, is all that is held of what is to come.
        let is_whole = matches!(self.frames.front(), Ok(Front::Whole { .. }));
        if self.may_take() && self.acquire.is_none() && !is_whole {
            moved |= self.receive(cx)?;
        } else {
            // Reading stands because of us: the frame's clock does not run.
            self.frame_since = None;
        }
        Ok(moved)
    }

    /// Whether another request may be taken, or received.
    fn may_take(&self) -> bool {
        let limits = &self.local.limits;
        self.ending.is_none()
            && self.drain_until.is_none()
            && self.in_flight.len() < limits.in_flight_max
            && self.in_flight_bytes < limits.in_flight_bytes_max
            && self.outbox.bytes < limits.outbox_bytes_max
    }

    /// In flight -> outbox, in order.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.outbox.bytes < self.local.limits.outbox_bytes_max && self.ending.is_none() {
            let Poll::Ready(Some((answer, bytes, watch))) =
                Pin::new(&mut self.in_flight).poll_next(cx)
            else {
                break;
            };
            moved = true;
            self.in_flight_bytes -= bytes;
            self.turns.leave();
            match answer {
                Answer::Send(parts) => {
                    if self.outbox.is_empty() {
                        // Its time to move begins now.
                        self.moved_at = self.local.io.now();
                    }
                    let before = self.outbox.bytes;
                    self.outbox.push(parts);
                    self.departures.put(watch, before, self.outbox.bytes);
                }
                Answer::Nothing => watch.sent(None, 0),
                Answer::Close(why) => {
                    self.ending = Some(End::Refused(why));
                    self.in_flight = FuturesOrdered::new();
                }
            }
        }
        moved
    }

    /// Outbox -> socket.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.outbox.is_empty() && self.send_left > 0 {
            let before = self.outbox.bytes;
            match self.outbox.poll_send(&mut self.socket, cx) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => return Err(End::Socket(e)),
                Poll::Ready(Ok(())) => {
                    moved = true;
                    self.moved_at = self.local.io.now();
                    let taken = before - self.outbox.bytes;
                    self.send_left = self.send_left.saturating_sub(taken);
                    self.departures.left(self.outbox.bytes, self.moved_at);
                }
            }
        }
        Ok(moved)
    }

    /// Frames -> in flight.
    fn dispatch(
        &mut self,
        cx: &mut Context<'_>,
        frames_left: &mut usize,
        mut now: Option<Nanos>,
    ) -> bool {
        let mut moved = false;
        while *frames_left > 0 && self.may_take() {
            let front = match self.frames.front() {
                Ok(front) => front,
                Err(bad) => {
                    self.refuse(bad.to_string());
                    return true;
                }
            };
            let len = match front {
                Front::Whole { len } => len,
                Front::Partial { len, have } => {
                    if have >= CLAIM_HEARD_FROM && self.poll_permit(cx, len) {
                        self.frames.grant();
                    }
                    return moved;
                }
                Front::Nothing => return moved,
            };
            if !self.poll_permit(cx, len) {
                return moved;
            }
            let permit = self.permit.take().expect("just acquired");
            let frame = self.frames.take(len);
            self.frame_since = None;
            *frames_left -= 1;
            moved = true;
            let turn = self.turns.take();
            let profile = &self.local.profile;
            let watch = profile.watch(&self.peer, self.received_at, now.take(), len);
            match route::start(&self.local, &self.peer, turn, watch.clone(), frame) {
                Ok(mut answering) => {
                    // Polled once here: what it does before it waits is done before the
                    // next request is looked at.
                    self.in_flight_bytes += len;
                    let state = match answering.as_mut().poll(cx) {
                        Poll::Ready(answer) => {
                            watch.answered();
                            State::Done(Some(answer))
                        }
                        Poll::Pending => State::Running(answering, permit),
                    };
                    self.in_flight.push_back(InFlight {
                        state,
                        bytes: len,
                        watch,
                    });
                }
                Err(refused) => self.refuse(refused.to_string()),
            }
        }
        moved
    }

    /// No more is read; what came before is still answered.
    fn refuse(&mut self, why: String) {
        let state = State::Done(Some(Answer::Close(why)));
        self.in_flight.push_back(InFlight {
            state,
            bytes: 0,
            watch: Watch::default(),
        });
        self.drain_until = Some(self.local.io.now().plus(self.local.limits.drain_time_max));
    }

    fn poll_permit(&mut self, cx: &mut Context<'_>, bytes: usize) -> bool {
        if self.permit.is_some() {
            return true;
        }
        if self.acquire.is_none() {
            self.permit = self.local.request_bytes.try_acquire(bytes);
            if self.permit.is_some() {
                return true;
            }
        }
        let acquire = self
            .acquire
            .get_or_insert_with(|| self.local.request_bytes.acquire(bytes));
        match Pin::new(acquire).poll(cx) {
            Poll::Pending => false,
            Poll::Ready(permit) => {
                self.acquire = None;
                self.permit = Some(permit);
                true
            }
        }
    }

    /// Socket -> frames.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match self.socket.poll_recv(cx, self.frames.room()) {
            Poll::Pending => {
                if self.frames.is_partial() && self.frame_since.is_none() {
                    self.frame_since = Some(self.local.io.now());
                }
                Ok(false)
            }
            Poll::Ready(Ok(0)) => Err(End::Client),
            Poll::Ready(Ok(bytes)) => {
                self.frames.received(bytes);
                self.moved_at = self.local.io.now();
                self.received_at = self.moved_at;
                self.just_received = true;
                Ok(true)
            }
            Poll::Ready(Err(e)) => Err(End::Socket(e)),
        }
    }

    /// The moment at which patience ends, and what is said then.
    fn deadline(&self) -> Option<(Nanos, Patience)> {
        let limits = &self.local.limits;
        let mut first: Option<(Nanos, Patience)> = None;
        let mut consider = |at: Nanos, what: Patience| {
            if first.as_ref().is_none_or(|(f, _)| at < *f) {
                first = Some((at, what));
            }
        };
        if let Some(until) = self.drain_until {
            consider(until, Patience::Drain);
        }
        if let Some(since) = self.frame_since {
            let more = Duration::from_secs((self.frames.buffered() >> 20) as u64);
            consider(since.plus(limits.frame_time_max + more), Patience::Frame);
        }
        if !self.outbox.is_empty() {
            consider(self.moved_at.plus(limits.idle_time_max), Patience::Reader);
        } else if self.in_flight.is_empty() {
            consider(self.moved_at.plus(limits.idle_time_max), Patience::Idle);
        }
        first
    }

    /// Ready(None): the timer fired, and nothing was due: look again.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let Some((at, patience)) = self.deadline() else {
            return Poll::Pending;
        };
        // A timer that fires too early is harmless, and deadlines mostly move away:
        // one is set anew only where the deadline came nearer. Until it fires nothing is
        // due, and no clock has to be read for that.
        if self.timer.as_ref().is_none_or(|(set, _)| at < *set) {
            let now = self.local.io.now();
            if now >= at {
                let end = match patience {
                    Patience::Drain if self.local.closing.is_said() => End::Drained,
                    _ => End::Refused(patience.sentence().into()),
                };
                return Poll::Ready(Some(end));
            }
            let sleep = self.local.io.sleep(Duration::from_nanos(at.0 - now.0));
            self.timer = Some((at, Box::pin(sleep)));
        }
        let (_, timer) = self.timer.as_mut().expect("just set");
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.timer = None;
                Poll::Ready(None)
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Patience {
    Idle,
    Frame,
    Reader,
    Drain,
}

impl Patience {
    fn sentence(self) -> &'static str {
        match self {
            Patience::Idle => "it was idle for connections.max.idle.ms",
            Patience::Frame => "a request had begun and did not come whole in time",
            Patience::Reader => "it did not read its answers for connections.max.idle.ms",
            Patience::Drain => "requests before a malformed one took too long",
        }
    }
}

/// A request on its way to its answer.
struct InFlight<I: Io> {
    state: State<I>,
    bytes: usize,
    watch: Watch<I>,
}

enum State<I: Io> {
    /// The permit is given back with the request, when its answer is there.
    Running(Answering<I>, #[allow(dead_code)] Permit),
    Done(Option<Answer<I>>),
}

impl<I: Io> Future for InFlight<I> {
    type Output = (Answer<I>, usize, Watch<I>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.state {
            State::Done(answer) => answer.take().expect("polled after its answer"),
            State::Running(answering, _) => match answering.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(answer) => {
                    self.watch.answered();
                    answer
                }
            },
        };
        self.state = State::Done(None);
        Poll::Ready((answer, self.bytes, std::mem::take(&mut self.watch)))
    }
}

#[cfg(test)]
mod tests;
