//! Stories of committed offsets: who may commit, how long it is kept, and what
//! deletes it.

use klamm_engine::units::{LeaderEpoch, Offset, TimestampMs};

use super::super::room::*;
use crate::core::groups::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Retention of an hour, looked at every minute.
fn an_hour_is_enough() -> Room {
    Room::with(|c| {
        c.offsets_retention_minutes = 60;
        c.offsets_retention_check_interval_ms = 60_000;
    })
}

fn delete(room: &mut Room, groups: &[&str]) -> Vec<Option<GroupError>> {
    let groups = groups.iter().map(|g| g.to_string()).collect();
    match room.say(Request::DeleteGroups(DeleteGroups { groups })) {
        Response::DeleteGroups(response) => response
            .groups
            .into_iter()
            .map(|(_, error)| error)
            .collect(),
        other => panic!("not a deletion's answer: {other:?}"),
    }
}

fn delete_offsets(room: &mut Room, group: &str, topics: &[(&str, &[i32])]) -> OffsetDeleteResponse {
    let topics = topics
        .iter()
        .map(|(t, p)| (t.to_string(), p.to_vec()))
        .collect();
    match room.say(Request::OffsetDelete(OffsetDelete {
        group: group.into(),
        topics,
    })) {
        Response::OffsetDelete(response) => response,
        other => panic!("not a deletion's answer: {other:?}"),
    }
}

#[test]
fn what_a_simple_consumer_commits_comes_back_whole_over_a_restart() {
    let mut room = Room::new();
    let mut request = commit("bill", -1, "", "orders", &[(0, 42), (7, 9)]);
    request.topics[0].partitions[0].leader_epoch = LeaderEpoch(3);
    request.topics[0].partitions[0].metadata = Some("note".into());
    room.say(Request::OffsetCommit(request));
    let fetched = |partition, offset, epoch, metadata: &str| FetchedOffset {
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(epoch),
        metadata: metadata.into(),
    };
    let (zero, seven) = (fetched(0, 42, 3, "note"), fetched(7, 9, -1, ""));
    for _ in 0..2 {
        let groups = vec![
            OffsetFetchGroup {
                group: "bill".into(),
                topics: None,
            },
            OffsetFetchGroup {
                group: "bill".into(),
                topics: Some(vec![
                    ("orders".into(), vec![7, 1, 0]),
                    ("none".into(), vec![0]),
                ]),
            },
            OffsetFetchGroup {
                group: "none".into(),
                topics: None,
            },
            OffsetFetchGroup {
                group: "none".into(),
                topics: Some(vec![("orders".into(), vec![0])]),
            },
        ];
        let Response::OffsetFetch(response) =
            room.say(Request::OffsetFetch(OffsetFetch { groups }))
        else {
            panic!()
        };
        let told: Vec<Vec<(&str, &[FetchedOffset])>> = response
            .groups
            .iter()
            .map(|g| {
                g.topics
                    .iter()
                    .map(|t| (t.topic.as_str(), t.partitions.as_slice()))
                    .collect()
            })
            .collect();
        let nothing = |p| fetched(p, -1, -1, "");
        assert_eq!(told[0], [("orders", &[zero.clone(), seven.clone()][..])]);
        assert_eq!(
            told[1],
            [
                ("orders", &[seven.clone(), nothing(1), zero.clone()][..]),
                ("none", &[nothing(0)][..])
            ]
        );
        assert!(told[2].is_empty());
        assert_eq!(told[3], [("orders", &[nothing(0)][..])]);
        room.restart();
        assert_eq!(room.state(), "Empty");
    }
}

#[test]
fn a_commit_is_judged_by_group_generation_and_member() {
    let mut room = Room::new();
    let member = room.stable(1).remove(0).member_id;
    let id = member.as_str();
    let table = [
        ("of the member", 1, id, None),
        (
            "an old generation",
            0,
            id,
            Some(GroupError::IllegalGeneration),
        ),
        (
            "a generation to come",
            2,
            id,
            Some(GroupError::IllegalGeneration),
        ),
        (
            "an unknown member",
            1,
            "ghost",
            Some(GroupError::UnknownMemberId),
        ),
        ("no member", 1, "", Some(GroupError::UnknownMemberId)),
        (
            "simple, of a group with members",
            -1,
            "",
            Some(GroupError::UnknownMemberId),
        ),
        (
            "simple, though a member",
            -1,
            id,
            Some(GroupError::IllegalGeneration),
        ),
    ];
    for (name, generation, member, error) in table {
        assert_eq!(
            room.commit(generation, member, "orders", 5),
            error,
            "{name}"
        );
    }
    assert_eq!(room.committed("orders", 0), 5);
    room.leave(&[(id, None)]);
    assert_eq!(
        room.commit(1, id, "orders", 6),
        Some(GroupError::UnknownMemberId)
    );
    assert_eq!(
        room.commit(-1, "", "orders", 7),
        None,
        "an empty group is anyone's"
    );
    assert_eq!(room.committed("orders", 0), 7);

    for (api_version, error) in [
        (9, GroupError::GroupIdNotFound),
        (8, GroupError::IllegalGeneration),
    ] {
        let request = OffsetCommit {
            api_version,
            ..commit("none", 4, "x", "orders", &[(0, 1)])
        };
        let Response::OffsetCommit(response) = room.say(Request::OffsetCommit(request)) else {
            panic!()
        };
        assert_eq!(response.topics[0].partitions, [(0, Some(error))]);
    }
    assert_eq!(room.describe("none").state, "Dead");
    // As in Kafka, simple consumers may have no group id at all.
    room.say(Request::OffsetCommit(commit(
        "",
        -1,
        "",
        "orders",
        &[(0, 1)],
    )));
    assert_eq!(room.describe("").state, "Empty");
}

#[test]
fn metadata_that_is_too_long_is_refused_for_its_partition_alone() {
    let mut room = Room::new();
    let mut request = commit("bill", -1, "", "orders", &[(0, 1), (1, 2), (2, 3)]);
    request.topics[0].partitions[0].metadata = Some("x".repeat(4_096));
    request.topics[0].partitions[1].metadata = Some("x".repeat(4_097));
    // 8,192 bytes, but 4,096 of Kafka's characters.
    request.topics[0].partitions[2].metadata = Some("ü".repeat(4_096));
    let Response::OffsetCommit(response) = room.say(Request::OffsetCommit(request)) else {
        panic!()
    };
    let too_large = Some(GroupError::OffsetMetadataTooLarge);
    assert_eq!(
        response.topics[0].partitions,
        [(0, None), (1, too_large), (2, None)]
    );
    assert_eq!([0, 1, 2].map(|p| room.committed("orders", p)), [1, -1, 3]);

    let mut request = commit("ship", -1, "", "orders", &[(0, 1)]);
    request.topics[0].partitions[0].metadata = Some("x".repeat(5_000));
    let persisted = room.records.len();
    room.say(Request::OffsetCommit(request));
    assert_eq!(
        (room.records.len(), room.describe("ship").state),
        (persisted, "Dead")
    );
}

#[test]
fn offsets_of_a_group_age_from_when_it_became_empty() {
    let mut room = an_hour_is_enough();
    let member = room.stable(1).remove(0);
    room.commit(1, &member.member_id, "orders", 5);
    for _ in 0..(2 * HOUR_MS / 9_000) {
        room.wait_ms(9_000);
        room.heartbeat(&member);
    }
    assert_eq!(room.committed("orders", 0), 5, "it still reads it");
    room.leave(&[(&member.member_id, None)]);
    room.wait_ms(HOUR_MS / 2);
    room.restart();
    room.wait_ms(HOUR_MS / 2 - 1);
    assert_eq!(room.committed("orders", 0), 5);
    room.wait_ms(60_000);
    assert_eq!(room.committed("orders", 0), -1);
    assert_eq!(room.state(), "Dead", "and the group goes with them");
    assert_eq!(
        room.records.last(),
        Some(&Record::GroupRemoved {
            group: "bill".into()
        })
    );
    room.check_replay();
}

#[test]
fn offsets_of_a_simple_group_age_from_their_commit() {
    let mut room = Room::new();
    room.commit(-1, "", "orders", 5);
    room.wait_ms(5 * DAY_MS);
    room.commit(-1, "", "trucks", 6);
    room.wait_ms(2 * DAY_MS + 600_000);
    assert_eq!(
        (room.committed("orders", 0), room.committed("trucks", 0)),
        (-1, 6)
    );
    room.wait_ms(5 * DAY_MS);
    assert_eq!(room.state(), "Dead");
    assert!(room.groups.durable().offsets.iter().next().is_none());
}

#[test]
fn what_a_stable_group_no_longer_reads_ages_and_what_it_reads_does_not() {
    let mut room = an_hour_is_enough();
    let member = room.stable(1).remove(0);
    room.commit(1, &member.member_id, "orders", 5);
    room.commit(1, &member.member_id, "trucks", 6);
    for _ in 0..(2 * HOUR_MS / 9_000) {
        room.wait_ms(9_000);
        room.heartbeat(&member);
    }
    assert_eq!(
        (room.committed("orders", 0), room.committed("trucks", 0)),
        (5, -1)
    );
}

#[test]
fn a_commit_may_say_how_long_it_is_kept() {
    let mut room = Room::new();
    let request = OffsetCommit {
        retention_time_ms: 3_600_000,
        ..commit("bill", -1, "", "orders", &[(0, 5)])
    };
    room.say(Request::OffsetCommit(request));
    let kept = room
        .groups
        .durable()
        .offsets
        .get("bill", "orders", 0)
        .unwrap();
    assert_eq!(
        kept.expires_at,
        Some(TimestampMs(room.now.wall.0 + 3_600_000))
    );
    room.wait_ms(3_599_999);
    assert_eq!(room.committed("orders", 0), 5);
    room.wait_ms(600_000);
    assert_eq!(room.committed("orders", 0), -1);
}

#[test]
fn a_look_through_many_groups_is_cut_into_pieces_and_reaches_all() {
    let mut room = an_hour_is_enough();
    let count = 1_000;
    for n in 0..count {
        room.say(Request::OffsetCommit(commit(
            &format!("g{n}"),
            -1,
            "",
            "orders",
            &[(0, n)],
        )));
    }
    let mut most = 0;
    let end = room.now.mono.0 + 2 * HOUR_MS * 1_000_000;
    while let Some(next) = room.groups.next_deadline().filter(|next| next.0 <= end) {
        let before = room.groups.durable().offsets.iter().count();
        room.now.wall.0 += (next.0.saturating_sub(room.now.mono.0) / 1_000_000) as i64;
        room.now.mono = next.max(room.now.mono);
        room.tick();
        most = most.max(before - room.groups.durable().offsets.iter().count());
    }
    assert_eq!(room.groups.durable().offsets.iter().count(), 0);
    assert!((1..=256).contains(&most), "{most} in one tick");
}

#[test]
fn a_group_is_deleted_only_when_nobody_is_in_it() {
    let mut room = Room::new();
    let member = room.stable(1).remove(0);
    room.commit(1, &member.member_id, "orders", 5);
    room.say(Request::OffsetCommit(commit(
        "hand",
        -1,
        "",
        "orders",
        &[(0, 1)],
    )));
    let missing = Some(GroupError::GroupIdNotFound);
    assert_eq!(
        delete(&mut room, &["bill", "hand", "none"]),
        [Some(GroupError::NonEmptyGroup), None, missing]
    );
    assert_eq!(room.committed("orders", 0), 5);
    room.leave(&[(&member.member_id, None)]);
    // Somebody is about to join: not in it yet.
    let pending = room.join(joining());
    assert_eq!(delete(&mut room, &["bill", "bill"]), [None, missing]);
    assert_eq!((room.committed("orders", 0), room.state()), (-1, "Dead"));
    let late = room.join(JoinGroup {
        member_id: pending.member_id,
        ..joining()
    });
    assert_eq!(late.error, Some(GroupError::UnknownMemberId));
    room.restart();
    assert_eq!(room.state(), "Dead");
}

#[test]
fn offsets_are_deleted_unless_a_member_reads_the_topic() {
    let mut room = Room::new();
    let member = room.stable(1).remove(0);
    for topic in ["orders", "trucks"] {
        room.commit(1, &member.member_id, topic, 5);
    }
    let response = delete_offsets(&mut room, "bill", &[("orders", &[0]), ("trucks", &[0, 9])]);
    assert_eq!(response.error, None);
    let verdicts: Vec<_> = response
        .topics
        .iter()
        .map(|t| t.partitions.as_slice())
        .collect();
    assert_eq!(verdicts[0], [(0, Some(GroupError::GroupSubscribedToTopic))]);
    assert_eq!(
        verdicts[1],
        [(0, None), (9, None)],
        "what was never there is deleted as well"
    );
    assert_eq!(
        (room.committed("orders", 0), room.committed("trucks", 0)),
        (5, -1)
    );

    room.leave(&[(&member.member_id, None)]);
    let response = delete_offsets(&mut room, "bill", &[("orders", &[0])]);
    assert_eq!(response.topics[0].partitions, [(0, None)]);
    assert_eq!(room.committed("orders", 0), -1);
    assert_eq!(
        delete_offsets(&mut room, "none", &[]).error,
        Some(GroupError::GroupIdNotFound)
    );
    assert_eq!(
        delete_offsets(&mut room, "", &[]).error,
        Some(GroupError::InvalidGroupId)
    );
    room.check_replay();
}

#[test]
fn offsets_of_a_group_that_is_hard_to_read_are_left_alone() {
    // Connect's workers: nobody can tell what they read.
    let mut room = Room::with(|c| c.initial_rebalance_delay_ms = 0);
    let worker = room
        .start_join_fresh(JoinGroup {
            protocol_type: "connect".into(),
            ..joining()
        })
        .0;
    let worker = room.joined(worker);
    room.settle(&[worker]);
    assert_eq!(
        delete_offsets(&mut room, "bill", &[("x", &[0])]).error,
        Some(GroupError::NonEmptyGroup)
    );

    // A consumer whose subscription cannot be read might read anything.
    let mut room = Room::with(|c| c.initial_rebalance_delay_ms = 0);
    let strange = Protocol {
        name: "range".into(),
        metadata: bytes::Bytes::from_static(b"?"),
    };
    let member = room
        .start_join_fresh(JoinGroup {
            protocols: vec![strange],
            ..joining()
        })
        .0;
    let member = room.joined(member);
    room.settle(&[member]);
    let response = delete_offsets(&mut room, "bill", &[("x", &[0])]);
    assert_eq!(
        response.topics[0].partitions,
        [(0, Some(GroupError::GroupSubscribedToTopic))]
    );
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut room = Room::new();
    room.commit(-1, "", "orders", 5);
    room.commit(-1, "", "trucks", 6);
    room.forget_topic("orders");
    room.forget_topic("never");
    assert_eq!(
        (room.committed("orders", 0), room.committed("trucks", 0)),
        (-1, 6)
    );
    assert_eq!(
        room.records.last(),
        Some(&Record::TopicForgotten {
            topic: "orders".into()
        })
    );
    assert_eq!(
        room.records.len(),
        3,
        "an unknown topic is not written about"
    );
    room.restart();
    assert_eq!(
        (room.committed("orders", 0), room.committed("trucks", 0)),
        (-1, 6)
    );
}
