//! A connection that sends what it is told to, right or wrong.
//!
//! ```text
//!   frame:    | length i32 | bytes ...                      |
//!   request:  | length i32 | key i16 | version i16 | correlation i32 | client id | body |
//!   answer:   | length i32 | correlation i32 | (tags) | body |
//! ```
//!
//! [`Connection::call`] takes a request as the crate kafka-protocol has it, which is
//! not Klamm's code, on this side at least; [`Connection::send`] takes any bytes.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader};
use kafka_protocol::messages::{ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a broker may take over one answer before a test calls it hung.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub struct Connection {
    socket: TcpStream,
    correlation: i32,
    pub client_id: Option<String>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Connection> {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Connection {
            socket,
            correlation: 0,
            client_id: Some("klamm-tests".into()),
        })
    }

    /// Another end of the same connection.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    // -- bytes

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes)
    }

    /// The bytes, with their length before them.
    pub fn send_frame(&mut self, bytes: &[u8]) -> Result<()> {
        let length = i32::try_from(bytes.len()).expect("a frame of less than 2 GiB");
        self.send(&[&length.to_be_bytes(), bytes].concat())
    }

    /// One answer without its length.
    pub fn receive_frame(&mut self) -> Result<Bytes> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(Error::other)?;
        let mut frame = vec![0; length];
        self.socket.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// What the broker does next: [`Next::Closed`], [`Next::Bytes`], or nothing in time.
    pub fn next(&mut self, within: Duration) -> Next {
        self.socket
            .set_read_timeout(Some(within))
            .expect("set a timeout");
        let mut bytes = vec![0; 64 << 10];
        let next = match self.socket.read(&mut bytes) {
            Ok(0) => Next::Closed,
            Ok(n) => Next::Bytes(bytes[..n].to_vec()),
            Err(e) if is_timeout(&e) => Next::Nothing,
            // A close over bytes that were not read is a reset.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Next::Closed,
            Err(e) => panic!("reading from the broker: {e}"),
        };
        self.socket
            .set_read_timeout(Some(ANSWER_WITHIN))
            .expect("set a timeout");
        next
    }

    /// Asserts that the broker closes, and says nothing before it does.
    pub fn expect_close(&mut self) {
        assert_eq!(self.next(ANSWER_WITHIN), Next::Closed);
    }

    // -- messages

    /// Sends a request and waits for its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let correlation = self.send_request(version, request)?;
        self.receive::<R>(version, correlation)
    }

    /// Sends a request and does not wait; returns its correlation id.
    pub fn send_request<R: Request>(&mut self, version: i16, request: &R) -> Result<i32> {
        self.correlation += 1;
        let frame = encode(
            self.correlation,
            self.client_id.as_deref(),
            version,
            request,
        );
        self.send_frame(&frame)?;
        Ok(self.correlation)
    }

    pub fn receive<R: Request>(&mut self, version: i16, correlation: i32) -> Result<R::Response> {
        let mut frame = self.receive_frame()?;
        let header = R::Response::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header).map_err(Error::other)?;
        assert_eq!(header.correlation_id, correlation, "the answer's order");
        let response = R::Response::decode(&mut frame, version).map_err(Error::other)?;
        assert!(frame.is_empty(), "{} bytes behind the answer", frame.len());
        Ok(response)
    }

    pub fn api_versions(&mut self) -> Result<ApiVersionsResponse> {
        self.call(0, &ApiVersionsRequest::default())
    }
}

/// What [`Connection::next`] saw.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Closed,
    Bytes(Vec<u8>),
    Nothing,
}

/// A request's bytes, without the length before them.
pub fn encode<R: Request>(
    correlation: i32,
    client_id: Option<&str>,
    version: i16,
    request: &R,
) -> Vec<u8> {
    let mut header = RequestHeader::default();
    header.request_api_key = R::KEY;
    header.request_api_version = version;
    header.correlation_id = correlation;
    header.client_id = client_id.map(|id| StrBytes::from_string(id.to_owned()));
    let mut frame = BytesMut::new();
    header
        .encode(&mut frame, R::header_version(version))
        .expect("a header that can be encoded");
    request
        .encode(&mut frame, version)
        .expect("a request that has these fields at this version");
    frame.to_vec()
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
