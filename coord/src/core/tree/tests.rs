use super::model::{Model, ModelNode};
use super::*;
use crate::core::codec::Reader;
use crate::core::path::PathError;
use crate::core::stat::Perms;
use proptest::prelude::*;

const T: TimestampMs = TimestampMs(1_700_000_000_000);

struct Story {
    tree: Tree,
    zxid: Zxid,
}

impl Story {
    fn new() -> Story {
        Story {
            tree: Tree::new(),
            zxid: Zxid::ZERO,
        }
    }

    fn try_do(&mut self, op: &Op) -> Result<OpResult, TreeError> {
        self.zxid = self.zxid.next();
        self.tree.apply(self.zxid, T, op, &mut Vec::new())
    }

    fn run(&mut self, op: Op) -> OpResult {
        self.try_do(&op).unwrap_or_else(|e| panic!("{op:?}: {e}"))
    }

    fn stat(&self, path: &str) -> Stat {
        self.tree.stat(path).unwrap()
    }
}

fn sequential(path: &str) -> Op {
    let Op::Create {
        path,
        data,
        acl,
        lifetime,
        ..
    } = Op::create(path, "")
    else {
        unreachable!()
    };
    Op::Create {
        path,
        data,
        acl,
        lifetime,
        sequential: true,
    }
}

fn living(path: &str, lifetime: Lifetime) -> Op {
    let Op::Create {
        path,
        data,
        acl,
        sequential,
        ..
    } = Op::create(path, "")
    else {
        unreachable!()
    };
    Op::Create {
        path,
        data,
        acl,
        lifetime,
        sequential,
    }
}

#[test]
fn the_fresh_tree_is_zookeepers() {
    let story = Story::new();
    assert_eq!(
        story.tree.children("/").unwrap().collect::<Vec<_>>(),
        ["zookeeper"]
    );
    assert_eq!(
        (story.stat("/").cversion, story.stat("/").num_children),
        (-1, 1)
    );
    assert_eq!(story.stat("/zookeeper").cversion, -2);
    assert_eq!(story.tree.len(), 4);
}

#[test]
fn cversion_and_pzxid_follow_the_set_of_children() {
    let mut story = Story::new();
    story.run(Op::create("/a", "")); // zxid 1
    story.run(Op::create("/a/x", "")); // 2
    story.run(Op::create("/a/y", "")); // 3
    assert_eq!(
        (story.stat("/a").cversion, story.stat("/a").pzxid),
        (2, Zxid(3))
    );
    story.run(Op::set("/a/x", "new")); // 4: no change of the set
    assert_eq!(
        (story.stat("/a").cversion, story.stat("/a").pzxid),
        (2, Zxid(3))
    );
    story.run(Op::delete("/a/x")); // 5
    let stat = story.stat("/a");
    assert_eq!(
        (stat.cversion, stat.pzxid, stat.num_children),
        (3, Zxid(5), 1)
    );
    assert_eq!(
        (stat.version, stat.mzxid, stat.czxid),
        (0, Zxid(1), Zxid(1))
    );
}

#[test]
fn the_sequence_counts_every_create_and_never_falls() {
    let mut story = Story::new();
    story.run(Op::create("/q", ""));
    let made = |result| match result {
        OpResult::Create { path, .. } => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(made(story.run(sequential("/q/n-"))), "/q/n-0000000000");
    story.run(Op::create("/q/plain", ""));
    story.run(Op::delete("/q/plain"));
    assert_eq!(made(story.run(sequential("/q/n-"))), "/q/n-0000000002");
    story.run(Op::delete("/q/n-0000000002"));
    assert_eq!(made(story.run(sequential("/q/"))), "/q/0000000003");
}

#[test]
fn each_wrong_operation_has_zookeepers_code() {
    let mut story = Story::new();
    story.run(Op::create("/a", ""));
    story.run(Op::create("/a/b", ""));
    story.run(living("/e", Lifetime::Ephemeral(7)));
    let versioned = |path: &str, version| Op::Delete {
        path: path.to_owned(),
        version,
    };
    let no_acl = Op::Create {
        path: "/x".to_owned(),
        data: None,
        acl: vec![],
        lifetime: Lifetime::Persistent,
        sequential: false,
    };
    let table = [
        (Op::create("", ""), -8),
        (Op::create("a", ""), -8),
        (Op::create("//x", ""), -8),
        (Op::create("/a\0", ""), -8),
        (Op::create("/a\u{1}", ""), -8),
        (Op::create("/a/", ""), -8),
        (Op::create("/x/", ""), -101),
        (Op::create("/a/../b", ""), -101),
        (Op::create("/x/y", ""), -101),
        (Op::create("/", ""), -110),
        (Op::create("/a", ""), -110),
        (Op::create("/e/child", ""), -108),
        (living("/t", Lifetime::Ttl(0)), -8),
        (no_acl, -114),
        (Op::delete("/"), -8),
        (Op::delete("/zookeeper"), -8),
        (Op::delete("/zookeeper/quota"), -8),
        (Op::delete("/x"), -101),
        (Op::delete("/a/"), -101),
        (Op::delete("/a"), -111),
        (versioned("/a/b", 3), -103),
        (Op::set("/x", ""), -101),
        (Op::set("x", ""), -8),
        (
            Op::Set {
                path: "/a".to_owned(),
                data: None,
                version: 1,
            },
            -103,
        ),
        (
            Op::SetAcl {
                path: "/a".to_owned(),
                acl: vec![],
                version: -1,
            },
            -114,
        ),
        (
            Op::SetAcl {
                path: "/a".to_owned(),
                acl: Acl::open(),
                version: 1,
            },
            -103,
        ),
        (
            Op::Check {
                path: "/a".to_owned(),
                version: 9,
            },
            -103,
        ),
        (
            Op::Check {
                path: "/x".to_owned(),
                version: -1,
            },
            -101,
        ),
    ];
    let mut before = Vec::new();
    story.tree.encode(&mut before);
    for (op, code) in table {
        assert_eq!(story.try_do(&op).unwrap_err().code(), code, "{op:?}");
    }
    let mut after = Vec::new();
    story.tree.encode(&mut after);
    assert_eq!(before, after, "a refused operation leaves no trace");
}

#[test]
fn kinds_of_nodes_are_kept_and_indexed() {
    let mut story = Story::new();
    story.run(living("/e1", Lifetime::Ephemeral(7)));
    story.run(living("/e2", Lifetime::Ephemeral(7)));
    story.run(living("/c", Lifetime::Container));
    story.run(living("/t", Lifetime::Ttl(500)));
    assert_eq!(story.tree.ephemerals(7).collect::<Vec<_>>(), ["/e1", "/e2"]);
    assert_eq!(story.stat("/e1").ephemeral_owner, 7);
    assert_eq!(
        (
            story.stat("/c").ephemeral_owner,
            story.stat("/t").ephemeral_owner
        ),
        (0, 0)
    );
    assert_eq!(story.tree.containers().collect::<Vec<_>>(), ["/c"]);
    assert_eq!(story.tree.ttls().collect::<Vec<_>>(), ["/t"]);
    for path in ["/e1", "/e2", "/c", "/t"] {
        story.run(Op::delete(path));
    }
    assert_eq!(story.tree.ephemerals(7).count(), 0);
    assert_eq!(
        story.tree.containers().count() + story.tree.ttls().count(),
        0
    );
}

#[test]
fn set_acl_counts_its_own_version_and_nothing_else() {
    let mut story = Story::new();
    story.run(Op::create("/a", "x"));
    let acl = vec![Acl {
        perms: Perms::READ,
        scheme: "ip".into(),
        id: "10.0.0.1".into(),
    }];
    story.run(Op::SetAcl {
        path: "/a".to_owned(),
        acl: acl.clone(),
        version: 0,
    });
    let stat = story.stat("/a");
    assert_eq!((stat.aversion, stat.version, stat.mzxid), (1, 0, Zxid(1)));
    assert_eq!(story.tree.acl("/a").unwrap(), acl);
}

#[test]
fn a_failed_multi_says_which_operation_and_leaves_no_trace() {
    let mut story = Story::new();
    story.run(Op::create("/a", "one"));
    let mut before = Vec::new();
    story.tree.encode(&mut before);
    let ops = [
        Op::set("/a", "two"),
        Op::create("/a/b", ""),
        Op::delete("/a/b"),
        Op::delete("/a"),
        Op::create("/c", ""),
        sequential("/c/"),
        Op::delete("/nowhere"),
        Op::create("/d", ""),
    ];
    let mut events = Vec::new();
    let error = story.tree.multi(Zxid(2), T, &ops, &mut events).unwrap_err();
    assert_eq!(
        error,
        MultiError {
            index: 6,
            error: TreeError::NoNode
        }
    );
    assert_eq!(
        (0..8).map(|i| error.code_of(i)).collect::<Vec<_>>(),
        [0, 0, 0, 0, 0, 0, -101, -2]
    );
    assert!(events.is_empty());
    let mut after = Vec::new();
    story.tree.encode(&mut after);
    assert_eq!(before, after);
}

#[test]
fn put_makes_the_way_and_remove_all_clears_it() {
    let mut tree = Tree::new();
    let mut events = Vec::new();
    tree.put(Zxid(1), T, "/consumers/g/offsets/t/0", b"42", &mut events);
    assert_eq!(
        tree.data("/consumers/g/offsets/t/0"),
        Some(Some(&b"42"[..]))
    );
    assert_eq!(tree.data("/consumers/g"), Some(None));
    assert_eq!(events.len(), 10, "five nodes, each told to two watches");
    events.clear();
    tree.put(Zxid(2), T, "/consumers/g/offsets/t/0", b"43", &mut events);
    assert_eq!(
        events,
        [Event::open(
            EventKind::DataChanged,
            "/consumers/g/offsets/t/0"
        )]
    );
    assert_eq!(tree.stat("/consumers/g/offsets/t/0").unwrap().version, 1);

    tree.remove_all(Zxid(3), T, "/consumers/g", &mut events);
    assert_eq!(tree.children("/consumers").unwrap().count(), 0);
    tree.remove_all(Zxid(4), T, "/", &mut events);
    tree.remove_all(Zxid(4), T, "/zookeeper", &mut events);
    assert!(tree.exists("/zookeeper/quota"));
}

#[test]
fn a_damaged_tree_is_refused_with_the_byte() {
    let mut story = Story::new();
    story.run(Op::create("/a", "x"));
    let mut bytes = Vec::new();
    story.tree.encode(&mut bytes);
    for len in 0..bytes.len() {
        assert!(
            Tree::decode(&mut Reader::new(&bytes[..len])).is_err(),
            "cut to {len}"
        );
    }
    assert_eq!(
        path::validate("/a//b"),
        Err(PathError::EmptyComponent { at: 3 })
    );
}

fn any_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![8 => "[abc]", 1 => Just("zookeeper".to_owned()), 1 => Just("a0000000001".to_owned())];
    prop_oneof![
        20 => prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/"))),
        1 => Just("/".to_owned()),
        1 => Just(String::new()),
        1 => Just("/a/".to_owned()),
        1 => Just("//a".to_owned()),
    ]
}

fn any_acl() -> impl Strategy<Value = Vec<Acl>> {
    let digest = Acl {
        perms: Perms(3),
        scheme: "digest".into(),
        id: "bob:x".into(),
    };
    prop_oneof![6 => Just(Acl::open()), 2 => Just(vec![digest]), 1 => Just(vec![])]
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let data = || prop::option::of(prop::collection::vec(any::<u8>(), 0..5));
    let version = || prop_oneof![4 => Just(-1), 1 => 0..3i32];
    let lifetime = prop_oneof![
        6 => Just(Lifetime::Persistent),
        2 => (1..3i64).prop_map(Lifetime::Ephemeral),
        1 => Just(Lifetime::Container),
        1 => (1..9i64).prop_map(Lifetime::Ttl),
    ];
    prop_oneof![
        6 => (any_path(), data(), any_acl(), lifetime, prop::bool::weighted(0.2)).prop_map(
            |(path, data, acl, lifetime, sequential)| Op::Create { path, data, acl, lifetime, sequential }
        ),
        3 => (any_path(), version()).prop_map(|(path, version)| Op::Delete { path, version }),
        3 => (any_path(), data(), version()).prop_map(|(path, data, version)| Op::Set { path, data, version }),
        1 => (any_path(), any_acl(), version()).prop_map(|(path, acl, version)| Op::SetAcl { path, acl, version }),
        1 => (any_path(), version()).prop_map(|(path, version)| Op::Check { path, version }),
    ]
}

fn assert_same(tree: &Tree, model: &Model) {
    let size = |(path, node): (&String, &ModelNode)| {
        let path = if path == "/" { 0 } else { path.len() };
        path + node.data.as_ref().map_or(0, Vec::len)
    };
    let size: usize = model.nodes.iter().map(size).sum();
    assert_eq!(tree.approximate_data_size(), size as i64);
    assert_eq!(tree.len(), model.nodes.len());
    for (path, node) in &model.nodes {
        assert_eq!(tree.stat(path), Some(node.stat), "{path}");
        assert_eq!(tree.data(path), Some(node.data.as_deref()), "{path}");
        assert_eq!(tree.acl(path), Some(node.acl.clone()), "{path}");
        assert_eq!(tree.lifetime(path), Some(node.lifetime), "{path}");
        let below = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        let names: Vec<&str> = model
            .nodes
            .keys()
            .filter_map(|p| p.strip_prefix(&below))
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
            .collect();
        assert_eq!(
            tree.children(path).unwrap().collect::<Vec<_>>(),
            names,
            "{path}"
        );
    }
    for session in 1..3 {
        let owned: Vec<&str> = model
            .nodes
            .iter()
            .filter(|(_, node)| node.lifetime == Lifetime::Ephemeral(session))
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(tree.ephemerals(session).collect::<Vec<_>>(), owned);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Single operations and multis, answers, events, every stat, and the way
    /// through a snapshot, against the naive model.
    #[test]
    fn the_tree_is_its_model(multis in prop::collection::vec(prop::collection::vec(any_op(), 1..6), 1..40)) {
        let mut tree = Tree::new();
        let mut model = Model::new();
        for (at, ops) in multis.iter().enumerate() {
            let zxid = Zxid(at as i64 + 1);
            let time = TimestampMs(1000 + at as i64);
            let mut events = Vec::new();
            let got = match ops.as_slice() {
                [op] => tree
                    .apply(zxid, time, op, &mut events)
                    .map(|result| vec![result])
                    .map_err(|error| MultiError { index: 0, error }),
                ops => tree.multi(zxid, time, ops, &mut events),
            };
            match model.multi(zxid, time, ops) {
                Ok((results, told)) => {
                    prop_assert_eq!(got, Ok(results));
                    // Who may be told is looked at in a test of its own.
                    events.iter_mut().for_each(|event| event.acl = None);
                    prop_assert_eq!(events, told);
                }
                Err(error) => {
                    prop_assert_eq!(got, Err(error));
                    prop_assert!(events.is_empty());
                }
            }
            assert_same(&tree, &model);
        }
        let mut bytes = Vec::new();
        tree.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let read = Tree::decode(&mut reader).unwrap();
        prop_assert_eq!(reader.end(), Ok(()));
        assert_same(&read, &model);
        let mut again = Vec::new();
        read.encode(&mut again);
        prop_assert_eq!(bytes, again);
    }

    /// Whatever happens while it is written, a snapshot is the tree of when it was begun.
    #[test]
    fn a_tree_that_changes_is_written_as_it_was(
        before in prop::collection::vec(prop::collection::vec(any_op(), 1..4), 0..40),
        meanwhile in prop::collection::vec((prop::collection::vec(any_op(), 1..4), 1..4usize), 0..40),
    ) {
        let mut tree = Tree::new();
        let mut zxid = Zxid(0);
        let mut change = |tree: &mut Tree, ops: &[Op]| {
            zxid = zxid.next();
            let _ = tree.multi(zxid, TimestampMs(zxid.0), ops, &mut Vec::new());
        };
        for ops in &before {
            change(&mut tree, ops);
        }
        let mut expected = Vec::new();
        tree.encode(&mut expected);
        tree.freeze();
        let (mut bytes, mut is_whole) = (Vec::new(), false);
        for (ops, nodes) in &meanwhile {
            change(&mut tree, ops);
            is_whole = is_whole || tree.encode_some(&mut bytes, *nodes);
        }
        while !is_whole {
            is_whole = tree.encode_some(&mut bytes, 1);
        }
        let mut reader = Reader::new(&bytes);
        let read = Tree::decode(&mut reader).unwrap();
        prop_assert_eq!(reader.end(), Ok(()));
        let mut again = Vec::new();
        read.encode(&mut again);
        prop_assert!(again == expected);
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Tree::decode(&mut Reader::new(&bytes));
    }
}

/// Of the node's own ACL, and of its parent's for the children.
#[test]
fn an_event_says_who_may_be_told() {
    let mut tree = Tree::new();
    let closed = |path: &str| Op::Create {
        path: path.to_owned(),
        data: None,
        acl: vec![Acl {
            perms: Perms::ALL,
            scheme: "digest".into(),
            id: "bob:x".into(),
        }],
        lifetime: Lifetime::Persistent,
        sequential: false,
    };
    let ops = [
        closed("/a"),
        Op::create("/a/b", ""),
        Op::set("/a", "x"),
        Op::delete("/a/b"),
        Op::delete("/a"),
    ];
    let mut events = Vec::new();
    tree.multi(Zxid(1), T, &ops, &mut events).unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|e| (e.path.as_str(), e.kind, e.acl.is_some()))
        .collect();
    use EventKind::{ChildrenChanged, Created, DataChanged, Deleted};
    let expected = [
        ("/a", Created, true),
        ("/", ChildrenChanged, false),
        ("/a/b", Created, false),
        ("/a", ChildrenChanged, true),
        ("/a", DataChanged, true),
        ("/a/b", Deleted, false),
        ("/a", ChildrenChanged, true),
        ("/a", Deleted, true),
        ("/", ChildrenChanged, false),
    ];
    assert_eq!(told, expected);
}

/// Every bit, not a sample: a flip that turns a name's length to 0 is one in thousands.
#[test]
fn a_flipped_bit_never_panics() {
    let mut story = Story::new();
    story.run(Op::create("/a", "x"));
    story.run(Op::create("/a/d", "y"));
    story.run(living("/a/b", Lifetime::Ephemeral(3)));
    let mut bytes = Vec::new();
    story.tree.encode(&mut bytes);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = Tree::decode(&mut Reader::new(&flipped));
    }
}
