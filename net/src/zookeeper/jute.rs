//! Jute, the encoding of ZooKeeper's records: both ways, without copies on the way in.
//!
//! ```text
//!   int, long          big-endian                        i32, i64
//!   boolean            one byte, 0 is false              bool
//!   buffer, ustring    int32 length, bytes; -1 is null   Buf<'a>, Str<'a>
//!   vector             int32 count, items; -1 is null    List<T>
//!   record             its fields, end to end            what records.rs declares
//! ```
//!
//! What is read borrows from the received bytes. A length or count is believed only as
//! far as there are bytes behind it, so that nothing is allocated for a claim.

use klamm_coord::core::Zxid;
use klamm_coord::core::stat::{Acl, Perms, Stat};
use klamm_engine::units::TimestampMs;
use std::borrow::Cow;
use std::fmt;

/// A text, or null. Bytes that are no UTF-8 are replaced as Java replaces them, which
/// no valid path can hold.
pub type Str<'a> = Option<Cow<'a, str>>;

/// Bytes, or null.
pub type Buf<'a> = Option<&'a [u8]>;

/// Items, or null.
pub type List<T> = Option<Vec<T>>;

/// Bytes that are not what they should be: MARSHALLINGERROR, where it can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record ends before its fields do, or has a length below -1")
    }
}

impl std::error::Error for Malformed {}

/// What is left of a record.
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { left: bytes }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next field, of whatever type is wanted.
    pub fn take<T: Field<'a>>(&mut self) -> Result<T, Malformed> {
        T::get(self)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.left.split_at_checked(len).ok_or(Malformed)?;
        self.left = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.left.split_first_chunk().ok_or(Malformed)?;
        self.left = rest;
        Ok(*bytes)
    }
}

/// Something that a record can have as a field; records are fields too.
pub trait Field<'a>: Sized {
    /// The fewest bytes that it takes.
    const BYTES_MIN: usize;

    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed>;
    fn put(&self, to: &mut Vec<u8>);
}

impl Field<'_> for i32 {
    const BYTES_MIN: usize = 4;

    fn get(from: &mut Reader<'_>) -> Result<i32, Malformed> {
        from.array().map(i32::from_be_bytes)
    }

    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_be_bytes());
    }
}

impl Field<'_> for i64 {
    const BYTES_MIN: usize = 8;

    fn get(from: &mut Reader<'_>) -> Result<i64, Malformed> {
        from.array().map(i64::from_be_bytes)
    }

    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_be_bytes());
    }
}

impl Field<'_> for Zxid {
    const BYTES_MIN: usize = 8;

    fn get(from: &mut Reader<'_>) -> Result<Zxid, Malformed> {
        from.take().map(Zxid)
    }

    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
    }
}

impl Field<'_> for bool {
    const BYTES_MIN: usize = 1;

    fn get(from: &mut Reader<'_>) -> Result<bool, Malformed> {
        from.array::<1>().map(|[byte]| byte != 0)
    }

    fn put(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }
}

/// At the end of a record, where older peers do not have it.
impl Field<'_> for Option<bool> {
    const BYTES_MIN: usize = 0;

    fn get(from: &mut Reader<'_>) -> Result<Option<bool>, Malformed> {
        (!from.is_empty()).then(|| from.take()).transpose()
    }

    fn put(&self, to: &mut Vec<u8>) {
        if let Some(value) = self {
            value.put(to);
        }
    }
}

impl<'a> Field<'a> for Buf<'a> {
    const BYTES_MIN: usize = 4;

    fn get(from: &mut Reader<'a>) -> Result<Buf<'a>, Malformed> {
        match from.take::<i32>()? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len).map_err(|_| Malformed)?;
                from.bytes(len).map(Some)
            }
        }
    }

    fn put(&self, to: &mut Vec<u8>) {
        match self {
            None => (-1i32).put(to),
            Some(bytes) => {
                count(bytes.len()).put(to);
                to.extend_from_slice(bytes);
            }
        }
    }
}

impl<'a> Field<'a> for Str<'a> {
    const BYTES_MIN: usize = 4;

    fn get(from: &mut Reader<'a>) -> Result<Str<'a>, Malformed> {
        Ok(from.take::<Buf<'a>>()?.map(String::from_utf8_lossy))
    }

    fn put(&self, to: &mut Vec<u8>) {
        self.as_ref().map(|text| text.as_bytes()).put(to);
    }
}

impl<'a, T: Field<'a>> Field<'a> for List<T> {
    const BYTES_MIN: usize = 4;

    /// As ZooKeeper reads it: every count below -1 is no items.
    fn get(from: &mut Reader<'a>) -> Result<List<T>, Malformed> {
        let count = from.take::<i32>()?;
        if count == -1 {
            return Ok(None);
        }
        let count = usize::try_from(count).unwrap_or(0);
        if count > from.left() / T::BYTES_MIN {
            return Err(Malformed);
        }
        (0..count)
            .map(|_| from.take())
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn put(&self, to: &mut Vec<u8>) {
        match self {
            None => (-1i32).put(to),
            Some(items) => {
                count(items.len()).put(to);
                for item in items {
                    item.put(to);
                }
            }
        }
    }
}

impl Field<'_> for Stat {
    const BYTES_MIN: usize = 68;

    fn get(from: &mut Reader<'_>) -> Result<Stat, Malformed> {
        Ok(Stat {
            czxid: from.take()?,
            mzxid: from.take()?,
            ctime: TimestampMs(from.take()?),
            mtime: TimestampMs(from.take()?),
            version: from.take()?,
            cversion: from.take()?,
            aversion: from.take()?,
            ephemeral_owner: from.take()?,
            data_length: from.take()?,
            num_children: from.take()?,
            pzxid: from.take()?,
        })
    }

    fn put(&self, to: &mut Vec<u8>) {
        self.czxid.put(to);
        self.mzxid.put(to);
        self.ctime.0.put(to);
        self.mtime.0.put(to);
        self.version.put(to);
        self.cversion.put(to);
        self.aversion.put(to);
        self.ephemeral_owner.put(to);
        self.data_length.put(to);
        self.num_children.put(to);
        self.pzxid.put(to);
    }
}

/// A null scheme or id becomes the empty one, which is as invalid.
impl Field<'_> for Acl {
    const BYTES_MIN: usize = 12;

    fn get(from: &mut Reader<'_>) -> Result<Acl, Malformed> {
        let perms = Perms(from.take()?);
        let scheme = from.take::<Str<'_>>()?.unwrap_or_default();
        let id = from.take::<Str<'_>>()?.unwrap_or_default();
        Ok(Acl::new(perms, &scheme, &id))
    }

    fn put(&self, to: &mut Vec<u8>) {
        self.perms.0.put(to);
        put_str(&self.scheme, to);
        put_str(&self.id, to);
    }
}

/// A text that is not null.
pub fn put_str(text: &str, to: &mut Vec<u8>) {
    Some(text.as_bytes()).put(to);
}

/// A vector of texts of which nobody has a count yet.
pub fn put_strs<'s>(texts: impl Iterator<Item = &'s str>, to: &mut Vec<u8>) {
    let at = to.len();
    0i32.put(to);
    let mut n = 0;
    for text in texts {
        put_str(text, to);
        n += 1;
    }
    to[at..at + 4].copy_from_slice(&count(n).to_be_bytes());
}

fn count(n: usize) -> i32 {
    i32::try_from(n).expect("what is sent stays far below 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a, T: Field<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
        Reader::new(bytes).take()
    }

    #[test]
    fn what_is_claimed_must_be_there() {
        for bytes in [
            &[][..],
            &[0, 0, 0],
            &[0, 0, 0, 1],
            &[0x7f, 0xff, 0xff, 0xff, 1, 2],
            &[0xff, 0xff, 0xff, 0xfe],
        ] {
            assert_eq!(read::<Buf<'_>>(bytes), Err(Malformed), "{bytes:?}");
            assert_eq!(read::<Str<'_>>(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(
            read::<List<Acl>>(&[0x7f, 0xff, 0xff, 0xff, 1, 2]),
            Err(Malformed)
        );
        assert_eq!(
            read::<List<Str<'_>>>(&[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]),
            Err(Malformed)
        );
        assert_eq!(read::<bool>(&[]), Err(Malformed));
        assert_eq!(read::<Stat>(&[0; 67]), Err(Malformed));
    }

    #[test]
    fn nulls_and_empties_differ() {
        assert_eq!(read::<Buf<'_>>(&[0xff; 4]), Ok(None));
        assert_eq!(read::<Buf<'_>>(&[0; 4]), Ok(Some(&[][..])));
        assert_eq!(read::<List<Acl>>(&[0xff; 4]), Ok(None));
        assert_eq!(read::<List<Acl>>(&[0; 4]), Ok(Some(vec![])));
        assert_eq!(
            read::<List<Acl>>(&[0x80, 0, 0, 0]),
            Ok(Some(vec![])),
            "below -1"
        );
    }

    #[test]
    fn bytes_that_are_no_text_become_what_no_path_may_hold() {
        let path = read::<Str<'_>>(&[0, 0, 0, 3, b'/', 0xc3, 0x28]).unwrap();
        assert_eq!(path.as_deref(), Some("/\u{fffd}("));
    }

    #[test]
    fn a_vector_is_counted_while_it_is_written() {
        let mut bytes = vec![9];
        put_strs(["a", "bc"].into_iter(), &mut bytes);
        assert_eq!(
            bytes,
            [9, 0, 0, 0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 2, b'b', b'c']
        );
    }
}
