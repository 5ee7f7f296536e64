//! Who leaves, who is gone without a word, and for whom there is no room.

use super::super::room::*;
use crate::core::groups::*;

#[test]
fn members_leave_in_a_batch_each_with_its_verdict() {
    let mut room = Room::new();
    let members = room.stable(3);
    let pending = room.join(joining());
    let verdicts = room.leave(&[
        (&members[1].member_id, None),
        ("ghost", None),
        ("", None),
        (&pending.member_id, None),
        (&members[2].member_id, None),
        (&members[2].member_id, None),
    ]);
    let unknown = Some(GroupError::UnknownMemberId);
    assert_eq!(verdicts, [None, unknown, unknown, None, None, unknown]);
    assert_eq!(
        room.join(rejoining(&members[0])).generation,
        2,
        "one rebalance for all of them"
    );
}

#[test]
fn a_pending_member_that_leaves_disturbs_nobody() {
    let mut room = Room::new();
    let member = room.stable(1).remove(0);
    let pending = room.join(joining());
    assert_eq!(room.leave(&[(&pending.member_id, None)]), [None]);
    assert_eq!(room.state(), "Stable");

    let pending = room.join(joining());
    let rejoin = room.start_join(rejoining(&member));
    assert!(room.is_waiting(rejoin));
    assert_eq!(room.leave(&[(&pending.member_id, None)]), [None]);
    assert_eq!(room.joined(rejoin).generation, 2);
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut room = Room::new();
    let (join, id) = room.start_join_fresh(joining());
    assert_eq!(room.leave(&[(&id, None)]), [None]);
    assert_eq!(room.joined(join).error, Some(GroupError::UnknownMemberId));
    assert_eq!(room.state(), "PreparingRebalance");
    // Another protocol type may take the group over: nobody is in it.
    let connect = JoinGroup {
        protocol_type: "connect".into(),
        ..joining()
    };
    let (worker, _) = room.start_join_fresh(connect);
    room.wait_ms(6_000);
    let worker = room.joined(worker);
    assert_eq!(worker.protocol_type.as_deref(), Some("connect"));

    let second = room
        .start_join_fresh(JoinGroup {
            protocol_type: "connect".into(),
            ..joining()
        })
        .0;
    let again = room.join(JoinGroup {
        protocol_type: "connect".into(),
        ..rejoining(&worker)
    });
    let second = room.joined(second);
    assert_eq!(again.generation, second.generation);
    let sync = room.start_sync(&second, &[]);
    assert_eq!(room.leave(&[(&second.member_id, None)]), [None]);
    assert_eq!(room.synced(sync), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_client_that_went_away_in_its_first_join_is_out_after_five_minutes() {
    let mut room = Room::new();
    let member = room.stable(1).remove(0);
    let gone = room.start_join(JoinGroup {
        api_version: 3,
        ..joining()
    });
    room.abandon(gone);
    let rejoin = room.start_join(rejoining(&member));
    let joined = room.joined(rejoin);
    assert_eq!(joined.members.len(), 2, "it counts until its time is over");
    // Answered to nobody: from here on the session counts.
    room.start_sync(&joined, &[]);
    for _ in 0..2 {
        room.wait_ms(5_000);
        room.heartbeat(&joined);
    }
    assert_eq!(room.describe("bill").members.len(), 1);
}

#[test]
fn a_first_join_that_waits_for_five_minutes_is_told_to_start_over() {
    let mut room = Room::new();
    let long = JoinGroup {
        rebalance_timeout_ms: 900_000,
        session_timeout_ms: 900_000,
        ..joining()
    };
    let (first, id) = room.start_join_fresh(long.clone());
    room.wait_ms(3_000);
    let first = room.joined(first);
    room.settle(&[first]);
    let newcomer = room.start_join(JoinGroup {
        api_version: 1,
        ..long.clone()
    });
    room.wait_ms(299_999);
    assert!(room.is_waiting(newcomer));
    room.wait_ms(1);
    assert_eq!(
        room.joined(newcomer).error,
        Some(GroupError::UnknownMemberId)
    );
    let rejoin = room.join(JoinGroup {
        member_id: id,
        ..long
    });
    assert_eq!(rejoin.members.len(), 1);
}

#[test]
fn a_full_group_that_rebalances_keeps_who_is_first() {
    let mut room = Room::with(|c| c.max_size = 2);
    let members = room.stable(2);
    assert_eq!(
        room.join(joining()).error,
        Some(GroupError::GroupMaxSizeReached)
    );
    assert_eq!(room.join(rejoining(&members[1])).error, None);
    assert_eq!(room.state(), "Stable");
}
