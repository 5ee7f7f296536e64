//! Random steps of several sessions: mostly sound, and with everything wrong in them
//! that a client can get wrong without leaving the protocol.
//!
//! ```text
//!   names a b c, three deep, below ~ (the run's own node)   few, so that they collide
//!   Calls      1-6 requests of one session in one write, alone where one ends the
//!              connection or is answered out of turn
//!   Reconnect  the connection is cut, the session goes on over another, with watches
//!              Close, WrongPassword, UnknownSession
//! ```
//!
//! No step depends on an answer: what is left of a sequence, after some of its steps
//! are taken out, is a sequence again.

use klamm_tests::apache_zookeeper::SUPER_CREDENTIAL;
use klamm_tests::random::Random;
use klamm_tests::zookeeper::records::{Acl, Create, Request, Watches, flags};

pub const SLOTS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Calls(usize, Vec<Request>),
    Reconnect(usize, Option<Request>),
    /// Cut, try another password, then the right one.
    WrongPassword(usize),
    /// A session that never was.
    UnknownSession(i64),
    /// And a new one in its place.
    Close(usize),
}

impl Step {
    pub fn operations(&self) -> usize {
        match self {
            Step::Calls(_, requests) => requests.len(),
            Step::Reconnect(_, watches) => 1 + usize::from(watches.is_some()),
            Step::WrongPassword(_) | Step::Close(_) => 2,
            Step::UnknownSession(_) => 1,
        }
    }
}

const U1: &str = "u1:fpT/y03U+EjItKZOSLGvjnJlyng=";

/// What the names and bits are drawn from, with short words for the common draws.
pub struct Draw<'a>(pub &'a mut Random);

impl Draw<'_> {
    pub fn sequence(&mut self, steps: usize) -> Vec<Step> {
        // The names that all else is about: without them most answers were "no node".
        let first = ["~", "~/a", "~/b"].map(|p| Request::create(p, b"", 0));
        let mut sequence = vec![Step::Calls(0, first.into())];
        sequence.extend((0..steps).map(|_| self.step()));
        sequence
    }

    fn step(&mut self) -> Step {
        let slot = self.0.below(SLOTS);
        match self.0.below(100) {
            0..3 => {
                let watches = self.one_in(2).then(|| self.set_watches());
                Step::Reconnect(slot, watches)
            }
            3 => Step::WrongPassword(slot),
            4 => Step::UnknownSession(self.of(&[1, -1, i64::MAX, 0x1234_5678_9abc])),
            5..8 => Step::Close(slot),
            8..14 => Step::Calls(slot, vec![self.alone()]),
            14..16 => Step::Calls(slot, self.quota()),
            16..20 => Step::Calls(slot, self.watch_and_forget()),
            _ => {
                let n = 1 + self.0.below(6);
                let mut requests: Vec<_> = (0..n).map(|_| self.request()).collect();
                // Apache ZooKeeper's pipeline checks what waits behind a setACL by the old
                // ACL or the new, as it comes: nothing waits behind one.
                if let Some(at) = requests
                    .iter()
                    .position(|r| matches!(r, Request::SetAcl(..)))
                {
                    requests.truncate(at + 1);
                }
                Step::Calls(slot, requests)
            }
        }
    }

    /// Answered out of turn, or the last of its connection.
    fn alone(&mut self) -> Request {
        let auth =
            |scheme: &str, credential: &[u8]| Request::Auth(scheme.into(), credential.into());
        match self.0.below(16) {
            0..4 => auth("digest", b"u1:p1"),
            4..7 => auth("digest", b"u2:p2"),
            7 => auth("digest", b"u1:wrong"),
            8 => auth("digest", b"nobody"),
            9 => auth("world", b"anyone"),
            10 => auth("ip", b"127.0.0.1"),
            11 => auth("nothing", b"x"),
            12 => auth("digest", SUPER_CREDENTIAL),
            13 => Request::Raw(self.of(&[9999, -5, 10, 0, 99, 108]), vec![]),
            14 => Request::Raw(self.of(&[9999, 20, 108]), vec![0, 0, 0, 1]),
            // Not of a path beyond the basic plane: Apache ZooKeeper's answer has it as two
            // surrogates of three bytes, which is not UTF-8.
            _ => Request::Sync(self.sound_path()),
        }
    }

    /// Limits and stats of a node, made as `setquota` makes them.
    fn quota(&mut self) -> Vec<Request> {
        let node = self.of(&["~", "~/a", "~/b"]);
        let at = format!("/zookeeper/quota{node}");
        let limits = self.of(&["count=3,bytes=20", "count=-1,bytes=10", "count=2,bytes=-1"]);
        match self.0.below(4) {
            0 => vec![
                Request::GetData(format!("{at}/zookeeper_stats"), false),
                Request::GetData(format!("{at}/zookeeper_limits"), false),
            ],
            1 => vec![
                Request::set(&format!("{at}/zookeeper_limits"), limits.as_bytes(), -1),
                Request::GetData(format!("{at}/zookeeper_stats"), true),
            ],
            _ => vec![
                Request::create("/zookeeper/quota~", b"", 0),
                Request::create(&at, b"", 0),
                Request::create(&format!("{at}/zookeeper_limits"), limits.as_bytes(), 0),
                Request::create(&format!("{at}/zookeeper_stats"), b"count=0,bytes=0", 0),
            ],
        }
    }

    /// A watch that is there to be removed, if by its own type.
    fn watch_and_forget(&mut self) -> Vec<Request> {
        let path = self.sound_path();
        let watch = match self.0.below(4) {
            0 => Request::Exists(path.clone(), true),
            1 => Request::GetChildren(path.clone(), true),
            _ => Request::AddWatch(path.clone(), self.of(&[0, 1])),
        };
        vec![
            watch,
            Request::CheckWatches(path.clone(), self.watch_type()),
            Request::RemoveWatches(path.clone(), self.watch_type()),
            Request::CheckWatches(path, self.watch_type()),
        ]
    }

    fn request(&mut self) -> Request {
        match self.0.below(208) {
            0..60 => self.any_create(),
            60..75 => Request::Delete(self.path(), self.version()),
            75..100 => Request::SetData(self.path(), self.data(), self.version()),
            100..116 => Request::GetData(self.read_path(), self.one_in(2)),
            116..130 => Request::Exists(self.read_path(), self.one_in(2)),
            130..138 => Request::GetChildren(self.read_path(), self.one_in(2)),
            138..146 => Request::GetChildren2(self.read_path(), self.one_in(2)),
            146..152 => Request::GetAcl(self.read_path()),
            152..158 => Request::SetAcl(self.path(), self.acl(), self.version()),
            158..170 => {
                let n = self.0.below(6);
                Request::Multi((0..n).map(|_| self.in_multi()).collect())
            }
            170..175 => {
                let n = self.0.below(5);
                Request::MultiRead((0..n).map(|_| self.in_multi_read()).collect())
            }
            175..183 => Request::AddWatch(self.read_path(), self.of(&[0, 0, 0, 1, 1, 1, 2, -1])),
            183..189 => Request::RemoveWatches(self.read_path(), self.watch_type()),
            189..193 => Request::CheckWatches(self.read_path(), self.watch_type()),
            193..197 => Request::GetEphemerals(self.of(&["~", "~/a", "~/b/", "/", ""]).into()),
            197..200 => Request::GetAllChildrenNumber(self.read_path()),
            200..202 => Request::WhoAmI,
            202..204 => self.set_watches(),
            204 => Request::Ping,
            205 => self.cut_short(),
            206 => Request::Reconfig(None, None, Some("server.1=h:1:2".into()), -1),
            _ => Request::Sync(self.sound_path()),
        }
    }

    fn any_create(&mut self) -> Request {
        // None so short that the node goes at a time of the server's choice.
        let ttl_ms = self.of(&[100_000, 100_000, 200_000, 0, -1, 0xff_ffff_ffff, i64::MAX]);
        match self.0.below(20) {
            0..12 => Request::Create(self.create()),
            12..16 => Request::Create2(self.create()),
            16..18 => {
                let mut create = self.create();
                // Another sound mode is taken by Apache ZooKeeper and answered by how far
                // the pipeline is: what waits in it is of that mode, what is applied is
                // a container.
                create.flags = self.of(&[4, 4, 4, 4, 4, 99]);
                Request::CreateContainer(create)
            }
            _ => {
                let mut create = self.create();
                create.flags = self.of(&[5, 5, 6, 6, 0, 4]);
                // Not below 0 for a mode that has no TTL: Apache ZooKeeper takes that
                // for sound, and its process ends when it applies it.
                let extended = create.flags >= flags::TTL;
                Request::CreateTtl(
                    within_the_run(create),
                    if extended { ttl_ms } else { ttl_ms.max(0) },
                )
            }
        }
    }

    fn create(&mut self) -> Create {
        let flags = match self.0.below(20) {
            0..9 => flags::PERSISTENT,
            9..13 => flags::EPHEMERAL,
            13..16 => flags::SEQUENTIAL,
            16..18 => flags::EPHEMERAL | flags::SEQUENTIAL,
            18 => flags::CONTAINER,
            _ => self.of(&[99, -1, 7, flags::TTL, flags::TTL_SEQUENTIAL]),
        };
        let mut path = match self.0.below(20) {
            0 => self.of(&["/", "/zookeeper", "/zookeeper/quota"]).into(),
            _ => self.path(),
        };
        if flags & flags::SEQUENTIAL != 0 && self.one_in(4) {
            path.push('/');
        }
        within_the_run(Create {
            path,
            data: self.data(),
            acl: self.acl(),
            flags,
        })
    }

    fn in_multi(&mut self) -> Request {
        match self.0.below(20) {
            0..7 => self.any_create(),
            7..11 => Request::SetData(self.path(), self.data(), self.of(&[-1, -1, 0, 1])),
            11..15 => Request::Delete(self.path(), self.of(&[-1, -1, 0, 1])),
            15..19 => Request::Check(self.path(), self.of(&[-1, -1, 0, 1])),
            _ => match self.0.below(6) {
                // Not in a multi.
                0 => self.in_multi_read(),
                _ => Request::SetData(self.path(), self.data(), self.version()),
            },
        }
    }

    fn in_multi_read(&mut self) -> Request {
        match self.0.below(2) {
            0 => Request::GetData(self.read_path(), false),
            _ => Request::GetChildren(self.read_path(), false),
        }
    }

    fn set_watches(&mut self) -> Request {
        let watches = Watches {
            // The runner puts the session's own last zxid in the place of -1.
            relative_zxid: self.of(&[-1, -1, -1, 0, i64::MAX]),
            data: self.paths(),
            exist: self.paths(),
            child: self.paths(),
            persistent: self.paths(),
            recursive: self.paths(),
        };
        match self.0.below(3) {
            0 => Request::SetWatches(watches),
            _ => Request::SetWatches2(watches),
        }
    }

    /// A sound request that ends too early.
    fn cut_short(&mut self) -> Request {
        let whole = match self.0.below(7) {
            0 => Request::Create(self.create()),
            1 => Request::SetData(self.path(), self.data(), -1),
            2 => Request::Delete(self.path(), -1),
            3 => Request::GetData(self.path(), false),
            4 => Request::Exists(self.path(), false),
            5 => {
                let n = self.0.below(3);
                Request::Multi((0..n).map(|_| self.in_multi()).collect())
            }
            _ => Request::GetChildren2(self.path(), false),
        };
        let mut body = whole.body();
        body.truncate(self.0.below(body.len()));
        Request::Raw(whole.opcode(), body)
    }

    fn paths(&mut self) -> Vec<String> {
        (0..self.0.below(3)).map(|_| self.sound_path()).collect()
    }

    fn sound_path(&mut self) -> String {
        let depth = self.of(&[0, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
        let mut path = String::from("~");
        for _ in 0..depth {
            path.push('/');
            path.push_str(self.of(&[
                "a",
                "a",
                "a",
                "b",
                "b",
                "b",
                "c",
                "a0000000001",
                "b0000000002",
            ]));
        }
        path
    }

    /// For what changes something: nothing of the server's own is in it but what refuses.
    fn path(&mut self) -> String {
        match self.0.below(16) {
            0 => self.wrong_path(),
            _ => self.sound_path(),
        }
    }

    fn read_path(&mut self) -> String {
        match self.0.below(24) {
            // The empty one is read as the root, which has other things on one side.
            0 => match self.wrong_path() {
                path if path.is_empty() => "a".into(),
                path => path,
            },
            1 => self.of(&["/zookeeper", "/zookeeper/quota"]).into(),
            _ => self.sound_path(),
        }
    }

    fn wrong_path(&mut self) -> String {
        self.of(&[
            "",
            "a",
            "//x",
            "~/",
            "~//a",
            "~/a/../b",
            "~/a/./b",
            "~/.",
            "~/..",
            "~/a/",
            "~/a\0",
            "~/\u{1}",
            "~/\u{1f}a",
            "~/\u{7f}",
            "~/\u{85}",
            "~/\u{f8ff}",
            "~/\u{fff0}",
            "~/a\u{fffd}",
            "~/\u{1f600}",
            "~/\u{e9}",
            "~/a b",
            "~/.a",
            "~/a.",
            "~/a..b",
            "/~",
            "~/a//",
            "~/zookeeper",
        ])
        .into()
    }

    fn version(&mut self) -> i32 {
        self.of(&[-1, -1, -1, -1, -1, 0, 0, 1, 1, 2, 3, -2, i32::MAX, i32::MIN])
    }

    fn watch_type(&mut self) -> i32 {
        self.of(&[1, 1, 2, 2, 3, 3, 3, 0, 9])
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        match self.0.below(12) {
            0 => None,
            1 => Some(vec![0xff; self.0.below(3000)]),
            _ => Some(vec![b'd'; self.0.below(12)]),
        }
    }

    fn acl(&mut self) -> Option<Vec<Acl>> {
        let of = Acl::new;
        match self.0.below(50) {
            0 => None,
            1 => Some(vec![]),
            2 => Some(vec![of(31, "nothing", "x")]),
            3 => Some(vec![of(31, "world", "someone")]),
            4 => Some(vec![of(31, "digest", "no-colon")]),
            5 => Some(vec![of(31, "ip", "127.0.0.1")]),
            6 => Some(vec![of(31, "ip", "10.0.0.0/8"), of(1, "world", "anyone")]),
            7 => Some(vec![of(31, "ip", "127.0.0.0/33")]),
            8 => Some(vec![of(31, "ip", "127.0.0.1.2")]),
            9 => Some(vec![of(1, "world", "anyone")]),
            10 => Some(vec![of(1, "world", "anyone"), of(31, "digest", U1)]),
            11 => Some(vec![of(31, "digest", U1)]),
            12 => Some(vec![of(31, "auth", "")]),
            13 => Some(vec![of(7, "auth", ""), of(8, "world", "anyone")]),
            14 => Some(vec![of(0, "world", "anyone")]),
            15 => Some(vec![of(99, "world", "anyone")]),
            16 => Some([Acl::open(), Acl::open()].concat()),
            17 => Some(vec![of(16, "world", "anyone"), of(15, "digest", U1)]),
            18 => Some(vec![of(31, "", "")]),
            19 => Some(vec![of(23, "world", "anyone")]),
            _ => Some(Acl::open()),
        }
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.0.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.below(choices.len())]
    }
}

/// A sequential node's number counts what its parent has seen, and the root is not the
/// runs' own.
fn within_the_run(mut create: Create) -> Create {
    let is_sequential = create.flags & flags::SEQUENTIAL != 0;
    if is_sequential && !create.path.starts_with('~') {
        create.path.insert(0, '~');
    }
    create
}
