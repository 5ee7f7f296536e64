//! A partition's folder as one string of bytes, which a fuzzer can change.
//!
//! ```text
//!   | options u8 | leader epoch u8 | file | file | ...
//!      bit 0: stopped in order     1: mend checksums     2: no sync before the answer
//!
//!   file:  | kind u8 | base offset u16 | zeros u8 | length u16 | bytes |
//!            log, index, ...                |          |
//!            zeros * 512 bytes of 0 behind -+          +- at most what is left
//! ```
//!
//! Integers are little-endian. Any bytes are a folder.

use super::mend_batches;
use crate::crc;
use crate::io::sim::Sim;
use crate::mark;
use crate::recovery::{EPOCHS_FILE_NAME, LOG_START_FILE_NAME};
use crate::segment::file_name;
use crate::units::Offset;
use std::path::Path;

const ZEROS_UNIT: usize = 512;
const EXTENSIONS: [&str; 4] = ["log", "index", "timeindex", "snapshot"];
const NAMES: [&str; 3] = [mark::FILE_NAME, EPOCHS_FILE_NAME, LOG_START_FILE_NAME];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    pub clean: bool,
    pub mend: bool,
    pub unsynced: bool,
    pub leader_epoch: u8,
    pub files: Vec<FolderFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderFile {
    /// One of the extensions, then of the names, above.
    kind: u8,
    base: u16,
    zeros: u8,
    bytes: Vec<u8>,
}

impl Folder {
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Folder {
        let Some((&[options, leader_epoch], mut rest)) = bytes.split_first_chunk() else {
            return Folder::default();
        };
        let mut files = Vec::new();
        while let Some((&[kind, b0, b1, zeros, l0, l1], after)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_le_bytes([l0, l1])).min(after.len());
            let (bytes, after) = after.split_at(len);
            files.push(FolderFile {
                kind: kind % 7,
                base: u16::from_le_bytes([b0, b1]),
                zeros,
                bytes: bytes.to_vec(),
            });
            rest = after;
        }
        Folder {
            clean: options & 1 != 0,
            mend: options & 2 != 0,
            unsynced: options & 4 != 0,
            leader_epoch,
            files,
        }
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let options =
            u8::from(self.clean) | u8::from(self.mend) << 1 | u8::from(self.unsynced) << 2;
        let mut out = vec![options, self.leader_epoch];
        for file in &self.files {
            out.push(file.kind);
            out.extend(file.base.to_le_bytes());
            out.push(file.zeros);
            let len = u16::try_from(file.bytes.len()).expect("a small file");
            out.extend(len.to_le_bytes());
            out.extend(&file.bytes);
        }
        out
    }

    /// Takes a file as it lies in a folder; None where it is none of those that count.
    /// Zeros at its end are counted, and beyond what can be counted they are left out.
    #[must_use]
    pub fn file(name: &str, bytes: &[u8]) -> Option<FolderFile> {
        let (kind, base) = match NAMES.iter().position(|n| *n == name) {
            Some(at) => (EXTENSIONS.len() + at, 0),
            None => {
                let (base, extension) = name.split_once('.')?;
                let kind = EXTENSIONS.iter().position(|e| *e == extension)?;
                (kind, base.parse::<u16>().ok()?)
            }
        };
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        let zeros = ((bytes.len() - used) / ZEROS_UNIT).min(255);
        let used = if zeros < 255 {
            bytes.len() - zeros * ZEROS_UNIT
        } else {
            used
        };
        Some(FolderFile {
            kind: kind as u8,
            base,
            zeros: zeros as u8,
            bytes: bytes[..used].to_vec(),
        })
    }

    pub(super) fn plant(&self, sim: &Sim, dir: &Path) {
        for file in &self.files {
            let mut bytes = file.bytes.clone();
            if self.mend {
                match file.kind {
                    0 => mend_batches(&mut bytes),
                    3 => mend_snapshot(&mut bytes),
                    4 => mend_mark(&mut bytes),
                    _ => {}
                }
            }
            bytes.resize(bytes.len() + usize::from(file.zeros) * ZEROS_UNIT, 0);
            sim.plant(dir.join(file.name()), &bytes);
        }
    }
}

impl FolderFile {
    /// Which of the extensions, then of the names, it has.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.kind
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub fn name(&self) -> String {
        let kind = usize::from(self.kind);
        match EXTENSIONS.get(kind) {
            Some(extension) => file_name(Offset(i64::from(self.base)), extension),
            None => NAMES[kind - EXTENSIONS.len()].to_owned(),
        }
    }
}

/// See mark.rs.
pub(super) fn mend_mark(bytes: &mut [u8]) {
    if bytes.len() >= 44 {
        let crc = crc::iso_hdlc(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
    }
}

/// See producer/snapshot.rs.
pub(super) fn mend_snapshot(bytes: &mut [u8]) {
    if bytes.len() >= 16 {
        let crc = crc::iso_hdlc_of(&[&bytes[8..12], &bytes[16..]]);
        bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    }
}
