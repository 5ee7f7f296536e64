//! A world in one thread, from one seed: tasks, clock and a disk that lies.
//!
//! ```text
//!   Sim (the test holds it; it is the room around the machine)
//!    |  run, crash_at_sync, power_cut, kill, restart, flip_bit, faults, ...
//!    v
//!   World --- Disk      what is seen | what is committed | what lies between
//!    |    \-- Agenda    completions and timers by virtual time
//!    |     \- Faults    how often what goes wrong
//!   Tasks               polled in an order from the seed
//!    ^
//!   SimIo (the machine's own: `Io`; dead after a crash, `restart` gives the next)
//! ```
//!
//! The same seed and the same calls give the same run, to the byte. No real time
//! passes: when nothing is runnable the clock jumps.
//!
//! A crash ends the machine, not the test. Handles of a machine that is down never
//! answer again, so nothing that ran on it can tell of a success it did not have.
//!
//! ```no_run
//! # use klamm_engine::io::{Io, sim::Sim};
//! # use std::path::Path;
//! let sim = Sim::from_seed(7);
//! sim.crash_at_sync(2);
//! let io = sim.io();
//! let ended = sim.try_run(async { io.replace_file(Path::new("/data/x"), vec![1]).await });
//! assert!(ended.is_err()); // the power went in the middle
//! let io = sim.restart();
//! sim.run(async { io.read_dir(Path::new("/data")).await }).unwrap();
//! ```

mod disk;
mod executor;
mod faults;
mod machine;
mod rng;
#[cfg(test)]
mod tests;

pub use disk::PowerCut;
pub use faults::{Faults, OpKind};
pub use machine::{SimBuf, SimFile, SimIo, SimRead};
pub use rng::Rng;

use crate::units::Nanos;
use disk::Disk;
use executor::{Agenda, Event, EventKey, MAIN, Tasks};
use faults::{Planned, PlannedFault, eio};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The folder that is there, and committed, in every new world.
pub const DATA: &str = "/data";

/// 2026-01-01T00:00:00Z: a wall clock as records have it.
const WALL_START_MS: i64 = 1_767_225_600_000;

/// Polls in one `run` after which it is taken to go round in a circle.
const POLLS_MAX: u64 = 50_000_000;

/// How a machine went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashed {
    Power(PowerCut),
    /// The process was killed: what was written is seen by the next one, though
    /// nothing of it is committed that was not before.
    Killed,
}

/// Whether the sync at which the power goes has taken effect. It never answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// Everything that is not a task.
struct World {
    rng: Rng,
    now: Nanos,
    wall_shift_ms: i64,
    disk: Disk,
    agenda: Agenda,
    serial: u64,
    faults: Faults,
    planned: Vec<Planned>,
    syncs: u64,
    crash_at: Option<(u64, When, PowerCut)>,
    knows_sync_all: bool,
    /// Of this life of the machine.
    sync_all_failed: bool,
    /// Set where a crash is due; the executor sees to it after the poll.
    down: Option<Crashed>,
    fingerprint: u64,
}

struct Shared {
    world: RefCell<World>,
    tasks: Tasks,
    /// Counts the machine's lives; a handle of another life is dead.
    life: Cell<u64>,
    seed: u64,
}

/// The world, for the test that watches it. See the module.
pub struct Sim(Rc<Shared>);

impl Sim {
    #[must_use]
    pub fn from_seed(seed: u64) -> Sim {
        let mut disk = Disk::new();
        disk.create_dir(Path::new(DATA))
            .expect("the first name on an empty disk");
        disk.commit_everything();
        let mut rng = Rng::from_seed(seed);
        // A monotonic clock's origin says nothing.
        let now = Nanos(1_000_000_000 + rng.below(1 << 40));
        Sim(Rc::new(Shared {
            world: RefCell::new(World {
                rng,
                now,
                wall_shift_ms: WALL_START_MS - (now.0 / 1_000_000) as i64,
                disk,
                agenda: Agenda::default(),
                serial: 0,
                faults: Faults::default(),
                planned: Vec::new(),
                syncs: 0,
                crash_at: None,
                knows_sync_all: true,
                sync_all_failed: false,
                down: None,
                fingerprint: 0,
            }),
            tasks: Tasks::new(),
            life: Cell::new(1),
            seed,
        }))
    }

    /// The machine as it runs now.
    #[must_use]
    pub fn io(&self) -> SimIo {
        SimIo::new(self.0.clone())
    }

    // -- running

    /// Runs `main` to its end, and what was spawned beside it; those tasks stay and go
    /// on in the next `run`. Panics where the machine goes down, or where everyone waits
    /// for no one.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        match self.try_run(main) {
            Ok(value) => value,
            Err(how) => panic!(
                "seed {}: the machine went down in run(): {how:?}; try_run() is for that",
                self.0.seed
            ),
        }
    }

    /// As `run`, and Err where the machine went down before `main` ended: by
    /// `crash_at_sync`, `power_cut_in` or `kill_in`. Then `main` and all tasks are
    /// dropped where they stood.
    pub fn try_run<T>(&self, main: impl Future<Output = T>) -> Result<T, Crashed> {
        let mut main = pin!(main);
        let armed = self.0.tasks.main_waker();
        let waker = Waker::from(armed.clone());
        let mut polls = 0u64;
        loop {
            let mut ended = None;
            match self
                .0
                .tasks
                .next(|n| self.0.world.borrow_mut().rng.index(n))
            {
                Some(MAIN) => {
                    armed.rearm();
                    if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker))
                    {
                        ended = Some(value);
                    }
                }
                Some(task) => self.0.tasks.poll(task),
                None => assert!(
                    self.jump(),
                    "seed {}: everyone waits for no one: {} tasks, no timer, no I/O under way",
                    self.0.seed,
                    self.0.tasks.len(),
                ),
            }
            if ended.is_none() {
                self.pass();
            }
            let down = self.0.world.borrow_mut().down.take();
            if let Some(how) = down {
                self.go_down(how);
                return Err(how);
            }
            if let Some(value) = ended {
                return Ok(value);
            }
            polls += 1;
            assert!(
                polls < POLLS_MAX,
                "seed {}: {polls} polls and no end in sight",
                self.0.seed
            );
        }
    }

    /// A poll takes a moment too; what falls due in it happens.
    fn pass(&self) {
        let mut world = self.0.world.borrow_mut();
        let moment = world.rng.below(1_000);
        world.now = Nanos(world.now.0 + moment);
        drop(world);
        self.happen();
    }

    /// Nothing is runnable: on to the next instant at which something is due.
    fn jump(&self) -> bool {
        let mut world = self.0.world.borrow_mut();
        let Some(next) = world.agenda.next_instant() else {
            return false;
        };
        world.now = world.now.max(next);
        drop(world);
        self.happen();
        true
    }

    fn happen(&self) {
        loop {
            let mut world = self.0.world.borrow_mut();
            if world.down.is_some() {
                return;
            }
            let now = world.now;
            let Some((key, event)) = world.agenda.due(now) else {
                return;
            };
            world.mark(key.0.0 ^ key.2);
            let waker = event(&mut world);
            drop(world);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    // -- crashes

    /// The power goes now: bytes and names that were not committed are lost as `how`
    /// says, operations under way may or may not have had their effect, tasks end.
    pub fn power_cut_how(&self, how: PowerCut) {
        self.go_down(Crashed::Power(how));
    }

    /// `power_cut_how`, any subset.
    pub fn power_cut(&self) {
        self.power_cut_how(PowerCut::Random);
    }

    /// The process is killed now: what was written stays, tasks end.
    pub fn kill(&self) {
        self.go_down(Crashed::Killed);
    }

    /// Cuts the power at the `n`-th sync (`fdatasync`, `sync_dir` or `sync_all`) of this world's
    /// life, counted from 1, before or after its effect by the seed.
    pub fn crash_at_sync(&self, n: u64) {
        let when = match self.0.world.borrow_mut().rng.coin() {
            true => When::Before,
            false => When::After,
        };
        self.crash_at_sync_how(n, when, PowerCut::Random);
    }

    pub fn crash_at_sync_how(&self, n: u64, when: When, how: PowerCut) {
        let mut world = self.0.world.borrow_mut();
        assert!(
            n > world.syncs,
            "sync {n} is past: there were {}",
            world.syncs
        );
        world.crash_at = Some((n, when, how));
    }

    /// How many syncs there were. A run without a crash says how many to walk.
    #[must_use]
    pub fn sync_points(&self) -> u64 {
        self.0.world.borrow().syncs
    }

    pub fn power_cut_in(&self, after: Duration) {
        self.crash_in(after, Crashed::Power(PowerCut::Random));
    }

    pub fn kill_in(&self, after: Duration) {
        self.crash_in(after, Crashed::Killed);
    }

    fn crash_in(&self, after: Duration, how: Crashed) {
        let event: Event = Box::new(move |world| {
            world.down = Some(how);
            None
        });
        self.0.world.borrow_mut().plan(after, event);
    }

    /// Ends the life of the machine: what it had under way, its tasks, its handles.
    fn go_down(&self, how: Crashed) {
        self.0.life.set(self.0.life.get() + 1);
        let mut world = self.0.world.borrow_mut();
        let under_way = world.agenda.take();
        world.crash_at = None;
        for event in under_way {
            let happens = match how {
                Crashed::Power(PowerCut::LoseAll) => false,
                Crashed::Power(PowerCut::KeepAll | PowerCut::TearLast) => true,
                Crashed::Power(PowerCut::Random) | Crashed::Killed => world.rng.coin(),
            };
            if happens {
                // It took effect and no one heard of it: nobody is woken.
                event(&mut world);
            }
        }
        world.down = None;
        world.sync_all_failed = false;
        let World { disk, rng, .. } = &mut *world;
        match how {
            Crashed::Power(how) => disk.power_cut(how, rng),
            Crashed::Killed => disk.release_all(),
        }
        world.mark(0xdead);
        drop(world);
        self.0.tasks.drop_all();
    }

    /// The next life of the machine, on the disk that the last one left. Kills it first
    /// where it still ran.
    #[must_use]
    pub fn restart(&self) -> SimIo {
        self.kill();
        let mut world = self.0.world.borrow_mut();
        let World {
            disk, rng, faults, ..
        } = &mut *world;
        if faults.bit_rot > 0.0 {
            for (ino, len) in disk.files_with_bytes() {
                if rng.chance(faults.bit_rot) {
                    disk.flip(ino, rng.below(len), rng.below(8) as u8);
                }
            }
        }
        drop(world);
        self.io()
    }

    // -- faults

    /// Sets what goes wrong from now on.
    pub fn faults(&self, faults: Faults) {
        self.0.world.borrow_mut().faults = faults;
    }

    /// The next operation of this kind at or below `under` fails with EIO, after `skip`
    /// of them that go well.
    pub fn fail(&self, op: OpKind, under: impl AsRef<Path>, skip: u64) {
        self.planned(op, under.as_ref(), skip, PlannedFault::Eio);
    }

    /// The next write at or below `under` takes fewer bytes than it was given, after
    /// `skip` whole ones.
    pub fn shorten_write(&self, under: impl AsRef<Path>, skip: u64) {
        self.planned(
            OpKind::Write,
            under.as_ref(),
            skip,
            PlannedFault::ShortWrite,
        );
    }

    fn planned(&self, op: OpKind, under: &Path, skip: u64, what: PlannedFault) {
        let plan = Planned {
            op,
            under: under.to_owned(),
            skip,
            what,
        };
        self.0.world.borrow_mut().planned.push(plan);
    }

    /// The disk holds so many bytes; ENOSPC beyond. None: no limit.
    pub fn capacity(&self, bytes: Option<u64>) {
        self.0.world.borrow_mut().disk.capacity = bytes;
    }

    /// Bytes that files take, in whole blocks up to their lengths.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.world.borrow().disk.used()
    }

    /// The file system is none that commits everything at once: `sync_all` says so.
    pub fn without_sync_all(&self) {
        self.0.world.borrow_mut().knows_sync_all = false;
    }

    /// Flips the lowest bit of a byte where it lies on the disk.
    pub fn flip_bit(&self, path: impl AsRef<Path>, byte: u64) {
        self.flip(path, byte, 0);
    }

    /// Flips one bit where it lies on the disk; a second time it is as it was.
    pub fn flip(&self, path: impl AsRef<Path>, byte: u64, bit: u8) {
        let path = path.as_ref();
        let mut world = self.0.world.borrow_mut();
        let ino = world
            .disk
            .find_file(path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            byte < world.disk.len(ino),
            "{}: has no byte {byte}",
            path.display()
        );
        world.disk.flip(ino, byte, bit);
    }

    /// Moves the wall clock; the monotonic one goes on.
    pub fn jump_wall(&self, by_ms: i64) {
        self.0.world.borrow_mut().wall_shift_ms += by_ms;
    }

    // -- looking, from outside: no time passes and nothing fails

    /// What of a file would be there after the power went and only committed things
    /// stayed. None: no such file.
    #[must_use]
    pub fn read_committed(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.0.world.borrow().disk.committed(path.as_ref())
    }

    /// What a read would see now. None: no such file.
    #[must_use]
    pub fn read_stable(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let world = self.0.world.borrow();
        let ino = world.disk.find_file(path.as_ref()).ok()?;
        Some(world.disk.read(ino, 0, world.disk.len(ino) as usize))
    }

    /// The names in a folder, sorted; empty where there is no such folder.
    #[must_use]
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let names = self
            .0
            .world
            .borrow()
            .disk
            .list(path.as_ref())
            .unwrap_or_default();
        names.into_iter().map(|(name, _)| name).collect()
    }

    /// Puts a file there, committed with all that is above it, as if it had always been.
    pub fn plant(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let path = path.as_ref();
        let mut world = self.0.world.borrow_mut();
        let disk = &mut world.disk;
        for dir in path
            .ancestors()
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            if disk.find(dir).is_err() {
                disk.create_dir(dir)
                    .unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
            }
        }
        if disk.find_file(path).is_ok() {
            disk.remove_file(path).expect("it was found");
        }
        let ino = disk
            .create_file(path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        disk.write(ino, disk::pieces(0, bytes), bytes.len() as u64);
        disk.commit_everything();
    }

    #[must_use]
    pub fn now(&self) -> Nanos {
        self.0.world.borrow().now
    }

    /// Chance for the test's own use, that goes on alike whatever the world draws later.
    #[must_use]
    pub fn rng(&self) -> Rng {
        self.0.world.borrow_mut().rng.fork()
    }

    /// The run so far in a number: two that are the same ran the same way.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.0.world.borrow().fingerprint
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "simulated world: seed {}, {} syncs",
                self.0.seed,
                self.sync_points()
            );
        }
        // Tasks hold the world that holds them.
        self.0.life.set(self.0.life.get() + 1);
        self.0.world.borrow_mut().agenda.take();
        self.0.tasks.drop_all();
    }
}

impl World {
    fn mark(&mut self, what: u64) {
        self.fingerprint = (self.fingerprint ^ what).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn plan(&mut self, after: Duration, event: Event) -> EventKey {
        self.serial += 1;
        let key = (self.now.plus(after), self.rng.next_u64(), self.serial);
        self.agenda.add(key, event);
        key
    }

    /// Whether this operation goes wrong, and how.
    fn fault(&mut self, op: OpKind, path: &Path) -> Option<PlannedFault> {
        let planned = faults::take_planned(&mut self.planned, op, path);
        planned
            .or_else(|| {
                self.rng
                    .chance(self.faults.probability(op))
                    .then_some(PlannedFault::Eio)
            })
            .or_else(|| {
                (op == OpKind::Write && self.rng.chance(self.faults.short_write))
                    .then_some(PlannedFault::ShortWrite)
            })
    }

    fn fail(&mut self, op: OpKind, path: &Path) -> io::Result<()> {
        match self.fault(op, path) {
            Some(_) => Err(eio()),
            None => Ok(()),
        }
    }

    /// Counts a sync; the machine may go down at it. Answers whether it is to go down
    /// once the sync has taken effect.
    fn sync_point(&mut self) -> Option<Crashed> {
        self.syncs += 1;
        match self.crash_at {
            Some((n, when, how)) if n == self.syncs => {
                if when == When::Before {
                    self.down = Some(Crashed::Power(how));
                }
                Some(Crashed::Power(how))
            }
            _ => None,
        }
    }
}
