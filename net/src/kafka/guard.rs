//! Walks a request before it is decoded: does everything that it claims to hold
//! fit in the bytes that there are?
//!
//! ```text
//!  | count i32 = 2^31-1 |  4 bytes left        ->  refused, nothing allocated
//!  | count i32 = 3 | element | element |       ->  refused: the third is not there
//! ```
//!
//! The decoder behind it takes an array's count at its word and reserves memory for
//! so many elements. After this walk each element has been seen, so what it reserves
//! is bounded by the frame, and by [`ELEMENTS_MAX`] where elements are small on the
//! wire and large in memory.

mod schema;

use bytes::{Buf, Bytes};

/// Array elements and tagged fields of one request, at all depths. 262,144 of
/// the largest element (about 150 bytes in memory) are 40 MiB; a fetch of 100,000
/// partitions is far below.
pub const ELEMENTS_MAX: usize = 1 << 18;

/// What a field is, as far as its length is concerned.
enum Kind {
    Fixed(usize),
    Str,
    /// Bytes with a 4-byte length where strings have one of 2.
    Raw,
    Array(&'static Kind),
    Struct(&'static [Field]),
    /// A string or array that may be null in later versions, and not in these: the
    /// decoder knows no such difference.
    Present(&'static Kind),
}

struct Field {
    name: &'static str,
    kind: Kind,
    from: i16,
    to: i16,
    /// Where it is one of the tagged fields.
    tag: Option<u32>,
}

impl Field {
    fn is_in(&self, version: i16) -> bool {
        (self.from..=self.to).contains(&version)
    }
}

/// Refuses a body whose lengths lie. The sentence says which field.
pub fn check(api_key: i16, flexible: bool, version: i16, body: &[u8]) -> Result<usize, String> {
    let fields = schema::request(api_key)
        .ok_or_else(|| format!("API {api_key} has no line in the guard"))?;
    let mut walk = Walk {
        left: body,
        version,
        flexible,
        elements: 0,
    };
    walk.fields(fields)?;
    Ok(body.len() - walk.left.len())
}

/// Skips the tagged fields at the end of a request header.
pub fn skip_tags(from: &mut Bytes) -> Result<(), String> {
    let mut walk = Walk {
        left: from,
        version: 0,
        flexible: true,
        elements: 0,
    };
    walk.tags(&[])?;
    let used = from.len() - walk.left.len();
    from.advance(used);
    Ok(())
}

struct Walk<'a> {
    left: &'a [u8],
    version: i16,
    /// Compact lengths and tagged fields.
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), String> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.kind(&field.kind, field.name)?;
            }
        }
        if self.flexible {
            self.tags(fields)?;
        }
        Ok(())
    }

    fn kind(&mut self, kind: &'static Kind, name: &'static str) -> Result<(), String> {
        match kind {
            Kind::Fixed(len) => self.skip(*len, name),
            Kind::Str | Kind::Raw => match self.length(matches!(kind, Kind::Str), name)? {
                Some(len) => self.skip(len, name),
                None => Ok(()),
            },
            Kind::Array(element) => {
                let Some(count) = self.length(false, name)? else {
                    return Ok(());
                };
                self.count(count, name)?;
                if let Kind::Fixed(len) = element {
                    // count is at most ELEMENTS_MAX, so this does not overflow.
                    return self.skip(count * len, name);
                }
                for _ in 0..count {
                    self.kind(element, name)?;
                }
                Ok(())
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Present(kind) => {
                let before = self.left;
                let length = self.length(matches!(kind, Kind::Str), name)?;
                if length.is_none() {
                    return Err(format!("{name} is null, in a version where it may not be"));
                }
                self.left = before;
                self.kind(kind, name)
            }
        }
    }

    /// Tagged fields: those that are known are walked, and must end where they say.
    fn tags(&mut self, fields: &'static [Field]) -> Result<(), String> {
        let count = self.varint("the count of tagged fields")? as usize;
        self.count(count, "tagged fields")?;
        let mut last = None;
        for _ in 0..count {
            let tag = self.varint("a tag")?;
            // Kafka's own reader demands ascending tags; two of a kind would be
            // decoded twice.
            if last.is_some_and(|last| tag <= last) {
                return Err(format!("tag {tag} is not above the one before it"));
            }
            last = Some(tag);
            let size = self.varint("a tagged field's size")? as usize;
            let known = fields
                .iter()
                .find(|f| f.tag == Some(tag) && f.is_in(self.version));
            match known {
                None => self.skip(size, "a tagged field")?,
                Some(field) => {
                    let before = self.left.len();
                    if size > before {
                        return Err(self.beyond(size, field.name));
                    }
                    self.kind(&field.kind, field.name)?;
                    let used = before - self.left.len();
                    if used != size {
                        return Err(format!(
                            "{} is said to have {size} bytes and has {used}",
                            field.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// The length of a string, bytes or array; None for null.
    fn length(&mut self, short: bool, name: &'static str) -> Result<Option<usize>, String> {
        if self.flexible {
            return Ok((self.varint(name)? as usize).checked_sub(1));
        }
        let length = if short {
            i32::from(self.left.try_get_i16().map_err(|_| self.beyond(2, name))?)
        } else {
            self.left.try_get_i32().map_err(|_| self.beyond(4, name))?
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length)
                .map(Some)
                .map_err(|_| format!("{name} has the length {length}")),
        }
    }

    fn count(&mut self, count: usize, name: &'static str) -> Result<(), String> {
        // An element has at least one byte (an empty compact string, a count of tags).
        if count > self.left.len() {
            return Err(format!(
                "{name} has {count} elements in {} bytes",
                self.left.len()
            ));
        }
        self.elements += count;
        if self.elements > ELEMENTS_MAX {
            return Err(format!(
                "{name} brings it to {} elements; {ELEMENTS_MAX} are allowed in a request",
                self.elements
            ));
        }
        Ok(())
    }

    fn skip(&mut self, len: usize, name: &'static str) -> Result<(), String> {
        match self.left.get(len..) {
            Some(rest) => {
                self.left = rest;
                Ok(())
            }
            None => Err(self.beyond(len, name)),
        }
    }

    fn varint(&mut self, name: &'static str) -> Result<u32, String> {
        let mut value = 0u32;
        for at in 0..5 {
            let Some((&byte, rest)) = self.left.split_first() else {
                return Err(self.beyond(1, name));
            };
            self.left = rest;
            if at == 4 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("{name} is a number of more than 32 bits"))
    }

    fn beyond(&self, len: usize, name: &str) -> String {
        format!("{name} needs {len} bytes, {} are left", self.left.len())
    }
}

#[cfg(test)]
mod tests;
