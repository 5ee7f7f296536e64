//! One consuming connection: a Fetch at a time, over the partitions that are its own.
//!
//! ```text
//!   offsets --> Fetch --> batches: each begins where the last one ended --> offsets
//!     a pass: from the start to the end that was found; then, if wanted, once more
//! ```

use super::fetch::{self, Limits, Reader, Said, Wanted};
use super::layout::Place;
use super::produce::named;
use super::tally::{Nanos, Tally};
use crate::Outcome;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// How far a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To the end that was there, once.
    End,
    /// To that end, and again from the start, until the round is over.
    EndOverAndOver,
    /// Whatever comes, until the round is over.
    Stopped,
}

pub struct Consumer {
    pub socket: TcpStream,
    until: Until,
    limits: Limits,
    /// Topic by topic.
    partitions: Vec<Reading>,
    /// Whose turn it is to be first in a request.
    first: usize,
    correlation: i32,
    out: Vec<u8>,
    written: usize,
    reader: Reader,
    under_way: bool,
    since: Nanos,
    /// Of the answer that is being read.
    records: u64,
    bytes: u64,
    /// The partition that the answer is at.
    at: Option<usize>,
}

struct Reading {
    place: usize,
    next: i64,
}

impl Consumer {
    pub fn new(
        socket: TcpStream,
        partitions: impl IntoIterator<Item = usize>,
        places: &[Place],
        until: Until,
        limits: Limits,
        check: bool,
    ) -> Consumer {
        let mut consumer = Consumer {
            socket,
            until,
            limits,
            partitions: (partitions.into_iter())
                .map(|place| Reading { place, next: 0 })
                .collect(),
            first: 0,
            correlation: 0,
            out: Vec::new(),
            written: 0,
            reader: Reader::new(check),
            under_way: false,
            since: 0,
            records: 0,
            bytes: 0,
            at: None,
        };
        for reading in &mut consumer.partitions {
            reading.next = match until {
                Until::Stopped => places[reading.place].end,
                Until::End | Until::EndOverAndOver => places[reading.place].start,
            };
        }
        consumer
    }

    /// A round begins: a catch-up begins at the start.
    pub fn rewind(&mut self, places: &[Place]) {
        assert!(!self.under_way, "a round ends when all is answered");
        if self.until != Until::Stopped {
            for reading in &mut self.partitions {
                reading.next = places[reading.place].start;
            }
        }
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// Asks for more, if there is more to be read.
    pub fn ask(&mut self, places: &[Place], now: Nanos) -> Outcome {
        assert!(!self.under_way);
        if self.until == Until::EndOverAndOver && self.partitions.iter().all(|r| r.is_read(places))
        {
            self.rewind(places);
        }
        let catching_up = self.until != Until::Stopped;
        let count = self.partitions.len();
        // In turn, or those at the end of a long list would get no bytes; but topic by
        // topic, as a request has them: the turn goes round within each topic.
        let topics = self
            .partitions
            .chunk_by(|a, b| places[a.place].topic == places[b.place].topic);
        let first = self.first;
        let wanted = topics
            .flat_map(|topic| {
                let (front, back) = topic.split_at(first % topic.len());
                back.iter().chain(front)
            })
            .filter(|reading| !(catching_up && reading.is_read(places)))
            .map(|reading| Wanted {
                topic: &places[reading.place].topic,
                index: places[reading.place].index,
                offset: reading.next,
            });
        let mut wanted = wanted.peekable();
        if wanted.peek().is_none() {
            return Ok(());
        }
        self.correlation = self.correlation.checked_add(1).unwrap_or(0);
        fetch::request(&mut self.out, self.correlation, &self.limits, wanted);
        self.reader.expect(self.correlation);
        self.first = (self.first + 1) % count;
        (self.written, self.under_way, self.since) = (0, true, now);
        (self.records, self.bytes, self.at) = (0, 0, None);
        self.write()
    }

    /// Goes on with the request where the socket took no more.
    pub fn write(&mut self) -> Outcome {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(wrote) => self.written += wrote,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("a request can't be sent: {e}")),
            }
        }
        Ok(())
    }

    /// Reads what is there; `batch` is told the place, and the offset behind each batch.
    pub fn read(
        &mut self,
        inbound: &mut [u8],
        places: &[Place],
        now: impl Fn() -> Nanos,
        tally: &mut Tally,
        mut batch: impl FnMut(&mut Tally, Nanos, usize, i64),
    ) -> Outcome {
        loop {
            let read = match self.socket.read(inbound) {
                Ok(0) => return Err("the broker closed a consumer's connection".to_owned()),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("an answer can't be read: {e}")),
            };
            if !self.under_way {
                return Err("Fetch: an answer that nobody asked for".to_owned());
            }
            let now = now();
            let (partitions, at) = (&mut self.partitions, &mut self.at);
            let (mut records, mut bytes) = (0, 0);
            let whole = self.reader.read(&inbound[..read], |said| match said {
                Said::Partition {
                    topic,
                    index,
                    error,
                    ..
                } => {
                    let found = find(partitions, places, topic, index, *at)?;
                    if error != 0 {
                        let place = &places[partitions[found].place];
                        return Err(format!("Fetch: {place} answers with {}", named(error)));
                    }
                    *at = Some(found);
                    Ok(())
                }
                Said::Batch(header) => {
                    let reading = &mut partitions[at.expect("batches come in a partition")];
                    if header.base_offset != reading.next {
                        return Err(format!(
                            "Fetch: {} gives offset {} where {} was due",
                            places[reading.place], header.base_offset, reading.next
                        ));
                    }
                    reading.next = header.next_offset;
                    records += u64::from(header.records);
                    bytes += header.bytes;
                    batch(tally, now, reading.place, header.next_offset);
                    Ok(())
                }
            })?;
            self.records += records;
            self.bytes += bytes;
            // An answer that waited in vain is nothing that came.
            if records > 0 {
                tally.came(now, 0, records, bytes);
            }
            if whole {
                self.under_way = false;
                return Ok(());
            }
            if read < inbound.len() {
                return Ok(());
            }
        }
    }

    /// Counts the answer that is whole, if there was something in it.
    pub fn count(&self, now: Nanos, timed: bool, tally: &mut Tally) {
        if self.records > 0 {
            tally.came(now, 1, 0, 0);
            if timed {
                tally.took(now, now.saturating_sub(self.since), 1);
            }
        }
    }

    /// Nothing is left to be read, in this round.
    pub fn is_done(&self, places: &[Place]) -> bool {
        self.until == Until::End
            && self
                .partitions
                .iter()
                .all(|reading| reading.is_read(places))
    }
}

impl Reading {
    fn is_read(&self, places: &[Place]) -> bool {
        self.next >= places[self.place].end
    }
}

/// Answers come in the order of the request, as a rule: the one behind the last is tried
/// first.
fn find(
    partitions: &[Reading],
    places: &[Place],
    topic: &[u8],
    index: i32,
    last: Option<usize>,
) -> Outcome<usize> {
    let is = |reading: &Reading| {
        let place = &places[reading.place];
        place.index == index && place.topic.as_bytes() == topic
    };
    let likely = last.map_or(0, |last| (last + 1) % partitions.len());
    if is(&partitions[likely]) {
        return Ok(likely);
    }
    partitions.iter().position(is).ok_or_else(|| {
        let topic = String::from_utf8_lossy(topic);
        format!("Fetch: {topic}-{index} was not asked for")
    })
}
