//! A socket for tests: two lists of bytes.
//!
//! ```text
//!   test --to_server--> Pipe --poll_recv--> connection
//!        <-to_client---      <--poll_send--
//! ```

use crate::socket::Socket;
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Poll, Waker};

#[derive(Default)]
pub struct Pipe {
    window: usize,
    pub to_server: RefCell<VecDeque<u8>>,
    pub to_client: RefCell<VecDeque<u8>>,
    /// The client sends no more.
    pub client_done: Cell<bool>,
    /// The connection has dropped its socket.
    pub server_done: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Pipe {
    /// Takes `window` bytes before the client reads.
    pub fn with_window(window: usize) -> Rc<Pipe> {
        Rc::new(Pipe {
            window,
            ..Pipe::default()
        })
    }

    pub fn changed(&self) {
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    pub fn wait(&self, cx: &std::task::Context<'_>) {
        self.wakers.borrow_mut().push(cx.waker().clone());
    }
}

pub struct PipeSocket(pub Rc<Pipe>);

impl Socket for PipeSocket {
    fn poll_recv(
        &mut self,
        cx: &mut std::task::Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut from = self.0.to_server.borrow_mut();
        if from.is_empty() {
            if self.0.client_done.get() {
                return Poll::Ready(Ok(0));
            }
            self.0.wait(cx);
            return Poll::Pending;
        }
        let room = into.capacity() - into.len();
        assert!(room > 0, "a receive without room");
        let n = room.min(from.len());
        into.extend(from.drain(..n));
        drop(from);
        self.0.changed();
        Poll::Ready(Ok(n))
    }

    fn poll_recv_into(
        &mut self,
        cx: &mut std::task::Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = BytesMut::with_capacity(into.len());
        self.poll_recv(cx, &mut buffer).map_ok(|n| {
            into[..n].copy_from_slice(&buffer);
            n
        })
    }

    fn close_write(&mut self) -> io::Result<()> {
        self.0.server_done.set(true);
        self.0.changed();
        Ok(())
    }

    fn poll_send(
        &mut self,
        cx: &mut std::task::Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut to = self.0.to_client.borrow_mut();
        let mut room = self.0.window - to.len();
        if room == 0 {
            self.0.wait(cx);
            return Poll::Pending;
        }
        let mut taken = 0;
        for slice in slices {
            let n = slice.len().min(room);
            to.extend(&slice[..n]);
            taken += n;
            room -= n;
        }
        drop(to);
        self.0.changed();
        Poll::Ready(Ok(taken))
    }
}

impl Drop for PipeSocket {
    fn drop(&mut self) {
        self.0.server_done.set(true);
        self.0.changed();
    }
}
