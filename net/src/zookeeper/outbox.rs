//! What is to be sent to one client, in order, none of it before its time.
//!
//! ```text
//!   bytes   [ sent | reply reply | event reply | reply ... ]
//!   gates          zxid 7 ......^  zxid 9 .....^ zxid 12 ..^
//!                  committed: 9 -> everything up to there is ready, one send
//! ```
//!
//! An item leaves once the changelog is committed up to its gate, and never before an
//! item that was put in before it: a watch event precedes every reply that was made
//! after the change that it tells of. Gates therefore only rise, and an item with the
//! gate of the one before it (or an older one) needs none of its own.
//!
//! An idle connection has no buffers: they go back to a pool of the shard's when the
//! last byte is sent, so that 20,000 idle sessions cost eight bytes each here.

use crate::zookeeper::frame;
use klamm_coord::core::Zxid;
use klamm_engine::units::Nanos;
use std::collections::VecDeque;

/// Buffers that were used are kept for the next one, up to so many; those that grew
/// beyond this are given back to the allocator.
const POOL_MAX: usize = 64;
const POOLED_BYTES_MAX: usize = 64 << 10;

/// Sent bytes are cut off the front once they are this many, and half of all.
const CUT_BYTES_MIN: usize = 16 << 10;

/// The shard's spare buffers. Boxed as an outbox has them: what goes back and forth is
/// a pointer.
#[allow(clippy::vec_box)]
#[derive(Default)]
pub struct Pool(Vec<Box<Held>>);

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of `bytes` are sent.
    sent: usize,
    /// How many may be sent.
    ready: usize,
    gates: VecDeque<Gate>,
}

/// The items behind the gate before, up to `end`.
struct Gate {
    zxid: Zxid,
    /// In `bytes`.
    end: usize,
    items: u32,
    /// When the first of them was put in.
    since: Nanos,
}

#[derive(Default)]
pub struct Outbox(Option<Box<Held>>);

impl Outbox {
    /// How many bytes wait, ready or not.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |held| held.bytes.len() - held.sent)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether something waits for a commit.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.0.as_ref().is_some_and(|held| !held.gates.is_empty())
    }

    /// How many items wait for a commit.
    #[must_use]
    pub fn gated_items(&self) -> u64 {
        let gates = self.0.iter().flat_map(|held| &held.gates);
        gates.map(|gate| u64::from(gate.items)).sum()
    }

    /// The gate of the last item.
    #[must_use]
    pub fn last_gate(&self) -> Zxid {
        self.0
            .as_ref()
            .and_then(|held| held.gates.back())
            .map_or(Zxid::ZERO, |gate| gate.zxid)
    }

    /// Appends a frame that may leave once `gate` is committed.
    pub fn push(
        &mut self,
        pool: &mut Pool,
        gate: Zxid,
        committed: Zxid,
        now: Nanos,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        self.append(pool, gate, committed, now, |to| frame::put(to, fill));
    }

    /// Appends bytes that are no frame: the answer to a four-letter word.
    pub fn push_text(&mut self, pool: &mut Pool, text: &str) {
        self.append(pool, Zxid::ZERO, Zxid::ZERO, Nanos(0), |to| {
            to.extend_from_slice(text.as_bytes());
        });
    }

    fn append(
        &mut self,
        pool: &mut Pool,
        gate: Zxid,
        committed: Zxid,
        now: Nanos,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let held = self
            .0
            .get_or_insert_with(|| pool.0.pop().unwrap_or_default());
        held.cut();
        fill(&mut held.bytes);
        let end = held.bytes.len();
        match held.gates.back_mut() {
            Some(last) if gate <= last.zxid => {
                last.end = end;
                last.items += 1;
            }
            None if gate <= committed => held.ready = end,
            _ => held.gates.push_back(Gate {
                zxid: gate,
                end,
                items: 1,
                since: now,
            }),
        }
    }

    /// Opens the gates up to `committed`. `passed` is told of each: how many items were
    /// behind it, and since when. True: there is something to send.
    pub fn open(&mut self, committed: Zxid, mut passed: impl FnMut(u32, Nanos)) -> bool {
        let Some(held) = &mut self.0 else {
            return false;
        };
        while let Some(gate) = held.gates.front()
            && gate.zxid <= committed
        {
            assert!(held.ready <= gate.end, "gates stand in order");
            held.ready = gate.end;
            passed(gate.items, gate.since);
            held.gates.pop_front();
        }
        held.sent < held.ready
    }

    /// What may be sent now.
    #[must_use]
    pub fn ready(&self) -> &[u8] {
        self.0
            .as_ref()
            .map_or(&[], |held| &held.bytes[held.sent..held.ready])
    }

    /// So many bytes of `ready` are sent.
    pub fn sent(&mut self, pool: &mut Pool, bytes: usize) {
        let held = self.0.as_mut().expect("something was sent");
        held.sent += bytes;
        assert!(held.sent <= held.ready, "more was sent than was ready");
        if held.sent == held.bytes.len() {
            assert!(held.gates.is_empty(), "nothing is gated behind the end");
            let held = self.0.take().expect("just looked at");
            pool.take_back(held);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(held) = self.0.take() {
            pool.take_back(held);
        }
    }
}

impl Held {
    /// Keeps a connection that never comes to rest from growing for ever.
    fn cut(&mut self) {
        if self.sent < CUT_BYTES_MIN || self.sent * 2 < self.bytes.len() {
            return;
        }
        self.bytes.drain(..self.sent);
        self.ready -= self.sent;
        for gate in &mut self.gates {
            gate.end -= self.sent;
        }
        self.sent = 0;
    }
}

impl Pool {
    fn take_back(&mut self, mut held: Box<Held>) {
        if self.0.len() < POOL_MAX && held.bytes.capacity() <= POOLED_BYTES_MAX {
            held.bytes.clear();
            held.gates.clear();
            (held.sent, held.ready) = (0, 0);
            self.0.push(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(outbox: &mut Outbox, pool: &mut Pool, gate: i64, committed: i64, byte: u8) {
        outbox.push(pool, Zxid(gate), Zxid(committed), Nanos(1), |to| {
            to.push(byte)
        });
    }

    fn ready(outbox: &Outbox) -> Vec<u8> {
        outbox.ready().chunks(5).map(|frame| frame[4]).collect()
    }

    #[test]
    fn items_leave_in_order_and_not_before_their_gate() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        item(&mut outbox, &mut pool, 5, 5, b'a');
        item(&mut outbox, &mut pool, 7, 5, b'b');
        item(&mut outbox, &mut pool, 5, 5, b'c');
        item(&mut outbox, &mut pool, 9, 5, b'd');
        assert_eq!(
            ready(&outbox),
            b"a",
            "what is gated holds back what follows"
        );
        let mut passed = Vec::new();
        assert!(outbox.open(Zxid(8), |items, _| passed.push(items)));
        assert_eq!(ready(&outbox), b"abc");
        assert_eq!(passed, [2]);
        outbox.sent(&mut pool, 7);
        assert_eq!(outbox.ready().len(), 8);
        outbox.sent(&mut pool, 8);
        assert!(!outbox.open(Zxid(8), |_, _| {}));
        assert!(outbox.is_gated());
        assert!(outbox.open(Zxid(9), |_, _| {}));
        outbox.sent(&mut pool, 5);
        assert!(outbox.is_empty());
        assert_eq!(size_of::<Outbox>(), 8, "an idle connection pays this");
        assert_eq!(pool.0.len(), 1, "the buffers serve the next one");
    }

    proptest! {
        /// Whatever comes, is committed and is sent in whatever order: the bytes leave
        /// in order, none early, none late.
        #[test]
        fn a_stream_of_items_with_sends_of_any_size(
            steps in proptest::collection::vec((0u8..3, 0i64..4, 1usize..4_000), 1..100)
        ) {
            let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
            let (mut zxid, mut committed) = (0, 0);
            // (end, gate) of each item
            let (mut wanted, mut gates): (Vec<u8>, Vec<(usize, i64)>) = Default::default();
            let mut came = Vec::new();
            for (at, (what, step, len)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        zxid += step;
                        let gate = Zxid(zxid);
                        outbox.push(&mut pool, gate, Zxid(committed), Nanos(0), |to| {
                            to.resize(to.len() + len, at as u8);
                        });
                        frame::put(&mut wanted, |to| to.resize(to.len() + len, at as u8));
                        gates.push((wanted.len(), zxid));
                    }
                    1 => {
                        committed = (committed + step).min(zxid);
                        outbox.open(Zxid(committed), |_, _| {});
                    }
                    _ => {
                        let n = len.min(outbox.ready().len());
                        came.extend_from_slice(&outbox.ready()[..n]);
                        if n > 0 {
                            outbox.sent(&mut pool, n);
                        }
                    }
                }
                let ready = came.len() + outbox.ready().len();
                let may_leave = gates.iter().take_while(|(_, gate)| *gate <= committed).last();
                prop_assert_eq!(ready, may_leave.map_or(0, |(end, _)| *end));
                prop_assert_eq!(outbox.bytes(), wanted.len() - came.len());
            }
            prop_assert!(came[..] == wanted[..came.len()]);
        }
    }
}
