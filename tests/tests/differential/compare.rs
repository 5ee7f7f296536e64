//! Equal but for ids, zxids and times.
//!
//! ```text
//!   zxid       the same order: left's and right's are paired where they stand at the
//!              same place, and the pairs never cross, so that equal is equal and
//!              later is later; 0 and -1 mean themselves
//!   session    paired at its creation
//!   time       not compared
//!   order      children, ephemerals, ACLs and identities are sets
//! ```

use klamm_tests::zookeeper::records::{Answer, Stat};
use klamm_tests::zookeeper::{Connected, Event, Message};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound::{Excluded, Unbounded};

/// What one side says or does.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    Connected(Connected),
    Message(Message),
    Ended,
    /// Nothing in time, or what is not the protocol.
    Wrong(String),
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Connected(c) => c.fmt(f),
            Outcome::Message(Message::Reply(r)) => {
                write!(
                    f,
                    "err {} {:?} zxid {:#x} xid {}",
                    r.err, r.answer, r.zxid, r.xid
                )
            }
            Outcome::Message(Message::Event(e)) => e.fmt(f),
            Outcome::Ended => write!(f, "connection closed"),
            Outcome::Wrong(what) => write!(f, "{what}"),
        }
    }
}

impl Outcome {
    pub fn event(&self) -> Option<&Event> {
        match self {
            Outcome::Message(Message::Event(event)) => Some(event),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Field {
    Same(String),
    Zxid(i64),
    Session(i64),
}

pub struct Pairs {
    zxids: BTreeMap<i64, i64>,
    sessions: HashMap<i64, i64>,
    /// Since 3.9 an event names the zxid of its change, before it was -1.
    event_zxids: bool,
}

impl Pairs {
    pub fn new(event_zxids: bool) -> Pairs {
        Pairs {
            zxids: BTreeMap::new(),
            sessions: HashMap::new(),
            event_zxids,
        }
    }

    pub fn session(&mut self, left: i64, right: i64) {
        self.sessions.insert(left, right);
    }

    /// What differs, if anything does.
    pub fn compare(&mut self, left: &[Outcome], right: &[Outcome]) -> Result<(), String> {
        for (at, (l, r)) in left.iter().zip(right).enumerate() {
            self.compare_one(l, r)
                .map_err(|why| format!("message {at}: {why}\n  left:  {l:?}\n  right: {r:?}"))?;
        }
        let shorter = left.len().min(right.len());
        if left.len() != right.len() {
            return Err(format!(
                "{} messages and {}; the rest on the left {:?}, on the right {:?}",
                left.len(),
                right.len(),
                &left[shorter..],
                &right[shorter..]
            ));
        }
        Ok(())
    }

    fn compare_one(&mut self, left: &Outcome, right: &Outcome) -> Result<(), String> {
        let (l, r) = (self.fields(left), self.fields(right));
        for (l, r) in l.iter().zip(&r) {
            match (l, r) {
                (Field::Same(l), Field::Same(r)) if l == r => {}
                (Field::Zxid(l), Field::Zxid(r)) => self.zxid(*l, *r)?,
                (Field::Session(0), Field::Session(0)) => {}
                (Field::Session(l), Field::Session(r)) if self.sessions.get(l) == Some(r) => {}
                _ => return Err(format!("{l:?} against {r:?}")),
            }
        }
        match l.len() == r.len() {
            true => Ok(()),
            false => Err(format!("{} fields against {}", l.len(), r.len())),
        }
    }

    fn zxid(&mut self, left: i64, right: i64) -> Result<(), String> {
        if left <= 0 || right <= 0 {
            return match left == right {
                true => Ok(()),
                false => Err(format!("zxid {left} against {right}")),
            };
        }
        match self.zxids.get(&left) {
            Some(&known) if known == right => return Ok(()),
            Some(known) => {
                return Err(format!(
                    "zxid {left:#x} against {right:#x}, where it was {known:#x} before"
                ));
            }
            None => {}
        }
        let below = self.zxids.range(..left).next_back();
        let above = self.zxids.range((Excluded(left), Unbounded)).next();
        if below.is_some_and(|(_, &b)| b >= right) || above.is_some_and(|(_, &a)| a <= right) {
            return Err(format!(
                "zxid {left:#x} against {right:#x} out of order: {below:x?} is below, {above:x?} above"
            ));
        }
        self.zxids.insert(left, right);
        Ok(())
    }

    fn fields(&self, outcome: &Outcome) -> Vec<Field> {
        let mut fields = Vec::new();
        let same = |text: String| Field::Same(text);
        match outcome {
            Outcome::Ended | Outcome::Wrong(_) => fields.push(same(format!("{outcome:?}"))),
            Outcome::Connected(c) => {
                // Who is refused gets a password of zeros; another is the server's secret.
                let password = match c.session {
                    0 => format!("{:?}", c.password),
                    _ => format!("{} bytes", c.password.len()),
                };
                fields.push(same(format!("version {}", c.version)));
                fields.push(same(format!("timeout {}", c.timeout_ms)));
                fields.push(same(format!("password {password}")));
                fields.push(same(format!("read only {:?}", c.read_only)));
                fields.push(Field::Session(c.session));
            }
            Outcome::Message(Message::Event(e)) => {
                fields.push(same(format!("event {} {} {}", e.kind, e.state, e.path)));
                if self.event_zxids {
                    fields.push(Field::Zxid(e.zxid));
                }
            }
            Outcome::Message(Message::Reply(r)) => {
                fields.push(same(format!("xid {} err {}", r.xid, r.err)));
                answer(&r.answer, &mut fields);
                fields.push(Field::Zxid(r.zxid));
            }
        }
        fields
    }
}

fn answer(of: &Answer, fields: &mut Vec<Field>) {
    let mut same = |text: String| fields.push(Field::Same(text));
    match of {
        Answer::None => same("no record".into()),
        Answer::Path(path) => same(format!("path {path}")),
        Answer::Number(n) => same(format!("number {n}")),
        Answer::Error(n) => same(format!("error {n}")),
        Answer::Bytes(bytes) => same(format!("bytes {bytes:?}")),
        Answer::Token(token) => same(format!("token {token:?}")),
        Answer::Clients(clients) => same(format!("clients {:?}", sorted(clients))),
        Answer::Children(names) => same(format!("children {:?}", sorted(names))),
        Answer::Children2(names, s) => {
            same(format!("children {:?}", sorted(names)));
            stat(s, fields);
        }
        Answer::Acl(acl, s) => {
            same(format!("acl {:?}", sorted(acl)));
            stat(s, fields);
        }
        Answer::Created(path, s) => {
            same(format!("path {path}"));
            stat(s, fields);
        }
        Answer::Data(data, s) => {
            same(match data.as_deref().map(str::from_utf8) {
                Some(Ok(text)) => format!("data {text:?}"),
                _ => format!("data {data:?}"),
            });
            stat(s, fields);
        }
        Answer::Stat(s) => stat(s, fields),
        Answer::Multi(entries) => {
            same(format!("{} entries", entries.len()));
            for (opcode, err, entry) in entries {
                fields.push(Field::Same(format!("entry {opcode} err {err}")));
                answer(entry, fields);
            }
        }
    }
}

fn stat(s: &Stat, fields: &mut Vec<Field>) {
    fields.push(Field::Same(format!(
        "version {} cversion {} aversion {} length {} children {}",
        s.version, s.cversion, s.aversion, s.data_length, s.num_children
    )));
    fields.push(Field::Session(s.ephemeral_owner));
    fields.extend([s.czxid, s.mzxid, s.pzxid].map(Field::Zxid));
}

fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items
}
