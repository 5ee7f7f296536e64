use super::*;
use proptest::prelude::*;

fn committed() -> impl Strategy<Value = (i32, CommittedOffset)> {
    (
        any::<i32>(),
        any::<i64>(),
        any::<i32>(),
        "[a-zü]{0,5}",
        any::<i64>(),
        proptest::option::of(any::<i64>()),
    )
        .prop_map(|(partition, offset, epoch, metadata, at, expires)| {
            let committed = CommittedOffset {
                offset: Offset(offset),
                leader_epoch: LeaderEpoch(epoch),
                metadata,
                at: TimestampMs(at),
                expires_at: expires.map(TimestampMs),
            };
            (partition, committed)
        })
}

fn blob() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zü]{0,6}"
}

fn member() -> impl Strategy<Value = MemberRecord> {
    let protocols = proptest::collection::vec((text(), blob()), 0..3);
    (
        text(),
        proptest::option::of(text()),
        (text(), text()),
        any::<(i32, i32)>(),
        protocols,
        blob(),
    )
        .prop_map(
            |(member_id, instance_id, client, timeouts, protocols, assignment)| MemberRecord {
                member_id,
                instance_id,
                client_id: client.0,
                client_host: client.1,
                rebalance_timeout_ms: timeouts.0,
                session_timeout_ms: timeouts.1,
                protocols: protocols
                    .into_iter()
                    .map(|(name, metadata)| Protocol { name, metadata })
                    .collect(),
                assignment,
            },
        )
}

fn group() -> impl Strategy<Value = GroupRecord> {
    let names = (
        proptest::option::of(text()),
        proptest::option::of(text()),
        proptest::option::of(text()),
    );
    (
        any::<i32>(),
        names,
        any::<i64>(),
        proptest::collection::vec(member(), 0..4),
    )
        .prop_map(
            |(generation, (protocol_type, protocol, leader), since, members)| GroupRecord {
                generation,
                protocol_type,
                protocol,
                leader,
                since: TimestampMs(since),
                members,
            },
        )
}

fn record() -> impl Strategy<Value = Record> {
    let partitions = proptest::collection::vec(committed(), 0..4);
    let topic =
        (text(), partitions).prop_map(|(topic, partitions)| TopicOffsets { topic, partitions });
    let removed = (text(), proptest::collection::vec(any::<i32>(), 0..4));
    prop_oneof![
        (text(), proptest::collection::vec(topic, 0..3))
            .prop_map(|(group, topics)| Record::OffsetsCommitted { group, topics }),
        (text(), proptest::collection::vec(removed, 0..3))
            .prop_map(|(group, topics)| Record::OffsetsRemoved { group, topics }),
        (text(), group()).prop_map(|(group, state)| Record::GroupState {
            group,
            state: Arc::new(state)
        }),
        text().prop_map(|group| Record::GroupRemoved { group }),
        text().prop_map(|topic| Record::TopicForgotten { topic }),
    ]
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_comes_back(record in record()) {
        prop_assert_eq!(Record::decode(&encoded(&record)), Ok(record));
    }

    #[test]
    fn every_cut_and_every_tail_is_refused(record in record()) {
        let mut bytes = encoded(&record);
        for end in 0..bytes.len() {
            prop_assert!(Record::decode(&bytes[..end]).is_err(), "cut at {}", end);
        }
        bytes.push(0);
        prop_assert!(Record::decode(&bytes).is_err());
    }

    #[test]
    fn flipped_bytes_never_panic(record in record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encoded(&record);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // What still decodes must encode: it may be written by the next snapshot.
        if let Ok(other) = Record::decode(&bytes) {
            prop_assert_eq!(Record::decode(&encoded(&other)), Ok(other));
        }
    }

    #[test]
    fn noise_never_panics(kind in 0u8..7, mut noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        noise.splice(0..0, [FORMAT, kind]);
        let _ = Record::decode(&noise);
    }
}

#[test]
fn lengths_and_counts_beyond_the_end_are_refused_unallocated() {
    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    for (kind, before) in [
        (4u8, &[][..]),
        (5, &[][..]),
        (2, &[0][..]),
        (1, &[0, 0][..]),
        (3, &[0, 0, 0, 0, 0, 0][..]),
    ] {
        let mut bytes = vec![FORMAT, kind];
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(&huge);
        let error = Record::decode(&bytes).unwrap_err();
        assert!(error.0.ends_with("beyond its end"), "kind {kind}: {error}");
    }
    assert_eq!(Record::decode(&[FORMAT, 9]), Err(BadRecord("unknown kind")));
    assert_eq!(Record::decode(&[2, 4, 0]), Err(BadRecord("unknown format")));
}

/// Written data must stay readable: these bytes are what version 1 is.
#[test]
fn the_format_is_pinned() {
    let commit = Record::OffsetsCommitted {
        group: "g".into(),
        topics: vec![TopicOffsets {
            topic: "t".into(),
            partitions: vec![(
                3,
                CommittedOffset {
                    offset: Offset(300),
                    leader_epoch: LeaderEpoch(-1),
                    metadata: "m".into(),
                    at: TimestampMs(1_000),
                    expires_at: Some(TimestampMs(1_001)),
                },
            )],
        }],
    };
    assert_eq!(
        encoded(&commit),
        [
            1, 1, 1, b'g', 0xD0, 0x0F, 1, 1, b't', 1, 6, 0xD8, 0x04, 1, 1, b'm', 0, 1, 2
        ]
    );
    let state = Record::GroupState {
        group: "g".into(),
        state: Arc::new(GroupRecord {
            generation: 7,
            protocol_type: Some("c".into()),
            protocol: None,
            leader: Some("l".into()),
            since: TimestampMs(-1),
            members: vec![MemberRecord {
                member_id: "l".into(),
                instance_id: None,
                client_id: "i".into(),
                client_host: "h".into(),
                rebalance_timeout_ms: 1,
                session_timeout_ms: 2,
                protocols: vec![Protocol {
                    name: "r".into(),
                    metadata: Bytes::from_static(b"s"),
                }],
                assignment: Bytes::from_static(b"a"),
            }],
        }),
    };
    assert_eq!(
        encoded(&state),
        [
            1, 3, 1, b'g', 14, 2, b'c', 0, 2, b'l', 1, 1, 1, b'l', 0, 1, b'i', 1, b'h', 2, 4, 1, 1,
            b'r', 1, b's', 1, b'a'
        ]
    );
}
