//! Reading Kafka's plain types from bytes that came from outside.
//!
//! ```text
//!   i16, i32, i64 big-endian     string: i16 length, then so many bytes; -1 is null
//! ```
//!
//! Nothing is allocated for what an answer claims to have: who asks for more than there
//! is gets [`Short`].

/// The bytes ended before the type did, or a length is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// What is left to be read.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        self.take(N).map(|bytes| bytes.try_into().expect("N bytes"))
    }

    pub fn i16(&mut self) -> Result<i16, Short> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Short> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Short> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn string(&mut self) -> Result<&'a [u8], Short> {
        self.nullable_string()?.ok_or(Short)
    }

    pub fn nullable_string(&mut self) -> Result<Option<&'a [u8]>, Short> {
        match self.i16()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Short)?;
                self.take(length).map(Some)
            }
        }
    }
}
