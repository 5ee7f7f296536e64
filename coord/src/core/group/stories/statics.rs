//! Stories of static members (KIP-345): they restart, and nobody is disturbed.

use bytes::Bytes;

use super::super::room::*;
use crate::core::groups::*;

fn static_join(instance: &str) -> JoinGroup {
    JoinGroup {
        instance_id: Some(instance.into()),
        ..joining()
    }
}

/// "bill", with static members a and b; the leader first.
fn stable_statics(room: &mut Room) -> Vec<JoinGroupResponse> {
    let tokens = [
        room.start_join(static_join("a")),
        room.start_join(static_join("b")),
    ];
    room.wait_ms(6_000);
    let joined: Vec<_> = tokens.into_iter().map(|t| room.joined(t)).collect();
    assert_eq!(
        joined[0].leader, joined[0].member_id,
        "who came first leads"
    );
    room.settle(&joined);
    joined
}

#[test]
fn a_static_member_needs_no_handshake_and_is_named_after_its_instance() {
    let mut room = Room::new();
    let token = room.start_join(static_join("a"));
    room.wait_ms(3_000);
    let joined = room.joined(token);
    assert!(joined.member_id.starts_with("a-"), "{}", joined.member_id);
    assert_eq!(joined.members[0].instance_id.as_deref(), Some("a"));
}

#[test]
fn a_follower_restarts_without_a_rebalance_and_its_past_is_fenced() {
    let mut room = Room::new();
    let old = stable_statics(&mut room);
    let new = room.join(static_join("b"));
    assert_eq!((new.error, new.generation), (None, 1));
    assert_ne!(new.member_id, old[1].member_id);
    assert_eq!(new.leader, old[0].member_id);
    assert!(!new.skip_assignment && new.members.is_empty());
    assert_eq!(room.state(), "Stable");
    assert_eq!(room.records.len(), 2, "the new id is written");

    let sync = room.start_sync(&new, &[]);
    assert_eq!(
        room.synced(sync),
        Ok(Bytes::from(old[1].member_id.clone())),
        "what its past was assigned"
    );
    let fenced = Some(GroupError::FencedInstanceId);
    assert_eq!(room.beat(&old[1].member_id, 1, Some("b")), fenced);
    assert_eq!(
        room.beat(&old[1].member_id, 1, None),
        Some(GroupError::UnknownMemberId)
    );
    assert_eq!(room.leave(&[(&old[1].member_id, Some("b"))]), [fenced]);
    let rejoin = JoinGroup {
        member_id: old[1].member_id.clone(),
        ..static_join("b")
    };
    assert_eq!(room.join(rejoin).error, fenced);
    assert_eq!(
        room.heartbeat(&old[0]),
        None,
        "the leader has noticed nothing"
    );
    room.restart();
    assert_eq!(room.beat(&new.member_id, 1, Some("b")), None);
}

#[test]
fn a_leader_restarts_and_is_told_to_leave_the_assignment_alone() {
    for (api_version, skips) in [(9, true), (8, false), (5, false)] {
        let mut room = Room::new();
        let old = stable_statics(&mut room);
        let new = room.join(JoinGroup {
            api_version,
            ..static_join("a")
        });
        assert_eq!(
            (new.error, new.generation, new.skip_assignment),
            (None, 1, skips),
            "version {api_version}"
        );
        if skips {
            assert_eq!((&new.leader, new.members.len()), (&new.member_id, 2));
        } else {
            assert_eq!((&new.leader, new.members.len()), (&old[0].member_id, 0));
        }
        let sync = room.start_sync(&new, &[]);
        assert_eq!(room.synced(sync), Ok(Bytes::from(old[0].member_id.clone())));
        // When it joins again on its own account, it does lead.
        let again = room.start_join(JoinGroup {
            member_id: new.member_id.clone(),
            ..static_join("a")
        });
        let follower = JoinGroup {
            member_id: old[1].member_id.clone(),
            ..static_join("b")
        };
        assert_eq!(room.join(follower).leader, new.member_id);
        assert_eq!(room.joined(again).members.len(), 2);
    }
}

#[test]
fn a_restart_that_changes_the_selected_protocol_rebalances() {
    let mut room = Room::new();
    let both = vec![
        protocol("range", &["orders"]),
        protocol("robin", &["orders"]),
    ];
    let asks = |instance: &str| JoinGroup {
        protocols: both.clone(),
        ..static_join(instance)
    };
    let tokens = [room.start_join(asks("a")), room.start_join(asks("b"))];
    room.wait_ms(6_000);
    let joined: Vec<_> = tokens.into_iter().map(|t| room.joined(t)).collect();
    assert_eq!(joined[0].protocol.as_deref(), Some("range"));
    room.settle(&joined);
    let only_robin = JoinGroup {
        protocols: both[1..].to_vec(),
        ..static_join("b")
    };
    let token = room.start_join(only_robin);
    assert!(room.is_waiting(token));
    assert_eq!(room.state(), "PreparingRebalance");
    let leader = room.join(JoinGroup {
        member_id: joined[0].member_id.clone(),
        ..asks("a")
    });
    assert_eq!(
        (leader.generation, leader.protocol.as_deref()),
        (2, Some("robin"))
    );
    assert_eq!(room.joined(token).generation, 2);
}

#[test]
fn a_restart_while_the_leader_assigns_starts_over() {
    let mut room = Room::new();
    let tokens = [
        room.start_join(static_join("a")),
        room.start_join(static_join("b")),
    ];
    room.wait_ms(6_000);
    let joined: Vec<_> = tokens.into_iter().map(|t| room.joined(t)).collect();
    let sync = room.start_sync(&joined[1], &[]);
    let new = room.start_join(static_join("b"));
    assert_eq!(room.synced(sync), Err(GroupError::FencedInstanceId));
    assert!(room.is_waiting(new));
    let leader = room.join(JoinGroup {
        member_id: joined[0].member_id.clone(),
        ..static_join("a")
    });
    assert_eq!((leader.generation, leader.members.len()), (2, 2));
    assert_eq!(room.joined(new).generation, 2);
}

#[test]
fn a_restart_during_a_join_fences_the_join_that_waits() {
    let mut room = Room::new();
    let first = room.start_join(static_join("a"));
    let second = room.start_join(static_join("a"));
    let fenced = room.joined(first);
    assert_eq!(fenced.error, Some(GroupError::FencedInstanceId));
    room.wait_ms(6_000);
    let joined = room.joined(second);
    assert_eq!((joined.error, joined.members.len()), (None, 1));
    assert_ne!(joined.member_id, fenced.member_id);
}

#[test]
fn a_static_member_that_is_away_stays_through_a_rebalance_until_its_session_ends() {
    let mut room = Room::new();
    let mut statics = stable_statics(&mut room);
    let away = statics.remove(1);
    let long = JoinGroup {
        rebalance_timeout_ms: 20_000,
        session_timeout_ms: 60_000,
        ..static_join("b")
    };
    let away_now = room.join(long);
    assert_ne!(away.member_id, away_now.member_id);

    // The leader rejoins; b does not come back within the rebalance timeout.
    let leader = JoinGroup {
        member_id: statics[0].member_id.clone(),
        rebalance_timeout_ms: 20_000,
        ..static_join("a")
    };
    let token = room.start_join(leader);
    room.wait_ms(20_000);
    let leader = room.joined(token);
    assert_eq!(
        (leader.generation, leader.members.len()),
        (2, 2),
        "b is not given up"
    );
    // But it did not sync in time either.
    let sync = room.start_sync(
        &leader,
        &[(&leader.member_id, "p0"), (&away_now.member_id, "p1")],
    );
    assert_eq!(room.synced(sync), Ok(Bytes::from_static(b"p0")));
    for _ in 0..2 {
        room.wait_ms(9_000);
        assert_eq!(room.heartbeat(&leader), None);
    }
    room.wait_ms(2_000);
    assert_eq!(
        room.heartbeat(&leader),
        Some(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        room.beat(&away_now.member_id, 2, Some("b")),
        Some(GroupError::UnknownMemberId)
    );
}

#[test]
fn a_rebalance_waits_while_no_static_member_is_back() {
    let mut room = Room::new();
    let statics = stable_statics(&mut room);
    let newcomer = room.start_join_fresh(joining()).0;
    room.abandon(newcomer);
    // Everyone is away. First the sessions of a and b end, 10 s from their last
    // sign of life; the newcomer alone, of whom nobody knows that it went, is left.
    room.wait_ms(10_000);
    let described = room.describe("bill");
    assert_eq!(
        (described.state, described.members.len()),
        ("CompletingRebalance", 1)
    );
    assert_eq!(
        room.heartbeat(&statics[0]),
        Some(GroupError::UnknownMemberId)
    );
    room.wait_ms(10_000);
    assert_eq!(room.state(), "Empty");
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance_id() {
    let mut room = Room::new();
    let statics = stable_statics(&mut room);
    let unknown = Some(GroupError::UnknownMemberId);
    assert_eq!(
        room.leave(&[("", Some("b")), ("", Some("c")), ("x", Some("c"))]),
        [None, unknown, unknown]
    );
    assert_eq!(
        room.heartbeat(&statics[0]),
        Some(GroupError::RebalanceInProgress)
    );
    assert_eq!(room.describe("bill").members.len(), 1);
}

#[test]
fn a_static_member_of_a_full_group_may_restart() {
    let mut room = Room::with(|c| c.max_size = 2);
    stable_statics(&mut room);
    assert_eq!(room.join(static_join("b")).error, None);
    assert_eq!(
        room.join(static_join("c")).error,
        Some(GroupError::GroupMaxSizeReached)
    );
}

#[test]
fn a_fenced_member_can_neither_sync_nor_commit() {
    let mut room = Room::new();
    let old = stable_statics(&mut room);
    room.join(static_join("b"));
    let request = SyncGroup {
        instance_id: Some("b".into()),
        ..sync("bill", &old[1], &[])
    };
    let token = room.ask(Request::SyncGroup(request));
    assert_eq!(room.synced(token), Err(GroupError::FencedInstanceId));
    let request = OffsetCommit {
        instance_id: Some("b".into()),
        ..commit("bill", 1, &old[1].member_id, "orders", &[(0, 5)])
    };
    let Response::OffsetCommit(response) = room.say(Request::OffsetCommit(request)) else {
        panic!()
    };
    assert_eq!(
        response.topics[0].partitions,
        [(0, Some(GroupError::FencedInstanceId))]
    );
    assert_eq!(room.committed("orders", 0), -1);
}
