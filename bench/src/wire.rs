//! One connection on which requests are sent and answered one at a time.
//!
//! ```text
//!   | length i32 | key i16 | version i16 | correlation i32 | client id | body |  -->
//!   <--                             | length i32 | correlation i32 | body |
//! ```
//!
//! For what a client library would blur: the first answer of a broker that starts is
//! to be seen when it comes, not after a library's pause between two attempts.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One answer; longer, and the broker is hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// More than any answer asked for here; a length beyond it is not a Kafka broker's.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// A request as it goes over the wire, its length first.
pub fn encode<R: Request>(correlation: i32, version: i16, request: &R) -> Result<BytesMut> {
    let mut header = RequestHeader::default();
    header.request_api_key = R::KEY;
    header.request_api_version = version;
    header.correlation_id = correlation;
    header.client_id = Some(StrBytes::from_static_str("klamm-bench"));
    let mut frame = BytesMut::from(&[0; 4][..]);
    header
        .encode(&mut frame, R::header_version(version))
        .map_err(Error::other)?;
    request.encode(&mut frame, version).map_err(Error::other)?;
    let length = i32::try_from(frame.len() - 4).map_err(Error::other)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

pub struct Connection {
    socket: TcpStream,
    correlation: i32,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Connection> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Connection {
            socket,
            correlation: 0,
        })
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.correlation += 1;
        self.socket
            .write_all(&encode(self.correlation, version, request)?)?;

        let mut answer = self.receive()?;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(Error::other)?;
        if header.correlation_id != self.correlation {
            return Err(Error::other(format!(
                "the answer to request {} came where {} was due",
                header.correlation_id, self.correlation
            )));
        }
        R::Response::decode(&mut answer, version).map_err(Error::other)
    }

    fn receive(&mut self) -> Result<Bytes> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(Error::other)?;
        if length > FRAME_BYTES_MAX {
            return Err(Error::other(format!("an answer of {length} bytes")));
        }
        let mut frame = vec![0; length];
        self.socket.read_exact(&mut frame)?;
        Ok(frame.into())
    }
}
