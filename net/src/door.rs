//! A front door: takes connections in, counts them, and sees them out.
//!
//! ```text
//!   accept --> admission (all shards together: so many, and so many of one address)
//!     |            | place                     full: closed at once, with a line in the log
//!     |        connection task ---------> its end: the place is given back
//!     |
//!   Closing said: accept no more; connections answer what is in flight, then end
//! ```

use crate::kafka::closing::Closing;
use crate::socket::Accept;
use futures_util::future::{Either, select};
use klamm_engine::io::Io;
use klamm_engine::units::Nanos;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long accepting rests when the process has no descriptors (or the system no
/// memory) left. The clients wait in the listen queue meanwhile; trying without rest
/// would only burn the core that the other connections need.
const REST_WHEN_EXHAUSTED: Duration = Duration::from_millis(100);

/// A line in the log for the same trouble at most this often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Counts the connections of all shards: the limits are the broker's, not a shard's,
/// and the kernel does not spread connections evenly. A lock, because it is taken
/// twice in the life of a connection and never on the way of a request.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

struct Shared {
    settings: Settings,
    counts: Mutex<Counts>,
}

/// The limits, and what they are called where they can be raised.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub all_max: usize,
    pub all_name: &'static str,
    pub ip_max: usize,
    pub ip_name: &'static str,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// A connection's place. Dropped with it.
pub struct Ticket {
    admission: Admission,
    ip: IpAddr,
}

/// Which limit a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    All(usize),
    Ip(usize),
}

impl Admission {
    pub fn new(settings: Settings) -> Admission {
        Admission(Arc::new(Shared {
            settings,
            counts: Mutex::default(),
        }))
    }

    pub fn enter(&self, ip: IpAddr) -> Result<Ticket, Full> {
        let Settings {
            all_max, ip_max, ..
        } = self.0.settings;
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= all_max {
            return Err(Full::All(all_max));
        }
        let of_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if of_ip >= ip_max {
            return Err(Full::Ip(ip_max));
        }
        counts.all += 1;
        counts.by_ip.insert(ip, of_ip + 1);
        Ok(Ticket {
            admission: self.clone(),
            ip,
        })
    }

    pub fn connections(&self) -> usize {
        let counts = self.0.counts.lock();
        counts.unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let counts = self.admission.0.counts.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        match counts.by_ip.get_mut(&self.ip) {
            Some(1) => {
                counts.by_ip.remove(&self.ip);
            }
            Some(n) => *n -= 1,
            None => unreachable!("a ticket was given to {}", self.ip),
        }
    }
}

/// What a connection's task holds until its end.
pub struct Place {
    _ticket: Ticket,
    _one: One,
}

/// Takes connections from one listening socket until the shard is closing, then returns
/// once they are gone. `take` has each of them served; `refused` hears of the others.
pub async fn serve<I: Io, A: Accept>(
    io: &I,
    closing: &Closing,
    listener: A,
    admission: &Admission,
    mut take: impl FnMut(A::Socket, SocketAddr, Place),
    mut refused: impl FnMut(),
) {
    let open = Open::default();
    let mut quiet = Quiet::default();
    loop {
        let accepted = {
            let accept = pin!(listener.accept());
            let heard = pin!(closing.heard());
            match select(accept, heard).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(((), _)) => break,
            }
        };
        match accepted {
            Ok((socket, address)) => match admission.enter(address.ip()) {
                Ok(ticket) => {
                    let place = Place {
                        _ticket: ticket,
                        _one: open.one(),
                    };
                    take(socket, address, place);
                }
                Err(full) => {
                    refused();
                    if quiet.may_speak(io.now()) {
                        let settings = admission.0.settings;
                        let (name, max) = match full {
                            Full::All(max) => (settings.all_name, max),
                            Full::Ip(max) => (settings.ip_name, max),
                        };
                        log::warn!("{address} was refused: there are {max} connections ({name})");
                    }
                }
            },
            Err(e) if is_of_one_connection(&e) => {
                log::debug!("a connection was gone before it was accepted: {e}");
            }
            Err(e) => {
                if quiet.may_speak(io.now()) {
                    log::error!(
                        "connections can't be accepted for now: {e}; raise the limit of open \
                         files (ulimit -n), or lower {}",
                        admission.0.settings.all_name
                    );
                }
                io.sleep(REST_WHEN_EXHAUSTED).await;
            }
        }
    }
    drop(listener);
    open.none_left().await;
}

/// Whether accept failed for the connection that it would have returned, and not for
/// want of something that the next one will want too (`accept(2)`).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}

/// Keeps a flood of the same trouble from flooding the log.
#[derive(Default)]
struct Quiet(Option<Nanos>);

impl Quiet {
    fn may_speak(&mut self, now: Nanos) -> bool {
        if self.0.is_some_and(|until| now < until) {
            return false;
        }
        self.0 = Some(now.plus(LOG_PERIOD));
        true
    }
}

/// This door's connections, to be waited for.
#[derive(Clone, Default)]
struct Open(Rc<OpenCount>);

#[derive(Default)]
struct OpenCount {
    count: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

struct One(Open);

impl Open {
    fn one(&self) -> One {
        self.0.count.set(self.0.count.get() + 1);
        One(self.clone())
    }

    async fn none_left(&self) {
        std::future::poll_fn(|cx| {
            if self.0.count.get() == 0 {
                return Poll::Ready(());
            }
            *self.0.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let open = &self.0.0;
        open.count.set(open.count.get() - 1);
        if open.count.get() == 0
            && let Some(waker) = open.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let admission = Admission::new(Settings {
            all_max: 3,
            all_name: "max.connections",
            ip_max: 2,
            ip_name: "max.connections.per.ip",
        });
        let near: IpAddr = [127, 0, 0, 1].into();
        let far: IpAddr = [10, 0, 0, 1].into();
        let first = admission.enter(near).expect("room");
        let _second = admission.enter(near).expect("room");
        assert_eq!(admission.enter(near).err(), Some(Full::Ip(2)));
        let _third = admission.enter(far).expect("room");
        assert_eq!(admission.enter(far).err(), Some(Full::All(3)));
        drop(first);
        let _fourth = admission.enter(near).expect("the place given back");
        assert_eq!(admission.connections(), 3);
    }
}
