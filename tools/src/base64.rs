//! Base64 (RFC 4648): the standard alphabet with padding for record bytes in JSON,
//! the URL alphabet without padding for topic ids, as Kafka prints them.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub fn encode(bytes: &[u8]) -> String {
    let mut out = digits(bytes, STANDARD);
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

/// A topic id: 22 characters for 16 bytes.
pub fn encode_url(bytes: &[u8]) -> String {
    digits(bytes, URL)
}

fn digits(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        // One byte fills two digits, two bytes three, three bytes four.
        for digit in 0..=chunk.len() {
            let six = bits >> (18 - 6 * digit) & 0x3f;
            out.push(char::from(alphabet[six as usize]));
        }
    }
    out
}

/// Standard alphabet; None where it is not Base64.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for at in 0..4 {
            let six = match chunk.get(at) {
                Some(c) => STANDARD.iter().position(|d| d == c)?,
                None => 0,
            };
            bits = bits << 6 | six as u32;
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_own_examples() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded).unwrap(), plain.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        assert_eq!(encode_url(&[0xfb, 0xff]), "-_8");
        assert_eq!(encode_url(&[0; 16]).len(), 22);
        for wrong in ["Z", "Zg*=", "Zm9vY", "-_8"] {
            assert!(decode(wrong).is_none(), "{wrong}");
        }
    }
}
