//! Requests and answers by type: one entry an opcode.
//!
//! ```text
//!   Request --encode--> | xid | opcode | fields |
//!                       | xid | zxid | err | record | --Answer::decode(opcode)-->
//! ```
//!
//! Nothing is checked on the way out: a wrong path, flag or version goes as it is.

use super::jute::{In, Out, wrong};
use std::io::Result;

pub const ALL: i32 = 31;
pub const READ: i32 = 1;

pub mod code {
    pub const OK: i32 = 0;
    pub const RUNTIME_INCONSISTENCY: i32 = -2;
    pub const MARSHALLING: i32 = -5;
    pub const UNIMPLEMENTED: i32 = -6;
    pub const BAD_ARGUMENTS: i32 = -8;
    pub const NO_NODE: i32 = -101;
    pub const NO_AUTH: i32 = -102;
    pub const BAD_VERSION: i32 = -103;
    pub const NODE_EXISTS: i32 = -110;
    pub const NOT_EMPTY: i32 = -111;
    pub const INVALID_ACL: i32 = -114;
    pub const AUTH_FAILED: i32 = -115;
    pub const NO_WATCHER: i32 = -121;
}

pub mod flags {
    pub const PERSISTENT: i32 = 0;
    pub const EPHEMERAL: i32 = 1;
    pub const SEQUENTIAL: i32 = 2;
    pub const CONTAINER: i32 = 4;
    pub const TTL: i32 = 5;
    pub const TTL_SEQUENTIAL: i32 = 6;
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    pub perms: i32,
    pub scheme: String,
    pub id: String,
}

impl Acl {
    pub fn new(perms: i32, scheme: &str, id: &str) -> Acl {
        let (scheme, id) = (scheme.into(), id.into());
        Acl { perms, scheme, id }
    }

    /// What nearly every client gives.
    pub fn open() -> Vec<Acl> {
        vec![Acl::new(ALL, "world", "anyone")]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub czxid: i64,
    pub mzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    pub path: String,
    pub data: Option<Vec<u8>>,
    pub acl: Option<Vec<Acl>>,
    pub flags: i32,
}

impl Create {
    pub fn at(path: &str, data: &[u8], flags: i32) -> Create {
        Create {
            path: path.into(),
            data: Some(data.to_vec()),
            acl: Some(Acl::open()),
            flags,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watches {
    pub relative_zxid: i64,
    pub data: Vec<String>,
    pub exist: Vec<String>,
    pub child: Vec<String>,
    pub persistent: Vec<String>,
    pub recursive: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Create(Create),
    Create2(Create),
    CreateContainer(Create),
    CreateTtl(Create, i64),
    Delete(String, i32),
    Exists(String, bool),
    GetData(String, bool),
    SetData(String, Option<Vec<u8>>, i32),
    GetAcl(String),
    SetAcl(String, Option<Vec<Acl>>, i32),
    GetChildren(String, bool),
    GetChildren2(String, bool),
    Sync(String),
    Ping,
    Check(String, i32),
    Multi(Vec<Request>),
    MultiRead(Vec<Request>),
    /// joining, leaving, new members, current configuration's id
    Reconfig(Option<String>, Option<String>, Option<String>, i64),
    CheckWatches(String, i32),
    RemoveWatches(String, i32),
    Auth(String, Vec<u8>),
    SetWatches(Watches),
    SetWatches2(Watches),
    Sasl(Vec<u8>),
    GetEphemerals(String),
    GetAllChildrenNumber(String),
    AddWatch(String, i32),
    WhoAmI,
    CloseSession,
    /// Any opcode, any body.
    Raw(i32, Vec<u8>),
}

impl Request {
    pub fn create(path: &str, data: &[u8], flags: i32) -> Request {
        Request::Create(Create::at(path, data, flags))
    }

    pub fn set(path: &str, data: &[u8], version: i32) -> Request {
        Request::SetData(path.into(), Some(data.to_vec()), version)
    }

    pub fn opcode(&self) -> i32 {
        match self {
            Request::Create(_) => 1,
            Request::Delete(..) => 2,
            Request::Exists(..) => 3,
            Request::GetData(..) => 4,
            Request::SetData(..) => 5,
            Request::GetAcl(_) => 6,
            Request::SetAcl(..) => 7,
            Request::GetChildren(..) => 8,
            Request::Sync(_) => 9,
            Request::Ping => 11,
            Request::GetChildren2(..) => 12,
            Request::Check(..) => 13,
            Request::Multi(_) => 14,
            Request::Create2(_) => 15,
            Request::Reconfig(..) => 16,
            Request::CheckWatches(..) => 17,
            Request::RemoveWatches(..) => 18,
            Request::CreateContainer(_) => 19,
            Request::CreateTtl(..) => 21,
            Request::MultiRead(_) => 22,
            Request::Auth(..) => 100,
            Request::SetWatches(_) => 101,
            Request::Sasl(_) => 102,
            Request::GetEphemerals(_) => 103,
            Request::GetAllChildrenNumber(_) => 104,
            Request::SetWatches2(_) => 105,
            Request::AddWatch(..) => 106,
            Request::WhoAmI => 107,
            Request::CloseSession => -11,
            Request::Raw(opcode, _) => *opcode,
        }
    }

    /// The xid that ZooKeeper reserves for the request, where it does.
    pub fn reserved_xid(&self) -> Option<i32> {
        match self {
            Request::Ping => Some(-2),
            Request::Auth(..) => Some(-4),
            Request::SetWatches(_) | Request::SetWatches2(_) => Some(-8),
            _ => None,
        }
    }

    pub fn encode(&self, out: &mut Out) {
        match self {
            Request::Create(c) | Request::Create2(c) | Request::CreateContainer(c) => {
                create(out, c);
            }
            Request::CreateTtl(c, ttl_ms) => {
                create(out, c);
                out.long(*ttl_ms);
            }
            Request::Delete(path, n)
            | Request::Check(path, n)
            | Request::CheckWatches(path, n)
            | Request::RemoveWatches(path, n)
            | Request::AddWatch(path, n) => {
                out.text(path).int(*n);
            }
            Request::Exists(path, watch)
            | Request::GetData(path, watch)
            | Request::GetChildren(path, watch)
            | Request::GetChildren2(path, watch) => {
                out.text(path).boolean(*watch);
            }
            Request::SetData(path, data, version) => {
                out.text(path).buffer(data.as_deref()).int(*version);
            }
            Request::GetAcl(path)
            | Request::Sync(path)
            | Request::GetEphemerals(path)
            | Request::GetAllChildrenNumber(path) => {
                out.text(path);
            }
            Request::SetAcl(path, acl, version) => {
                out.text(path).acl(acl.as_deref()).int(*version);
            }
            Request::Ping | Request::WhoAmI | Request::CloseSession => {}
            Request::Multi(requests) | Request::MultiRead(requests) => {
                for request in requests {
                    out.int(request.opcode()).boolean(false).int(-1);
                    request.encode(out);
                }
                out.int(-1).boolean(true).int(-1);
            }
            Request::Reconfig(joining, leaving, members, config) => {
                for text in [joining, leaving, members] {
                    out.buffer(text.as_ref().map(|t| t.as_bytes()));
                }
                out.long(*config);
            }
            Request::Auth(scheme, credential) => {
                out.int(0).text(scheme).buffer(Some(credential));
            }
            Request::SetWatches(w) => {
                out.long(w.relative_zxid);
                out.texts(&w.data).texts(&w.exist).texts(&w.child);
            }
            Request::SetWatches2(w) => {
                out.long(w.relative_zxid);
                out.texts(&w.data).texts(&w.exist).texts(&w.child);
                out.texts(&w.persistent).texts(&w.recursive);
            }
            Request::Sasl(token) => {
                out.buffer(Some(token));
            }
            Request::Raw(_, body) => out.0.extend(body),
        }
    }

    pub fn body(&self) -> Vec<u8> {
        let mut out = Out::default();
        self.encode(&mut out);
        out.0
    }
}

fn create(out: &mut Out, c: &Create) {
    out.text(&c.path)
        .buffer(c.data.as_deref())
        .acl(c.acl.as_deref())
        .int(c.flags);
}

/// The record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    None,
    Path(String),
    Created(String, Stat),
    Stat(Stat),
    Data(Option<Vec<u8>>, Stat),
    Acl(Vec<Acl>, Stat),
    Children(Vec<String>),
    Children2(Vec<String>, Stat),
    Number(i32),
    /// In a multi, or addWatch's.
    Error(i32),
    /// Type and error of each header, with its record.
    Multi(Vec<(i32, i32, Answer)>),
    /// Scheme and user of each.
    Clients(Vec<(String, String)>),
    Token(Option<Vec<u8>>),
    /// To an opcode that is not in the table.
    Bytes(Vec<u8>),
}

impl Answer {
    /// The whole of `frame`'s rest. With an error there is no record, but for a multi's.
    pub fn decode(opcode: i32, err: i32, frame: &mut In<'_>) -> Result<Answer> {
        if err != 0 && frame.0.is_empty() {
            return Ok(Answer::None);
        }
        let answer = match opcode {
            14 | 22 => Answer::Multi(multi(frame)?),
            106 => Answer::Error(frame.int()?),
            104 => Answer::Number(frame.int()?),
            9 => Answer::Path(frame.text()?),
            6 => Answer::Acl(frame.acl()?, frame.stat()?),
            3 | 7 => Answer::Stat(frame.stat()?),
            103 => Answer::Children(frame.vector(In::text)?),
            107 => Answer::Clients(frame.vector(|f| Ok((f.text()?, f.text()?)))?),
            102 => Answer::Token(frame.buffer()?),
            16 => Answer::Data(frame.buffer()?, frame.stat()?),
            // -8 answers to setWatches; -11, ping and auth have a header only.
            11 | 17 | 18 | 100 | 101 | 105 | -11 => Answer::None,
            _ => one(opcode, frame)?,
        };
        if !frame.0.is_empty() {
            return Err(wrong(format!(
                "{} bytes behind {answer:?}, the answer to {opcode}",
                frame.0.len()
            )));
        }
        Ok(answer)
    }
}

/// What may stand in a multi as well.
fn one(opcode: i32, frame: &mut In<'_>) -> Result<Answer> {
    Ok(match opcode {
        1 => Answer::Path(frame.text()?),
        15 | 19 | 21 => Answer::Created(frame.text()?, frame.stat()?),
        2 | 13 => Answer::None,
        4 => Answer::Data(frame.buffer()?, frame.stat()?),
        5 => Answer::Stat(frame.stat()?),
        8 => Answer::Children(frame.vector(In::text)?),
        12 => Answer::Children2(frame.vector(In::text)?, frame.stat()?),
        -1 => Answer::Error(frame.int()?),
        _ => Answer::Bytes(frame.take(frame.0.len())?.to_vec()),
    })
}

fn multi(frame: &mut In<'_>) -> Result<Vec<(i32, i32, Answer)>> {
    let mut entries = Vec::new();
    loop {
        let (opcode, done, err) = (frame.int()?, frame.boolean()?, frame.int()?);
        if done {
            if (opcode, err) != (-1, -1) {
                return Err(wrong(format!("a multi's end of {opcode}, {err}")));
            }
            return Ok(entries);
        }
        entries.push((opcode, err, one(opcode, frame)?));
    }
}
