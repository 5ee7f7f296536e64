//! Bits that flip at rest, and are put back after the life that met them.
//!
//! ```text
//!   segment    |==== synced ====|==== held by the journal ====|  not committed
//!               ^ its partition  ^ the start puts it right:    ^ may go anyway, so no
//!                 says so          nobody is to notice           bit is flipped here
//! ```
//!
//! The machine is off for both: nothing of a file is unsynced then, so that it has one
//! content, of which one can say whether the bit is still flipped.

use super::life::Harm;
use super::{World, any_cut};
use klamm_engine::batch::Batches;
use klamm_engine::io::BLOCK;
use klamm_engine::io::sim::DATA;
use klamm_engine::journal::layout::{self, Entry, Found, Header, decode_group};
use klamm_engine::mark::{self, Mark};
use klamm_engine::segment::{file_name, parse_file_name};
use klamm_engine::units::Offset;
use std::ops::Range;

/// A flipped bit, and what is to be undone after the life that met it.
pub struct Damage {
    path: String,
    before: Vec<u8>,
    byte: u64,
    bit: u8,
    /// Who may be harmed by it. None: nobody, for it is put right.
    pub harms: Option<Harm>,
}

/// A journal as a life has left it.
pub struct JournalLeft {
    path: String,
    pub generation: u64,
    pub groups: Vec<Range<usize>>,
    entries: Vec<Entry>,
}

impl World {
    /// Flips a bit of a file whose bytes are known to be committed. None: of no such file.
    pub fn flip_a_bit(&mut self) -> Option<Damage> {
        self.switch_off();
        if self.rng.below(3) == 0
            && let Some(damage) = self.flip_a_bit_of_a_journal()
        {
            return Some(damage);
        }
        let topic = self.topics[self.rng.index(self.topics.len())].name;
        let folder = format!("{topic}-0");
        let dir = format!("{DATA}/{folder}");
        let mut names = self.sim.list(&dir);
        // Kafka's text has no checksum: a wrong epoch is told once a batch contradicts it,
        // which may be some lives later.
        names.retain(|name| name != "leader-epoch-checkpoint");
        let newest = names.iter().filter_map(|n| parse_file_name(n, "log")).max();
        let entries = self.entries_of(&folder);
        // What the journal holds is little beside all else.
        let near = newest.filter(|_| !entries.is_empty() && self.rng.coin());
        let name = match near {
            Some(newest) => file_name(newest, "log"),
            None if names.is_empty() => return None,
            None => names[self.rng.index(names.len())].clone(),
        };
        let path = format!("{dir}/{name}");
        let before = self.sim.read_stable(&path)?;
        let base = parse_file_name(&name, "log");
        let upto = match base {
            Some(base) => self.committed(&dir, base, &before, &entries)?,
            None => before.len() as u64,
        };
        if upto == 0 {
            return None;
        }
        let byte = match near {
            Some(_) if self.rng.coin() => {
                let range = range_of(&entries[self.rng.index(entries.len())]);
                self.rng.between(range.start, range.end - 1).min(upto - 1)
            }
            _ => self.rng.below(upto),
        };
        let bit = self.rng.below(8) as u8;
        let held = base.is_some_and(|base| {
            let holds =
                |entry: &Entry| entry.place.segment == base && range_of(entry).contains(&byte);
            // What has a successor was synced whole: the journal is not asked.
            Some(base) == newest && entries.iter().any(holds)
        });
        let harms = match (held, entries.is_empty()) {
            (true, _) => None,
            // Whose folder it is, replay asks for all that have something in the journal.
            (_, false) if name == "partition.metadata" => Some(Harm::Start),
            _ => Some(Harm::Topic(topic)),
        };
        self.tally.add("bits flipped", 1);
        if base.is_some() && !entries.is_empty() {
            let what = match held {
                true => "bits flipped that the journal holds",
                false => "bits flipped beside what the journal holds",
            };
            self.tally.add(what, 1);
        }
        Some(self.flip(path, before, (byte, bit), harms))
    }

    /// A header, or a group that has another one behind it: those were synced.
    fn flip_a_bit_of_a_journal(&mut self) -> Option<Damage> {
        let journals = self.journals();
        let newest = journals.iter().map(|j| j.generation).max()?;
        let journal = &journals[self.rng.index(journals.len())];
        let mut groups = journal.groups.clone();
        if journal.generation == newest {
            groups.pop();
        }
        // The header's first sector, as far as it is used.
        groups.push(0..44);
        let range = groups[self.rng.index(groups.len())].clone();
        let byte = self.rng.between(range.start as u64, range.end as u64 - 1);
        let bit = self.rng.below(8) as u8;
        let path = journal.path.clone();
        let before = self.sim.read_stable(&path)?;
        self.tally.add("bits of journals flipped", 1);
        Some(self.flip(path, before, (byte, bit), Some(Harm::Start)))
    }

    fn flip(
        &mut self,
        path: String,
        before: Vec<u8>,
        (byte, bit): (u64, u8),
        harms: Option<Harm>,
    ) -> Damage {
        self.sim.flip(&path, byte, bit);
        self.tell(|| format!("bit {bit} of byte {byte} of {path} is flipped, harms {harms:?}"));
        Damage {
            path,
            before,
            byte,
            bit,
            harms,
        }
    }

    /// Puts the bit back where it still is; what was written anew since is sound.
    pub fn put_back(&mut self, damage: &Damage) {
        self.switch_off();
        let Some(now) = self.sim.read_stable(&damage.path) else {
            return;
        };
        let byte = damage.byte as usize;
        let mut flipped = damage.before.clone();
        flipped[byte] ^= 1 << damage.bit;
        let still = now.get(byte) == Some(&flipped[byte]);
        let same = if damage.path.ends_with(".log") {
            // A record's byte is the same for good, and what stands beside it may grow.
            still
        } else if damage.path.ends_with(layout::EXTENSION) {
            // Each new use of the file has another header.
            still && now.get(..BLOCK) == flipped.get(..BLOCK)
        } else {
            now == flipped
        };
        self.tell(|| format!("{}: still flipped: {same}", damage.path));
        if same {
            self.sim.flip(&damage.path, damage.byte, damage.bit);
        }
    }

    fn switch_off(&mut self) {
        let cut = any_cut(&mut self.rng);
        self.sim.power_cut_how(cut);
    }

    /// The journal files whose groups count.
    pub fn journals(&self) -> Vec<JournalLeft> {
        let dir = format!("{DATA}/{}", layout::FOLDER);
        let names = self.sim.list(&dir).into_iter();
        let left = names.filter_map(|name| {
            let path = format!("{dir}/{name}");
            let bytes = self.sim.read_stable(&path)?;
            let block = bytes.get(..BLOCK)?;
            let header = Header::decode(block).ok()??;
            let (mut at, mut groups, mut entries) = (BLOCK, Vec::new(), Vec::new());
            while let (Found::Whole(group), _) = decode_group(&bytes, at, header.generation) {
                groups.push(at..at + group.len);
                entries.extend(group.entries);
                at += layout::group_room(group.len);
            }
            header.used.then_some(JournalLeft {
                path,
                generation: header.generation,
                groups,
                entries,
            })
        });
        left.collect()
    }

    /// What the journals hold of a partition.
    fn entries_of(&self, folder: &str) -> Vec<Entry> {
        let all = self.journals().into_iter().flat_map(|j| j.entries);
        all.filter(|entry| &*entry.place.folder == folder).collect()
    }

    /// How many of a segment's bytes are committed and there: all where it has a successor,
    /// else what the mark protects or a journal holds, as far as no power cut took it.
    fn committed(&self, dir: &str, base: Offset, bytes: &[u8], entries: &[Entry]) -> Option<u64> {
        let names = self.sim.list(dir);
        let sealed = names
            .iter()
            .filter_map(|n| parse_file_name(n, "log"))
            .any(|other| other > base);
        if sealed {
            return Some(bytes.len() as u64);
        }
        let block = self.sim.read_stable(format!("{dir}/{}", mark::FILE_NAME))?;
        let mark = Mark::decode(&block).filter(|mark| mark.segment == base);
        let held = entries.iter().filter(|entry| entry.place.segment == base);
        let held = held.map(|entry| range_of(entry).end).max();
        let upto = held.max(mark.map(|mark| mark.pos.0))?;
        Some(upto.min(whole(bytes, base)))
    }
}

/// Where an entry's bytes are in their segment.
fn range_of(entry: &Entry) -> Range<u64> {
    let begin = entry.place.pos.0;
    begin..begin + entry.bytes.len() as u64
}

/// Where the batches that are whole, one behind the other, end.
fn whole(bytes: &[u8], base: Offset) -> u64 {
    let (mut end, mut next) = (0, base);
    for batch in Batches::new(bytes).map_while(Result::ok) {
        if batch.base_offset() != next || batch.verify_crc().is_err() {
            break;
        }
        next = batch.next_offset();
        end += batch.size_in_bytes() as u64;
    }
    end
}
