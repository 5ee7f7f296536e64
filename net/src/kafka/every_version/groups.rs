//! The ten APIs of a group's coordinator.

use super::{Front, from, text, versions};
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use klamm_coord::core::coordinator::{Request, Response};
use klamm_coord::core::group::message::{self as group, GroupError};
use klamm_engine::units::{LeaderEpoch, Offset};

const COORDINATOR_NOT_AVAILABLE: i16 = 15;

fn group_id(id: &str) -> GroupId {
    GroupId(text(id))
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn some(s: &str) -> Option<String> {
    Some(s.to_owned())
}

// -- membership

fn join(version: i16) -> JoinGroupRequest {
    let mut join = JoinGroupRequest::default()
        .with_group_id(group_id("readers"))
        .with_session_timeout_ms(10_000)
        .with_member_id(text("m-1"))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"orders")),
        ]);
    if version >= 1 {
        join.rebalance_timeout_ms = 60_000;
    }
    if version >= 5 {
        join.group_instance_id = Some(text("i-1"));
    }
    if version >= 8 {
        join.reason = Some(text("why not"));
    }
    join
}

fn joined(error: Option<GroupError>) -> Response {
    let ok = error.is_none();
    Response::Group(group::Response::JoinGroup(group::JoinGroupResponse {
        error,
        generation: if ok { 4 } else { -1 },
        protocol_type: ok.then(|| "consumer".to_owned()),
        protocol: ok.then(|| "range".to_owned()),
        leader: if ok { "m-1".to_owned() } else { String::new() },
        skip_assignment: ok,
        member_id: "m-1".to_owned(),
        members: if ok {
            vec![group::JoinedMember {
                member_id: "m-1".to_owned(),
                instance_id: some("i-1"),
                metadata: Bytes::from_static(b"orders"),
            }]
        } else {
            Vec::new()
        },
    }))
}

#[test]
fn join_group_reaches_the_coordinator_and_comes_back() {
    for v in versions::<JoinGroupRequest>() {
        let (asked, response) = Front::new().ask(v, &join(v), joined(None));
        let expected = group::JoinGroup {
            api_version: v,
            group: "readers".to_owned(),
            session_timeout_ms: 10_000,
            // The coordinator takes the session timeout for a negative one.
            rebalance_timeout_ms: from(v, 1, 60_000, -1),
            member_id: "m-1".to_owned(),
            instance_id: from(v, 5, some("i-1"), None),
            client_id: "a client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![group::Protocol {
                name: "range".to_owned(),
                metadata: Bytes::from_static(b"orders"),
            }],
            reason: from(v, 8, some("why not"), None),
        };
        assert_eq!(asked, Request::Group(group::Request::JoinGroup(expected)));

        assert_eq!((response.error_code, response.generation_id), (0, 4));
        assert_eq!(
            response.protocol_type,
            from(v, 7, Some(text("consumer")), None)
        );
        assert_eq!(response.protocol_name, Some(text("range")));
        assert_eq!((&*response.leader, &*response.member_id), ("m-1", "m-1"));
        assert_eq!(response.skip_assignment, v >= 9);
        let [member] = response.members.as_slice() else {
            panic!("{:?}", response.members)
        };
        assert_eq!(
            member.group_instance_id,
            from(v, 5, Some(text("i-1")), None)
        );
        assert_eq!(&*member.metadata, b"orders");
    }
}

#[test]
fn a_refused_join_has_an_empty_protocol_before_version_7_and_null_after() {
    for v in versions::<JoinGroupRequest>() {
        let refused = joined(Some(GroupError::MemberIdRequired));
        let (_, response) = Front::new().ask(v, &join(v), refused);
        assert_eq!((response.error_code, response.generation_id), (79, -1));
        assert_eq!(response.protocol_name, from(v, 7, None, Some(text(""))));
        assert_eq!(&*response.member_id, "m-1");
        assert!(response.members.is_empty());

        let (_, response) = Front::new().ask(v, &join(v), None);
        assert_eq!(response.error_code, COORDINATOR_NOT_AVAILABLE);
        assert_eq!(response.protocol_name, from(v, 7, None, Some(text(""))));
    }
}

#[test]
fn sync_group_brings_each_member_its_part() {
    for v in versions::<SyncGroupRequest>() {
        let mut request = SyncGroupRequest::default()
            .with_group_id(group_id("readers"))
            .with_generation_id(4)
            .with_member_id(text("m-1"))
            .with_assignments(vec![
                SyncGroupRequestAssignment::default()
                    .with_member_id(text("m-2"))
                    .with_assignment(Bytes::from_static(b"orders/1")),
            ]);
        if v >= 3 {
            request.group_instance_id = Some(text("i-1"));
        }
        if v >= 5 {
            request.protocol_type = Some(text("consumer"));
            request.protocol_name = Some(text("range"));
        }
        let answer = group::Response::SyncGroup(group::SyncGroupResponse {
            error: None,
            protocol_type: some("consumer"),
            protocol: some("range"),
            assignment: Bytes::from_static(b"orders/0"),
        });
        let (asked, response) = Front::new().ask(v, &request, Response::Group(answer));
        let expected = group::SyncGroup {
            api_version: v,
            group: "readers".to_owned(),
            generation: 4,
            member_id: "m-1".to_owned(),
            instance_id: from(v, 3, some("i-1"), None),
            protocol_type: from(v, 5, some("consumer"), None),
            protocol: from(v, 5, some("range"), None),
            assignments: vec![("m-2".to_owned(), Bytes::from_static(b"orders/1"))],
        };
        assert_eq!(asked, Request::Group(group::Request::SyncGroup(expected)));
        assert_eq!(response.error_code, 0);
        assert_eq!(
            response.protocol_type,
            from(v, 5, Some(text("consumer")), None)
        );
        assert_eq!(&*response.assignment, b"orders/0");

        let (_, response) = Front::new().ask(v, &request, None);
        assert_eq!(response.error_code, COORDINATOR_NOT_AVAILABLE);
    }
}

#[test]
fn heartbeat_hears_of_a_rebalance() {
    for v in versions::<HeartbeatRequest>() {
        let mut request = HeartbeatRequest::default()
            .with_group_id(group_id("readers"))
            .with_generation_id(4)
            .with_member_id(text("m-1"));
        if v >= 3 {
            request.group_instance_id = Some(text("i-1"));
        }
        let error = Some(GroupError::RebalanceInProgress);
        let answer = group::Response::Heartbeat(group::HeartbeatResponse { error });
        let (asked, response) = Front::new().ask(v, &request, Response::Group(answer));
        let expected = group::Heartbeat {
            group: "readers".to_owned(),
            generation: 4,
            member_id: "m-1".to_owned(),
            instance_id: from(v, 3, some("i-1"), None),
        };
        assert_eq!(asked, Request::Group(group::Request::Heartbeat(expected)));
        assert_eq!(response.error_code, 27);
    }
}

#[test]
fn leave_group_names_one_member_before_version_3_and_many_after() {
    for v in versions::<LeaveGroupRequest>() {
        let mut request = LeaveGroupRequest::default().with_group_id(group_id("readers"));
        if v < 3 {
            request.member_id = text("m-1");
        } else {
            let mut member = MemberIdentity::default()
                .with_member_id(text("m-1"))
                .with_group_instance_id(Some(text("i-1")));
            if v >= 5 {
                member.reason = Some(text("tired"));
            }
            request.members = vec![member];
        }
        let answer = group::Response::LeaveGroup(group::LeaveGroupResponse {
            error: None,
            members: vec![group::LeftMember {
                member_id: "m-1".to_owned(),
                instance_id: from(v, 3, some("i-1"), None),
                error: Some(GroupError::UnknownMemberId),
            }],
        });
        let (asked, response) = Front::new().ask(v, &request, Response::Group(answer));
        let expected = group::LeaveGroup {
            group: "readers".to_owned(),
            members: vec![group::LeavingMember {
                member_id: "m-1".to_owned(),
                instance_id: from(v, 3, some("i-1"), None),
                reason: from(v, 5, some("tired"), None),
            }],
        };
        assert_eq!(asked, Request::Group(group::Request::LeaveGroup(expected)));
        if v < 3 {
            assert_eq!(
                response.error_code, 25,
                "the member's error is the answer's"
            );
        } else {
            assert_eq!(
                (response.error_code, response.members[0].error_code),
                (0, 25)
            );
        }
    }
}

// -- offsets

fn commit(version: i16) -> OffsetCommitRequest {
    let partition = |index| {
        let mut partition = OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(100 + i64::from(index))
            .with_committed_metadata(Some(text("a note")));
        if version >= 6 {
            partition.committed_leader_epoch = 5;
        }
        partition
    };
    let topics = [("orders", vec![0, 9, 1]), ("nothing", vec![0])];
    let topics = topics.map(|(name, partitions)| {
        OffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(partitions.into_iter().map(partition).collect())
    });
    let mut request = OffsetCommitRequest::default()
        .with_group_id(group_id("readers"))
        .with_generation_id_or_member_epoch(4)
        .with_member_id(text("m-1"))
        .with_topics(topics.to_vec());
    if (2..=4).contains(&version) {
        request.retention_time_ms = 60_000;
    }
    if version >= 7 {
        request.group_instance_id = Some(text("i-1"));
    }
    request
}

#[test]
fn offset_commit_asks_the_group_for_what_is_there_and_answers_for_all() {
    for v in versions::<OffsetCommitRequest>() {
        let answer = group::Response::OffsetCommit(group::OffsetCommitResponse {
            topics: vec![group::TopicErrors {
                topic: "orders".to_owned(),
                partitions: vec![(0, None), (1, Some(GroupError::OffsetMetadataTooLarge))],
            }],
        });
        let (asked, response) = Front::new().ask(v, &commit(v), Response::Group(answer));
        let partition = |partition, offset| group::OffsetCommitPartition {
            partition,
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(from(v, 6, 5, -1)),
            metadata: some("a note"),
        };
        let expected = group::OffsetCommit {
            api_version: v,
            group: "readers".to_owned(),
            generation: 4,
            member_id: "m-1".to_owned(),
            instance_id: from(v, 7, some("i-1"), None),
            retention_time_ms: from(v, 5, -1, 60_000),
            topics: vec![group::OffsetCommitTopic {
                topic: "orders".to_owned(),
                partitions: vec![partition(0, 100), partition(1, 101)],
            }],
        };
        assert_eq!(
            asked,
            Request::Group(group::Request::OffsetCommit(expected))
        );

        let verdicts: Vec<_> = response
            .topics
            .iter()
            .flat_map(|t| {
                let name = t.name.to_string();
                let each = t.partitions.iter();
                each.map(move |p| (name.clone(), p.partition_index, p.error_code))
            })
            .collect();
        let expected = [
            ("orders", 0, 0),
            ("orders", 9, 3),
            ("orders", 1, 12),
            ("nothing", 0, 3),
        ];
        assert_eq!(verdicts, expected.map(|(t, p, e)| (t.to_owned(), p, e)));
    }
}

#[test]
fn offset_commit_to_nothing_that_is_there_does_not_ask() {
    for v in versions::<OffsetCommitRequest>() {
        let mut request = commit(v);
        request.topics.remove(0);
        let response = Front::new().call(v, &request);
        assert_eq!(response.topics[0].partitions[0].error_code, 3);
    }
}

fn fetched(groups: &[&str]) -> Response {
    let offset = |partition, offset, epoch, metadata: &str| group::FetchedOffset {
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(epoch),
        metadata: metadata.to_owned(),
    };
    let groups = groups.iter().map(|&name| group::FetchedGroup {
        group: name.to_owned(),
        topics: vec![group::FetchedTopic {
            topic: "orders".to_owned(),
            partitions: vec![offset(0, 100, 5, "a note"), offset(1, -1, -1, "")],
        }],
    });
    let groups = groups.collect();
    Response::Group(group::Response::OffsetFetch(group::OffsetFetchResponse {
        groups,
    }))
}

#[test]
fn offset_fetch_answers_one_group_before_version_8_and_many_after() {
    for v in versions::<OffsetFetchRequest>() {
        let mut request = OffsetFetchRequest::default();
        let mut groups = vec!["readers"];
        if v < 8 {
            request.group_id = group_id("readers");
            request.topics = Some(vec![
                OffsetFetchRequestTopic::default()
                    .with_name(topic("orders"))
                    .with_partition_indexes(vec![0, 1]),
            ]);
        } else {
            groups.push("others");
            request.topics = Some(Vec::new());
            request.groups = groups
                .iter()
                .map(|name| {
                    OffsetFetchRequestGroup::default()
                        .with_group_id(group_id(name))
                        .with_topics(Some(vec![
                            OffsetFetchRequestTopics::default()
                                .with_name(topic("orders"))
                                .with_partition_indexes(vec![0, 1]),
                        ]))
                })
                .collect();
        }
        request.require_stable = v >= 7;
        let (asked, response) = Front::new().ask(v, &request, fetched(&groups));
        let expected = groups.iter().map(|name| group::OffsetFetchGroup {
            group: (*name).to_owned(),
            topics: Some(vec![("orders".to_owned(), vec![0, 1])]),
        });
        let groups = expected.collect();
        let expected = group::Request::OffsetFetch(group::OffsetFetch { groups });
        assert_eq!(asked, Request::Group(expected));

        let told: Vec<_> = if v < 8 {
            let partitions = response.topics[0].partitions.iter();
            let each = partitions.map(|p| {
                let metadata = p.metadata.clone().unwrap();
                (
                    p.committed_offset,
                    p.committed_leader_epoch,
                    metadata,
                    p.error_code,
                )
            });
            each.collect()
        } else {
            assert_eq!(response.groups.len(), 2);
            let partitions = response.groups[1].topics[0].partitions.iter();
            let each = partitions.map(|p| {
                let metadata = p.metadata.clone().unwrap();
                (
                    p.committed_offset,
                    p.committed_leader_epoch,
                    metadata,
                    p.error_code,
                )
            });
            each.collect()
        };
        let epoch = from(v, 5, 5, -1);
        assert_eq!(
            told,
            [(100, epoch, text("a note"), 0), (-1, -1, text(""), 0)]
        );
    }
}

#[test]
fn offset_fetch_without_topics_means_all_of_them() {
    for v in versions::<OffsetFetchRequest>().filter(|v| *v >= 2) {
        let mut request = OffsetFetchRequest::default();
        if v < 8 {
            request.group_id = group_id("readers");
            request.topics = None;
        } else {
            request.topics = Some(Vec::new());
            request.groups = vec![
                OffsetFetchRequestGroup::default()
                    .with_group_id(group_id("readers"))
                    .with_topics(None),
            ];
        }
        let (asked, _) = Front::new().ask(v, &request, fetched(&["readers"]));
        let Request::Group(group::Request::OffsetFetch(asked)) = asked else {
            panic!("{asked:?}")
        };
        assert_eq!(asked.groups[0].topics, None);
    }
}

#[test]
fn offset_fetch_puts_an_error_of_the_group_where_the_version_has_a_place() {
    for v in versions::<OffsetFetchRequest>() {
        let mut request = OffsetFetchRequest::default();
        if v < 8 {
            request.group_id = group_id("readers");
            request.topics = Some(vec![
                OffsetFetchRequestTopic::default()
                    .with_name(topic("orders"))
                    .with_partition_indexes(vec![1]),
            ]);
        } else {
            request.topics = Some(Vec::new());
            request.groups =
                vec![OffsetFetchRequestGroup::default().with_group_id(group_id("readers"))];
        }
        let (_, response) = Front::new().ask(v, &request, None);
        let told = match v {
            1 => response.topics[0].partitions[0].error_code,
            2..=7 => response.error_code,
            _ => response.groups[0].error_code,
        };
        assert_eq!(told, COORDINATOR_NOT_AVAILABLE);
    }
}

#[test]
fn offset_delete_answers_for_what_is_there_and_what_is_not() {
    for v in versions::<OffsetDeleteRequest>() {
        let mut orders = OffsetDeleteRequestTopic::default();
        orders.name = topic("orders");
        for index in [0, 1, 2] {
            let mut partition = OffsetDeleteRequestPartition::default();
            partition.partition_index = index;
            orders.partitions.push(partition);
        }
        let mut request = OffsetDeleteRequest::default();
        request.group_id = group_id("readers");
        request.topics = vec![orders];

        let answer = group::Response::OffsetDelete(group::OffsetDeleteResponse {
            error: None,
            topics: vec![group::TopicErrors {
                topic: "orders".to_owned(),
                partitions: vec![(0, None), (1, Some(GroupError::GroupSubscribedToTopic))],
            }],
        });
        let (asked, response) = Front::new().ask(v, &request, Response::Group(answer));
        let expected = group::OffsetDelete {
            group: "readers".to_owned(),
            topics: vec![("orders".to_owned(), vec![0, 1])],
        };
        assert_eq!(
            asked,
            Request::Group(group::Request::OffsetDelete(expected))
        );
        let told: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|p| p.error_code)
            .collect();
        assert_eq!((response.error_code, told), (0, vec![0, 86, 3]));

        let answer = group::Response::OffsetDelete(group::OffsetDeleteResponse {
            error: Some(GroupError::GroupIdNotFound),
            topics: Vec::new(),
        });
        let (_, response) = Front::new().ask(v, &request, Response::Group(answer));
        assert_eq!((response.error_code, response.topics.len()), (69, 0));
    }
}

// -- administration

#[test]
fn list_groups_filters_and_tells_what_the_version_can_say() {
    for v in versions::<ListGroupsRequest>() {
        let mut request = ListGroupsRequest::default();
        if v >= 4 {
            request.states_filter = vec![text("Stable")];
        }
        if v >= 5 {
            request.types_filter = vec![text("classic")];
        }
        let answer = group::Response::ListGroups(group::ListGroupsResponse {
            groups: vec![group::ListedGroup {
                group: "readers".to_owned(),
                protocol_type: "consumer".to_owned(),
                state: "Stable",
                group_type: "classic",
            }],
        });
        let (asked, response) = Front::new().ask(v, &request, Response::Group(answer));
        let expected = group::ListGroups {
            states: from(v, 4, vec!["Stable".to_owned()], Vec::new()),
            types: from(v, 5, vec!["classic".to_owned()], Vec::new()),
        };
        assert_eq!(asked, Request::Group(group::Request::ListGroups(expected)));
        let [listed] = response.groups.as_slice() else {
            panic!("{response:?}")
        };
        assert_eq!(
            (&**listed.group_id, &*listed.protocol_type),
            ("readers", "consumer")
        );
        assert_eq!(&*listed.group_state, from(v, 4, "Stable", ""));
        assert_eq!(&*listed.group_type, from(v, 5, "classic", ""));
    }
}

#[test]
fn describe_groups_tells_members_and_what_one_may_do() {
    for v in versions::<DescribeGroupsRequest>() {
        let mut request = DescribeGroupsRequest::default()
            .with_groups(vec![group_id("readers"), group_id("gone")]);
        request.include_authorized_operations = v >= 3;
        let member = group::DescribedMember {
            member_id: "m-1".to_owned(),
            instance_id: some("i-1"),
            client_id: "a client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            metadata: Bytes::from_static(b"orders"),
            assignment: Bytes::from_static(b"orders/0"),
        };
        let answer = group::Response::DescribeGroups(group::DescribeGroupsResponse {
            groups: vec![
                group::DescribedGroup {
                    error: None,
                    group: "readers".to_owned(),
                    state: "Stable",
                    protocol_type: "consumer".to_owned(),
                    protocol: "range".to_owned(),
                    members: vec![member],
                },
                group::DescribedGroup {
                    error: from(v, 6, Some(GroupError::GroupIdNotFound), None),
                    group: "gone".to_owned(),
                    state: "Dead",
                    protocol_type: String::new(),
                    protocol: String::new(),
                    members: Vec::new(),
                },
            ],
        });
        let (asked, response) = Front::new().ask(v, &request, Response::Group(answer));
        let expected = group::DescribeGroups {
            api_version: v,
            groups: vec!["readers".to_owned(), "gone".to_owned()],
        };
        assert_eq!(
            asked,
            Request::Group(group::Request::DescribeGroups(expected))
        );

        let [readers, gone] = response.groups.as_slice() else {
            panic!("{response:?}")
        };
        assert_eq!(
            (&*readers.group_state, &*readers.protocol_data),
            ("Stable", "range")
        );
        assert_eq!(
            readers.authorized_operations,
            from(v, 3, 0b1101_0100_1000, i32::MIN)
        );
        let member = &readers.members[0];
        assert_eq!(
            member.group_instance_id,
            from(v, 4, Some(text("i-1")), None)
        );
        assert_eq!(&*member.member_assignment, b"orders/0");
        assert_eq!(
            (&*gone.group_state, gone.error_code),
            ("Dead", from(v, 6, 69, 0))
        );
        assert_eq!(gone.error_message.is_some(), v >= 6);
    }
}

#[test]
fn delete_groups_answers_once_for_a_group_named_twice() {
    for v in versions::<DeleteGroupsRequest>() {
        let names = ["readers", "busy", "readers"].map(group_id).to_vec();
        let request = DeleteGroupsRequest::default().with_groups_names(names);
        let answer = group::Response::DeleteGroups(group::DeleteGroupsResponse {
            groups: vec![
                ("readers".to_owned(), None),
                ("busy".to_owned(), Some(GroupError::NonEmptyGroup)),
            ],
        });
        let (asked, response) = Front::new().ask(v, &request, Response::Group(answer));
        let groups = vec!["readers".to_owned(), "busy".to_owned()];
        let expected = group::Request::DeleteGroups(group::DeleteGroups { groups });
        assert_eq!(asked, Request::Group(expected));
        let told = response
            .results
            .iter()
            .map(|r| (r.group_id.to_string(), r.error_code));
        let told: Vec<_> = told.collect();
        assert_eq!(told, [("readers".to_owned(), 0), ("busy".to_owned(), 68)]);

        let (_, response) = Front::new().ask(v, &request, None);
        let told: Vec<_> = response.results.iter().map(|r| r.error_code).collect();
        assert_eq!(told, [COORDINATOR_NOT_AVAILABLE; 2]);
    }
}
