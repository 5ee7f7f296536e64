//! Any history, replayed, gives the state that it made.

use super::*;
use crate::core::groups::OffsetDelete;
use proptest::prelude::*;

/// Everything that changes state, drawn at random from few names, so that they meet.
fn any_request() -> impl Strategy<Value = Request> {
    let name = || prop::sample::select(vec!["a", "b", "c.d", "c_d"]);
    let create = (name(), 0..4i32, prop::bool::ANY).prop_map(|(n, p, short)| {
        let configs = if short {
            vec![("retention.ms".to_owned(), Some("5".to_owned()))]
        } else {
            vec![]
        };
        Request::CreateTopics {
            topics: vec![NewTopic {
                configs,
                ..topic(n, p)
            }],
            validate_only: false,
        }
    });
    let delete = name().prop_map(|n| Request::DeleteTopics {
        topics: vec![TopicRef::Name(n.to_owned())],
    });
    let grow = (name(), 1..6i32).prop_map(|(n, count)| Request::CreatePartitions {
        topics: vec![NewPartitions {
            topic: n.to_owned(),
            count,
            assignments: None,
        }],
        validate_only: false,
    });
    let alter = (name(), prop::sample::select(vec!["1", "2", "x"])).prop_map(|(n, v)| {
        let op = ConfigOp {
            name: "segment.ms".to_owned(),
            op: 0,
            value: Some(v.to_owned()),
        };
        let resources = vec![ConfigChange {
            resource: topic_resource(n),
            ops: vec![op],
        }];
        Request::IncrementalAlterConfigs {
            resources,
            validate_only: false,
        }
    });
    let dynamic = prop::sample::select(vec!["1", "2"]).prop_map(|v| {
        let op = ConfigOp {
            name: "log.roll.ms".to_owned(),
            op: 0,
            value: Some(v.to_owned()),
        };
        let resources = vec![ConfigChange {
            resource: ConfigResource::Broker(None),
            ops: vec![op],
        }];
        Request::IncrementalAlterConfigs {
            resources,
            validate_only: false,
        }
    });
    let group = || prop::sample::select(vec!["g", "h/i"]);
    let commit =
        (group(), name(), 0..3i32, 0..99i64).prop_map(|(g, t, p, o)| commit_request(g, t, p, o));
    let forget = (group(), name()).prop_map(|(g, t)| {
        let topics = vec![(t.to_owned(), vec![0, 1])];
        Request::Group(groups::Request::OffsetDelete(OffsetDelete {
            group: g.to_owned(),
            topics,
        }))
    });
    let drop = group().prop_map(|g| {
        Request::Group(groups::Request::DeleteGroups(groups::DeleteGroups {
            groups: vec![g.to_owned()],
        }))
    });
    let ops = prop::collection::vec(crate::core::tree::tests::any_op(), 1..4)
        .prop_map(|ops| Request::CommitTreeOps { ops });
    prop_oneof![
        create,
        delete,
        grow,
        alter,
        dynamic,
        commit.boxed(),
        forget,
        drop,
        ops,
        Just(Request::InitProducerId)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The commands make the state, from nothing or from a snapshot at any point, and
    /// the cluster kept up step by step is the cluster read anew.
    #[test]
    fn replay_and_snapshot_give_the_state(
        requests in prop::collection::vec(any_request(), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut room = Room::new(&[]);
        let cut = cut.index(requests.len());
        let mut snapshot = (room.core.snapshot(), room.core.zxid());
        for (at, request) in requests.into_iter().enumerate() {
            room.ask(request);
            if at == cut {
                snapshot = (room.core.snapshot(), room.core.zxid());
            }
        }
        let state = room.core.snapshot();

        let mut replayed = Core::new(config(&[]));
        for (zxid, command) in &room.log {
            replayed.apply(*zxid, command);
        }
        prop_assert!(replayed.snapshot() == state, "replay");

        let mut restored = Core::restore(config(&[]), &snapshot.0).unwrap();
        prop_assert_eq!(restored.zxid(), snapshot.1);
        prop_assert!(restored.snapshot() == snapshot.0, "a snapshot of what it restored");
        for (zxid, command) in room.log.iter().filter(|(zxid, _)| *zxid > snapshot.1) {
            restored.apply(*zxid, command);
        }
        prop_assert!(restored.snapshot() == state, "snapshot and replay");

        restored.start(at(room.now)).unwrap();
        restored.step(Token(1), Request::RegisterBroker { broker: broker(1) }, at(room.now));
        let (kept, anew) = (room.core.image(), restored.image());
        prop_assert_eq!(kept.topics().collect::<Vec<_>>(), anew.topics().collect::<Vec<_>>());
        prop_assert_eq!(&kept.brokers, &anew.brokers);
        prop_assert_eq!(&kept.settings, &anew.settings);
    }
}
