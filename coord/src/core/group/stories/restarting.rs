//! What a restart finds, and what an administrator sees.

use bytes::Bytes;

use super::super::room::*;
use crate::core::groups::*;

#[test]
fn a_group_that_is_too_large_after_a_restart_shrinks() {
    let mut room = Room::new();
    let members = room.stable(3);
    room.config.max_size = 2;
    room.restart();
    assert_eq!(room.state(), "PreparingRebalance");
    let first = room.start_join(rejoining(&members[2]));
    let second = room.start_join(rejoining(&members[1]));
    let last = room.join(rejoining(&members[0]));
    assert_eq!(last.error, Some(GroupError::GroupMaxSizeReached));
    assert_eq!(
        room.joined(first).generation,
        2,
        "nobody is waited for any more"
    );
    assert_eq!(room.joined(second).generation, 2);
}

#[test]
fn a_restart_keeps_generation_members_and_assignments() {
    let mut room = Room::new();
    let members = room.stable(2);
    let before = room.describe("bill");
    room.wait_ms(9_000);
    for from_snapshot in [false, true] {
        if from_snapshot {
            room.restart_from_snapshot()
        } else {
            room.restart()
        }
        assert_eq!(room.describe("bill"), before);
        // A whole session from here, however little was left.
        room.wait_ms(9_999);
        for member in &members {
            assert_eq!(room.heartbeat(member), None);
            let sync = room.start_sync(member, &[]);
            assert_eq!(room.synced(sync), Ok(Bytes::from(member.member_id.clone())));
        }
    }
    assert_eq!(
        room.join(rejoining(&members[1])).generation,
        1,
        "unchanged, as before the restart"
    );
    room.restart();
    room.wait_ms(10_000);
    assert_eq!(room.describe("bill").members.len(), 0);
}

#[test]
fn a_restart_during_a_rebalance_goes_back_to_the_last_generation() {
    let mut room = Room::new();
    let members = room.stable(2);
    let newcomer = room.start_join_fresh(joining()).0;
    let joined: Vec<_> = {
        let tokens: Vec<_> = members
            .iter()
            .map(|m| room.start_join(rejoining(m)))
            .collect();
        tokens.into_iter().map(|t| room.joined(t)).collect()
    };
    let newcomer = room.joined(newcomer);
    room.restart();
    assert_eq!(room.state(), "Stable");
    assert_eq!(
        room.heartbeat(&joined[0]),
        Some(GroupError::IllegalGeneration)
    );
    assert_eq!(room.heartbeat(&members[0]), None);
    assert_eq!(room.heartbeat(&newcomer), Some(GroupError::UnknownMemberId));
    assert_eq!(room.records.len(), 1);
}

#[test]
fn groups_are_listed_and_described() {
    let mut room = Room::new();
    let members = room.stable(1);
    room.join(JoinGroup {
        group: "ship".into(),
        ..joining()
    });
    room.say(Request::OffsetCommit(commit(
        "hand",
        -1,
        "",
        "orders",
        &[(0, 1)],
    )));
    let mut list = |states: &[&str], types: &[&str]| -> Vec<(String, String, &str)> {
        let strings = |s: &[&str]| s.iter().map(|s| s.to_string()).collect();
        let request = ListGroups {
            states: strings(states),
            types: strings(types),
        };
        match room.say(Request::ListGroups(request)) {
            Response::ListGroups(r) => {
                assert!(r.groups.iter().all(|g| g.group_type == "classic"));
                r.groups
                    .into_iter()
                    .map(|g| (g.group, g.protocol_type, g.state))
                    .collect()
            }
            other => panic!("not a list: {other:?}"),
        }
    };
    let bill = ("bill".to_owned(), "consumer".to_owned(), "Stable");
    let (hand, ship) = (
        ("hand".into(), "".into(), "Empty"),
        ("ship".into(), "".into(), "Empty"),
    );
    assert_eq!(list(&[], &[]), [bill.clone(), hand.clone(), ship.clone()]);
    assert_eq!(list(&[" stable "], &["Classic"]), [bill]);
    assert_eq!(list(&["EMPTY", "Dead"], &[]), [hand, ship]);
    assert_eq!(list(&[], &["consumer"]), []);
    assert_eq!(list(&["nonsense"], &[]), []);

    let described = room.describe("bill");
    assert_eq!(
        (described.state, described.protocol.as_str()),
        ("Stable", "range")
    );
    let member = &described.members[0];
    assert_eq!(
        (member.client_id.as_str(), member.client_host.as_str()),
        ("app", "/127.0.0.1")
    );
    assert_eq!(member.metadata, joining().protocols[0].metadata);
    assert_eq!(member.assignment, Bytes::from(members[0].member_id.clone()));
    room.join(joining());
    room.start_join(rejoining(&members[0]));
    let described = room.describe("bill");
    assert_eq!(
        (described.state, described.protocol.as_str()),
        ("PreparingRebalance", "")
    );
    assert!(
        described.members[0].metadata.is_empty(),
        "only while stable"
    );

    for (api_version, error) in [(5, None), (6, Some(GroupError::GroupIdNotFound))] {
        let request = DescribeGroups {
            api_version,
            groups: vec!["none".into()],
        };
        let Response::DescribeGroups(response) = room.say(Request::DescribeGroups(request)) else {
            panic!()
        };
        assert_eq!(
            (response.groups[0].error, response.groups[0].state),
            (error, "Dead")
        );
    }
}

/// Ten thousand groups, as a restart finds them: heartbeats keep all of them
/// without growing the queue of timers, and silence ends every session.
#[test]
fn a_hundred_thousand_members_live_by_their_heartbeats() {
    let (groups, members) = (10_000, 10);
    let member_record = |n: usize| MemberRecord {
        member_id: format!("m{n}"),
        instance_id: None,
        client_id: "app".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 45_000,
        protocols: joining().protocols,
        assignment: Bytes::new(),
    };
    let state = std::sync::Arc::new(GroupRecord {
        generation: 7,
        protocol_type: Some("consumer".into()),
        protocol: Some("range".into()),
        leader: Some("m0".into()),
        since: klamm_engine::units::TimestampMs(0),
        members: (0..members).map(member_record).collect(),
    });
    let mut coordinator = Groups::new(GroupConfig::with_seed(1));
    for n in 0..groups {
        coordinator.replay(&Record::GroupState {
            group: format!("g{n}"),
            state: state.clone(),
        });
    }
    let at = |ms: u64| Now {
        mono: klamm_engine::units::Nanos(ms * 1_000_000),
        wall: klamm_engine::units::TimestampMs(ms as i64),
    };
    let mut out = Output::default();
    coordinator.resume(at(0), &mut out);
    let timers = coordinator.shared.timers.entries();
    assert_eq!(timers, groups * members + 1);
    for round in 1..=6 {
        for n in 0..groups * members {
            let request = Heartbeat {
                group: format!("g{}", n / members),
                generation: 7,
                member_id: format!("m{}", n % members),
                instance_id: None,
            };
            coordinator.step(
                Token(n as u64),
                Request::Heartbeat(request),
                at(round * 20_000),
                &mut out,
            );
        }
        coordinator.tick(at(round * 20_000), &mut out);
        assert_eq!(coordinator.shared.timers.entries(), timers);
        assert!(
            coordinator.next_deadline() > Some(at(round * 20_000).mono),
            "a tick leaves nothing that is due"
        );
    }
    let is_fine = |(_, response): &(Token, Response)| {
        *response == Response::Heartbeat(HeartbeatResponse { error: None })
    };
    assert!(out.send.len() == 6 * groups * members && out.send.iter().all(is_fine));
    assert!(out.persist.is_empty());

    let mut out = Output::default();
    coordinator.tick(at(164_999), &mut out);
    assert!(out.persist.is_empty());
    coordinator.tick(at(165_000), &mut out);
    // The first silent member starts a rebalance that nobody joins.
    coordinator.tick(at(225_000), &mut out);
    assert_eq!(
        out.persist.len(),
        groups,
        "every group is empty, and that is written"
    );
    assert_eq!(coordinator.shared.timers.entries(), 1);
}
