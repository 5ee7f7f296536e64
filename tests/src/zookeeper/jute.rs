//! Jute, ZooKeeper's encoding, written from its description and shared with nobody.
//!
//! ```text
//!   int, long: big-endian     boolean: one byte
//!   buffer, ustring: | length i32, -1 null | bytes |
//!   vector:          | count  i32, -1 null | items |
//! ```

use super::records::{Acl, Stat};
use std::io::{Error, ErrorKind, Result};

/// What goes out. Lengths are those of the bytes given; a test that wants a length to
/// lie writes it with [`Out::int`].
#[derive(Default)]
pub struct Out(pub Vec<u8>);

impl Out {
    pub fn int(&mut self, n: i32) -> &mut Out {
        self.0.extend(n.to_be_bytes());
        self
    }

    pub fn long(&mut self, n: i64) -> &mut Out {
        self.0.extend(n.to_be_bytes());
        self
    }

    pub fn boolean(&mut self, yes: bool) -> &mut Out {
        self.0.push(u8::from(yes));
        self
    }

    pub fn buffer(&mut self, bytes: Option<&[u8]>) -> &mut Out {
        match bytes {
            None => self.int(-1),
            Some(bytes) => {
                self.count(bytes.len());
                self.0.extend(bytes);
                self
            }
        }
    }

    pub fn text(&mut self, text: &str) -> &mut Out {
        self.buffer(Some(text.as_bytes()))
    }

    pub fn texts(&mut self, texts: &[String]) -> &mut Out {
        self.count(texts.len());
        for text in texts {
            self.text(text);
        }
        self
    }

    pub fn acl(&mut self, acl: Option<&[Acl]>) -> &mut Out {
        let Some(acl) = acl else {
            return self.int(-1);
        };
        self.count(acl.len());
        for entry in acl {
            self.int(entry.perms).text(&entry.scheme).text(&entry.id);
        }
        self
    }

    fn count(&mut self, n: usize) -> &mut Out {
        self.int(i32::try_from(n).expect("less than 2 GiB"))
    }
}

/// What came in, from the front; an answer that is too short is an error.
pub struct In<'a>(pub &'a [u8]);

impl<'a> In<'a> {
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (front, rest) = self
            .0
            .split_at_checked(n)
            .ok_or_else(|| wrong(format!("{n} bytes wanted, {} left", self.0.len())))?;
        self.0 = rest;
        Ok(front)
    }

    pub fn int(&mut self) -> Result<i32> {
        let bytes = self.take(4)?.try_into().expect("four bytes");
        Ok(i32::from_be_bytes(bytes))
    }

    pub fn long(&mut self) -> Result<i64> {
        let bytes = self.take(8)?.try_into().expect("eight bytes");
        Ok(i64::from_be_bytes(bytes))
    }

    pub fn boolean(&mut self) -> Result<bool> {
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(wrong(format!("a boolean of {other}"))),
        }
    }

    pub fn buffer(&mut self) -> Result<Option<Vec<u8>>> {
        match self.int()? {
            -1 => Ok(None),
            n => {
                let n = usize::try_from(n).map_err(|_| wrong(format!("a length of {n}")))?;
                Ok(Some(self.take(n)?.to_vec()))
            }
        }
    }

    pub fn text(&mut self) -> Result<String> {
        let bytes = self.buffer()?.ok_or_else(|| wrong("a null string"))?;
        String::from_utf8(bytes).map_err(|e| wrong(format!("a string that is not UTF-8: {e}")))
    }

    /// A vector, whatever its items; ZooKeeper's servers send no null one.
    pub fn vector<T>(&mut self, mut item: impl FnMut(&mut In<'a>) -> Result<T>) -> Result<Vec<T>> {
        let n = self.int()?;
        if n < 0 {
            return Err(wrong(format!("a vector of {n}")));
        }
        (0..n).map(|_| item(self)).collect()
    }

    pub fn acl(&mut self) -> Result<Vec<Acl>> {
        self.vector(|from| {
            Ok(Acl {
                perms: from.int()?,
                scheme: from.text()?,
                id: from.text()?,
            })
        })
    }

    pub fn stat(&mut self) -> Result<Stat> {
        Ok(Stat {
            czxid: self.long()?,
            mzxid: self.long()?,
            ctime: self.long()?,
            mtime: self.long()?,
            version: self.int()?,
            cversion: self.int()?,
            aversion: self.int()?,
            ephemeral_owner: self.long()?,
            data_length: self.int()?,
            num_children: self.int()?,
            pzxid: self.long()?,
        })
    }
}

pub(super) fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}
