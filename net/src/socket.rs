//! Sockets: accept on every shard, receive, send. The one file here that knows
//! glommio.
//!
//! ```text
//!   probe(address)          before the shards start: is the port free?
//!   Listener::bind          on one shard; fails where anybody listens
//!   Listener::join          on the others, SO_REUSEPORT: the kernel spreads connections
//!      | accept
//!   TcpSocket: Socket       recv -> spare room of a buffer     sendmsg <- many slices
//!                                                              sendfile <- a file's range
//! ```
//!
//! glommio's stream sends one slice at a time and wants initialised memory to receive
//! into. Both are done here on the descriptor itself, which is tried first anyway;
//! glommio is asked only to wake us when it would have blocked.

use bytes::BytesMut;
use futures_util::io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use klamm_engine::io::page_cache::CachedFile;
use socket2::{Domain, Socket as Socket2, Type};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A byte stream to a client, as a connection needs it. Dropping it closes it.
pub trait Socket {
    /// Appends what has come to `into`, within the room it has; at least a byte of it.
    /// 0: the client will send no more.
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// As `poll_recv`, into a buffer that is not this connection's own.
    fn poll_recv_into(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Sends from the front of the slices; returns how many bytes were taken.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// As `poll_send`, where a file follows at once: the kernel may keep what is too little
    /// for a packet of its own until then.
    fn poll_send_before_file(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, slices)
    }

    /// Sends from the front of a range of a file, which is best in the page cache; returns
    /// how many bytes were taken, 0 where the file ends before the range begins. Copies
    /// them, where the socket is not the kernel's.
    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &CachedFile,
        range: Range<u64>,
    ) -> Poll<io::Result<usize>> {
        let mut copied = vec![0; (range.end - range.start).min(COPIED_BYTES) as usize];
        let n = file.read(range.start, &mut copied)?;
        if n == 0 {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, &[IoSlice::new(&copied[..n])])
    }

    /// Tells the client that no more will be sent.
    fn close_write(&mut self) -> io::Result<()>;
}

const COPIED_BYTES: u64 = 16 << 10;

/// Where connections come from.
pub trait Accept {
    type Socket: Socket + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>>;
}

/// How connections to others are made.
pub trait Connect: 'static {
    type Socket: Socket + 'static;

    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Socket>>;
}

/// Finds out whether an address can be listened at, and which port 0 becomes. It fails
/// where anybody listens; what is left of a stopped broker's connections does not count.
pub fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    std::net::TcpListener::bind(address)?.local_addr()
}

/// How many connections the kernel keeps that were not accepted yet.
const BACKLOG: libc::c_int = 1024;

/// A shard's listening socket.
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// The first at its address: fails where anybody listens. Two brokers of one user that
    /// shared a port would each get a part of the other's clients, and neither would notice.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = listening(address, false)?;
        // Not before: a socket that shares from the beginning is let in beside any that does.
        socket.set_reuse_port(true)?;
        Ok(Listener::of(socket))
    }

    /// On another shard, at the address of one that was bound.
    pub fn join(address: SocketAddr) -> io::Result<Listener> {
        Ok(Listener::of(listening(address, true)?))
    }

    fn of(socket: Socket2) -> Listener {
        // SAFETY: the descriptor is open, and given up by `into_raw_fd`: the listener is its
        // only owner.
        let listener = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Listener { listener }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr().map_err(io::Error::from)
    }
}

fn listening(address: SocketAddr, shared: bool) -> io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
    // glommio's own bind leaves this out, and so fails for a minute after another
    // server was stopped that had connections at this port: an Apache ZooKeeper whose
    // place a coordinator takes.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

impl Accept for Listener {
    type Socket = TcpSocket;

    async fn accept(&self) -> io::Result<(TcpSocket, SocketAddr)> {
        let stream = self.listener.accept().await.map_err(io::Error::from)?;
        // All three fail only where the client has already gone.
        stream.set_nodelay(true).map_err(io::Error::from)?;
        // A client whose machine is gone says nothing: the kernel asks it now and then,
        // also while a long request of its keeps the connection from being idle.
        switch_on(&stream, libc::SO_KEEPALIVE)?;
        // A broker that stops closes first, so its connections wait out a minute in
        // TIME_WAIT (or for their clients to close) with the port in their name. Marked
        // so, they do not keep the next broker from it; glommio does not mark them.
        switch_on(&stream, libc::SO_REUSEADDR)?;
        let peer = stream.peer_addr().map_err(io::Error::from)?;
        let socket = TcpSocket {
            stream,
            awaits_bytes: false,
            never_waits: false,
        };
        Ok((socket, peer))
    }
}

/// Makes connections to others.
pub struct Connector;

impl Connect for Connector {
    type Socket = TcpSocket;

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let stream = TcpStream::connect(address).await.map_err(io::Error::from)?;
        stream.set_nodelay(true).map_err(io::Error::from)?;
        Ok(TcpSocket {
            stream,
            awaits_bytes: false,
            never_waits: false,
        })
    }
}

pub struct TcpSocket {
    stream: TcpStream,
    /// glommio watches the descriptor for us, or is to: it need not be tried before.
    awaits_bytes: bool,
    /// The descriptor was switched to answer that it would have to wait: sendfile has no
    /// flag for that.
    never_waits: bool,
}

/// What glommio reads into, or sends from, when bytes or room came between our try and its
/// own.
const BETWEEN_BYTES: usize = 512;

impl Socket for TcpSocket {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        if !self.awaits_bytes {
            let room = into.capacity() - into.len();
            match recv(&self.stream, into) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    // Less than there was room for was all: the next try is glommio's.
                    self.awaits_bytes = matches!(done, Ok(n) if n < room);
                    return Poll::Ready(done);
                }
            }
        }
        let mut between = [0; BETWEEN_BYTES];
        let room = between.len().min(into.capacity() - into.len());
        match Pin::new(&mut self.stream).poll_read(cx, &mut between[..room]) {
            Poll::Pending => {
                self.awaits_bytes = true;
                Poll::Pending
            }
            Poll::Ready(done) => {
                // After less than it has room for it watches already.
                self.awaits_bytes = matches!(done, Ok(n) if n < room);
                Poll::Ready(done.inspect(|n| into.extend_from_slice(&between[..*n])))
            }
        }
    }

    /// One call where bytes have come: glommio reads what fits, and where that was all
    /// begins to watch at once, so that the next try costs nothing.
    fn poll_recv_into(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        assert!(
            !into.is_empty(),
            "a receive without room looks like the end"
        );
        Pin::new(&mut self.stream).poll_read(cx, into)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_flagged(cx, slices, 0)
    }

    fn poll_send_before_file(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_flagged(cx, slices, libc::MSG_MORE)
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &CachedFile,
        range: Range<u64>,
    ) -> Poll<io::Result<usize>> {
        if !self.never_waits {
            never_wait(&self.stream)?;
            self.never_waits = true;
        }
        match sendfile(&self.stream, file, range.clone()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
        // glommio waits only with bytes in hand, and sends them itself if there is room by
        // now. Nearly always they are in the page cache, as they were to be sent from there.
        let mut between = [0; BETWEEN_BYTES];
        let n = ((range.end - range.start) as usize).min(BETWEEN_BYTES);
        let between = &mut between[..n];
        let n = match file.read_resident(range.start, between) {
            Some(n) => n,
            None => file.read(range.start, between)?,
        };
        if n == 0 {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.stream).poll_write(cx, &between[..n])
    }

    fn close_write(&mut self) -> io::Result<()> {
        shut_down_write(&self.stream)
    }
}

impl TcpSocket {
    fn poll_send_flagged(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        flags: libc::c_int,
    ) -> Poll<io::Result<usize>> {
        match send(&self.stream, slices, flags) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
        let first = slices.iter().find(|s| !s.is_empty());
        let first = first.expect("there is something to send");
        Pin::new(&mut self.stream).poll_write(cx, first)
    }
}

/// Closes the sending half.
fn shut_down_write(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, since `socket` is borrowed; shutdown takes no memory.
    match unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Switches on an option of the socket's own level.
fn switch_on(socket: &impl AsRawFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, since `socket` is borrowed; the pointer and length
    // are those of `on`, which setsockopt only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One receive into the spare room, without waiting.
fn recv(socket: &impl AsRawFd, into: &mut BytesMut) -> io::Result<usize> {
    let spare = into.spare_capacity_mut();
    assert!(
        !spare.is_empty(),
        "a receive without room looks like the end"
    );
    loop {
        // SAFETY: the descriptor is open, since `socket` is borrowed; the pointer and
        // length are those of memory that we hold exclusively, and recv only writes it.
        let n = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                spare.as_mut_ptr().cast(),
                spare.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(n) {
            Ok(n) => {
                // SAFETY: recv has initialised the first n bytes of the spare room.
                unsafe { into.set_len(into.len() + n) };
                return Ok(n);
            }
            Err(_) => {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    }
}

/// One send of many slices, without waiting.
fn send(socket: &impl AsRawFd, slices: &[IoSlice<'_>], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: all zero is a msghdr that names nothing.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice has the layout of iovec (std promises it on Unix); sendmsg does not write
    // through it.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len();
    loop {
        // SAFETY: the descriptor is open, since `socket` is borrowed; `message` points at
        // `slices`, which live until the call returns.
        let n = unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &message,
                flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    }
}

/// One send of a range of a file, without waiting for the socket, nor for the disk where
/// its pages are there. It has no flag against SIGPIPE, which Rust's runtime ignores.
fn sendfile(socket: &impl AsRawFd, file: &CachedFile, range: Range<u64>) -> io::Result<usize> {
    let from = libc::off_t::try_from(range.start).map_err(io::Error::other)?;
    loop {
        let mut at = from;
        // SAFETY: both descriptors are open, since their owners are borrowed; `at` lives
        // until the call returns.
        let n = unsafe {
            libc::sendfile(
                socket.as_raw_fd(),
                file.as_fd().as_raw_fd(),
                &raw mut at,
                (range.end - range.start) as usize,
            )
        };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    }
}

/// Sets O_NONBLOCK.
fn never_wait(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, since `socket` is borrowed; fcntl takes no memory
    // with these commands.
    let done = unsafe {
        let flags = libc::fcntl(socket.as_raw_fd(), libc::F_GETFL);
        flags != -1
            && libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) != -1
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::TcpStream as StdStream;

    /// Runs a shard's side on an executor, and a client on a thread of its own.
    fn meet<T: Send + 'static>(
        client: impl FnOnce(StdStream) -> T + Send + 'static,
        server: impl AsyncFnOnce(TcpSocket) + 'static,
    ) -> T {
        glommio::LocalExecutor::default().run(async move {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || client(StdStream::connect(address).unwrap()));
            let (socket, _) = listener.accept().await.unwrap();
            server(socket).await;
            client.join().unwrap()
        })
    }

    async fn recv_all(socket: &mut TcpSocket, len: usize) -> BytesMut {
        let mut all = BytesMut::new();
        while all.len() < len {
            all.reserve(4096);
            let n = poll_fn(|cx| socket.poll_recv(cx, &mut all)).await.unwrap();
            assert!(n > 0, "the end came early");
        }
        all
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 % 251) as u8).collect()
    }

    /// As after a restart: nobody listens any more, and the clients have not closed.
    #[test]
    fn a_port_is_free_when_only_closed_connections_are_left_of_a_broker() {
        glommio::LocalExecutor::default().run(async {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || StdStream::connect(address).unwrap());
            let (socket, _) = listener.accept().await.unwrap();
            let mut client = client.join().unwrap();
            let taken = probe(address).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse, "somebody listens");
            drop((socket, listener));
            assert_eq!(
                client.read(&mut [0; 1]).unwrap(),
                0,
                "the broker closed first"
            );
            assert_eq!(probe(address).unwrap(), address);
            drop(client);
            assert_eq!(probe(address).unwrap(), address);
        });
    }

    /// A server that is not ours and closed first leaves connections that wait out a minute.
    #[test]
    fn a_port_that_another_server_left_a_moment_ago_can_be_listened_at() {
        let other = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        // As every server does that wants to be started again.
        other.set_reuse_address(true).unwrap();
        other.bind(&any.into()).unwrap();
        other.listen(1).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        let mut client = StdStream::connect(address).unwrap();
        let (accepted, _) = other.accept().unwrap();
        drop((accepted, other));
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        drop(client);
        glommio::LocalExecutor::default().run(async move {
            Listener::bind(address).unwrap();
        });
    }

    #[test]
    fn what_is_sent_arrives_whole_both_ways_and_through_full_buffers() {
        // Far more than the kernel buffers, so both sides have to wait.
        const LEN: usize = 16 << 20;
        let came = meet(
            |mut client| {
                client.write_all(&pattern(LEN)).unwrap();
                let mut back = vec![0; LEN];
                client.read_exact(&mut back).unwrap();
                back
            },
            async |mut socket| {
                let all = recv_all(&mut socket, LEN).await;
                assert!(all[..] == pattern(LEN)[..]);
                let mut sent = 0;
                while sent < LEN {
                    // In many slices, some of them empty, as answers are.
                    let left = &all[sent..];
                    let slices: Vec<IoSlice<'_>> = left
                        .chunks(10_000)
                        .take(60)
                        .flat_map(|chunk| [IoSlice::new(&[]), IoSlice::new(chunk)])
                        .skip(1)
                        .collect();
                    sent += poll_fn(|cx| socket.poll_send(cx, &slices)).await.unwrap();
                }
            },
        );
        assert!(came == pattern(LEN));
    }

    #[test]
    fn the_clients_end_is_seen() {
        meet(
            |mut client| client.write_all(b"last words").unwrap(),
            async |mut socket| {
                let mut all = recv_all(&mut socket, 10).await;
                all.reserve(10);
                let end = poll_fn(|cx| socket.poll_recv(cx, &mut all)).await;
                assert_eq!(end.unwrap(), 0);
                assert_eq!(&all[..], b"last words");
            },
        );
    }

    #[test]
    fn shards_share_their_port_and_no_other_broker_does() {
        let address = probe("127.0.0.1:0".parse().unwrap()).unwrap();
        glommio::LocalExecutor::default().run(async move {
            let is_taken = |result: io::Result<_>| {
                let error = result.map(drop).expect_err("somebody listens");
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            };
            let first = Listener::bind(address).unwrap();
            is_taken(Listener::bind(address));
            let second = Listener::join(address).expect("of the same broker");
            is_taken(Listener::bind(address));
            assert!(probe(address).is_err());
            drop((first, second));
            Listener::bind(address).expect("nobody listens any more");
        });
    }

    /// Each gets connections: the kernel has them as one group.
    #[test]
    fn the_first_shard_gets_as_much_as_those_that_joined() {
        glommio::LocalExecutor::default().run(async move {
            let first = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = first.local_addr().unwrap();
            let second = Listener::join(address).unwrap();
            // By chance all come to one in 2^59 runs.
            let clients: Vec<_> = (0..60)
                .map(|_| StdStream::connect(address).unwrap())
                .collect();
            let (first, second) = join(first.accept(), second.accept()).await;
            assert!(first.is_ok() && second.is_ok());
            drop(clients);
        });
    }
}
