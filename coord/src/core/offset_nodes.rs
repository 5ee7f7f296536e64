//! Committed offsets, shown as the znodes that Kafka's users know.
//!
//! ```text
//!   /consumers/<group>/offsets/<topic>/<partition>  =  "42"
//! ```
//!
//! The group machine's own map is the truth, with metadata, epochs and times; the
//! nodes hold the plain number, for those who look and those who watch. They change
//! under the zxid of the group's record. A group's id can be any text, so what a path
//! cannot hold is escaped ([`path::component`]).

use crate::core::Zxid;
use crate::core::cluster::znodes::CONSUMERS;
use crate::core::groups::Record;
use crate::core::path;
use crate::core::tree::{Event, Op, Tree};
use klamm_engine::units::TimestampMs;
use std::fmt::Write as _;

/// Makes the nodes show what a record changed.
pub fn show(
    tree: &mut Tree,
    zxid: Zxid,
    time: TimestampMs,
    record: &Record,
    events: &mut Vec<Event>,
) {
    match record {
        Record::OffsetsCommitted { group, topics } => {
            // One buffer for all paths: a commit of many partitions allocates little
            // more than their nodes.
            let (mut path, mut number) = (offsets(group), String::new());
            let group_len = path.len();
            for topic in topics {
                path.truncate(group_len);
                path.push('/');
                path.push_str(&path::component(&topic.topic));
                let topic_len = path.len();
                for (partition, committed) in &topic.partitions {
                    path.truncate(topic_len);
                    number.clear();
                    write!(path, "/{partition}").expect("a String takes everything");
                    write!(number, "{}", committed.offset).expect("a String takes everything");
                    tree.put(zxid, time, &path, number.as_bytes(), events);
                }
            }
        }
        Record::OffsetsRemoved { group, topics } => {
            let all = offsets(group);
            for (topic, partitions) in topics {
                let topic = format!("{all}/{}", path::component(topic));
                for partition in partitions {
                    tree.remove_all(zxid, time, &format!("{topic}/{partition}"), events);
                }
                prune(tree, zxid, time, &topic, events);
            }
        }
        Record::GroupRemoved { group } => {
            let all = offsets(group);
            tree.remove_all(zxid, time, &all, events);
            if let Some((group, _)) = path::split(&all) {
                prune(tree, zxid, time, group, events);
            }
        }
        Record::TopicForgotten { topic } => {
            let groups: Vec<String> = tree
                .children(CONSUMERS)
                .into_iter()
                .flatten()
                .map(str::to_owned)
                .collect();
            let topic = path::component(topic);
            for group in groups {
                let topic = format!("{CONSUMERS}/{group}/offsets/{topic}");
                if tree.exists(&topic) {
                    tree.remove_all(zxid, time, &topic, events);
                    if let Some((all, _)) = path::split(&topic) {
                        prune(tree, zxid, time, all, events);
                    }
                }
            }
        }
        // Of members, see member_nodes.
        Record::GroupState { .. } => {}
    }
}

fn offsets(group: &str) -> String {
    format!("{CONSUMERS}/{}/offsets", path::component(group))
}

/// Takes away a node that carries nothing any more, then the one above it, up to the
/// group's.
pub(super) fn prune(
    tree: &mut Tree,
    zxid: Zxid,
    time: TimestampMs,
    path: &str,
    events: &mut Vec<Event>,
) {
    let mut path = path;
    while path != CONSUMERS && path.starts_with(CONSUMERS) {
        // Of folders only: an ephemeral node or one that holds something is there for
        // another reason.
        let is_bare = tree.stat(path).is_some_and(|stat| {
            stat.num_children == 0 && stat.ephemeral_owner == 0 && stat.data_length == 0
        });
        if is_bare {
            let deleted = tree.apply(zxid, time, &Op::delete(path), events);
            debug_assert!(deleted.is_ok(), "{path} is there and has no children");
        } else if tree.exists(path) {
            return;
        }
        match path::split(path) {
            Some((above, _)) => path = above,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::groups::TopicOffsets;
    use crate::core::offsets::CommittedOffset;
    use klamm_engine::units::{LeaderEpoch, Offset};

    fn committed(topic: &str, offsets: &[(i32, i64)]) -> TopicOffsets {
        let at = |offset| CommittedOffset {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(-1),
            metadata: "kept elsewhere".to_owned(),
            at: TimestampMs(0),
            expires_at: None,
        };
        TopicOffsets {
            topic: topic.to_owned(),
            partitions: offsets.iter().map(|(p, o)| (*p, at(*o))).collect(),
        }
    }

    struct Shown(Tree, i64);

    impl Shown {
        fn show(&mut self, record: &Record) {
            self.1 += 1;
            show(
                &mut self.0,
                Zxid(self.1),
                TimestampMs(0),
                record,
                &mut Vec::new(),
            );
        }

        fn commit(&mut self, group: &str, topics: Vec<TopicOffsets>) {
            self.show(&Record::OffsetsCommitted {
                group: group.to_owned(),
                topics,
            });
        }

        fn at(&self, path: &str) -> Option<&str> {
            self.0
                .data(path)?
                .map(|data| std::str::from_utf8(data).unwrap())
        }

        fn groups(&self) -> Vec<&str> {
            self.0.children(CONSUMERS).unwrap().collect()
        }
    }

    #[test]
    fn offsets_come_show_their_number_and_go() {
        let mut shown = Shown(Tree::new(), 0);
        shown.commit(
            "g",
            vec![committed("t", &[(0, 5), (1, 6)]), committed("u", &[(0, 7)])],
        );
        shown.commit("g", vec![committed("t", &[(0, 50)])]);
        assert_eq!(shown.at("/consumers/g/offsets/t/0"), Some("50"));
        assert_eq!(shown.at("/consumers/g/offsets/t/1"), Some("6"));
        assert_eq!(
            shown.0.stat("/consumers/g/offsets/t/0").unwrap().mzxid,
            Zxid(2)
        );

        shown.show(&Record::OffsetsRemoved {
            group: "g".to_owned(),
            topics: vec![("t".to_owned(), vec![0, 9]), ("u".to_owned(), vec![0])],
        });
        assert_eq!(shown.at("/consumers/g/offsets/t/0"), None);
        assert!(!shown.0.exists("/consumers/g/offsets/u"));
        shown.show(&Record::OffsetsRemoved {
            group: "g".to_owned(),
            topics: vec![("t".to_owned(), vec![1])],
        });
        assert!(
            shown.groups().is_empty(),
            "the last offset takes its group's nodes along"
        );
    }

    #[test]
    fn a_topic_or_a_group_goes_whole_and_nothing_else_goes() {
        let mut shown = Shown(Tree::new(), 0);
        for group in ["a", "b"] {
            shown.commit(group, vec![committed("t", &[(0, 1)])]);
        }
        shown.commit("b", vec![committed("u", &[(0, 1)])]);
        shown.show(&Record::TopicForgotten {
            topic: "t".to_owned(),
        });
        assert_eq!(shown.groups(), ["b"]);

        // A consumer of old registered in the group: its node is not ours to take.
        shown
            .0
            .apply(
                Zxid(9),
                TimestampMs(0),
                &Op::create("/consumers/b/ids", ""),
                &mut Vec::new(),
            )
            .unwrap();
        shown.show(&Record::GroupRemoved {
            group: "b".to_owned(),
        });
        assert_eq!(
            shown
                .0
                .children("/consumers/b")
                .unwrap()
                .collect::<Vec<_>>(),
            ["ids"]
        );
        shown.show(&Record::GroupRemoved {
            group: "never there".to_owned(),
        });
    }

    #[test]
    fn a_group_of_any_name_stays_in_its_place() {
        let mut shown = Shown(Tree::new(), 0);
        for group in [
            "../../brokers/topics/x",
            "a/b",
            "..",
            "",
            "%",
            "line\nbreak",
        ] {
            shown.commit(group, vec![committed("t", &[(0, 3)])]);
        }
        assert_eq!(
            shown.groups(),
            [
                "%",
                "%25",
                "%2E%2E",
                "..%2F..%2Fbrokers%2Ftopics%2Fx",
                "a%2Fb",
                "line%0Abreak"
            ]
        );
        assert_eq!(
            shown.0.children("/").unwrap().collect::<Vec<_>>(),
            ["consumers", "zookeeper"]
        );
    }
}
