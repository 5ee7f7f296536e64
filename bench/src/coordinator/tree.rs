//! Loads on nodes that are numbered, in a parent for each lane.
//!
//! ```text
//!   /bench/03/00000017      lane 3's node 17, 100 bytes in it
//!   create  0, 1, 2, ...    set, get  0 .. created, in turn    delete  from the last to 0
//! ```
//!
//! A request is built once a lane; only its xid and its eight digits are written anew.

use crate::Outcome;
use crate::lanes::{Lanes, Load};
use crate::zookeeper::{self, EPHEMERAL, PERSISTENT, Session, TIMEOUT_MAX};
use std::net::SocketAddr;

pub const DATA: [u8; 100] = [b'k'; 100];
const DIGITS: usize = 8;

/// Where a path begins in a request: behind length, xid, type and its own length.
const PATH_AT: usize = 16;

/// zxid, err, the data with its length, and a stat.
const GOT_BYTES: usize = 8 + 4 + 4 + DATA.len() + 68;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create,
    CreateEphemeral,
    Set,
    Get,
    Delete,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Op::Create => "create",
            Op::CreateEphemeral => "create ephemeral",
            Op::Set => "set",
            Op::Get => "get",
            Op::Delete => "delete",
        }
    }

    fn request(self, path: &str) -> Vec<u8> {
        match self {
            Op::Create => zookeeper::create(path, &DATA, PERSISTENT),
            Op::CreateEphemeral => zookeeper::create(path, &DATA, EPHEMERAL),
            Op::Set => zookeeper::set(path, &DATA),
            Op::Get => zookeeper::get(path, false),
            Op::Delete => zookeeper::delete(path),
        }
    }
}

/// A session a lane, and how many nodes each has in its parent.
pub struct Tree {
    pub lanes: Lanes,
    created: Vec<u32>,
}

impl Tree {
    pub fn open(address: SocketAddr, lanes: usize) -> Outcome<Tree> {
        let mut sessions = Vec::new();
        for lane in 0..lanes {
            let mut session =
                Session::open(address, TIMEOUT_MAX).map_err(super::failed("connect"))?;
            for path in ["/bench".to_owned(), parent(lane)] {
                session.ensure(&path).map_err(super::failed("create"))?;
            }
            sessions.push(session.into_parts());
        }
        Ok(Tree {
            lanes: Lanes::over(sessions)?,
            created: vec![0; lanes],
        })
    }

    pub fn load(&mut self, op: Op) -> (&mut Lanes, Numbered<'_>) {
        let request = |lane| op.request(&format!("{}/{:0DIGITS$}", parent(lane), 0));
        let load = Numbered {
            op,
            requests: (0..self.lanes.len()).map(request).collect(),
            next: vec![0; self.created.len()],
            created: &mut self.created,
        };
        (&mut self.lanes, load)
    }

    /// Whatever is left of a load.
    pub fn empty(&mut self, outstanding: usize) -> Outcome {
        let (lanes, mut load) = self.load(Op::Delete);
        lanes.run(outstanding, None, &mut load).map(drop)
    }

    pub fn close(mut self) -> Outcome {
        let lanes = self.lanes.len();
        self.lanes
            .run(1, None, &mut OnceEach::new(zookeeper::close(), lanes))
            .map(drop)
    }
}

fn parent(lane: usize) -> String {
    format!("/bench/{lane:02}")
}

pub struct Numbered<'a> {
    op: Op,
    requests: Vec<Vec<u8>>,
    next: Vec<u32>,
    created: &'a mut [u32],
}

impl Load for Numbered<'_> {
    fn request(&mut self, lane: usize, number: i32, to: &mut Vec<u8>) -> bool {
        let (created, next) = (&mut self.created[lane], &mut self.next[lane]);
        let node = match self.op {
            Op::Create | Op::CreateEphemeral => {
                *created += 1;
                *created - 1
            }
            Op::Set | Op::Get => {
                if *next == *created {
                    *next = 0;
                }
                *next += 1;
                *next - 1
            }
            Op::Delete if *created == 0 => return false,
            Op::Delete => {
                *created -= 1;
                *created
            }
        };
        let request = &mut self.requests[lane];
        zookeeper::stamp(request, number);
        let digits = PATH_AT + parent(0).len() + 1;
        put_digits(&mut request[digits..digits + DIGITS], node);
        to.extend_from_slice(request);
        true
    }

    fn answer(&mut self, _: usize, body: &[u8]) -> Outcome {
        expect_no_error(body)?;
        if self.op == Op::Get && body.len() != GOT_BYTES {
            return Err(format!(
                "get: an answer of {} bytes, where {GOT_BYTES} are due",
                body.len()
            ));
        }
        Ok(())
    }
}

pub fn put_digits(to: &mut [u8], mut number: u32) {
    for digit in to.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

pub fn expect_no_error(body: &[u8]) -> Outcome {
    match zookeeper::error_of(body) {
        Ok(0) => Ok(()),
        Ok(error) => Err(format!("a request is answered with error {error}")),
        Err(e) => Err(e.to_string()),
    }
}

/// The same request, once on every lane.
pub struct OnceEach {
    request: Vec<u8>,
    left: Vec<bool>,
}

impl OnceEach {
    pub fn new(request: Vec<u8>, lanes: usize) -> OnceEach {
        OnceEach {
            request,
            left: vec![true; lanes],
        }
    }
}

impl Load for OnceEach {
    fn request(&mut self, lane: usize, number: i32, to: &mut Vec<u8>) -> bool {
        let left = std::mem::take(&mut self.left[lane]);
        if left {
            zookeeper::stamp(&mut self.request, number);
            to.extend_from_slice(&self.request);
        }
        left
    }

    fn answer(&mut self, _: usize, body: &[u8]) -> Outcome {
        expect_no_error(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_are_those_of_the_path() {
        let mut created = [0, 3];
        let mut load = Numbered {
            op: Op::Delete,
            requests: vec![
                Op::Delete.request("/bench/00/00000000"),
                Op::Delete.request("/bench/01/00000000"),
            ],
            next: vec![0; 2],
            created: &mut created,
        };
        let mut sent = Vec::new();
        assert!(!load.request(0, 1, &mut sent), "lane 0 has no node");
        assert!(load.request(1, 9, &mut sent));
        let mut expected = zookeeper::delete("/bench/01/00000002");
        zookeeper::stamp(&mut expected, 9);
        assert_eq!(sent, expected);
    }
}
