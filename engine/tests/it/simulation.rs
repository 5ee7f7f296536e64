//! Seeds: a machine with several partitions, producers, readers and upkeep on it goes
//! through some lives, each with its own faults and its own end. What was promised to
//! anyone outside is kept in ledgers, and held against what the next life finds.
//!
//! ```text
//!   KLAMM_SIM_SEEDS=100000 cargo test -p klamm-engine --test it simulation -- --nocapture
//!   KLAMM_SIM_SEED=4711    ... one seed again, alone
//! ```

mod ledger;
mod lies;
mod life;

use klamm_engine::config::LogConfig;
use klamm_engine::io::BLOCK;
use klamm_engine::io::sim::{Crashed, DATA, Faults, PowerCut, Rng, Sim, When};
use klamm_engine::journal::JournalConfig;
use klamm_engine::journal::layout::{self, Found, Header, decode_group};
use klamm_engine::mark::{self, Mark};
use klamm_engine::segment::parse_file_name;
use klamm_engine::units::ShardId;
use ledger::{Broken, Ledger};
use lies::{Injected, Lie, LyingIo};
use life::{Allowed, Ended, Plan, Topic, live};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

/// What a run of seeds went through, so that a reader sees that it did.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn add(&mut self, what: &'static str, n: u64) {
        *self.0.entry(what).or_default() += n;
    }

    fn merge(&mut self, other: &Tally) {
        for (what, n) in &other.0 {
            self.add(what, *n);
        }
    }
}

/// The life of one seed's world.
struct World {
    sim: Sim,
    rng: Rng,
    lie: Lie,
    topics: Vec<Topic>,
    numbers: Rc<Cell<u64>>,
    injected: Rc<Injected>,
    tally: Tally,
    leader_epoch: i32,
    told: bool,
}

/// A journal as a life has left it.
struct JournalLeft {
    path: String,
    generation: u64,
    groups: Vec<Range<usize>>,
}

/// A flipped bit, and what is to be undone after the life that met it.
struct Damage {
    path: String,
    before: Vec<u8>,
    byte: u64,
    bit: u8,
}

fn run_seed(seed: u64, lie: Lie, told: bool) -> Result<Tally, Broken> {
    let sim = Sim::from_seed(seed);
    let mut rng = sim.rng();
    let names = ["orders", "payments", "clicks"];
    let topics = names[..rng.between(1, 3) as usize]
        .iter()
        .map(|name| Topic {
            name,
            config: config(&mut rng),
            ledger: Rc::new(RefCell::new(Ledger::new(2))),
        })
        .collect();
    let mut world = World {
        sim,
        rng,
        lie,
        topics,
        numbers: Rc::new(Cell::new(1)),
        injected: Rc::default(),
        tally: Tally::default(),
        leader_epoch: 0,
        told,
    };
    world.go()?;
    let mut tally = world.tally;
    tally.add("errors injected", world.injected.errors.get());
    tally.add("short writes", world.injected.short_writes.get());
    tally.add("syncs", world.sim.sync_points());
    Ok(tally)
}

fn config(rng: &mut Rng) -> LogConfig {
    LogConfig {
        segment_bytes: rng.between(2, 24) << 10,
        index_interval_bytes: rng.between(100, 4096),
        retention_age_max: None,
        retention_bytes_max: (rng.below(4) == 0).then(|| rng.between(4, 30) << 10),
        ..LogConfig::default()
    }
}

impl World {
    fn go(&mut self) -> Result<(), Broken> {
        let mut clean = false;
        for _ in 0..self.rng.between(1, 4) {
            let plan = self.plan(clean);
            let damage = match plan.allowed.damage {
                true => self.flip_a_bit(),
                false => None,
            };
            clean = self.one_life(&plan, damage.is_some())? == Some(Ended::Closed);
            if let Some(damage) = damage {
                self.undo(&damage);
                // What is committed there now is not what was closed.
                clean = false;
            }
        }
        // Nothing goes wrong any more: all that was promised is there.
        let mut plan = self.plan(clean);
        plan.allowed = Allowed::default();
        plan.close = true;
        self.sim.faults(Faults::default());
        self.sim.capacity(None);
        self.tally.add("lives", 1);
        let io = LyingIo::new(self.sim.restart(), self.lie, self.injected.clone());
        let life = live(
            io,
            &self.topics,
            &plan,
            self.numbers.clone(),
            self.rng.fork(),
        );
        let ended = self.sim.run(life)?;
        match ended {
            Ended::Closed => Ok(()),
            Ended::Running => Err("the last life does not close".to_owned()),
        }
    }

    fn plan(&mut self, clean: bool) -> Plan {
        self.leader_epoch += i32::from(self.rng.below(4) == 0);
        let rng = &mut self.rng;
        let shards = rng.between(1, 3) as usize;
        let journal = (rng.below(5) > 0).then(|| {
            let grow = rng.between(1, 6) << 12;
            let config = JournalConfig {
                // Small, so that files are settled and written again.
                file_bytes: rng.between(3, 24) << 12,
                grow_bytes: grow,
                entry_bytes_max: rng.between(500, 9000) as usize,
                backlog_bytes_max: rng.between(1, 64 << 10) as usize,
                sync_all_from: rng.between(1, 6) as usize,
            };
            (ShardId(rng.below(shards as u64) as u16), config)
        });
        Plan {
            clean,
            leader_epoch: self.leader_epoch,
            tail_bytes: rng.below(64 << 10) as usize,
            steps: rng.between(1, 10) as usize,
            upkeep: rng.below(3) == 0,
            checkpoints: rng.below(3) == 0,
            allowed: Allowed {
                failures: false,
                damage: rng.below(8) == 0,
                holes: false,
            },
            journal,
            shards,
            close: rng.coin(),
        }
    }

    /// None: a crash ended it.
    fn one_life(&mut self, plan: &Plan, damaged: bool) -> Result<Option<Ended>, Broken> {
        self.tally.add("lives", 1);
        let mut plan = plan.clone();
        plan.allowed.damage = damaged;
        let io = self.sim.restart();
        let rng = &mut self.rng;
        let mut faults = Faults::default();
        let mut sync_errors = false;
        if rng.below(3) == 0 {
            faults.slow = 0.02;
            faults.slow_max = Duration::from_millis(20);
        }
        if !damaged {
            let often = rng.between(1, 30) as f64 / 1000.0;
            match rng.below(16) {
                0 | 1 => faults.short_write = 0.3,
                2 => faults.write_error = often,
                3 | 4 => {
                    faults.sync_error = often;
                    sync_errors = true;
                    plan.allowed.holes = plan.journal.is_some();
                }
                5 => faults.read_error = often,
                6 => faults.open_error = often,
                7 => faults.resize_error = often,
                8 => faults.name_error = often,
                9 => {
                    let room = self.sim.used() + rng.below(3 << 20);
                    self.sim.capacity(Some(room));
                    plan.allowed.failures = true;
                }
                _ => {}
            }
            plan.allowed.failures |= faults.write_error
                + faults.sync_error
                + faults.read_error
                + faults.open_error
                + faults.resize_error
                + faults.name_error
                > 0.0;
        }
        self.tell(|| format!("lives with {plan:?}, {faults:?}"));
        self.sim.faults(faults);
        let rng = &mut self.rng;
        let cuts = [
            PowerCut::Random,
            PowerCut::Random,
            PowerCut::LoseAll,
            PowerCut::KeepAll,
            PowerCut::TearLast,
        ];
        let cut = cuts[rng.index(cuts.len())];
        match rng.below(6) {
            0..=2 => {
                let when = if rng.coin() {
                    When::Before
                } else {
                    When::After
                };
                let next = self.sim.sync_points() + rng.between(1, 60);
                self.sim.crash_at_sync_how(next, when, cut);
            }
            3 => self
                .sim
                .power_cut_in(Duration::from_micros(rng.below(20_000))),
            4 if !sync_errors => self.sim.kill_in(Duration::from_micros(rng.below(20_000))),
            _ => {}
        }
        let rng = rng.fork();
        let io = LyingIo::new(io, self.lie, self.injected.clone());
        let life = live(io, &self.topics, &plan, self.numbers.clone(), rng);
        let ended = match self.sim.try_run(life) {
            Err(Crashed::Power(_)) => {
                self.tally.add("power cuts", 1);
                None
            }
            Err(Crashed::Killed) => {
                self.tally.add("kills", 1);
                None
            }
            Ok(ended) => {
                let ended = ended?;
                self.tally
                    .add("stops in order", u64::from(ended == Ended::Closed));
                // After a failed sync nobody knows what the next one of a file leaves
                // out, so a disk like that is not gone on with before a reboot.
                if sync_errors || self.rng.coin() {
                    self.sim.power_cut_how(cut);
                    self.tally.add("power cuts", 1);
                } else {
                    self.sim.kill();
                    self.tally.add("kills", 1);
                }
                Some(ended)
            }
        };
        let journals = self.journals();
        let groups: usize = journals.iter().map(|j| j.groups.len()).sum();
        self.tally.add("journals left", journals.len() as u64);
        self.tally.add("groups left in them", groups as u64);
        self.tally.add(
            "lives that used a file again",
            u64::from(journals.iter().any(|j| j.generation > 2)),
        );
        self.sim.faults(Faults::default());
        self.sim.capacity(None);
        self.tell(|| format!("ended {ended:?}, last with {cut:?}"));
        Ok(ended)
    }

    /// A seed that is run again alone tells its story.
    fn tell(&self, what: impl FnOnce() -> String) {
        if !self.told {
            return;
        }
        println!("{}", what());
        for topic in &self.topics {
            let dir = format!("{DATA}/{}-0", topic.name);
            for name in self.sim.list(&dir) {
                let path = format!("{dir}/{name}");
                let len = self.sim.read_stable(&path).map_or(0, |bytes| bytes.len());
                let committed = self.sim.read_committed(&path).map(|bytes| bytes.len());
                println!("  {path}: {len} bytes, {committed:?} committed");
            }
        }
    }

    // -- bits that flip at rest

    /// Flips a bit of a file whose bytes are known to be committed. None: of no such file.
    fn flip_a_bit(&mut self) -> Option<Damage> {
        if self.rng.below(3) == 0
            && let Some(damage) = self.flip_a_bit_of_a_journal()
        {
            return Some(damage);
        }
        let topic = self.topics[self.rng.index(self.topics.len())].name;
        let dir = format!("{DATA}/{topic}-0");
        let mut names = self.sim.list(&dir);
        // Kafka's text has no checksum: a wrong epoch is told once a batch contradicts it,
        // which may be some lives later.
        names.retain(|name| name != "leader-epoch-checkpoint");
        if names.is_empty() {
            return None;
        }
        let name = &names[self.rng.index(names.len())];
        let path = format!("{dir}/{name}");
        let before = self.sim.read_stable(&path)?;
        if name.ends_with(".log") && self.journals().iter().any(|j| !j.groups.is_empty()) {
            // The replay that comes may write the block anew, with or without the flipped bit,
            // and be cut short at it: what is then to be put back, nobody here can tell.
            return None;
        }
        let upto = match parse_file_name(name, "log") {
            Some(base) => self.committed(&dir, base, before.len() as u64)?,
            None => before.len() as u64,
        };
        if upto == 0 {
            return None;
        }
        let (byte, bit) = (self.rng.below(upto), self.rng.below(8) as u8);
        self.sim.flip(&path, byte, bit);
        self.tally.add("bits flipped", 1);
        self.tell(|| format!("bit {bit} of byte {byte} of {path} is flipped"));
        Some(Damage {
            path,
            before,
            byte,
            bit,
        })
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
        self.sim.flip(&path, byte, bit);
        self.tally.add("bits of journals flipped", 1);
        self.tell(|| format!("bit {bit} of byte {byte} of {path} is flipped"));
        Some(Damage {
            path,
            before,
            byte,
            bit,
        })
    }

    /// The journal files whose groups count.
    fn journals(&self) -> Vec<JournalLeft> {
        let dir = format!("{DATA}/{}", layout::FOLDER);
        let names = self.sim.list(&dir).into_iter();
        let left = names.filter_map(|name| {
            let path = format!("{dir}/{name}");
            let bytes = self.sim.read_stable(&path)?;
            let block = bytes.get(..BLOCK)?;
            let header = Header::decode(block).ok()??;
            let (mut at, mut groups) = (BLOCK, Vec::new());
            while let (Found::Whole(group), _) = decode_group(&bytes, at, header.generation) {
                groups.push(at..at + group.len);
                at += layout::group_room(group.len);
            }
            header.used.then_some(JournalLeft {
                path,
                generation: header.generation,
                groups,
            })
        });
        left.collect()
    }

    /// How many of a segment's bytes the mark protects, or that it has a successor.
    fn committed(&self, dir: &str, base: klamm_engine::units::Offset, len: u64) -> Option<u64> {
        let names = self.sim.list(dir);
        let sealed = names
            .iter()
            .filter_map(|n| parse_file_name(n, "log"))
            .any(|other| other > base);
        if sealed {
            return Some(len);
        }
        let block = self.sim.read_stable(format!("{dir}/{}", mark::FILE_NAME))?;
        let mark = Mark::decode(&block)?;
        (mark.segment == base).then_some(mark.pos.0.min(len))
    }

    /// Puts the bit back where it still is; what was written anew since is sound.
    fn undo(&mut self, damage: &Damage) {
        let Some(now) = self.sim.read_stable(&damage.path) else {
            return;
        };
        let byte = damage.byte as usize;
        let mut flipped = damage.before.clone();
        flipped[byte] ^= 1 << damage.bit;
        let still = now.get(byte) == Some(&flipped[byte]);
        let same = if damage.path.ends_with(".log") {
            still
        } else if damage.path.ends_with(layout::EXTENSION) {
            // Each new use of the file has another header.
            still && now.get(..BLOCK) == flipped.get(..BLOCK)
        } else {
            now == flipped
        };
        if same {
            self.sim.flip(&damage.path, damage.byte, damage.bit);
        }
    }
}

// -- running many

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics of engines that were broken on purpose are not printed.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.with(Cell::get) {
                loud(info);
            }
        }));
    });
}

/// A seed's outcome; an assert of the engine that fails is one too.
fn attempt(seed: u64, lie: Lie) -> Result<Tally, Broken> {
    QUIET.with(|quiet| quiet.set(lie != Lie::Honest));
    let outcome = catch_unwind(AssertUnwindSafe(|| run_seed(seed, lie, false)));
    QUIET.with(|quiet| quiet.set(false));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn what_was_promised_outlives_every_crash() {
    hush();
    if let Some(seed) = from_env("KLAMM_SIM_SEED") {
        let tally =
            run_seed(seed, Lie::Honest, true).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        println!("seed {seed}: {:?}", tally.0);
        return;
    }
    let seeds = from_env("KLAMM_SIM_SEEDS").unwrap_or(10_000);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Tally::default());
    let broken: Mutex<Vec<(u64, Broken)>> = Mutex::default();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.load(Ordering::Relaxed) {
                        break;
                    }
                    match attempt(seed, Lie::Honest) {
                        Ok(tally) => {
                            mine.merge(&tally);
                            mine.add("seeds", 1);
                        }
                        Err(what) => {
                            failed.store(true, Ordering::Relaxed);
                            broken.lock().unwrap().push((seed, what));
                        }
                    }
                }
                total.lock().unwrap().merge(&mine);
            });
        }
    });
    println!("simulation: {:?}", total.into_inner().unwrap().0);
    if let Some((seed, what)) = broken.into_inner().unwrap().into_iter().min() {
        panic!(
            "seed {seed}: {what}\nagain: KLAMM_SIM_SEED={seed} cargo test -p klamm-engine --test it what_was_promised -- --nocapture"
        );
    }
}

/// Each bug is found, and soon: a simulation that finds nothing says nothing.
#[test]
fn planted_bugs_are_found() {
    const SEEDS: u64 = 3000;
    hush();
    let lies = [
        Lie::NoSync,
        Lie::ShortWriteIgnored,
        Lie::SyncRetried,
        Lie::WriteErrorSwallowed,
        Lie::SyncErrorSwallowed,
        Lie::NoDirSync,
        Lie::NoTruncate,
        Lie::MarkClaimsTooMuch,
        Lie::WriteMisplaced,
        Lie::ReplaceForgotten,
        Lie::JournalNotSynced,
        Lie::SegmentNotSynced,
        Lie::JournalNotReplayed,
    ];
    for lie in lies {
        let found = (0..SEEDS).find_map(|seed| attempt(seed, lie).err().map(|what| (seed, what)));
        let Some((seed, what)) = found else {
            panic!("{lie:?} is not found by {SEEDS} seeds");
        };
        if let Err(other) = attempt(seed, Lie::Honest) {
            panic!("seed {seed} fails without {lie:?} too: {other}");
        }
        println!("planted {lie:?}: found by seed {seed}: {what}");
    }
}
