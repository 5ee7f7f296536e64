//! One client's connection.
//!
//! ```text
//!   socket --recv--> the shard's scratch --whole frames--> requests::serve --> outbox
//!      ^                    |                                  ^                 |
//!      |                    +-- a begun frame --> pending -----+                 |
//!      +------------------------------------------------------- send, what is committed
//! ```
//!
//! One task, one poll function. An idle one holds its socket, its waker and some counts,
//! and no buffer: 20,000 sessions are to cost little. No more is received while the
//! outbox is full, so that a client that does not read costs only itself.
//!
//! A connection that ends with a last answer is closed in two steps: nothing more is
//! sent, what still comes is thrown away until the client closes. Closed at once, bytes
//! that nobody has read would make the kernel take the last answer back.

use crate::socket::Socket;
use crate::zookeeper::frame;
use crate::zookeeper::front::{Client, Front, HangUp, Patience};
use crate::zookeeper::requests::{self, Next};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Receives in a row before others have their turn.
const RECEIVES_A_POLL: usize = 4;

/// Begun frames up to this size are never too much.
const PARTIAL_BYTES_FREE: usize = 64 << 10;

pub(super) struct Connection<S> {
    front: Rc<Front>,
    client: Rc<Client>,
    socket: S,
    /// A begun frame; or, where `is_full`, whatever has come.
    pending: Vec<u8>,
    /// The outbox was full: there may be whole frames in `pending`.
    is_full: bool,
    /// How many bytes are still to come of a frame that was refused for its length.
    to_pass_over: usize,
    ending: Ending,
}

enum Ending {
    Not,
    /// Once everything is sent.
    Sent(&'static str),
    /// Once the client closes.
    Closed(&'static str),
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed it.
    Client,
    Refused(&'static str),
    HungUp(HangUp),
    Socket(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Client => "the client closed it",
            End::Refused(why) => why,
            End::Socket(e) => return e.fmt(f),
            End::HungUp(HangUp::Late(Patience::Drain)) => "the broker is stopping",
            End::HungUp(HangUp::Session) => "its session ended, or is on another connection",
            End::HungUp(HangUp::Slow) => "it does not read the events that it watches for",
            End::HungUp(HangUp::Stopped) => "the coordinator has stopped",
            End::HungUp(HangUp::Late(Patience::Greeting)) => "no connect request came in time",
            End::HungUp(HangUp::Late(Patience::Frame)) => "a frame had begun and did not end",
            End::HungUp(HangUp::Late(Patience::Closing)) => "it was told to go",
        })
    }
}

impl<S: Socket> Connection<S> {
    pub fn new(front: Rc<Front>, address: SocketAddr, socket: S) -> Connection<S> {
        let client = front.enter(address);
        Connection {
            front,
            client,
            socket,
            pending: Vec::new(),
            is_full: false,
            to_pass_over: 0,
            ending: Ending::Not,
        }
    }

    /// Runs it to its end.
    pub async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        log::debug!("{}: {end}", self.client.address);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.client.wait(cx.waker());
        for _ in 0..RECEIVES_A_POLL {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what can be, receives what may be. False: what would be next is waited for.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if let Some(why) = self.client.hang_up.get() {
            return Err(End::HungUp(why));
        }
        self.send(cx)?;
        if self.front.closing.is_said() && matches!(self.ending, Ending::Not) {
            self.ending = Ending::Sent("the broker is stopping");
        }
        match self.ending {
            Ending::Not => {}
            Ending::Sent(why) => {
                if !self.client.outbox.borrow().is_empty() {
                    return Ok(false);
                }
                self.socket.close_write().map_err(End::Socket)?;
                self.ending = Ending::Closed(why);
                let time = self.front.limits.drain_time_max;
                self.client
                    .give_time(&self.front, Some((time, Patience::Closing)));
                return Ok(true);
            }
            Ending::Closed(why) => return self.throw_away(cx, why),
        }
        let moved = if self.is_full {
            self.go_on()?
        } else {
            self.receive(cx)?
        };
        if moved {
            self.send(cx)?;
        }
        Ok(moved)
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let mut outbox = self.client.outbox.borrow_mut();
            if outbox.ready().is_empty() {
                return Ok(());
            }
            match self.socket.poll_send(cx, &[IoSlice::new(outbox.ready())]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(e)) => return Err(End::Socket(e)),
                Poll::Ready(Ok(bytes)) => {
                    outbox.sent(&mut self.front.pool.borrow_mut(), bytes);
                    self.client.counts.last_sent.set(self.front.wall());
                }
            }
        }
    }

    /// What came while the outbox was full.
    fn go_on(&mut self) -> Result<bool, End> {
        if self.is_outbox_full() {
            return Ok(false);
        }
        self.is_full = false;
        let bytes = self.take_pending();
        self.feed(&bytes)?;
        Ok(true)
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.is_outbox_full() {
            // Reading stands because of us: a begun frame's clock does not run.
            self.is_full = true;
            self.mind_the_time(true);
            return Ok(false);
        }
        let mut scratch = self.front.take_scratch();
        let received = match self.socket.poll_recv_into(cx, &mut scratch) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(End::Client),
            Poll::Ready(Ok(bytes)) => self.feed(&scratch[..bytes]).map(|()| true),
            Poll::Ready(Err(e)) => Err(End::Socket(e)),
        };
        self.front.put_scratch(scratch);
        received
    }

    fn is_outbox_full(&self) -> bool {
        self.client.outbox.borrow().bytes() >= self.front.limits.outbox_bytes_max
    }

    /// Has the frames in what is pending and in `bytes` answered.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), End> {
        let bytes_max = self.front.limits.frame_bytes_max;
        let mut pending = self.take_pending();
        let mut rest = self.pass_over(bytes);
        let mut completed = false;
        // First what is missing to the begun frame, which is then answered alone.
        while !pending.is_empty() && !rest.is_empty() && self.may_go_on() {
            let missing = frame::missing(&pending, bytes_max).min(rest.len());
            pending.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            if frame::front(&pending, bytes_max) != frame::Front::Partial {
                let used = self.serve(&pending)?;
                pending.drain(..used);
                completed |= used > 0;
                rest = self.pass_over(rest);
            }
        }
        if pending.is_empty() && self.may_go_on() {
            let used = self.serve(rest)?;
            rest = &rest[used..];
            completed |= used > 0;
        }
        if matches!(self.ending, Ending::Not) {
            pending.extend_from_slice(rest);
            self.put_pending(pending)?;
        }
        self.mind_the_time(completed);
        Ok(())
    }

    /// What is left behind the rest of a frame that was refused for its length.
    fn pass_over<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let passed = self.to_pass_over.min(bytes.len());
        self.to_pass_over -= passed;
        &bytes[passed..]
    }

    fn may_go_on(&self) -> bool {
        !self.is_full && matches!(self.ending, Ending::Not)
    }

    fn serve(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let (used, next) = requests::serve(&self.front, &self.client, bytes);
        match next {
            Next::Receive => {}
            Next::Send => self.is_full = true,
            Next::PassOver(bytes) => self.to_pass_over = bytes,
            Next::Close(why) => self.ending = Ending::Sent(why),
            Next::Drop(why) => return Err(End::Refused(why)),
        }
        Ok(used)
    }

    fn take_pending(&mut self) -> Vec<u8> {
        let pending = std::mem::take(&mut self.pending);
        let all = &self.front.partial_bytes;
        all.set(all.get() - pending.len());
        pending
    }

    fn put_pending(&mut self, pending: Vec<u8>) -> Result<(), End> {
        let all = &self.front.partial_bytes;
        all.set(all.get() + pending.len());
        let is_much = pending.len() > PARTIAL_BYTES_FREE;
        if !pending.is_empty() {
            self.pending = pending;
        }
        if is_much && all.get() > self.front.limits.partial_bytes_max {
            return Err(End::Refused(
                "too many long requests of all clients have begun and not ended",
            ));
        }
        Ok(())
    }

    /// A begun frame must end in time; one that has ended gives the next its own.
    fn mind_the_time(&mut self, completed: bool) {
        let patience = self.client.patience();
        if self.client.session.get().is_none() || !matches!(self.ending, Ending::Not) {
            return;
        }
        let is_between = self.pending.is_empty() && self.to_pass_over == 0;
        let has_begun = !is_between && !self.is_full;
        let is_running = patience == Some(Patience::Frame);
        if has_begun && (completed || !is_running) {
            let time = self.front.limits.frame_time_max;
            self.client
                .give_time(&self.front, Some((time, Patience::Frame)));
        } else if !has_begun && is_running {
            self.client.give_time(&self.front, None);
        }
    }

    fn throw_away(&mut self, cx: &mut Context<'_>, why: &'static str) -> Result<bool, End> {
        let mut scratch = self.front.take_scratch();
        let received = self.socket.poll_recv_into(cx, &mut scratch);
        self.front.put_scratch(scratch);
        match received {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => Err(End::Refused(why)),
            Poll::Ready(Ok(_)) => Ok(true),
        }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        let all = &self.front.partial_bytes;
        all.set(all.get() - self.pending.len());
        self.front.leave(&self.client);
    }
}
