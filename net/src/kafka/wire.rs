//! Reads and writes what is not left to the crate: Produce's request, whose records
//! stay slices of the frame, and Fetch's answer, whose records are not copied.
//!
//! ```text
//!              plain             flexible (compact)
//!   string     len i16           len + 1 uvarint
//!   bytes      len i32           len + 1 uvarint
//!   array      count i32         count + 1 uvarint       null: -1, or 0
//!   tags       -                 count, then (tag, size, bytes)
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

/// A field that the bytes do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short(pub &'static str);

impl From<Short> for String {
    fn from(short: Short) -> String {
        format!("{} is cut short or not what it should be", short.0)
    }
}

/// Takes fields off the front of a body.
pub struct Reader {
    left: Bytes,
    flexible: bool,
}

impl Reader {
    pub fn new(body: Bytes, flexible: bool) -> Reader {
        Reader {
            left: body,
            flexible,
        }
    }

    pub fn left(&self) -> usize {
        self.left.len()
    }

    pub fn i16(&mut self, name: &'static str) -> Result<i16, Short> {
        self.left.try_get_i16().map_err(|_| Short(name))
    }

    pub fn i32(&mut self, name: &'static str) -> Result<i32, Short> {
        self.left.try_get_i32().map_err(|_| Short(name))
    }

    fn uvarint(&mut self, name: &'static str) -> Result<u32, Short> {
        let mut value = 0u32;
        for at in 0..5 {
            let byte = self.left.try_get_u8().map_err(|_| Short(name))?;
            if at == 4 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Short(name))
    }

    /// None for null.
    fn length(&mut self, short: bool, name: &'static str) -> Result<Option<usize>, Short> {
        if self.flexible {
            return Ok((self.uvarint(name)? as usize).checked_sub(1));
        }
        let len = if short {
            i32::from(self.i16(name)?)
        } else {
            self.i32(name)?
        };
        match len {
            -1 => Ok(None),
            _ => usize::try_from(len).map(Some).map_err(|_| Short(name)),
        }
    }

    fn take(&mut self, len: usize, name: &'static str) -> Result<Bytes, Short> {
        if len > self.left.len() {
            return Err(Short(name));
        }
        Ok(self.left.split_to(len))
    }

    pub fn nullable_string(&mut self, name: &'static str) -> Result<Option<StrBytes>, Short> {
        match self.length(true, name)? {
            None => Ok(None),
            Some(len) => StrBytes::from_utf8(self.take(len, name)?)
                .map(Some)
                .map_err(|_| Short(name)),
        }
    }

    pub fn string(&mut self, name: &'static str) -> Result<StrBytes, Short> {
        self.nullable_string(name)?.ok_or(Short(name))
    }

    pub fn nullable_bytes(&mut self, name: &'static str) -> Result<Option<Bytes>, Short> {
        match self.length(false, name)? {
            None => Ok(None),
            Some(len) => self.take(len, name).map(Some),
        }
    }

    /// A count of elements of at least `bytes_each`: refused where they can't be there.
    pub fn count(&mut self, bytes_each: usize, name: &'static str) -> Result<usize, Short> {
        let count = self.length(false, name)?.ok_or(Short(name))?;
        match count.checked_mul(bytes_each) {
            Some(bytes) if bytes <= self.left.len() => Ok(count),
            _ => Err(Short(name)),
        }
    }

    /// Skips the tagged fields: none is known where this is called.
    pub fn skip_tags(&mut self) -> Result<(), Short> {
        if !self.flexible {
            return Ok(());
        }
        let name = "tagged fields";
        for _ in 0..self.uvarint(name)? {
            self.uvarint(name)?;
            let size = self.uvarint(name)? as usize;
            self.take(size, name)?;
        }
        Ok(())
    }
}

/// Puts fields behind each other, in the plain or the flexible way.
pub struct Writer {
    pub to: BytesMut,
    flexible: bool,
}

impl Writer {
    pub fn new(flexible: bool) -> Writer {
        Writer {
            to: BytesMut::new(),
            flexible,
        }
    }

    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.to.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.to.put_u8(value as u8);
    }

    pub fn string(&mut self, text: &str) {
        if self.flexible {
            let len = u32::try_from(text.len()).expect("a string that came in a frame");
            self.uvarint(len + 1);
        } else {
            // What is written here was read from a request of the same version.
            let len = i16::try_from(text.len()).expect("a string of a plain version");
            self.to.put_i16(len);
        }
        self.to.put_slice(text.as_bytes());
    }

    /// The length of bytes, or the count of an array, whose content follows.
    pub fn length(&mut self, len: usize) {
        let len = i32::try_from(len).expect("it fits into a frame");
        if self.flexible {
            self.uvarint(len as u32 + 1);
        } else {
            self.to.put_i32(len);
        }
    }

    pub fn null(&mut self) {
        if self.flexible {
            self.to.put_u8(0);
        } else {
            self.to.put_i32(-1);
        }
    }

    pub fn no_tags(&mut self) {
        if self.flexible {
            self.to.put_u8(0);
        }
    }
}
