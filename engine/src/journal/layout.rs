//! The bytes of a journal file.
//!
//! ```text
//!   block 0        header: which generation of groups counts, or that none does
//!   block 1 ...    group | group | group | what was there before: zeros, older generations
//!
//!   group          head  entry names and places (the directory)  bytes of each entry  padding
//!                  `---- one CRC ----' `----- another -------'   one CRC an entry     see group_room
//! ```
//!
//! Integers are little-endian, checksums are CRC-32 (ISO-HDLC).
//!
//! | header at | field |
//! |---|---|
//! | 0 | magic "KLMJ" |
//! | 4 | version u32 = 2 |
//! | 8 | generation u64: rises with each use of a shard's files |
//! | 16 | used u32: 1 where groups of this generation count, 0 where none does |
//! | 20 | how many of the following count u32, at most 16 |
//! | 24 | sixteen times: the generation of a file that is full and not settled u64, and how many groups it has u64 |
//! | 280 | CRC of bytes 0 to 279 |
//!
//! | group at | field | entry at | field |
//! |---|---|---|---|
//! | 0 | magic "KLMG" | 0 | topic id, 16 bytes |
//! | 4 | bytes of the group, without padding u32 | 16 | partition i32 |
//! | 8 | generation u64 | 20 | bytes of the folder's name u32 |
//! | 16 | its number in the generation, from 0 u64 | 24 | segment base offset i64 |
//! | 24 | entries u32 | 32 | position in the segment u64 |
//! | 28 | bytes of the directory u32 | 40 | offset of the first record i64 |
//! | 32 | CRC of the directory | 48 | offset behind the last record i64 |
//! | 36 | CRC of bytes 0 to 35 | 56 | bytes u32 |
//! | | | 60 | CRC of the bytes |
//! | | | 64 | the folder's name |

use crate::crc;
use crate::io::BLOCK;
use crate::units::{BytePos, Offset, PartitionId, ShardId, TopicId};
use std::ops::Range;
use std::rc::Rc;

/// In DATA. A partition's folder ends in a dash and a number, so none has this name.
pub const FOLDER: &str = "journal";
pub const EXTENSION: &str = "journal";

const FILE_MAGIC: &[u8; 4] = b"KLMJ";
const GROUP_MAGIC: &[u8; 4] = b"KLMG";
const VERSION: u32 = 2;
const EARLIER_AT: usize = 24;
/// Files that are full and not settled: two, and those of partitions that failed.
pub const EARLIER_MAX: usize = 16;
const HEADER_CRC_AT: usize = EARLIER_AT + 16 * EARLIER_MAX;
/// Within a sector, which is written whole or not at all.
const HEADER_BYTES: usize = HEADER_CRC_AT + 4;
pub const GROUP_HEAD_BYTES: usize = 40;
const ENTRY_HEAD_BYTES: usize = 64;

/// What a group of so many bytes takes of the file: whole blocks, and of a large one an eighth
/// of a power of two. So there are few lengths, and the memory that is written from can be
/// used again.
pub fn group_room(bytes: usize) -> usize {
    let blocks = bytes.div_ceil(BLOCK);
    let step = (blocks.next_power_of_two() / 8).max(1);
    blocks.next_multiple_of(step) * BLOCK
}

/// `0-1.journal`: the second file of shard 0.
pub fn file_name(shard: ShardId, number: u32) -> String {
    format!("{}-{number}.{EXTENSION}", shard.0)
}

pub fn parse_file_name(name: &str) -> Option<(ShardId, u32)> {
    let (shard, number) = name
        .strip_suffix(EXTENSION)?
        .strip_suffix('.')?
        .split_once('-')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(shard) || !digits(number) {
        return None;
    }
    Some((ShardId(shard.parse().ok()?), number.parse().ok()?))
}

/// The first block of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub generation: u64,
    pub used: bool,
    /// The files that were full and not settled when this use began: their generations, and
    /// how many groups they have. So a bad group there is told from one that was never whole.
    pub earlier: Vec<(u64, u64)>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Header {
    /// Fills a block.
    pub fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK);
        block.fill(0);
        block[0..4].copy_from_slice(FILE_MAGIC);
        block[4..8].copy_from_slice(&VERSION.to_le_bytes());
        block[8..16].copy_from_slice(&self.generation.to_le_bytes());
        block[16..20].copy_from_slice(&u32::from(self.used).to_le_bytes());
        assert!(self.earlier.len() <= EARLIER_MAX);
        block[20..24].copy_from_slice(&(self.earlier.len() as u32).to_le_bytes());
        for (n, (generation, groups)) in self.earlier.iter().enumerate() {
            let pair = &mut block[EARLIER_AT + 16 * n..][..16];
            pair[..8].copy_from_slice(&generation.to_le_bytes());
            pair[8..].copy_from_slice(&groups.to_le_bytes());
        }
        let crc = crc::iso_hdlc(&block[..HEADER_CRC_AT]);
        block[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// None where nothing was written yet. A header is one sector, which a disk writes
    /// whole or not at all, so a bad one is damage.
    pub fn decode(block: &[u8]) -> Result<Option<Header>, String> {
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let bytes = block
            .get(..HEADER_BYTES)
            .ok_or("the file ends in its header")?;
        if &bytes[0..4] != FILE_MAGIC {
            return Err("it does not begin with KLMJ".to_owned());
        }
        let version = u32_at(bytes, 4);
        if version == 1 && crc::iso_hdlc(&bytes[..40]) == u32_at(bytes, 40) {
            return Header::decode_first_version(bytes).map(Some);
        }
        let (is, says) = (
            crc::iso_hdlc(&bytes[..HEADER_CRC_AT]),
            u32_at(bytes, HEADER_CRC_AT),
        );
        if is != says {
            return Err(format!(
                "its header's CRC is {is:08x}, and it says {says:08x}"
            ));
        }
        if version != VERSION {
            return Err(format!(
                "it is of version {version}; this Klamm knows {VERSION}"
            ));
        }
        let count = u32_at(bytes, 20) as usize;
        if count > EARLIER_MAX {
            return Err(format!(
                "its header names {count} files, of {EARLIER_MAX} at most"
            ));
        }
        let earlier = (0..count).map(|n| {
            let at = EARLIER_AT + 16 * n;
            (u64_at(bytes, at), u64_at(bytes, at + 8))
        });
        Ok(Some(Header {
            generation: u64_at(bytes, 8),
            used: u32_at(bytes, 16) != 0,
            earlier: earlier.collect(),
        }))
    }

    /// Of a file of version 1, in which the groups lie otherwise.
    fn decode_first_version(bytes: &[u8]) -> Result<Header, String> {
        if u32_at(bytes, 16) != 0 {
            return Err(
                "it is of version 1, which this Klamm does not read; start the one that wrote \
                 it once more, and stop it in order"
                    .to_owned(),
            );
        }
        Ok(Header {
            generation: u64_at(bytes, 8),
            used: false,
            earlier: Vec::new(),
        })
    }
}

/// Where an entry's bytes belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: PartitionId,
    /// The partition's folder in DATA.
    pub folder: Rc<str>,
    pub segment: Offset,
    pub pos: BytePos,
    /// The offset of the first record, and the one behind the last.
    pub from: Offset,
    pub to: Offset,
}

/// One entry of a group that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    /// Where its bytes are in the file.
    pub bytes: Range<usize>,
    pub crc: u32,
}

pub struct Group {
    pub entries: Vec<Entry>,
    /// Its bytes, without padding.
    pub len: usize,
}

/// What stands where a group may begin.
pub enum Found {
    Whole(Group),
    /// The head and the directory are whole, and the bytes of an entry are not.
    Entry {
        group: Group,
        bad: usize,
    },
    Nothing,
}

/// What one entry takes of a group.
pub fn entry_bytes(folder: &str, len: usize) -> usize {
    ENTRY_HEAD_BYTES + folder.len() + len
}

/// Writes a group into `out`, which has room for its blocks. Each entry is its place and
/// its bytes in parts.
pub fn encode_group(
    out: &mut [u8],
    generation: u64,
    number: u64,
    entries: &[(&Place, Vec<&[u8]>)],
) -> usize {
    let directory: usize = entries
        .iter()
        .map(|(place, _)| entry_bytes(&place.folder, 0))
        .sum();
    let mut at = GROUP_HEAD_BYTES;
    let mut to = GROUP_HEAD_BYTES + directory;
    for (place, parts) in entries {
        let begin = to;
        for part in parts {
            out[to..to + part.len()].copy_from_slice(part);
            to += part.len();
        }
        let len = (to - begin) as u32;
        let crc = crc::iso_hdlc(&out[begin..to]);
        let head = &mut out[at..at + ENTRY_HEAD_BYTES];
        head[0..16].copy_from_slice(&place.id.topic.0);
        head[16..20].copy_from_slice(&place.id.index.to_le_bytes());
        head[20..24].copy_from_slice(&(place.folder.len() as u32).to_le_bytes());
        head[24..32].copy_from_slice(&place.segment.0.to_le_bytes());
        head[32..40].copy_from_slice(&place.pos.0.to_le_bytes());
        head[40..48].copy_from_slice(&place.from.0.to_le_bytes());
        head[48..56].copy_from_slice(&place.to.0.to_le_bytes());
        head[56..60].copy_from_slice(&len.to_le_bytes());
        head[60..64].copy_from_slice(&crc.to_le_bytes());
        at += ENTRY_HEAD_BYTES;
        out[at..at + place.folder.len()].copy_from_slice(place.folder.as_bytes());
        at += place.folder.len();
    }
    assert_eq!(at, GROUP_HEAD_BYTES + directory, "the directory is filled");
    let crc = crc::iso_hdlc(&out[GROUP_HEAD_BYTES..at]);
    out[to..].fill(0);
    out[0..4].copy_from_slice(GROUP_MAGIC);
    out[4..8].copy_from_slice(&(to as u32).to_le_bytes());
    out[8..16].copy_from_slice(&generation.to_le_bytes());
    out[16..24].copy_from_slice(&number.to_le_bytes());
    out[24..28].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    out[28..32].copy_from_slice(&(directory as u32).to_le_bytes());
    out[32..36].copy_from_slice(&crc.to_le_bytes());
    let crc = crc::iso_hdlc(&out[..36]);
    out[36..40].copy_from_slice(&crc.to_le_bytes());
    to
}

/// How many bytes the group of `generation` whose head this is says that it has. None where
/// it is no such head.
pub fn group_bytes(head: &[u8], generation: u64) -> Option<usize> {
    let head = head.get(..GROUP_HEAD_BYTES)?;
    let is = &head[0..4] == GROUP_MAGIC
        && u64_at(head, 8) == generation
        && u32_at(head, 36) == crc::iso_hdlc(&head[..36]);
    is.then(|| u32_at(head, 4) as usize)
}

/// Reads the group of `generation` that begins at `at` in a file, if there is one, and its
/// number.
pub fn decode_group(file: &[u8], at: usize, generation: u64) -> (Found, u64) {
    let nothing = (Found::Nothing, 0);
    let head = file.get(at..).unwrap_or_default();
    let Some(len) = group_bytes(head, generation) else {
        return nothing;
    };
    let number = u64_at(head, 16);
    let (count, directory) = (u32_at(head, 24), u32_at(head, 28) as usize);
    let names = at + GROUP_HEAD_BYTES..at + GROUP_HEAD_BYTES + directory;
    let Some(listed) = file.get(names.clone()) else {
        return nothing;
    };
    if u32_at(head, 32) != crc::iso_hdlc(listed) {
        return nothing;
    }
    let mut group = Group {
        entries: Vec::with_capacity(count as usize),
        len,
    };
    let (mut rest, mut begin) = (listed, names.end);
    let mut bad = None;
    for n in 0..count as usize {
        let Some((head, behind)) = rest.split_at_checked(ENTRY_HEAD_BYTES) else {
            return nothing;
        };
        let Some((name, behind)) = behind.split_at_checked(u32_at(head, 20) as usize) else {
            return nothing;
        };
        let Ok(folder) = std::str::from_utf8(name) else {
            return nothing;
        };
        rest = behind;
        let bytes = begin..begin + u32_at(head, 56) as usize;
        let crc = u32_at(head, 60);
        if file.get(bytes.clone()).map(crc::iso_hdlc) != Some(crc) {
            bad = bad.or(Some(n));
        }
        begin = bytes.end;
        group.entries.push(Entry {
            place: Place {
                id: PartitionId {
                    topic: TopicId(head[0..16].try_into().expect("16 bytes")),
                    index: u32_at(head, 16) as i32,
                },
                folder: folder.into(),
                segment: Offset(u64_at(head, 24) as i64),
                pos: BytePos(u64_at(head, 32)),
                from: Offset(u64_at(head, 40) as i64),
                to: Offset(u64_at(head, 48) as i64),
            },
            bytes,
            crc,
        });
    }
    if begin - at != len {
        return nothing;
    }
    match bad {
        None => (Found::Whole(group), number),
        Some(bad) => (Found::Entry { group, bad }, number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(n: i32) -> Place {
        Place {
            id: PartitionId {
                topic: TopicId([3; 16]),
                index: n,
            },
            folder: format!("orders-{n}").into(),
            segment: Offset(7),
            pos: BytePos(4242),
            from: Offset(8),
            to: Offset(9 + i64::from(n)),
        }
    }

    #[test]
    fn a_header_comes_back_and_a_flipped_bit_is_told() {
        let header = Header {
            generation: 9,
            used: true,
            earlier: vec![(8, 77), (5, 3)],
        };
        let mut block = vec![1; BLOCK];
        header.encode(&mut block);
        assert_eq!(Header::decode(&block), Ok(Some(header)));
        assert_eq!(Header::decode(&vec![0; BLOCK]), Ok(None));
        for byte in 0..HEADER_BYTES {
            block[byte] ^= 2;
            assert!(Header::decode(&block).is_err(), "byte {byte}");
            block[byte] ^= 2;
        }
    }

    #[test]
    fn a_group_comes_back_and_no_flipped_bit_goes_unnoticed() {
        let places = [place(0), place(1), place(12)];
        let parts: [Vec<&[u8]>; 3] = [vec![b"one"], vec![b"tw", b"o"], vec![b"three"]];
        let entries: Vec<_> = places.iter().zip(parts).collect();
        let mut file = vec![0xaa; 3 * BLOCK];
        let len = encode_group(&mut file[BLOCK..2 * BLOCK], 5, 6, &entries);
        let (Found::Whole(group), 6) = decode_group(&file, BLOCK, 5) else {
            panic!("it is whole");
        };
        assert_eq!(group.len, len);
        let read: Vec<_> = group
            .entries
            .iter()
            .map(|e| (e.place.clone(), &file[e.bytes.clone()]))
            .collect();
        let bytes: [&[u8]; 3] = [b"one", b"two", b"three"];
        assert_eq!(read, places.iter().cloned().zip(bytes).collect::<Vec<_>>());
        assert!(matches!(decode_group(&file, BLOCK, 4).0, Found::Nothing));
        for byte in BLOCK..BLOCK + len {
            for bit in 0..8 {
                file[byte] ^= 1 << bit;
                assert!(
                    !matches!(decode_group(&file, BLOCK, 5).0, Found::Whole(_)),
                    "byte {byte}"
                );
                file[byte] ^= 1 << bit;
            }
        }
        // The last one's bytes: it is known whose they are.
        file[BLOCK + len - 1] ^= 1;
        let (Found::Entry { group, bad }, 6) = decode_group(&file, BLOCK, 5) else {
            panic!("its directory is whole");
        };
        assert_eq!(&*group.entries[bad].place.folder, "orders-12");
    }

    #[test]
    fn names_say_the_shard_and_the_number() {
        assert_eq!(file_name(ShardId(3), 1), "3-1.journal");
        assert_eq!(parse_file_name("3-1.journal"), Some((ShardId(3), 1)));
        for bad in [
            "orders-0",
            "-1.journal",
            "3-.journal",
            "3-1.log",
            "x-1.journal",
            "+1-1.journal",
        ] {
            assert_eq!(parse_file_name(bad), None, "{bad}");
        }
    }
}
