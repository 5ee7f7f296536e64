//! One TCP connection to one broker: frames, correlation, version negotiation.
//!
//! ```text
//!  send:  i32 length | request header (key, version, correlation, client id) | body
//!  recv:  i32 length | response header (correlation)                         | body
//! ```
//!
//! A connection opens with ApiVersions; every later request is sent in the highest
//! version that both sides know. Requests may be pipelined: a broker answers in
//! the order of the requests. After any error a connection is of no more use: what
//! is left in the stream is unknown.
//!
//! Caution: the protocol crate reserves memory for an array by the length that the
//! answer claims, before it looks at the elements. `FRAME_BYTES_MAX` bounds what is
//! read, not what a lying broker can make that reservation be; the command trusts
//! the brokers that it was pointed at that far.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes};

use super::error::{ClientError, Place, Result, api_name};
use crate::interrupt;

/// Above any answer we ask for: fetches are limited to 50 MiB, and a single batch
/// larger than that limit still comes whole. The broker's own limit for requests
/// (`socket.request.max.bytes`) is 100 MiB; twice that leaves room.
pub const FRAME_BYTES_MAX: usize = 200 << 20;

/// The kernel wakes a waiting read this often, so that Ctrl-C is seen soon even
/// when the signal was delivered to another thread.
const WAKE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Options {
    pub client_id: String,
    pub timeout: Duration,
}

pub struct Connection {
    stream: TcpStream,
    broker: String,
    versions: HashMap<i16, (i16, i16)>,
    correlation_last: i32,
    client_id: StrBytes,
    timeout: Duration,
    /// After an error nobody knows where in the stream the next answer begins.
    in_doubt: bool,
}

/// A request that was sent and not yet answered.
#[derive(Clone, Copy, Debug)]
#[must_use = "an answer that nobody reads blocks the ones behind it"]
pub struct Ticket {
    correlation: i32,
    version: i16,
}

impl Ticket {
    pub fn version(self) -> i16 {
        self.version
    }
}

impl Connection {
    /// Connects, within the timeout, and agrees on versions.
    pub fn open(address: &str, broker: String, options: &Options) -> Result<Connection> {
        let unreachable = |source| ClientError::Unreachable {
            broker: broker.clone(),
            source,
        };
        let addresses: Vec<_> = address.to_socket_addrs().map_err(unreachable)?.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut found = None;
        for candidate in addresses {
            match TcpStream::connect_timeout(&candidate, options.timeout) {
                Ok(stream) => {
                    found = Some(stream);
                    break;
                }
                Err(e) => last = e,
            }
        }
        let stream = found.ok_or(last).map_err(unreachable)?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(WAKE)))
            .and_then(|()| stream.set_write_timeout(Some(options.timeout)))
            .map_err(unreachable)?;
        let mut connection = Connection {
            stream,
            broker,
            versions: HashMap::new(),
            correlation_last: 0,
            client_id: StrBytes::from_string(options.client_id.clone()),
            timeout: options.timeout,
            in_doubt: false,
        };
        connection.negotiate()?;
        Ok(connection)
    }

    /// True once a call failed below the level of error codes: then open another.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    pub fn broker(&self) -> &str {
        &self.broker
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub fn place(&self, key: i16) -> Place {
        Place {
            broker: self.broker.clone(),
            api: api_name(key),
        }
    }

    /// An error that the broker answered with.
    pub fn refused(
        &self,
        key: ApiKey,
        code: i16,
        subject: impl Into<String>,
        message: Option<&StrBytes>,
    ) -> ClientError {
        ClientError::Kafka {
            place: self.place(key as i16),
            code,
            subject: subject.into(),
            message: message.map(|m| m.to_string()),
        }
    }

    /// KIP-511: a broker that does not know our version answers in version 0 with
    /// UNSUPPORTED_VERSION and the range it has; then ask again within it. Version 3
    /// (2.4 and newer) is the first that says which client asks.
    fn negotiate(&mut self) -> Result<()> {
        let mut version = 3;
        for _ in 0..2 {
            let request = if version >= 3 {
                ApiVersionsRequest::default()
                    .with_client_software_name(StrBytes::from_static_str("klamm"))
                    .with_client_software_version(StrBytes::from_static_str(env!(
                        "CARGO_PKG_VERSION"
                    )))
            } else {
                ApiVersionsRequest::default()
            };
            let ticket = self.send(version, &request)?;
            let deadline = Instant::now() + self.timeout;
            let mut body = self.answer_body::<ApiVersionsRequest>(ticket, deadline)?;
            // The error code comes first in every version: look before deciding how
            // to read the rest.
            let code = match body.get(..2) {
                Some(b) => i16::from_be_bytes([b[0], b[1]]),
                None => return Err(self.malformed(ApiKey::ApiVersions as i16, "it is empty")),
            };
            let read_as = if code == 35 { 0 } else { version };
            let answer = ApiVersionsResponse::decode(&mut body, read_as)
                .map_err(|e| self.malformed(ApiKey::ApiVersions as i16, &e.to_string()))?;
            if code == 0 {
                self.versions = answer
                    .api_keys
                    .iter()
                    .map(|k| (k.api_key, (k.min_version, k.max_version)))
                    .collect();
                return Ok(());
            }
            if code != 35 {
                return Err(self.refused(ApiKey::ApiVersions, code, "ApiVersions", None));
            }
            // 2.0 and older list nothing here; version 0 works everywhere.
            version = answer
                .api_keys
                .iter()
                .find(|k| k.api_key == ApiKey::ApiVersions as i16)
                .map_or(0, |k| k.max_version.clamp(0, 2));
        }
        Err(self.malformed(
            ApiKey::ApiVersions as i16,
            "it refuses the version that it offered",
        ))
    }

    /// The highest version up to `cap` that both sides know.
    pub fn version_of<R: Request>(&self, cap: i16) -> Result<i16> {
        let ours = (
            <R as Message>::VERSIONS.min,
            <R as Message>::VERSIONS.max.min(cap),
        );
        let theirs = self.versions.get(&R::KEY).copied();
        if let Some((min, max)) = theirs {
            let version = max.min(ours.1);
            if version >= min.max(ours.0) {
                return Ok(version);
            }
        }
        Err(ClientError::Unsupported {
            place: self.place(R::KEY),
            ours,
            theirs,
        })
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<Ticket> {
        self.correlation_last = self.correlation_last.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_last)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&[0; 4]);
        // What a person typed may be longer than the protocol's strings can be.
        let unsendable = |what: String| ClientError::Unsendable {
            place: self.place(R::KEY),
            what,
        };
        header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(|e| unsendable(e.to_string()))?;
        let length = i32::try_from(frame.len() - 4)
            .map_err(|_| unsendable(format!("it has {} bytes", frame.len() - 4)))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.write_frame(R::KEY, &frame)?;
        Ok(Ticket {
            correlation: self.correlation_last,
            version,
        })
    }

    fn write_frame(&mut self, key: i16, frame: &[u8]) -> Result<()> {
        self.stream.write_all(frame).map_err(|source| {
            self.in_doubt = true;
            if is_timeout(&source) {
                ClientError::TimedOut {
                    place: self.place(key),
                    after: self.timeout,
                }
            } else {
                ClientError::Lost {
                    place: self.place(key),
                    source,
                }
            }
        })
    }

    /// The answer to `ticket`, which must be the oldest one unanswered.
    pub fn receive<R: Request>(&mut self, ticket: Ticket, wait: Duration) -> Result<R::Response> {
        let answer = self
            .answer_body::<R>(ticket, Instant::now() + wait)
            .and_then(|mut body| {
                R::Response::decode(&mut body, ticket.version)
                    .map_err(|e| self.malformed(R::KEY, &e.to_string()))
            });
        self.in_doubt |= answer.is_err();
        answer
    }

    /// One request and its answer. `cap` is the highest version that the caller
    /// knows how to fill; `build` gets the version agreed on.
    pub fn call<R: Request>(
        &mut self,
        cap: i16,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response> {
        let version = self.version_of::<R>(cap)?;
        let ticket = self.send(version, &build(version))?;
        self.receive::<R>(ticket, self.timeout)
    }

    /// As `call`, for a request that the broker may hold for `hold` before it
    /// answers (a rebalance, an admin operation with its own timeout).
    pub fn call_held<R: Request>(
        &mut self,
        cap: i16,
        hold: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response> {
        let version = self.version_of::<R>(cap)?;
        let ticket = self.send(version, &build(version))?;
        self.receive::<R>(ticket, hold + self.timeout)
    }

    fn answer_body<R: Request>(&mut self, ticket: Ticket, deadline: Instant) -> Result<Bytes> {
        let mut frame = self.read_frame(R::KEY, deadline)?;
        // ApiVersions' answer has header version 0 whatever its own version.
        let header_version = if R::KEY == ApiKey::ApiVersions as i16 {
            0
        } else {
            <R::Response as HeaderVersion>::header_version(ticket.version)
        };
        let header = ResponseHeader::decode(&mut frame, header_version)
            .map_err(|e| self.malformed(R::KEY, &e.to_string()))?;
        if header.correlation_id != ticket.correlation {
            return Err(self.malformed(
                R::KEY,
                &format!(
                    "its correlation id is {}, {} was due",
                    header.correlation_id, ticket.correlation
                ),
            ));
        }
        Ok(frame)
    }

    fn read_frame(&mut self, key: i16, deadline: Instant) -> Result<Bytes> {
        let mut length = [0; 4];
        self.read_whole(key, &mut length, deadline)?;
        let length = i32::from_be_bytes(length);
        let bytes = usize::try_from(length)
            .ok()
            .filter(|n| (4..=FRAME_BYTES_MAX).contains(n))
            .ok_or_else(|| {
                self.malformed(
                    key,
                    &format!("its length is {length} (4 to {FRAME_BYTES_MAX} is possible)"),
                )
            })?;
        let mut frame = vec![0; bytes];
        self.read_whole(key, &mut frame, deadline)?;
        Ok(Bytes::from(frame))
    }

    fn read_whole(&mut self, key: i16, into: &mut [u8], deadline: Instant) -> Result<()> {
        let mut have = 0;
        while have < into.len() {
            match self.stream.read(&mut into[have..]) {
                Ok(0) => {
                    return Err(ClientError::Lost {
                        place: self.place(key),
                        source: io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the broker closed it",
                        ),
                    });
                }
                Ok(n) => have += n,
                Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::Interrupted => {
                    if interrupt::now() {
                        return Err(ClientError::Interrupted);
                    }
                    if Instant::now() >= deadline {
                        return Err(ClientError::TimedOut {
                            place: self.place(key),
                            after: self.timeout,
                        });
                    }
                }
                Err(source) => {
                    return Err(ClientError::Lost {
                        place: self.place(key),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    /// A second handle on the same socket, for a thread that only reads answers.
    pub fn reader(&self) -> Result<Connection> {
        let stream = self
            .stream
            .try_clone()
            .map_err(|source| ClientError::Unreachable {
                broker: self.broker.clone(),
                source,
            })?;
        Ok(Connection {
            stream,
            broker: self.broker.clone(),
            versions: self.versions.clone(),
            correlation_last: 0,
            client_id: self.client_id.clone(),
            timeout: self.timeout,
            in_doubt: false,
        })
    }

    /// Ends both directions, so that a thread in a read comes back.
    pub fn close(&self) {
        // It may be gone already; then there is nothing to end.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn malformed(&self, key: i16, what: &str) -> ClientError {
        ClientError::Malformed {
            place: self.place(key),
            what: what.trim_end().to_string(),
        }
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::MetadataRequest;
    use std::net::TcpListener;
    use std::thread;

    /// A broker that gives these answers, each after having read a request whole, and
    /// then keeps silent. An answer is what follows the correlation id, or with `raw`
    /// the very bytes.
    enum Answer {
        To(Vec<u8>),
        Raw(Vec<u8>),
    }

    fn broker(answers: Vec<Answer>) -> (String, thread::JoinHandle<Vec<i16>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut versions = Vec::new();
            for answer in answers {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).unwrap();
                versions.push(i16::from_be_bytes([request[2], request[3]]));
                let bytes = match answer {
                    Answer::Raw(bytes) => bytes,
                    Answer::To(body) => {
                        let length = (body.len() as u32 + 4).to_be_bytes();
                        [&length, &request[4..8], &body[..]].concat()
                    }
                };
                stream.write_all(&bytes).unwrap();
            }
            // Until the client goes.
            let _ = io::copy(&mut stream, &mut io::sink());
            versions
        });
        (address, served)
    }

    fn open(address: &str, timeout: Duration) -> Result<Connection> {
        let options = Options {
            client_id: "test".into(),
            timeout,
        };
        Connection::open(address, address.to_string(), &options)
    }

    /// Version 0: error code, then (key, min, max)*.
    fn api_versions_v0(code: i16, keys: &[(i16, i16, i16)]) -> Answer {
        let mut body = code.to_be_bytes().to_vec();
        body.extend((keys.len() as u32).to_be_bytes());
        for (key, min, max) in keys {
            body.extend([key, min, max].into_iter().flat_map(|n| n.to_be_bytes()));
        }
        Answer::To(body)
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn an_old_broker_is_asked_again_in_its_own_version() {
        let keys = [(18, 0, 0), (3, 0, 5)];
        let (address, served) = broker(vec![api_versions_v0(35, &keys), api_versions_v0(0, &keys)]);
        let connection = open(&address, SOON).unwrap();
        assert_eq!(connection.version_of::<MetadataRequest>(12).unwrap(), 5);
        assert_eq!(connection.version_of::<MetadataRequest>(4).unwrap(), 4);
        let e = connection.version_of::<JoinGroup>(9).unwrap_err();
        assert!(e.to_string().contains("does not offer JoinGroup"), "{e}");
        drop(connection);
        assert_eq!(served.join().unwrap(), [3, 0]);
    }

    use kafka_protocol::messages::JoinGroupRequest as JoinGroup;

    #[test]
    fn what_is_no_kafka_answer_is_said_to_be_none() {
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            // Lengths: negative, zero, 2 GiB.
            vec![0xff; 8],
            vec![0; 8],
            vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1],
            // Another request's correlation id.
            vec![0, 0, 0, 6, 0, 0, 0, 77, 0, 0],
            // No error code.
            vec![0, 0, 0, 4, 0, 0, 0, 1],
        ] {
            let (address, served) = broker(vec![Answer::Raw(bytes.clone())]);
            match open(&address, SOON) {
                Err(e @ ClientError::Malformed { .. }) => {
                    assert!(e.to_string().contains("ApiVersions"), "{e}");
                }
                other => panic!("{bytes:?}: {:?}", other.err()),
            }
            served.join().unwrap();
        }
    }

    #[test]
    fn a_silent_broker_is_waited_for_no_longer_than_asked() {
        let (address, served) = broker(Vec::new());
        match open(&address, Duration::from_millis(300)) {
            Err(ClientError::TimedOut { .. }) => {}
            other => panic!("{:?}", other.err()),
        }
        served.join().unwrap();
    }

    #[test]
    fn after_an_error_a_connection_is_in_doubt() {
        let (address, served) = broker(vec![
            api_versions_v0(35, &[]),
            api_versions_v0(0, &[(18, 0, 0), (3, 0, 1)]),
            Answer::Raw(vec![0, 0, 0, 5, 9, 9, 9, 9, 0]),
        ]);
        let mut connection = open(&address, SOON).unwrap();
        assert!(!connection.in_doubt());
        let answer = connection
            .call::<MetadataRequest>(12, |_| MetadataRequest::default().with_topics(None));
        assert!(matches!(answer, Err(ClientError::Malformed { .. })));
        assert!(connection.in_doubt());
        drop(connection);
        served.join().unwrap();
    }
}
