//! ZooKeeper's client protocol, as much of it as a load needs.
//!
//! ```text
//!   first:  | length | 0 | last zxid | timeout | session | password |        -->
//!           <--                    | length | 0 | timeout | session | password |
//!   then:   | length | xid i32 | type i32 | record |                         -->
//!           <--                    | length | xid | zxid i64 | err i32 | record |
//!   event:  <--                    | length | -1  | -1       | 0 | type | state | path |
//! ```
//!
//! A client library would be measured along with the server: requests are built once
//! as bytes, and only their xid and the digits of their path are written anew. All
//! integers are big-endian; see zookeeper.jute in ZooKeeper's tree.

use rustix::net::{AddressFamily, SocketType};
use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One answer; longer, and the server is hung.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The most that both servers grant, with ticks of 2 s.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(40);

/// Past any answer asked for here; a length beyond it is not ZooKeeper's protocol.
const FRAME_BYTES_MAX: usize = 64 << 20;

const XID_EVENT: i32 = -1;
const XID_PING: i32 = -2;

pub const NO_NODE: i32 = -101;
pub const NODE_EXISTS: i32 = -110;

/// Where the xid of a request is: after its length.
pub const XID_AT: usize = 4;

/// A request's kind, by its code on the wire.
#[derive(Clone, Copy)]
enum Op {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    GetChildren = 8,
    Ping = 11,
    Close = -11,
}

struct Record(Vec<u8>);

impl Record {
    fn new(op: Op) -> Record {
        Record(vec![0; 8]).int(op as i32)
    }

    fn int(mut self, value: i32) -> Record {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn bytes(self, bytes: &[u8]) -> Record {
        let length = i32::try_from(bytes.len()).expect("a load's own data is short");
        let mut record = self.int(length);
        record.0.extend_from_slice(bytes);
        record
    }

    fn bool(mut self, value: bool) -> Record {
        self.0.push(value.into());
        self
    }

    /// Its length in front; the xid is written when it is sent.
    fn frame(mut self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() - 4).expect("a load's own request is short");
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

pub const PERSISTENT: i32 = 0;
pub const EPHEMERAL: i32 = 1;

/// Open to everybody, as Kafka without security creates its nodes.
pub fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    const ALL: i32 = 31;
    Record::new(Op::Create)
        .bytes(path.as_bytes())
        .bytes(data)
        .int(1)
        .int(ALL)
        .bytes(b"world")
        .bytes(b"anyone")
        .int(flags)
        .frame()
}

const ANY_VERSION: i32 = -1;

pub fn set(path: &str, data: &[u8]) -> Vec<u8> {
    Record::new(Op::SetData)
        .bytes(path.as_bytes())
        .bytes(data)
        .int(ANY_VERSION)
        .frame()
}

pub fn delete(path: &str) -> Vec<u8> {
    Record::new(Op::Delete)
        .bytes(path.as_bytes())
        .int(ANY_VERSION)
        .frame()
}

pub fn get(path: &str, watch: bool) -> Vec<u8> {
    Record::new(Op::GetData)
        .bytes(path.as_bytes())
        .bool(watch)
        .frame()
}

pub fn exists(path: &str, watch: bool) -> Vec<u8> {
    Record::new(Op::Exists)
        .bytes(path.as_bytes())
        .bool(watch)
        .frame()
}

pub fn children(path: &str) -> Vec<u8> {
    Record::new(Op::GetChildren)
        .bytes(path.as_bytes())
        .bool(false)
        .frame()
}

pub fn ping() -> Vec<u8> {
    let mut frame = Record::new(Op::Ping).frame();
    stamp(&mut frame, XID_PING);
    frame
}

pub fn close() -> Vec<u8> {
    Record::new(Op::Close).frame()
}

pub fn stamp(frame: &mut [u8], xid: i32) {
    frame[XID_AT..XID_AT + 4].copy_from_slice(&xid.to_be_bytes());
}

/// The first frame of a connection, for a new session.
pub fn connect(timeout: Duration) -> Vec<u8> {
    let timeout_ms = i32::try_from(timeout.as_millis()).expect("a session's timeout is short");
    Record(vec![0; 4])
        .int(0) // protocol version
        .int(0) // last zxid seen, i64
        .int(0)
        .int(timeout_ms)
        .int(0) // session id, i64
        .int(0)
        .bytes(&[0; 16]) // password
        .bool(false) // read only
        .frame()
}

/// The bytes of an answer to a connect, its length included: it has readOnly since it was sent.
pub const CONNECTED_BYTES: usize = 4 + 37;

/// The timeout granted, from the bytes of an answer to a connect.
pub fn granted(answer: &[u8; CONNECTED_BYTES]) -> Result<Duration> {
    let timeout_ms = int(answer, 8)?;
    match u64::try_from(timeout_ms) {
        Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(Error::other("the session is refused")),
    }
}

fn int(bytes: &[u8], at: usize) -> Result<i32> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(i32::from_be_bytes)
        .ok_or_else(|| Error::other(format!("an answer of {} bytes is too short", bytes.len())))
}

/// The error in an answer, from behind its xid: zxid, then err.
pub fn error_of(answer: &[u8]) -> Result<i32> {
    int(answer, 8)
}

/// The first frame in `bytes`, from behind its length, if all of it is there.
pub fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(int(bytes, 0).ok()?).ok()?;
    bytes.get(4..4_usize.checked_add(length)?)
}

/// The data in an answer to getData, from behind its length; None for an error.
pub fn data_of(answer: &[u8]) -> Option<&[u8]> {
    if error_of(answer.get(4..)?).ok()? != 0 {
        return None;
    }
    let length = usize::try_from(int(answer, 16).ok()?).unwrap_or(0); // -1: null
    answer.get(20..20_usize.checked_add(length)?)
}

/// A connection; with an address to come from, where one has not ports enough.
pub fn dial(server: SocketAddr, from: Ipv4Addr) -> Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if from != Ipv4Addr::LOCALHOST {
        rustix::net::bind(&socket, &SocketAddr::from((from, 0)))?;
    }
    rustix::net::connect(&socket, &server)?;
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok(socket)
}

/// A watch that fired, and when it was read.
pub struct Event {
    pub path: String,
    pub at: Instant,
}

/// An answer: its error (0 where there is none) and what follows.
pub struct Answer {
    pub error: i32,
    pub record: Vec<u8>,
}

/// One session over one connection, one request at a time: what comes before and
/// after a load, and what is timed by itself.
pub struct Session {
    socket: TcpStream,
    xid: i32,
    pub timeout: Duration,
    events: Vec<Event>,
}

impl Session {
    pub fn open(server: SocketAddr, timeout: Duration) -> Result<Session> {
        let mut socket = dial(server, Ipv4Addr::LOCALHOST)?;
        socket.write_all(&connect(timeout))?;
        let mut answer = [0; CONNECTED_BYTES];
        socket.read_exact(&mut answer)?;
        Ok(Session {
            socket,
            xid: 0,
            timeout: granted(&answer)?,
            events: Vec::new(),
        })
    }

    /// Whatever the answer says.
    pub fn ask(&mut self, request: Vec<u8>) -> Result<Answer> {
        self.begin(request)?;
        self.finish()
    }

    /// Sent, and not waited for.
    pub fn begin(&mut self, mut request: Vec<u8>) -> Result<()> {
        self.xid += 1;
        stamp(&mut request, self.xid);
        self.socket.write_all(&request)
    }

    /// The answer to what was begun.
    pub fn finish(&mut self) -> Result<Answer> {
        loop {
            let (xid, answer) = self.receive()?;
            if xid == self.xid {
                return Ok(answer);
            }
            if xid != XID_EVENT {
                return Err(Error::other(format!(
                    "the answer to request {xid} came where {} was due",
                    self.xid
                )));
            }
        }
    }

    /// An answer without an error.
    pub fn call(&mut self, request: Vec<u8>) -> Result<Vec<u8>> {
        match self.ask(request)? {
            Answer { error: 0, record } => Ok(record),
            Answer { error, .. } => Err(Error::other(format!("answered with error {error}"))),
        }
    }

    /// A node that may be there already.
    pub fn ensure(&mut self, path: &str) -> Result<()> {
        match self.ask(create(path, b"", PERSISTENT))?.error {
            0 | NODE_EXISTS => Ok(()),
            error => Err(Error::other(format!(
                "{path} can't be created: error {error}"
            ))),
        }
    }

    /// The next watch that fires, or has fired meanwhile.
    pub fn await_event(&mut self) -> Result<Event> {
        while self.events.is_empty() {
            let (xid, _) = self.receive()?;
            if xid != XID_EVENT {
                return Err(Error::other(format!("an answer to request {xid}, unasked")));
            }
        }
        Ok(self.events.remove(0))
    }

    /// As a client ends that means to: its ephemerals go at once.
    pub fn close(mut self) -> Result<()> {
        self.call(close()).map(drop)
    }

    /// For a load that goes on with it: the socket, and the xid to go on from.
    pub fn into_parts(self) -> (TcpStream, i32) {
        (self.socket, self.xid + 1)
    }

    fn receive(&mut self) -> Result<(i32, Answer)> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(Error::other)?;
        if length > FRAME_BYTES_MAX {
            return Err(Error::other(format!("an answer of {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload)?;
        let at = Instant::now();
        let xid = int(&payload, 0)?;
        let error = error_of(&payload[4..])?;
        let record = payload.split_off(16);
        if xid == XID_EVENT {
            // type, state, then the path.
            let path = record.get(12..).unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            self.events.push(Event { path, at });
        }
        Ok((xid, Answer { error, record }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_zookeepers_own_client_sends_it() {
        let mut frame = get("/a", true);
        stamp(&mut frame, 7);
        assert_eq!(
            frame,
            [
                0, 0, 0, 15, // length
                0, 0, 0, 7, // xid
                0, 0, 0, 4, // getData
                0, 0, 0, 2, b'/', b'a', // path
                1,    // watch
            ]
        );
        assert_eq!(connect(TIMEOUT_MAX).len(), 4 + 45);
    }

    #[test]
    fn data_is_taken_from_a_whole_answer() {
        let mut answer = 24_i32.to_be_bytes().to_vec();
        answer.extend([0; 16]); // xid, zxid, err
        answer.extend([0, 0, 0, 2, b'k', b'l', 9, 9]); // data, then the stat
        assert_eq!(whole(&answer).and_then(data_of), Some(&b"kl"[..]));
        assert_eq!(whole(&answer[..20]), None, "half an answer");
        answer[19] = 1; // err
        assert_eq!(whole(&answer).and_then(data_of), None);
    }

    #[test]
    fn a_refused_session_is_an_error() {
        let mut answer = [0; CONNECTED_BYTES];
        assert!(granted(&answer).is_err(), "timeout 0: expired or refused");
        answer[8..12].copy_from_slice(&4000_i32.to_be_bytes());
        assert_eq!(granted(&answer).unwrap(), Duration::from_secs(4));
    }
}
