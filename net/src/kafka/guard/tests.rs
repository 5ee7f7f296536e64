//! The table of shapes is held against the decoder that it guards: bytes that are made
//! from the table must be taken by it to the last byte, at every version served.

use super::*;
use crate::kafka::fuzzing::with_type;
use crate::kafka::route::{APIS, Api};
use bytes::{BufMut, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use proptest::prelude::*;

/// Random choices: a plain generator, so that a failing seed is a number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Writes a request of the shape that the table says.
struct Maker {
    dice: Dice,
    to: BytesMut,
    version: i16,
    flexible: bool,
}

impl Maker {
    fn uvarint(to: &mut BytesMut, mut value: u32) {
        while value >= 0x80 {
            to.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        to.put_u8(value as u8);
    }

    fn length(&mut self, len: usize, short: bool) {
        if self.flexible {
            Self::uvarint(&mut self.to, len as u32 + 1);
        } else if short {
            self.to.put_i16(len as i16);
        } else {
            self.to.put_i32(len as i32);
        }
    }

    fn fields(&mut self, fields: &'static [Field]) {
        for field in fields.iter().filter(|f| f.tag.is_none()) {
            if field.is_in(self.version) {
                self.kind(&field.kind);
            }
        }
        if !self.flexible {
            return;
        }
        let version = self.version;
        let known = fields
            .iter()
            .filter(|f| f.tag.is_some() && f.is_in(version));
        let mut tags: Vec<(u32, BytesMut)> = Vec::new();
        for field in known {
            let whole = std::mem::take(&mut self.to);
            self.kind(&field.kind);
            let value = std::mem::replace(&mut self.to, whole);
            tags.push((field.tag.unwrap(), value));
        }
        if self.dice.roll(3) == 0 {
            let len = self.dice.roll(5) as usize;
            tags.push((1000, BytesMut::from(&vec![7; len][..])));
        }
        Self::uvarint(&mut self.to, tags.len() as u32);
        for (tag, value) in tags {
            Self::uvarint(&mut self.to, tag);
            Self::uvarint(&mut self.to, value.len() as u32);
            self.to.put_slice(&value);
        }
    }

    fn kind(&mut self, kind: &'static Kind) {
        match kind {
            Kind::Fixed(len) => {
                for _ in 0..*len {
                    let byte = self.dice.roll(256) as u8;
                    self.to.put_u8(byte);
                }
            }
            Kind::Str | Kind::Raw => {
                let len = self.dice.roll(200) as usize;
                self.length(len, matches!(kind, Kind::Str));
                self.to.put_bytes(b'x', len);
            }
            Kind::Array(element) => {
                let count = self.dice.roll(4) as usize;
                self.length(count, false);
                for _ in 0..count {
                    self.kind(element);
                }
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Present(kind) => self.kind(kind),
        }
    }
}

fn made(api: &Api, version: i16, seed: u64) -> Bytes {
    let mut maker = Maker {
        dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        to: BytesMut::new(),
        version,
        flexible: version >= api.flexible_from,
    };
    maker.fields(schema::request(api.key).expect("it has a line"));
    maker.to.freeze()
}

/// Made from the table: the decoder takes it all; what it encodes again, the guard
/// takes all of.
fn agree<Q: Decodable + Encodable + Message>(api: &Api, version: i16, body: &Bytes) {
    let flexible = version >= api.flexible_from;
    let what = format!("{} version {version}: {body:?}", api.name);
    let used = check(api.key, flexible, version, body);
    assert_eq!(used, Ok(body.len()), "{what}");
    let mut left = body.clone();
    let request = Q::decode(&mut left, version).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(left.is_empty(), "{what}: {} bytes are left", left.len());
    let mut again = BytesMut::new();
    request
        .encode(&mut again, version)
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let used = check(api.key, flexible, version, &again);
    assert_eq!(used, Ok(again.len()), "{what}: encoded again");
}

/// Produce has its own decoder.
fn guarded() -> impl Iterator<Item = &'static Api> {
    APIS.iter().filter(|api| api.key != 0)
}

fn versions(api: &Api) -> std::ops::RangeInclusive<i16> {
    api.served_min..=api.max
}

#[test]
fn every_shape_is_the_decoders_at_every_version() {
    for api in guarded() {
        for version in versions(api) {
            for seed in 1..200 {
                let body = made(api, version, seed);
                with_type!(api, agree, api, version, &body);
            }
        }
    }
}

#[test]
fn a_request_that_ends_early_is_refused_wherever_it_ends() {
    for api in guarded() {
        for version in versions(api) {
            let flexible = version >= api.flexible_from;
            for seed in 1..20 {
                let body = made(api, version, seed);
                for end in 0..body.len() {
                    let cut = check(api.key, flexible, version, &body[..end]);
                    assert!(cut.is_err(), "{} {version} cut at {end}", api.name);
                }
            }
        }
    }
}

/// Every four bytes of a plain request, and every byte of a flexible one, become the
/// largest count there is: the guard refuses it, or it was no count and the decoder
/// takes it without asking for memory.
#[test]
fn a_count_of_two_to_the_31_is_refused_before_it_is_decoded() {
    fn decode<Q: Decodable>(body: &Bytes, version: i16) {
        let _ = Q::decode(&mut body.clone(), version);
    }
    for api in guarded() {
        for version in versions(api) {
            let flexible = version >= api.flexible_from;
            let body = made(api, version, 1);
            for at in 0..body.len() {
                let mut lie = body.to_vec();
                let count: &[u8] = if flexible {
                    &[0xff, 0xff, 0xff, 0xff, 0x0f]
                } else {
                    &[0x7f, 0xff, 0xff, 0xff]
                };
                let end = (at + count.len()).min(lie.len());
                lie[at..end].copy_from_slice(&count[..end - at]);
                let lie = Bytes::from(lie);
                if check(api.key, flexible, version, &lie).is_ok() {
                    with_type!(api, decode, &lie, version);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_bytes_that_pass_the_guard_are_decoded_within_bounds(
        at in 0usize..64,
        nth in 0i16..14,
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), any::<u8>()], 0..200),
    ) {
        fn decode<Q: Decodable>(body: &Bytes, version: i16) {
            let _ = Q::decode(&mut body.clone(), version);
        }
        let apis: Vec<&Api> = guarded().collect();
        let api = apis[at % apis.len()];
        let version = api.served_min + nth % (api.max - api.served_min + 1);
        let body = Bytes::from(body);
        if check(api.key, version >= api.flexible_from, version, &body).is_ok() {
            with_type!(api, decode, &body, version);
        }
    }
}

/// Metadata's name may be null from version 10 on, its topics from 1; OffsetFetch's
/// topics from 2. The decoder would take null in every version.
#[test]
fn null_is_refused_where_only_later_versions_know_it() {
    let null_topics = (-1i32).to_be_bytes();
    let null_name = [&1i32.to_be_bytes()[..], &(-1i16).to_be_bytes()].concat();
    let null_name_flexible = [&[2][..], &[0; 16], &[0, 0], &[0, 0, 0, 0]].concat();
    let no_offsets = [&b"\0\x01g"[..], &null_topics].concat();
    for (key, flexible, version, body, fine) in [
        (3, false, 0, &null_topics[..], false),
        (3, false, 1, &null_topics, true),
        (3, false, 1, &null_name, false),
        (3, true, 10, &null_name_flexible, true),
        (9, false, 1, &no_offsets, false),
        (9, false, 2, &no_offsets, true),
    ] {
        let checked = check(key, flexible, version, body);
        assert_eq!(
            checked.is_ok(),
            fine,
            "API {key} version {version}: {checked:?}"
        );
    }
}

#[test]
fn the_sentence_names_the_field() {
    let lie = check(3, false, 1, &i32::MAX.to_be_bytes()).expect_err("nothing follows");
    assert!(
        lie.contains("topics") && lie.contains("2147483647"),
        "{lie}"
    );
    assert_eq!(check(3, false, 1, &(-1i32).to_be_bytes()), Ok(4));
    assert!(check(3, false, 1, &(-2i32).to_be_bytes()).is_err());
}

#[test]
fn small_elements_without_end_are_refused() {
    let count = ELEMENTS_MAX as i32 + 1;
    let mut body = count.to_be_bytes().to_vec();
    body.resize(4 + 2 * count as usize, 0);
    let refused = check(3, false, 1, &body).expect_err("too many");
    assert!(refused.contains("262144"), "{refused}");
    let count = ELEMENTS_MAX as i32;
    body[..4].copy_from_slice(&count.to_be_bytes());
    assert_eq!(check(3, false, 1, &body), Ok(4 + 2 * count as usize));
}

/// Fetch's cluster id, tag 0 of version 12: its size must be the string's.
#[test]
fn a_tagged_field_ends_where_it_says() {
    let mut body = BytesMut::new();
    body.put_bytes(0, 4 + 4 + 4 + 4 + 1 + 4 + 4);
    body.put_slice(&[1, 1, 1]); // no topics, none forgotten, rack ""
    let with_tags = |tags: &[u8]| {
        let mut whole = body.clone();
        whole.put_slice(tags);
        check(1, true, 12, &whole)
    };
    assert!(with_tags(&[1, 0, 3, 3, b'a', b'b']).is_ok());
    assert!(with_tags(&[1, 0, 4, 3, b'a', b'b', 0]).is_err());
    assert!(with_tags(&[1, 0, 2, 3, b'a', b'b']).is_err());
    assert!(with_tags(&[2, 9, 0, 9, 0]).is_err(), "a tag twice");
    assert!(with_tags(&[1, 9, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    assert!(with_tags(&[0xff, 0xff, 0xff, 0xff, 0x1f]).is_err());
}

/// `cargo test -p klamm-net --lib seeds_of -- --ignored`: a request of each API at the
/// first and the last version that is served.
#[test]
#[ignore = "writes the seeds of the corpus"]
fn seeds_of_the_corpus_are_written() {
    let corpus =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/kafka_request");
    std::fs::create_dir_all(&corpus).expect("the corpus");
    for api in guarded() {
        for version in [api.served_min, api.max] {
            let mut frame = BytesMut::new();
            frame.put_i16(api.key);
            frame.put_i16(version);
            frame.put_i32(7);
            frame.put_slice(b"\0\x03rd1");
            if version >= api.flexible_from {
                frame.put_u8(0);
            }
            frame.put_slice(&made(api, version, 5));
            let name = format!("{}-{version}", api.name);
            std::fs::write(corpus.join(name), &frame).expect("a seed");
        }
    }
}
