//! From exec on an empty folder until a get is answered, and who is left waiting.
//!
//! ```text
//!   exec ... refused, refused ... | connection | connection | ...   every 5 ms or more, from the first
//!                                   connect ------> session            that is accepted
//!                                   get / --------> data: the first one's time is the figure
//! ```
//!
//! A server that listens before it can answer lets its early clients wait for a timeout
//! of theirs: each connection that was accepted is followed until it is answered,
//! closed, or without an answer for 2 s.

use super::comparison::{Comparison, measure};
use super::contender::{Contender, Running};
use super::{Run, ms};
use crate::process::{Cpu, Memory};
use crate::report::Aim;
use crate::server::ASK_EVERY;
use crate::zookeeper::{self, CONNECTED_BYTES, TIMEOUT_MAX};
use crate::{Outcome, data_folder};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Often enough for 50 ms; a start that takes longer is taken to 2 %, so that it is not
/// the asking that it takes long for.
const CONNECT_EVERY: Duration = Duration::from_millis(5);
const PART: u32 = 50;

const UNANSWERED_AFTER: Duration = Duration::from_secs(2);
const START_WITHIN: Duration = Duration::from_secs(60);

const FIRST_ANSWER_MS_AIM: f64 = 50.0;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    // The first brings the binaries into memory: disks are not what is asked about.
    for repeat in 0..=run.args.repeats {
        for contender in run.contenders {
            let (start, resident_bytes) = once(run, contender)?;
            if repeat > 0 {
                add(to, contender, &start, resident_bytes);
            }
        }
    }
    Ok(())
}

fn add(to: &mut Comparison, contender: &Contender, start: &Start, resident_bytes: u64) {
    let who = contender.who();
    let answer = measure("start", "start, empty, to the first get", "ms");
    let answer = answer.aim(Aim::Under(FIRST_ANSWER_MS_AIM));
    to.add(who, &answer, ms(start.first_answer));
    let cpu = measure("start_cpu", "  server's CPU by then", "ms");
    to.add(who, &cpu, 1000.0 * start.cpu.total_s());
    let unanswered = measure("start_unanswered", "  connections left unanswered", "");
    let unanswered = unanswered.aim(Aim::Under(1.0));
    to.add(who, &unanswered, start.unanswered.into());
    let closed = measure("start_closed", "  connections closed instead", "");
    to.add(who, &closed, start.closed.into());
    let memory = measure("start_memory", "  memory resident", "MiB");
    to.add(who, &memory, super::mib(resident_bytes));
}

fn once(run: &Run, contender: &Contender) -> Outcome<(Start, u64)> {
    let folder = run.folder.join("start");
    let mut running = run.together.start(|| contender.start(&folder))?;
    let start = first_get(&mut running, "/", Then::FollowAll)?;
    let resident_bytes = Memory::of(running.server.pid())?.resident_bytes;
    running.stop()?;
    data_folder::remove(&folder)?;
    Ok((start, resident_bytes))
}

pub struct Start {
    pub first_answer: Duration,
    pub cpu: Cpu,
    /// Of the connections that were accepted by then.
    pub unanswered: u32,
    pub closed: u32,
    /// What the node holds, as getData answers it.
    pub data: Vec<u8>,
}

/// What comes after the first answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Return,
    FollowAll,
}

/// Asks a server that was just started for a node, over and over, by connections that
/// do not wait for each other.
pub fn first_get(running: &mut Running, path: &str, then: Then) -> Outcome<Start> {
    let began = running.server.began;
    let pid = running.server.pid();
    let mut connections: Vec<Connection> = Vec::new();
    let mut next = began;
    let mut first = None;
    loop {
        let now = Instant::now();
        if first.is_none() && now >= next {
            if let Some(connection) = Connection::open(running.address) {
                connections.push(connection);
                next = now + CONNECT_EVERY.max(began.elapsed() / PART);
            }
            running.server.check()?;
        }
        for connection in &mut connections {
            connection.poll(path);
            if first.is_none()
                && let State::Answered(data) = &connection.state
            {
                first = Some((began.elapsed(), Cpu::of(pid)?, data.clone()));
            }
        }
        let open = connections.iter().any(Connection::is_waiting);
        if first.is_some() && (then == Then::Return || !open) {
            break;
        }
        if first.is_none() && began.elapsed() > START_WITHIN {
            return Err(format!(
                "no answer within {START_WITHIN:?}\n{}",
                running.server.end_of_log()
            ));
        }
        thread::sleep(ASK_EVERY);
    }
    let count = |in_state: fn(&State) -> bool| {
        let those = connections.iter().filter(|c| in_state(&c.state)).count();
        u32::try_from(those).map_err(|e| e.to_string())
    };
    let (first_answer, cpu, data) = first.expect("the loop ends after the first answer");
    Ok(Start {
        first_answer,
        cpu,
        unanswered: count(|state| matches!(state, State::Connecting | State::Asking))?,
        closed: count(|state| matches!(state, State::Closed))?,
        data,
    })
}

#[derive(PartialEq, Eq)]
enum State {
    Connecting,
    Asking,
    Answered(Vec<u8>),
    Closed,
}

struct Connection {
    socket: TcpStream,
    accepted: Instant,
    state: State,
    answer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Option<Connection> {
        // Longer only where nobody accepts and the kernel's queue is full.
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok()?;
        let accepted = Instant::now();
        let begun = socket
            .set_nodelay(true)
            .and_then(|()| socket.write_all(&zookeeper::connect(TIMEOUT_MAX)))
            .and_then(|()| socket.set_nonblocking(true));
        Some(Connection {
            socket,
            accepted,
            state: begun.map_or(State::Closed, |()| State::Connecting),
            answer: Vec::new(),
        })
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Connecting | State::Asking)
            && self.accepted.elapsed() < UNANSWERED_AFTER
    }

    fn poll(&mut self, path: &str) {
        if !self.is_waiting() {
            return;
        }
        let mut bytes = [0; 1024];
        match self.socket.read(&mut bytes) {
            Ok(0) => self.state = State::Closed,
            Ok(read) => self.answer.extend_from_slice(&bytes[..read]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.state = State::Closed,
        }
        if self.state == State::Connecting && self.answer.len() >= CONNECTED_BYTES {
            let connected = self.answer.first_chunk().expect("just counted");
            let mut get = zookeeper::get(path, false);
            zookeeper::stamp(&mut get, 1);
            let asked = zookeeper::granted(connected).and_then(|_| self.socket.write_all(&get));
            self.state = asked.map_or(State::Closed, |()| State::Asking);
        }
        if self.state == State::Asking
            && let Some(got) = zookeeper::whole(&self.answer[CONNECTED_BYTES..])
        {
            self.state = match zookeeper::data_of(got) {
                Some(data) => State::Answered(data.to_vec()),
                None => State::Closed,
            };
        }
    }
}
