//! Who joins, who syncs, who is late.

use bytes::Bytes;

use super::super::room::*;
use crate::core::groups::*;

/// Refusals that need no story.
#[test]
fn a_join_is_refused_for_what_it_says() {
    let mut room = Room::with(|c| c.max_size = 1);
    let known = room.stable(1).remove(0);
    let table: Vec<(&str, JoinGroup, GroupError)> = vec![
        (
            "no group",
            JoinGroup {
                group: "".into(),
                ..joining()
            },
            GroupError::InvalidGroupId,
        ),
        (
            "short session",
            JoinGroup {
                session_timeout_ms: 5_999,
                ..joining()
            },
            GroupError::InvalidSessionTimeout,
        ),
        (
            "long session",
            JoinGroup {
                session_timeout_ms: 1_800_001,
                ..joining()
            },
            GroupError::InvalidSessionTimeout,
        ),
        ("full", joining(), GroupError::GroupMaxSizeReached),
        (
            "full, old client",
            JoinGroup {
                api_version: 1,
                ..joining()
            },
            GroupError::GroupMaxSizeReached,
        ),
        (
            "no member id",
            JoinGroup {
                group: "ship".into(),
                ..joining()
            },
            GroupError::MemberIdRequired,
        ),
        (
            "unknown member, unknown group",
            JoinGroup {
                group: "none".into(),
                member_id: "x".into(),
                ..joining()
            },
            GroupError::UnknownMemberId,
        ),
        (
            "no protocol",
            JoinGroup {
                group: "none".into(),
                protocols: vec![],
                ..joining()
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "no protocol type",
            JoinGroup {
                group: "none".into(),
                protocol_type: "".into(),
                ..joining()
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "another protocol",
            JoinGroup {
                protocols: vec![protocol("sticky", &["orders"])],
                ..rejoining(&known)
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "another protocol type",
            JoinGroup {
                protocol_type: "connect".into(),
                ..rejoining(&known)
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "an instance that is not there",
            JoinGroup {
                instance_id: Some("i".into()),
                ..rejoining(&known)
            },
            GroupError::UnknownMemberId,
        ),
    ];
    for (name, request, error) in table {
        let response = room.join(request);
        assert_eq!(response.error, Some(error), "{name}");
        assert_eq!(
            (response.generation, response.leader.as_str()),
            (-1, ""),
            "{name}"
        );
    }
    assert_eq!(room.state(), "Stable");
    assert_eq!(
        room.describe("none").state,
        "Dead",
        "a refused join founds nothing"
    );
}

#[test]
fn an_unknown_member_of_a_full_group_is_unknown_first_when_there_is_room() {
    let mut room = Room::new();
    room.stable(1);
    let response = room.join(JoinGroup {
        member_id: "ghost".into(),
        ..joining()
    });
    assert_eq!(
        (response.error, response.member_id.as_str()),
        (Some(GroupError::UnknownMemberId), "ghost")
    );
}

#[test]
fn two_members_join_and_one_leaves() {
    let mut room = Room::new();
    let (first, first_id) = room.start_join_fresh(joining());
    room.wait_ms(1_000);
    let (second, second_id) = room.start_join_fresh(joining());
    assert_eq!(room.state(), "PreparingRebalance");

    // 3 s after the first, and 3 s more because the second came in between.
    room.wait_ms(1_999);
    assert!(room.is_waiting(first));
    room.wait_ms(1);
    assert!(room.is_waiting(first) && room.is_waiting(second));
    room.wait_ms(3_000);
    let (first, second) = (room.joined(first), room.joined(second));
    for joined in [&first, &second] {
        assert_eq!((joined.error, joined.generation), (None, 1));
        assert_eq!(joined.protocol.as_deref(), Some("range"));
        assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(joined.leader, first_id, "who came first leads");
    }
    assert!(
        second.members.is_empty(),
        "only the leader is told who is there"
    );
    let told: Vec<_> = first.members.iter().map(|m| m.member_id.as_str()).collect();
    let mut both = vec![first_id.as_str(), second_id.as_str()];
    both.sort_unstable();
    assert_eq!(told, both);
    assert_eq!(first.members[0].metadata, joining().protocols[0].metadata);
    assert!(
        room.records.is_empty(),
        "nothing to remember before the assignment"
    );

    // The follower is early and waits for the leader.
    assert_eq!(room.state(), "CompletingRebalance");
    let follower = room.start_sync(&second, &[]);
    assert!(room.is_waiting(follower));
    let leader = room.start_sync(&first, &[(&first_id, "p0"), (&second_id, "p1")]);
    assert_eq!(room.synced(leader), Ok(Bytes::from_static(b"p0")));
    assert_eq!(room.synced(follower), Ok(Bytes::from_static(b"p1")));
    assert_eq!((room.state(), room.records.len()), ("Stable", 1));

    // One leaves: the other hears of it with its heartbeat, and joins again alone.
    assert_eq!(room.leave(&[(&first_id, None)]), [None]);
    assert_eq!(
        room.heartbeat(&second),
        Some(GroupError::RebalanceInProgress)
    );
    let alone = room.join(rejoining(&second));
    assert_eq!((alone.error, alone.generation), (None, 2));
    assert_eq!(alone.leader, second_id);
    room.settle(&[alone]);

    assert_eq!(room.leave(&[(&second_id, None)]), [None]);
    assert_eq!(room.state(), "Empty");
    let Some(Record::GroupState { state, .. }) = room.records.last() else {
        panic!("an empty group is written")
    };
    assert_eq!(
        (
            state.generation,
            state.members.len(),
            state.protocol.as_deref()
        ),
        (3, 0, None)
    );
    assert_eq!(room.heartbeat(&second), Some(GroupError::UnknownMemberId));
    room.check_replay();
}

#[test]
fn the_first_rebalance_waits_no_longer_than_the_rebalance_timeout() {
    let mut room = Room::new();
    let asks = JoinGroup {
        rebalance_timeout_ms: 7_000,
        ..joining()
    };
    let first = room.start_join_fresh(asks.clone()).0;
    // Somebody new in every round of 3 s: rounds of 3 + 3 + 1 s.
    for _ in 0..3 {
        room.wait_ms(2_000);
        room.start_join_fresh(asks.clone());
    }
    room.wait_ms(999);
    assert!(room.is_waiting(first));
    room.wait_ms(1);
    assert_eq!(room.joined(first).members.len(), 4);
}

#[test]
fn without_a_delay_the_first_member_is_answered_at_once() {
    let mut room = Room::with(|c| c.initial_rebalance_delay_ms = 0);
    let (token, id) = room.start_join_fresh(joining());
    let joined = room.joined(token);
    assert_eq!(
        (joined.generation, joined.leader.as_str()),
        (1, id.as_str())
    );
}

#[test]
fn an_old_client_gets_its_id_with_its_first_join() {
    let mut room = Room::new();
    // Version 0 has no rebalance timeout.
    let token = room.start_join(JoinGroup {
        api_version: 0,
        rebalance_timeout_ms: -1,
        ..joining()
    });
    room.wait_ms(3_000);
    let joined = room.joined(token);
    assert!(joined.member_id.starts_with("app-"), "{}", joined.member_id);
    assert_eq!(joined.error, None);
    let sync = room.start_sync(&joined, &[(&joined.member_id, "all")]);
    assert_eq!(room.synced(sync), Ok(Bytes::from_static(b"all")));
    let Some(Record::GroupState { state, .. }) = room.records.last() else {
        panic!("a stable group is written")
    };
    assert_eq!(state.members[0].rebalance_timeout_ms, 10_000);
}

#[test]
fn a_pending_member_holds_a_rebalance_up_until_its_time_is_over() {
    let mut room = Room::new();
    let old = room.stable(1).remove(0);
    let pending = room.join(joining());
    assert_eq!(pending.error, Some(GroupError::MemberIdRequired));
    assert_eq!(room.state(), "Stable", "an id is no membership");

    let rejoin = room.start_join(rejoining(&old));
    assert!(room.is_waiting(rejoin), "somebody is about to come");
    room.wait_ms(9_999);
    assert!(room.is_waiting(rejoin));
    room.wait_ms(1);
    assert_eq!(room.joined(rejoin).members.len(), 1);
    let late = room.join(JoinGroup {
        member_id: pending.member_id,
        ..joining()
    });
    assert_eq!(late.error, Some(GroupError::UnknownMemberId));
}

#[test]
fn a_group_that_only_pending_members_knew_vanishes_with_them() {
    let mut room = Room::new();
    let pending = room.join(joining());
    assert_eq!(room.state(), "Empty");
    room.wait_ms(10_000);
    assert_eq!(room.state(), "Dead");
    let other = room.join(joining());
    assert_ne!(other.member_id, pending.member_id);
    assert_eq!(room.leave(&[(&other.member_id, None)]), [None]);
    assert_eq!(room.state(), "Dead");
    assert!(room.records.is_empty());
}

#[test]
fn a_pending_id_cannot_turn_static() {
    let mut room = Room::new();
    let pending = room.join(joining());
    let response = room.join(JoinGroup {
        member_id: pending.member_id,
        instance_id: Some("i".into()),
        ..joining()
    });
    assert_eq!(response.error, Some(GroupError::UnknownMemberId));
}

#[test]
fn a_silent_member_is_out_when_its_session_ends() {
    let mut room = Room::new();
    let members = room.stable(2);
    room.wait_ms(6_000);
    assert_eq!(room.heartbeat(&members[0]), None);
    room.wait_ms(3_999);
    assert_eq!(room.describe("bill").members.len(), 2);
    room.wait_ms(1);
    assert_eq!(room.state(), "PreparingRebalance");
    assert_eq!(
        room.heartbeat(&members[0]),
        Some(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        room.heartbeat(&members[1]),
        Some(GroupError::UnknownMemberId)
    );
    assert_eq!(room.join(rejoining(&members[0])).members.len(), 1);
}

#[test]
fn a_commit_keeps_the_session_too() {
    let mut room = Room::new();
    let member = room.stable(1).remove(0);
    for offset in 0..10 {
        room.wait_ms(9_000);
        assert_eq!(room.commit(1, &member.member_id, "orders", offset), None);
    }
    assert_eq!(room.heartbeat(&member), None);
}

#[test]
fn a_member_that_waits_in_a_join_needs_no_heartbeat() {
    let mut room = Room::new();
    let members = room.stable(2);
    let waits = room.start_join(rejoining(&members[0]));
    // The follower heartbeats on and on and joins only at the end of its minute.
    for _ in 0..11 {
        room.wait_ms(5_000);
        assert_eq!(
            room.heartbeat(&members[1]),
            Some(GroupError::RebalanceInProgress)
        );
    }
    assert!(room.is_waiting(waits));
    assert_eq!(room.join(rejoining(&members[1])).error, None);
    assert_eq!(room.joined(waits).members.len(), 2);
}

#[test]
fn who_does_not_rejoin_in_time_is_left_behind() {
    let mut room = Room::new();
    let members = room.stable(2);
    // The leader is the one that is missing: the other leads from now on.
    let newcomer = room.start_join_fresh(joining()).0;
    let follower = room.start_join(rejoining(&members[1]));
    for _ in 0..11 {
        room.wait_ms(5_000);
        room.heartbeat(&members[0]);
    }
    room.wait_ms(4_999);
    assert!(room.is_waiting(newcomer));
    room.wait_ms(1);
    let (follower, newcomer) = (room.joined(follower), room.joined(newcomer));
    assert_eq!((follower.generation, newcomer.generation), (2, 2));
    assert_ne!(follower.leader, members[0].member_id);
    assert_eq!(
        room.heartbeat(&members[0]),
        Some(GroupError::UnknownMemberId)
    );
}

#[test]
fn a_leader_that_dies_before_it_assigned_is_replaced() {
    let mut room = Room::new();
    let first = room.start_join_fresh(joining()).0;
    let second = room.start_join_fresh(joining()).0;
    room.wait_ms(6_000);
    let (leader, follower) = (room.joined(first), room.joined(second));
    let sync = room.start_sync(&follower, &[]);
    // The follower waits, so only the leader's session can end.
    room.wait_ms(9_999);
    assert!(room.is_waiting(sync));
    room.wait_ms(1);
    assert_eq!(room.synced(sync), Err(GroupError::RebalanceInProgress));
    let again = room.join(rejoining(&follower));
    assert_eq!((again.generation, &again.leader), (2, &follower.member_id));
    room.settle(&[again]);
    let late = room.start_sync(&leader, &[(&leader.member_id, "mine")]);
    assert_eq!(room.synced(late), Err(GroupError::UnknownMemberId));
}

#[test]
fn who_never_syncs_is_out_after_the_rebalance_timeout() {
    let mut room = Room::new();
    let first = room.start_join_fresh(joining()).0;
    let second = room.start_join_fresh(joining()).0;
    room.wait_ms(6_000);
    let (leader, follower) = (room.joined(first), room.joined(second));
    let sync = room.start_sync(
        &leader,
        &[(&leader.member_id, "p0"), (&follower.member_id, "p1")],
    );
    assert_eq!(room.synced(sync), Ok(Bytes::from_static(b"p0")));
    // Alive by its heartbeats, but it never asks for its assignment.
    for _ in 0..11 {
        room.wait_ms(5_000);
        assert_eq!(room.heartbeat(&leader), None);
        assert_eq!(room.heartbeat(&follower), None);
    }
    room.wait_ms(5_000);
    assert_eq!(room.heartbeat(&follower), Some(GroupError::UnknownMemberId));
    assert_eq!(
        room.heartbeat(&leader),
        Some(GroupError::RebalanceInProgress)
    );
}

/// A member of the present generation must never hear UNKNOWN_MEMBER_ID just
/// because others come and go: it would throw its partitions away.
#[test]
fn a_rebalance_under_way_makes_nobody_unknown() {
    let mut room = Room::new();
    let members = room.stable(3);
    let newcomer = room.start_join_fresh(joining()).0;
    for member in &members {
        assert_eq!(
            room.heartbeat(member),
            Some(GroupError::RebalanceInProgress)
        );
        assert_eq!(
            room.commit(member.generation, &member.member_id, "orders", 3),
            None,
            "it may still commit"
        );
        let sync = room.start_sync(member, &[]);
        assert_eq!(room.synced(sync), Err(GroupError::RebalanceInProgress));
    }
    let joins: Vec<_> = members
        .iter()
        .map(|m| room.start_join(rejoining(m)))
        .collect();
    let joined: Vec<_> = joins.into_iter().map(|t| room.joined(t)).collect();
    let newcomer = room.joined(newcomer);

    // Stale requests of generation 1 arrive during generation 2.
    for member in &members {
        assert_eq!(room.heartbeat(member), Some(GroupError::IllegalGeneration));
        let sync = room.start_sync(member, &[]);
        assert_eq!(room.synced(sync), Err(GroupError::IllegalGeneration));
        assert_eq!(
            room.commit(1, &member.member_id, "orders", 4),
            Some(GroupError::IllegalGeneration)
        );
        assert_eq!(
            room.commit(2, &member.member_id, "orders", 4),
            Some(GroupError::RebalanceInProgress)
        );
    }
    // And another newcomer while they sync.
    let waits = room.start_sync(&joined[1], &[]);
    let another = room.start_join_fresh(joining()).0;
    assert_eq!(room.synced(waits), Err(GroupError::RebalanceInProgress));
    let joins: Vec<_> = joined
        .iter()
        .chain([&newcomer])
        .map(|m| room.start_join(rejoining(m)))
        .collect();
    let mut joined: Vec<_> = joins.into_iter().map(|t| room.joined(t)).collect();
    joined.push(room.joined(another));
    assert!(
        joined
            .iter()
            .all(|j| j.error.is_none() && j.generation == 3)
    );
    room.settle(&joined);
}

#[test]
fn a_lost_answer_is_given_again() {
    let mut room = Room::new();
    let first = room.start_join_fresh(joining()).0;
    let second = room.start_join_fresh(joining()).0;
    room.wait_ms(6_000);
    let (leader, follower) = (room.joined(first), room.joined(second));
    assert_eq!(
        room.join(rejoining(&leader)),
        leader,
        "while completing, to the leader too"
    );
    assert_eq!(room.join(rejoining(&follower)), follower);
    let early = room.start_sync(&follower, &[]);
    let again = room.start_sync(&follower, &[]);
    assert_eq!(
        room.synced(early),
        Err(GroupError::RebalanceInProgress),
        "given up for the second"
    );
    room.start_sync(&leader, &[(&follower.member_id, "p1")]);
    assert_eq!(room.synced(again), Ok(Bytes::from_static(b"p1")));
    let sync = room.start_sync(&follower, &[]);
    assert_eq!(
        room.synced(sync),
        Ok(Bytes::from_static(b"p1")),
        "once more when stable"
    );
    let sync = room.start_sync(&leader, &[]);
    assert_eq!(
        room.synced(sync),
        Ok(Bytes::new()),
        "whom the leader forgot gets nothing"
    );
    assert_eq!(
        room.join(rejoining(&follower)),
        follower,
        "a follower that joins unchanged changes nothing"
    );
    assert_eq!(room.state(), "Stable");
    assert_eq!(room.records.len(), 1);
}

#[test]
fn a_join_sent_twice_leaves_the_earlier_one_answered() {
    let mut room = Room::new();
    let (earlier, id) = room.start_join_fresh(joining());
    let later = room.start_join(JoinGroup {
        member_id: id,
        ..joining()
    });
    assert_eq!(
        room.joined(earlier).error,
        Some(GroupError::RebalanceInProgress)
    );
    room.wait_ms(3_000);
    assert_eq!(room.joined(later).error, None);
}

#[test]
fn a_leader_that_joins_again_and_a_member_that_changed_start_a_rebalance() {
    for (who, request) in [
        (0, joining()),
        (
            1,
            JoinGroup {
                protocols: vec![protocol("range", &["orders", "trucks"])],
                ..joining()
            },
        ),
    ] {
        let mut room = Room::new();
        let members = room.stable(2);
        let token = room.start_join(JoinGroup {
            member_id: members[who].member_id.clone(),
            ..request
        });
        assert!(room.is_waiting(token));
        assert_eq!(room.join(rejoining(&members[1 - who])).generation, 2);
        assert_eq!(room.joined(token).generation, 2);
    }
}

#[test]
fn the_group_votes_for_its_protocol() {
    let (range, robin, sticky) = (
        protocol("range", &["a"]),
        protocol("robin", &["a"]),
        protocol("sticky", &["a"]),
    );
    let table: Vec<(Vec<Vec<&Protocol>>, &str)> = vec![
        (vec![vec![&range]], "range"),
        (vec![vec![&range, &robin], vec![&robin]], "robin"),
        (
            vec![
                vec![&range, &robin],
                vec![&robin, &range],
                vec![&robin, &range],
            ],
            "robin",
        ),
        (
            vec![
                vec![&sticky, &range],
                vec![&robin, &range, &sticky],
                vec![&range, &sticky],
            ],
            "range",
        ),
        // A draw: what the leader, who came first, likes best.
        (vec![vec![&robin, &range], vec![&range, &robin]], "robin"),
        (vec![vec![&range, &robin], vec![&robin, &range]], "range"),
        // Named twice counts once.
        (vec![vec![&robin, &robin, &range], vec![&range]], "range"),
    ];
    for (members, winner) in table {
        let mut room = Room::new();
        let asks = |protocols: &Vec<&Protocol>| JoinGroup {
            protocols: protocols.iter().map(|p| (*p).clone()).collect(),
            ..joining()
        };
        let tokens: Vec<_> = members
            .iter()
            .map(|m| room.start_join_fresh(asks(m)).0)
            .collect();
        room.wait_ms(6_000);
        for token in tokens {
            assert_eq!(
                room.joined(token).protocol.as_deref(),
                Some(winner),
                "{members:?}"
            );
        }
    }
}

#[test]
fn a_newcomer_must_know_a_protocol_that_all_members_know() {
    let mut room = Room::new();
    let (range, robin) = (protocol("range", &["a"]), protocol("robin", &["a"]));
    let asks = |protocols: &[&Protocol]| JoinGroup {
        protocols: protocols.iter().map(|p| (*p).clone()).collect(),
        ..joining()
    };
    room.start_join_fresh(asks(&[&range, &robin]));
    room.start_join_fresh(asks(&[&range]));
    let refused = room.join(asks(&[&robin]));
    assert_eq!(
        refused.error,
        Some(GroupError::InconsistentGroupProtocol),
        "only one member knows robin"
    );
    assert_eq!(
        room.join(asks(&[&robin, &range])).error,
        Some(GroupError::MemberIdRequired)
    );
}

#[test]
fn a_sync_is_refused_for_what_it_says() {
    let mut room = Room::new();
    let member = room.stable(1).remove(0);
    let good = sync("bill", &member, &[]);
    let table: Vec<(&str, SyncGroup, GroupError)> = vec![
        (
            "no group",
            SyncGroup {
                group: "".into(),
                ..good.clone()
            },
            GroupError::InvalidGroupId,
        ),
        (
            "unknown group",
            SyncGroup {
                group: "none".into(),
                ..good.clone()
            },
            GroupError::UnknownMemberId,
        ),
        (
            "unknown member",
            SyncGroup {
                member_id: "x".into(),
                ..good.clone()
            },
            GroupError::UnknownMemberId,
        ),
        (
            "old generation",
            SyncGroup {
                generation: 0,
                ..good.clone()
            },
            GroupError::IllegalGeneration,
        ),
        (
            "no protocol",
            SyncGroup {
                protocol: None,
                ..good.clone()
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "no type",
            SyncGroup {
                protocol_type: None,
                ..good.clone()
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "another protocol",
            SyncGroup {
                protocol: Some("sticky".into()),
                ..good.clone()
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            "another type",
            SyncGroup {
                protocol_type: Some("connect".into()),
                ..good.clone()
            },
            GroupError::InconsistentGroupProtocol,
        ),
    ];
    for (name, request, error) in table {
        let token = room.ask(Request::SyncGroup(request));
        assert_eq!(room.synced(token), Err(error), "{name}");
    }
    let old = SyncGroup {
        api_version: 4,
        protocol_type: None,
        protocol: None,
        ..good
    };
    let token = room.ask(Request::SyncGroup(old));
    assert!(room.synced(token).is_ok(), "version 4 names no protocol");
}
