//! From wherever the tree is brought: the controller comes to rest, and then all is as
//! it should be.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Deed {
    Up(i32),
    Down(i32),
    /// A topic's node, as a tool of some version writes it.
    Assign(usize, Vec<Vec<i32>>, bool),
    /// Any text in any node of a topic.
    Spoil(usize, usize, &'static str),
    /// A topic's node or a part of it, with what is below.
    Remove(usize, usize),
    AskToDelete(usize),
    Ask(&'static str, &'static str),
    /// Another broker takes the office.
    Vote(i32),
    Settle,
}

const TOPICS: [&str; 3] = ["a", "b", "c"];
const NONSENSE: [&str; 5] = [
    "",
    "{",
    "[]",
    r#"{"controller_epoch":1,"leader":3,"version":1,"leader_epoch":2,"isr":[]}"#,
    r#"{"controller_epoch":1,"leader":-1,"version":1,"leader_epoch":-7,"isr":[9]}"#,
];

/// The nodes of a topic: itself, the folder of partitions, a partition, its state.
fn part(topic: usize, which: usize) -> String {
    let name = TOPICS[topic];
    match which {
        0 => znodes::topic(name),
        1 => znodes::partitions(name),
        2 => znodes::partition(name, 0),
        _ => znodes::state(name, 0),
    }
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let topic = 0..TOPICS.len();
    let replicas = prop::collection::btree_set(1..5i32, 1..3)
        .prop_map(|set| set.into_iter().collect::<Vec<i32>>());
    let ask = prop::sample::select(vec![
        (
            "/admin/reassign_partitions",
            r#"{"version":1,"partitions":[{"topic":"a","partition":0,"replicas":[4]}]}"#,
        ),
        (
            "/admin/preferred_replica_election",
            r#"{"version":1,"partitions":[{"topic":"a","partition":0},{"topic":"b","partition":1}]}"#,
        ),
        ("/isr_change_notification/isr_change_0000000001", "{}"),
        ("/config/changes/config_change_0000000001", "{}"),
        ("/admin/delete_topics/nothing", ""),
    ]);
    prop_oneof![
        4 => (1..5i32).prop_map(Deed::Up),
        4 => (1..5i32).prop_map(Deed::Down),
        6 => (topic.clone(), prop::collection::vec(replicas, 1..4), any::<bool>())
            .prop_map(|(topic, replicas, id)| Deed::Assign(topic, replicas, id)),
        3 => (topic.clone(), 0..4usize, prop::sample::select(NONSENSE.to_vec()))
            .prop_map(|(topic, which, text)| Deed::Spoil(topic, which, text)),
        2 => (topic.clone(), 0..4usize).prop_map(|(topic, which)| Deed::Remove(topic, which)),
        2 => topic.prop_map(Deed::AskToDelete),
        2 => ask.prop_map(|(path, data)| Deed::Ask(path, data)),
        1 => (1..5i32).prop_map(Deed::Vote),
        4 => Just(Deed::Settle),
    ]
}

impl World {
    fn put(&mut self, path: String, data: impl Into<Vec<u8>>) {
        let op = if self.exists(&path) {
            Op::set(path, data)
        } else {
            Op::create(path, data)
        };
        // Where there is nothing above it, a tool fails too.
        self.try_run(&[op]);
    }

    fn does(&mut self, deed: &Deed) {
        match deed {
            Deed::Up(id) => self.up(*id),
            Deed::Down(id) => drop(self.try_run(&[Op::delete(znodes::broker(*id))])),
            Deed::Assign(topic, replicas, with_id) => {
                let node = znodes::TopicNode {
                    id: with_id.then(|| TopicId((1 + *topic as u128).to_be_bytes())),
                    replicas: replicas.clone(),
                    ..znodes::TopicNode::default()
                };
                self.put(part(*topic, 0), node.json());
            }
            Deed::Spoil(topic, which, text) => self.put(part(*topic, *which), *text),
            Deed::Remove(topic, which) => {
                let ops =
                    crate::core::cluster::topics::delete_all(&self.tree, &part(*topic, *which));
                self.run(ops);
            }
            Deed::AskToDelete(topic) => {
                self.put(format!("/admin/delete_topics/{}", TOPICS[*topic]), "")
            }
            Deed::Ask(path, data) => self.put((*path).to_owned(), *data),
            Deed::Vote(broker) => {
                self.run(vec![Op::delete("/controller")]);
                self.vote(*broker);
                self.agenda = Agenda::everything();
            }
            Deed::Settle => drop(self.settle()),
        }
    }

    /// What holds once the controller has come to rest.
    fn check(&mut self) {
        assert_eq!(
            self.plan(&Agenda::everything()),
            Vec::<Step>::new(),
            "a look at everything finds nothing that was missed"
        );
        let live = self.cluster.brokers();
        for name in self.tree.children("/brokers/topics").unwrap() {
            let data = self.tree.data(&znodes::topic(name)).unwrap();
            if data.and_then(znodes::TopicNode::read).is_some() {
                assert!(
                    self.cluster.topic(name).is_some(),
                    "{name} can be read and is not known"
                );
            }
        }
        for topic in self.cluster.topics() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let at = format!("{}-{index}: {partition:?}", topic.name);
                let state = self.tree.data(&znodes::state(&topic.name, index));
                assert!(
                    state.flatten().is_some_and(znodes::is_state),
                    "{at}: no state"
                );
                match partition.leader {
                    Some(leader) => assert!(live.contains_key(&leader), "{at}: its leader is dead"),
                    None => assert!(
                        !partition.isr.iter().any(|id| live.contains_key(id)),
                        "{at}: it could have a leader"
                    ),
                }
            }
        }
        for parent in ["/admin/delete_topics", "/isr_change_notification"] {
            assert_eq!(self.tree.stat(parent).unwrap().num_children, 0, "{parent}");
        }
        assert!(!self.exists("/admin/reassign_partitions"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_controller_comes_to_rest_and_all_is_well(deeds in prop::collection::vec(any_deed(), 1..40)) {
        let mut world = World::new(&[]);
        for deed in &deeds {
            world.does(deed);
        }
        world.settle();
        world.check();
    }

    /// Epochs are what fences those who missed something: none comes twice for
    /// different leaders as long as nobody takes the node away.
    #[test]
    fn an_epoch_has_one_leader(deeds in prop::collection::vec(prop_oneof![
        (1..4i32).prop_map(Deed::Up), (1..4i32).prop_map(Deed::Down), Just(Deed::Settle), (1..4i32).prop_map(Deed::Vote),
    ], 1..60)) {
        let mut world = World::new(&[]);
        world.does(&Deed::Assign(0, vec![vec![1, 2], vec![3]], false));
        world.settle();
        let mut leaders = std::collections::BTreeMap::new();
        for deed in &deeds {
            world.does(deed);
            for index in 0..2 {
                let (leader, epoch) = world.led("a", index);
                let before = *leaders.entry((index, epoch)).or_insert(leader);
                prop_assert_eq!(before, leader, "epoch {} of partition {}", epoch, index);
            }
        }
    }
}
