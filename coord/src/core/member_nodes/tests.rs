use super::*;
use crate::core::group::subscription::{assignment, subscription};
use crate::core::groups::Protocol;
use crate::core::offset_nodes;
use bytes::Bytes;
use proptest::prelude::*;

const OWNER: i64 = 77;

struct Shown {
    tree: Tree,
    nodes: MemberNodes,
    zxid: i64,
}

impl Shown {
    /// With topics of so many partitions.
    fn new(topics: &[(&str, i32)]) -> Shown {
        let mut tree = Tree::new();
        let mut ops: Vec<Op> = ["/brokers", "/brokers/topics", CONSUMERS]
            .map(|path| Op::create(path, ""))
            .into();
        for (topic, count) in topics {
            ops.push(Op::create(znodes::topic(topic), ""));
            ops.push(Op::create(znodes::partitions(topic), ""));
            ops.extend((0..*count).map(|p| Op::create(znodes::partition(topic, p), "")));
        }
        tree.multi(Zxid(1), TimestampMs(0), &ops, &mut Vec::new())
            .unwrap();
        Shown {
            tree,
            nodes: MemberNodes::default(),
            zxid: 1,
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&MemberNodes, &mut Change<'_>) -> T) -> T {
        let mut change = Change {
            tree: &mut self.tree,
            owner: OWNER,
            zxid: Zxid(self.zxid),
            time: TimestampMs(self.zxid * 10),
            events: &mut Vec::new(),
        };
        act(&self.nodes, &mut change)
    }

    fn show(&mut self, record: &Record) {
        self.zxid += 1;
        let mut nodes = std::mem::take(&mut self.nodes);
        self.with(|_, change| nodes.show(record, change));
        self.nodes = nodes;
        let (zxid, time) = (Zxid(self.zxid), TimestampMs(self.zxid * 10));
        offset_nodes::show(&mut self.tree, zxid, time, record, &mut Vec::new());
    }

    fn rebalanced(&mut self, group: &str, members: Vec<MemberRecord>) {
        self.show(&state(group, members));
    }

    /// Path, text and the change that wrote it, of every ephemeral node.
    fn all(&self) -> Vec<(String, String, i64)> {
        let node = |path: &str| {
            let data = self.tree.data(path).unwrap().unwrap();
            (
                path.strip_prefix(CONSUMERS).unwrap().to_owned(),
                String::from_utf8(data.to_vec()).unwrap(),
                self.tree.stat(path).unwrap().mzxid.0,
            )
        };
        self.tree.ephemerals(OWNER).map(node).collect()
    }

    fn owners(&self) -> Vec<(String, String)> {
        let nodes = self.all().into_iter().filter(|n| n.0.contains("/owners/"));
        nodes.map(|(path, text, _)| (path, text)).collect()
    }

    /// How many nodes the last change wrote.
    fn touched(&self) -> usize {
        self.all().iter().filter(|n| n.2 == self.zxid).count()
    }
}

fn state(group: &str, members: Vec<MemberRecord>) -> Record {
    Record::GroupState {
        group: group.to_owned(),
        state: Arc::new(GroupRecord {
            generation: 1,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            leader: None,
            since: TimestampMs(0),
            members,
        }),
    }
}

fn member(id: &str, topics: &[&str], assignment: Bytes) -> MemberRecord {
    MemberRecord {
        member_id: id.to_owned(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 1,
        session_timeout_ms: 1,
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: subscription(topics),
        }],
        assignment,
    }
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn a_groups_members_come_share_and_go() {
    let mut shown = Shown::new(&[("t", 3), ("u", 1)]);
    let alone = assignment(&[("t", &[0, 1, 2]), ("u", &[0])]);
    shown.rebalanced("g", vec![member("m1", &["t", "u"], alone)]);
    assert_eq!(
        shown.all()[0],
        (
            "/g/ids/m1".to_owned(),
            r#"{"version":1,"subscription":{"t":1,"u":1},"pattern":"static","timestamp":"20"}"#
                .to_owned(),
            2
        )
    );
    assert_eq!(
        shown.owners(),
        texts(&[
            ("/g/owners/t/0", "m1"),
            ("/g/owners/t/1", "m1"),
            ("/g/owners/t/2", "m1"),
            ("/g/owners/u/0", "m1"),
        ])
    );

    // A second one takes two over; nothing else is written.
    let first = assignment(&[("t", &[0, 1])]);
    let second = assignment(&[("t", &[2]), ("u", &[0])]);
    shown.rebalanced(
        "g",
        vec![
            member("m1", &["t", "u"], first.clone()),
            member("m2", &["t", "u"], second),
        ],
    );
    assert_eq!(shown.touched(), 3);
    assert_eq!(shown.owners()[2], ("/g/owners/t/2".into(), "m2".into()));

    // It goes, and one topic is left without a consumer.
    shown.rebalanced("g", vec![member("m1", &["t"], first)]);
    assert_eq!(
        shown.owners(),
        texts(&[("/g/owners/t/0", "m1"), ("/g/owners/t/1", "m1")])
    );
    assert_eq!(shown.touched(), 1, "its subscription changed");
    assert!(!shown.tree.exists("/consumers/g/owners/u"));
    assert!(!shown.tree.exists("/consumers/g/ids/m2"));

    shown.rebalanced("g", vec![]);
    assert!(!shown.tree.exists("/consumers/g"));
    shown.rebalanced("g", vec![member("m3", &["t"], Bytes::new())]);
    shown.show(&Record::GroupRemoved {
        group: "g".to_owned(),
    });
    assert_eq!(shown.tree.stat(CONSUMERS).unwrap().num_children, 0);
}

/// 10,000 partitions, and a member more: what it takes over is written, and its own node.
#[test]
fn a_rebalance_touches_what_it_moves() {
    let mut shown = Shown::new(&[("t", 10_000)]);
    let members = |shares: &[Vec<i32>]| -> Vec<MemberRecord> {
        let shares = shares.iter().enumerate();
        shares
            .map(|(n, share)| member(&format!("m{n}"), &["t"], assignment(&[("t", share)])))
            .collect()
    };
    let mut shares: Vec<Vec<i32>> = (0..10)
        .map(|n| (n * 1000..(n + 1) * 1000).collect())
        .collect();
    shown.rebalanced("g", members(&shares));
    assert_eq!(shown.touched(), 10_010);

    shown.rebalanced("g", members(&shares));
    assert_eq!(shown.touched(), 0, "the same again is nothing new");

    let new = shares.iter_mut().flat_map(|s| s.split_off(910)).collect();
    shares.push(new);
    shown.rebalanced("g", members(&shares));
    assert_eq!(shown.touched(), 900 + 1);
    let owners = shown.owners();
    assert_eq!(owners.len(), 10_000);
    assert_eq!(owners.iter().filter(|(_, m)| m == "m10").count(), 900);

    shares.pop();
    shown.rebalanced("g", members(&shares));
    assert_eq!(shown.touched(), 0);
    assert_eq!(shown.owners().len(), 9_100);
}

#[test]
fn what_others_put_there_is_left_alone() {
    let mut shown = Shown::new(&[("t", 2)]);
    let ephemeral = |path: &str| Op::Create {
        path: path.to_owned(),
        data: Some(b"old consumer".to_vec()),
        acl: Acl::open(),
        lifetime: Lifetime::Ephemeral(5),
        sequential: false,
    };
    let ops = [
        Op::create("/consumers/g", ""),
        Op::create("/consumers/g/ids", ""),
        Op::create("/consumers/g/owners", ""),
        Op::create("/consumers/g/owners/t", ""),
        ephemeral("/consumers/g/ids/m1"),
        ephemeral("/consumers/g/owners/t/0"),
        // Nothing can be shown below this.
        ephemeral("/consumers/h"),
    ];
    shown
        .tree
        .multi(Zxid(1), TimestampMs(0), &ops, &mut Vec::new())
        .unwrap();
    let both = || vec![member("m1", &["t"], assignment(&[("t", &[0, 1])]))];
    shown.rebalanced("g", both());
    shown.rebalanced("h", both());
    assert_eq!(shown.owners(), texts(&[("/g/owners/t/1", "m1")]));
    shown.rebalanced("g", vec![]);
    shown.rebalanced("h", vec![]);
    assert_eq!(shown.tree.ephemerals(5).count(), 3);
    assert_eq!(shown.tree.ephemerals(OWNER).count(), 0);
}

#[test]
fn what_is_no_consumers_assignment_shows_a_member_that_owns_nothing() {
    let mut shown = Shown::new(&[("t", 2)]);
    let lies: [&[(&str, &[i32])]; 4] = [
        &[("t", &[2, -1, i32::MAX, i32::MIN])],
        &[("no-such-topic", &[0])],
        &[("../../brokers", &[0])],
        &[("", &[0])],
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        shown.rebalanced("g", vec![member(&format!("m{n}"), &["t"], assignment(lie))]);
        assert_eq!(shown.all().len(), 1, "{lie:?}");
    }
    let mut garbage = member("m/../x", &["t"], Bytes::from_static(b"\0\x01garbage"));
    garbage.protocols[0].metadata = Bytes::from_static(b"?");
    shown.rebalanced("a/b", vec![garbage]);
    assert!(shown.tree.exists("/consumers/a%2Fb/ids/m%2F..%2Fx"));

    // Kafka Connect's workers are members, and consume nothing.
    let Record::GroupState { group, state } = state(
        "connect",
        vec![member("w", &["t"], assignment(&[("t", &[0])]))],
    ) else {
        unreachable!()
    };
    let mut state = (*state).clone();
    state.protocol_type = Some("connect".to_owned());
    let state = Arc::new(state);
    shown.show(&Record::GroupState { group, state });
    let json = shown
        .tree
        .data("/consumers/connect/ids/w")
        .unwrap()
        .unwrap();
    assert!(json.starts_with(br#"{"version":1,"subscription":{},"#));
    assert!(!shown.tree.exists("/consumers/connect/owners"));
}

/// Which member owns which of 6 partitions, from a list with a place for each.
fn group_of(list: &[(u8, bool)]) -> Vec<MemberRecord> {
    let mut shares: BTreeMap<u8, (Vec<i32>, bool)> = BTreeMap::new();
    for (partition, (who, garbage)) in (0..).zip(list) {
        let share = shares.entry(*who).or_default();
        share.0.push(partition);
        share.1 |= *garbage;
    }
    let shares = shares.into_iter();
    shares
        .map(|(who, (partitions, garbage))| {
            let bytes = if garbage {
                Bytes::from_static(b"\xff\xff")
            } else {
                assignment(&[("t", &partitions)])
            };
            let topics: &[&str] = if garbage { &["t", "u"] } else { &["t"] };
            member(&format!("m{who}"), topics, bytes)
        })
        .collect()
}

proptest! {
    /// Step by step or all at once, after a restart from a snapshot or a new session:
    /// the nodes are the same.
    #[test]
    fn the_way_does_not_matter(
        history in prop::collection::vec((0..3u8, prop::collection::vec((0..4u8, prop::bool::weighted(0.1)), 0..6)), 1..12),
        snapshot_at in any::<prop::sample::Index>(),
    ) {
        let mut shown = Shown::new(&[("t", 6)]);
        let mut last = BTreeMap::new();
        let snapshot_at = snapshot_at.index(history.len());
        for (at, (group, members)) in history.iter().enumerate() {
            if at == snapshot_at {
                shown.nodes = MemberNodes::default();
                for record in last.values() {
                    shown.nodes.restore(record);
                }
            }
            let name = format!("g{group}");
            let record = state(&name, group_of(members));
            shown.show(&record);
            last.insert(name, record);
        }
        let without_time = |all: Vec<(String, String, i64)>| -> Vec<(String, String)> {
            let cut = |text: String| text.split(",\"timestamp").next().unwrap().to_owned();
            all.into_iter().map(|(path, text, _)| (path, cut(text))).collect()
        };
        let stepped = without_time(shown.all());

        let mut fresh = Shown::new(&[("t", 6)]);
        for record in last.values() {
            fresh.show(record);
        }
        prop_assert_eq!(&stepped, &without_time(fresh.all()));

        for path in shown.tree.ephemerals(OWNER).map(str::to_owned).collect::<Vec<_>>() {
            shown.tree.apply(Zxid(999), TimestampMs(0), &Op::delete(path), &mut Vec::new()).unwrap();
        }
        shown.with(|nodes, change| nodes.show_again(change));
        prop_assert_eq!(&stepped, &without_time(shown.all()));
    }
}
