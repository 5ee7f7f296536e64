//! Small text files that carry their own checksum, as a last line.
//!
//! ```text
//!   version: 0
//!   offset: 4711
//!   crc32: 9ae0daaf          CRC-32 (ISO-HDLC) of all bytes before this line
//! ```
//!
//! For what a person should be able to read, and a flipped bit must not change: a log
//! start offset that is too high hides records, another topic's id gives a folder away.
//! A file without the line is as Kafka writes it, and is taken as it is.

use crate::crc;

const LABEL: &str = "crc32: ";

/// `text` ends with a line feed; so does what is returned.
#[must_use]
pub fn seal(text: &str) -> Vec<u8> {
    assert!(text.ends_with('\n'), "whole lines");
    format!("{text}{LABEL}{:08x}\n", crc::iso_hdlc(text.as_bytes())).into_bytes()
}

/// The lines before the checksum, and whether there was one.
pub fn open(bytes: &[u8]) -> Result<(&str, bool), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("it is not text: {e}"))?;
    let Some(at) = text.rfind(LABEL) else {
        return Ok((text, false));
    };
    let (lines, line) = text.split_at(at);
    let is = format!("{:08x}", crc::iso_hdlc(lines.as_bytes()));
    let says = line[LABEL.len()..].trim_end();
    if is == says {
        Ok((lines, true))
    } else {
        Err(format!("its crc is {is}, its last line says {says}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_told_or_leaves_the_lines_as_they_were() {
        let sealed = seal("version: 0\noffset: 4711\n");
        assert_eq!(open(&sealed), Ok(("version: 0\noffset: 4711\n", true)));
        for byte in 0..sealed.len() {
            for bit in 0..8 {
                let mut bad = sealed.clone();
                bad[byte] ^= 1 << bit;
                if let Ok((lines, _)) = open(&bad) {
                    // Only in the label and the last line feed may it go unnoticed.
                    assert!(lines.starts_with("version: 0\noffset: 4711\n"));
                }
            }
        }
        assert_eq!(open(b"version: 0\n"), Ok(("version: 0\n", false)));
    }
}
