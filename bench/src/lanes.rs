//! Connections on which requests are kept outstanding, from one thread.
//!
//! ```text
//!   lane 0  | request n+2 | n+1 | n |  -->   server        OUTSTANDING under way on each
//!   lane 1  | ...                      <--                 k answers read -> k requests written
//!     epoll says which to read; one read takes all that is there
//! ```
//!
//! Whatever has a length of four bytes in front and a number of four bytes behind it
//! that the answer repeats: ZooKeeper's xid, Kafka's correlation id once the caller has
//! put it where it belongs. Answers must come in the order of the requests. One thread
//! with few system calls, so that on a machine of two cores the client's is not what
//! is measured.

use crate::Outcome;
use crate::zookeeper::ANSWER_WITHIN;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Room for all the answers to 256 requests of 100 bytes, and then some.
const READ_BYTES: usize = 64 << 10;
const READY_MAX: usize = 1024;

/// What is asked on a lane, and what an answer must be.
pub trait Load {
    /// Appends the lane's next request, under this number; false when there is none left.
    fn request(&mut self, lane: usize, number: i32, to: &mut Vec<u8>) -> bool;

    /// The answer to the oldest request under way, from behind its number.
    fn answer(&mut self, lane: usize, body: &[u8]) -> Outcome;
}

pub struct Lanes {
    lanes: Vec<Lane>,
    epoll: OwnedFd,
    /// What is read goes here, whatever the lane: a thousand lanes in the processor's cache.
    inbound: Box<[u8]>,
}

struct Lane {
    socket: TcpStream,
    /// The front of a frame whose rest is to come.
    begun: Vec<u8>,
    outbound: Vec<u8>,
    /// The number of the next request, and of the next answer.
    next: i32,
    due: i32,
}

/// What one read brought.
#[derive(Default)]
struct Seen {
    answers: usize,
    events: usize,
}

impl Lanes {
    /// Over open connections, each with the number to go on from.
    pub fn over(connections: impl IntoIterator<Item = (TcpStream, i32)>) -> Outcome<Lanes> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let mut lanes: Vec<Lane> = Vec::new();
        for (socket, next) in connections {
            let token = EventData::new_u64(lanes.len() as u64);
            epoll::add(&epoll, &socket, token, EventFlags::IN | EventFlags::RDHUP)
                .map_err(|e| format!("epoll: {e}"))?;
            lanes.push(Lane {
                socket,
                begun: Vec::new(),
                outbound: Vec::new(),
                next,
                due: next,
            });
        }
        Ok(Lanes {
            lanes,
            epoll,
            inbound: vec![0; READ_BYTES].into(),
        })
    }

    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Keeps `outstanding` requests under way on each lane until then, or until the load
    /// has no more, and returns how many were answered: all.
    pub fn run(
        &mut self,
        outstanding: usize,
        until: Option<Instant>,
        load: &mut impl Load,
    ) -> Outcome<u64> {
        let mut under_way = 0;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            under_way += lane.send(index, outstanding, load)?;
        }
        let mut answered = 0;
        while under_way > 0 {
            let more = until.is_none_or(|until| Instant::now() < until);
            self.each_ready(|index, lane, inbound| {
                let seen = lane.receive(index, inbound, |body| load.answer(index, body))?;
                under_way -= seen.answers;
                answered += seen.answers as u64;
                if more {
                    under_way += lane.send(index, seen.answers, load)?;
                }
                Ok(())
            })?;
        }
        Ok(answered)
    }

    /// Watches that fire: returns when so many have been told, on whatever lanes.
    pub fn await_events(&mut self, count: usize) -> Outcome<Instant> {
        let mut seen = 0;
        while seen < count {
            self.each_ready(|index, lane, inbound| {
                let unasked = |_: &[u8]| Err("an answer that was not asked for".to_owned());
                seen += lane.receive(index, inbound, unasked)?.events;
                Ok(())
            })?;
        }
        Ok(Instant::now())
    }

    fn each_ready(
        &mut self,
        mut with: impl FnMut(usize, &mut Lane, &mut [u8]) -> Outcome,
    ) -> Outcome {
        // A read that waits says as much as epoll, for half the system calls.
        if let [lane] = &mut self.lanes[..] {
            return with(0, lane, &mut self.inbound);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(ANSWER_WITHIN.as_secs()).expect("a minute"),
            tv_nsec: 0,
        };
        let mut ready = Vec::with_capacity(READY_MAX.min(self.lanes.len()));
        let room = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.epoll, room, Some(&timeout)) {
            Ok(0) => return Err(format!("no answer within {ANSWER_WITHIN:?}")),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(format!("epoll: {e}")),
        }
        for event in ready {
            let index = usize::try_from(event.data.u64()).expect("a lane's index");
            let lane = &mut self.lanes[index];
            with(index, lane, &mut self.inbound)?;
            // Or it would be told of for ever; who writes to it next is told, too.
            let flags = event.flags;
            if flags.contains(EventFlags::RDHUP) && lane.due == lane.next {
                epoll::delete(&self.epoll, &lane.socket).map_err(|e| format!("epoll: {e}"))?;
            }
        }
        Ok(())
    }
}

impl Lane {
    /// Up to so many requests in one write; how many.
    fn send(&mut self, index: usize, count: usize, load: &mut impl Load) -> Outcome<usize> {
        self.outbound.clear();
        let mut sent = 0;
        while sent < count && load.request(index, self.next, &mut self.outbound) {
            self.next += 1;
            sent += 1;
        }
        if sent > 0 {
            self.socket
                .write_all(&self.outbound)
                .map_err(|e| format!("requests can't be sent: {e}"))?;
        }
        Ok(sent)
    }

    /// One read, and every frame that is whole then.
    fn receive(
        &mut self,
        index: usize,
        inbound: &mut [u8],
        mut answer: impl FnMut(&[u8]) -> Outcome,
    ) -> Outcome<Seen> {
        let begun = self.begun.len();
        inbound[..begun].copy_from_slice(&self.begun);
        let read = match self.socket.read(&mut inbound[begun..]) {
            // As a session ends that was asked to.
            Ok(0) if self.due == self.next => return Ok(Seen::default()),
            Ok(0) => return Err(format!("the server closed connection {index}")),
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return Err(format!("no answer within {ANSWER_WITHIN:?}"));
            }
            Err(e) => return Err(format!("answers can't be read: {e}")),
        };
        let inbound = &inbound[..begun + read];
        let (mut seen, mut at) = (Seen::default(), 0);
        while let Some((number, body, next)) = frame(inbound, at)? {
            if number == EVENT {
                seen.events += 1;
            } else if number == self.due {
                answer(body)?;
                self.due += 1;
                seen.answers += 1;
            } else {
                return Err(format!(
                    "the answer to request {number} came where {} was due",
                    self.due
                ));
            }
            at = next;
        }
        self.begun.clear();
        self.begun.extend_from_slice(&inbound[at..]);
        Ok(seen)
    }
}

/// ZooKeeper's number for what nobody asked; Kafka's correlation ids here are not negative.
const EVENT: i32 = -1;

/// The frame that begins at `at`, if all of it is there: its number, its body, its end.
fn frame(bytes: &[u8], at: usize) -> Outcome<Option<(i32, &[u8], usize)>> {
    let four = |at: usize| -> Option<i32> {
        let four = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(i32::from_be_bytes(four))
    };
    let Some(length) = four(at) else {
        return Ok(None);
    };
    let length = usize::try_from(length).ok();
    let Some(length) = length.filter(|length| (4..READ_BYTES - 4).contains(length)) else {
        return Err("an answer whose length is none that was asked for".to_owned());
    };
    let end = at + 4 + length;
    match (four(at + 4), bytes.get(at + 8..end)) {
        (Some(number), Some(body)) => Ok(Some((number, body, end))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    /// Counts up to `left` requests of eight bytes; answers must carry a 9.
    struct Nines {
        left: usize,
        answered: usize,
    }

    impl Load for Nines {
        fn request(&mut self, _: usize, number: i32, to: &mut Vec<u8>) -> bool {
            let more = self.left > 0;
            if more {
                self.left -= 1;
                to.extend_from_slice(&4_i32.to_be_bytes());
                to.extend_from_slice(&number.to_be_bytes());
            }
            more
        }

        fn answer(&mut self, _: usize, body: &[u8]) -> Outcome {
            self.answered += 1;
            (body == [9]).then_some(()).ok_or("not a 9".to_owned())
        }
    }

    /// Answers each request with a 9, in pieces that keep to no frame.
    fn nines(lanes: usize) -> Lanes {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let ours: Vec<_> = (0..lanes)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for _ in 0..lanes {
            let (mut socket, _) = listener.accept().unwrap();
            thread::spawn(move || {
                let mut request = [0; 8];
                while socket.read_exact(&mut request).is_ok() {
                    let [_, _, _, _, number @ ..] = request;
                    let answer = [&5_i32.to_be_bytes()[..], &number, &[9]].concat();
                    answer.chunks(5).for_each(|some| {
                        let _ = socket.write_all(some);
                    });
                }
            });
        }
        Lanes::over(ours.into_iter().map(|socket| (socket, 0))).unwrap()
    }

    #[test]
    fn every_request_of_every_lane_is_answered() {
        for lanes in [1, 3] {
            let mut load = Nines {
                left: 1000,
                answered: 0,
            };
            let answered = nines(lanes).run(16, None, &mut load).unwrap();
            assert_eq!((answered, load.answered, load.left), (1000, 1000, 0));
        }
    }

    #[test]
    fn a_length_that_is_none_is_refused() {
        assert!(frame(&(-1_i32).to_be_bytes(), 0).is_err());
        assert!(frame(&i32::MAX.to_be_bytes(), 0).is_err());
        assert!(frame(&[0, 0, 0, 8, 0, 0], 0).unwrap().is_none());
    }
}
