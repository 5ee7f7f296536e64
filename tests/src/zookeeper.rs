//! A session over ZooKeeper's protocol that sends what it is told to, right or wrong.
//!
//! ```text
//!   frame:    | length i32 | payload |
//!   connect:  | 0 | last zxid | timeout | id | password | read only? |
//!             | 0 | timeout | id | password | read only? |
//!   request:  | xid | opcode | record |
//!   answer:   | xid | zxid | err | record |        in the order of the requests
//!   event:    | -1  | zxid | 0   | type | state | path |
//! ```
//!
//! Nothing is shared with Klamm's own codec: a mistake made twice is not found.

pub mod jute;
pub mod records;

use jute::{In, Out, wrong};
use records::{Answer, Request};
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a server may take over one answer before a test calls it hung.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

const EVENT_XID: i32 = -1;

/// The first frame of a connection.
#[derive(Clone, Debug)]
pub struct Connect {
    pub version: i32,
    pub last_zxid: i64,
    pub timeout_ms: i32,
    pub session: i64,
    pub password: Option<Vec<u8>>,
    /// Old clients leave it out.
    pub read_only: Option<bool>,
}

impl Connect {
    pub fn new(timeout_ms: i32) -> Connect {
        Connect {
            version: 0,
            last_zxid: 0,
            timeout_ms,
            session: 0,
            password: Some(vec![0; 16]),
            read_only: Some(false),
        }
    }

    /// The same session again, over another connection.
    pub fn again(session: &Session) -> Connect {
        Connect {
            last_zxid: session.last_zxid,
            session: session.id,
            password: Some(session.password.clone()),
            ..Connect::new(session.timeout_ms)
        }
    }

    /// Without the length before it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::default();
        out.int(self.version)
            .long(self.last_zxid)
            .int(self.timeout_ms)
            .long(self.session)
            .buffer(self.password.as_deref());
        if let Some(read_only) = self.read_only {
            out.boolean(read_only);
        }
        out.0
    }
}

/// The answer to it. A session that is not there, or is another's, has timeout and id 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    pub version: i32,
    pub timeout_ms: i32,
    pub session: i64,
    pub password: Vec<u8>,
    pub read_only: Option<bool>,
}

impl Connected {
    fn decode(frame: &[u8]) -> Result<Connected> {
        let mut from = In(frame);
        let connected = Connected {
            version: from.int()?,
            timeout_ms: from.int()?,
            session: from.long()?,
            password: from.buffer()?.ok_or_else(|| wrong("a null password"))?,
            read_only: match from.0 {
                [] => None,
                _ => Some(from.boolean()?),
            },
        };
        match from.0 {
            [] => Ok(connected),
            rest => Err(wrong(format!("{} bytes behind {connected:?}", rest.len()))),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    pub err: i32,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub zxid: i64,
    pub kind: i32,
    pub state: i32,
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Reply(Reply),
    Event(Event),
}

/// A connection that may have no session yet.
pub struct Wire {
    socket: TcpStream,
    arrived: Vec<u8>,
    taken: usize,
}

impl Wire {
    pub fn open(address: SocketAddr) -> Result<Wire> {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Wire {
            socket,
            arrived: Vec::new(),
            taken: 0,
        })
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes)
    }

    /// The bytes, with their length before them.
    pub fn send_frame(&mut self, bytes: &[u8]) -> Result<()> {
        let length = i32::try_from(bytes.len()).expect("a frame of less than 2 GiB");
        self.send(&[&length.to_be_bytes(), bytes].concat())
    }

    /// One frame without its length; none if none is whole in time. The end of the
    /// stream is an error of kind [`ErrorKind::UnexpectedEof`].
    pub fn receive_frame(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        loop {
            let waiting = &self.arrived[self.taken..];
            if let Some((length, rest)) = waiting.split_first_chunk::<4>() {
                let length = i32::from_be_bytes(*length);
                let length =
                    usize::try_from(length).map_err(|_| wrong(format!("a frame of {length}")))?;
                if let Some(frame) = rest.get(..length) {
                    let frame = frame.to_vec();
                    self.taken += 4 + length;
                    return Ok(Some(frame));
                }
            }
            self.arrived.drain(..self.taken);
            self.taken = 0;
            if !self.read_more(deadline)? {
                return Ok(None);
            }
        }
    }

    /// All that the server says until it closes, or until `within` is over: then None.
    pub fn until_close(&mut self, within: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        loop {
            match self.read_more(deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(e) if is_end(&e) => return Ok(Some(self.arrived.split_off(self.taken))),
                Err(e) => return Err(e),
            }
        }
    }

    /// False at the deadline.
    fn read_more(&mut self, deadline: Instant) -> Result<bool> {
        let mut bytes = [0; 16 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A timeout of zero would mean none.
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed")),
                Ok(n) => {
                    self.arrived.extend(&bytes[..n]);
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends a connect request and takes the answer, also one that refuses.
    pub fn connect(&mut self, connect: &Connect) -> Result<Connected> {
        self.send_frame(&connect.encode())?;
        let frame = self.receive_frame(ANSWER_WITHIN)?;
        Connected::decode(&frame.ok_or_else(|| hung("connect"))?)
    }
}

/// The server ended the connection; a close over bytes that it did not read is a reset.
pub fn is_end(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// A session over a connection of its own.
pub struct Session {
    pub wire: Wire,
    pub id: i64,
    pub password: Vec<u8>,
    pub timeout_ms: i32,
    pub read_only: Option<bool>,
    /// The last that an answer has named: what a reconnect tells.
    pub last_zxid: i64,
    xid: i32,
    /// Xid and opcode of what is not answered.
    sent: VecDeque<(i32, i32)>,
}

impl Session {
    pub fn new(address: SocketAddr, timeout_ms: i32) -> Result<Session> {
        Session::open(address, &Connect::new(timeout_ms))
    }

    /// Refused by the server is an error of kind [`ErrorKind::PermissionDenied`].
    pub fn open(address: SocketAddr, connect: &Connect) -> Result<Session> {
        let mut wire = Wire::open(address)?;
        let answer = wire.connect(connect)?;
        if answer.session == 0 {
            let what = format!("no session: {answer:?}");
            return Err(Error::new(ErrorKind::PermissionDenied, what));
        }
        Ok(Session {
            wire,
            id: answer.session,
            password: answer.password,
            timeout_ms: answer.timeout_ms,
            read_only: answer.read_only,
            last_zxid: connect.last_zxid,
            xid: 0,
            sent: VecDeque::new(),
        })
    }

    /// How many requests are not answered.
    pub fn outstanding(&self) -> usize {
        self.sent.len()
    }

    /// Sends and does not wait; returns the xid.
    pub fn send(&mut self, request: &Request) -> Result<i32> {
        self.send_all(std::slice::from_ref(request))?;
        Ok(self.xid)
    }

    /// The same for several, in one write, so that they arrive together.
    pub fn send_all(&mut self, requests: &[Request]) -> Result<()> {
        let mut bytes = Vec::new();
        for request in requests {
            self.xid += 1;
            let xid = request.reserved_xid().unwrap_or(self.xid);
            let mut out = Out::default();
            out.int(xid).int(request.opcode());
            request.encode(&mut out);
            let length = i32::try_from(out.0.len()).expect("a frame of less than 2 GiB");
            bytes.extend(length.to_be_bytes());
            bytes.extend(out.0);
            self.sent.push_back((xid, request.opcode()));
        }
        self.wire.send(&bytes)
    }

    /// The next message, if one comes in time. That answers come in the order of their
    /// requests is checked here.
    pub fn receive_within(&mut self, within: Duration) -> Result<Option<Message>> {
        let Some(frame) = self.wire.receive_frame(within)? else {
            return Ok(None);
        };
        let mut from = In(&frame);
        let (xid, zxid, err) = (from.int()?, from.long()?, from.int()?);
        if xid == EVENT_XID {
            let (kind, state, path) = (from.int()?, from.int()?, from.text()?);
            if err != 0 || !from.0.is_empty() {
                return Err(wrong(format!("an event with error {err}: {frame:02x?}")));
            }
            return Ok(Some(Message::Event(Event {
                zxid,
                kind,
                state,
                path,
            })));
        }
        let (expected, opcode) = self
            .sent
            .pop_front()
            .ok_or_else(|| wrong(format!("an answer to nothing: {frame:02x?}")))?;
        if xid != expected {
            return Err(wrong(format!("answer {xid} where {expected} is next")));
        }
        let answer = Answer::decode(opcode, err, &mut from)?;
        self.last_zxid = self.last_zxid.max(zxid);
        Ok(Some(Message::Reply(Reply {
            xid,
            zxid,
            err,
            answer,
        })))
    }

    pub fn receive(&mut self) -> Result<Message> {
        let message = self.receive_within(ANSWER_WITHIN)?;
        message.ok_or_else(|| hung("a request"))
    }

    /// Sends one request, waits for its answer; events before it are lost.
    pub fn call(&mut self, request: &Request) -> Result<Reply> {
        self.send(request)?;
        loop {
            if let Message::Reply(reply) = self.receive()?
                && self.sent.is_empty()
            {
                return Ok(reply);
            }
        }
    }

    /// The next event; an answer before it is an error.
    pub fn event(&mut self, within: Duration) -> Result<Option<Event>> {
        match self.receive_within(within)? {
            None => Ok(None),
            Some(Message::Event(event)) => Ok(Some(event)),
            Some(Message::Reply(reply)) => Err(wrong(format!("{reply:?} for an event"))),
        }
    }
}

/// What a four-letter word answers.
pub fn four_letters(address: SocketAddr, word: &str) -> Result<String> {
    let mut wire = Wire::open(address)?;
    wire.send(word.as_bytes())?;
    let text = wire.until_close(ANSWER_WITHIN)?;
    let text = text.ok_or_else(|| hung(word))?;
    String::from_utf8(text).map_err(|e| wrong(e.to_string()))
}

fn hung(what: &str) -> Error {
    let what = format!("no answer to {what} within {ANSWER_WITHIN:?}");
    Error::new(ErrorKind::TimedOut, what)
}
