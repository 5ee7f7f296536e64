//! Each duty: what is found, and what it becomes.

use super::*;

#[test]
fn a_topic_written_by_hand_becomes_one() {
    let id = TopicId(77u128.to_be_bytes());
    let with_id = format!(
        r#"{{"version":3,"topic_id":"{id}","partitions":{{"0":[1],"1":[2]}},"adding_replicas":{{}},"removing_replicas":{{}}}}"#
    );
    for json in [
        r#"{"version":1,"partitions":{"0":[1],"1":[2]}}"#,
        r#"{"version":2,"partitions":{"1":[2],"0":[1]},"adding_replicas":{},"removing_replicas":{}}"#,
        &with_id,
        r#"{"version":3,"topic_id":"AAAAAAAAAAAAAAAAAAAAAA","partitions":{"0":[1],"1":[2]}}"#,
    ] {
        let mut world = World::new(&[]);
        world.up(1);
        world.settle();
        world.by_hand("t", json);
        world.settle();
        let topic = world.cluster.topic("t").unwrap();
        assert_ne!(topic.id, TopicId::ZERO);
        assert_eq!(topic.id == id, json == with_id);
        let written = TopicNode::read(world.text("/brokers/topics/t").as_bytes()).unwrap();
        assert_eq!(written.id, Some(topic.id));
        assert_eq!(
            world.state("t", 0),
            r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#
        );
        assert_eq!(
            world.state("t", 1),
            r#"{"controller_epoch":1,"leader":-1,"version":1,"leader_epoch":0,"isr":[2]}"#
        );
        assert_eq!(world.settle(), 0);
    }
}

use znodes::TopicNode;

#[test]
fn the_id_is_set_only_if_nobody_wrote_in_between() {
    let mut world = World::new(&[]);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1]}}"#);
    let agenda = std::mem::take(&mut world.agenda);
    let steps = world.plan(&agenda);
    world.run(vec![Op::set(
        "/brokers/topics/t",
        r#"{"version":1,"partitions":{"0":[1],"1":[1]}}"#,
    )]);
    assert_eq!(steps.len(), 1);
    assert!(!world.try_run(&steps[0]));
    world.settle();
    assert_eq!(world.cluster.topic("t").unwrap().partitions.len(), 2);
}

#[test]
fn a_copied_node_gets_an_id_of_its_own() {
    let mut world = World::new(&[]);
    world.up(1);
    world.by_hand("a", r#"{"version":1,"partitions":{"0":[1]}}"#);
    world.settle();
    let (copy, id) = (
        world.text("/brokers/topics/a"),
        world.cluster.topic("a").unwrap().id,
    );
    world.by_hand("b", &copy);
    world.settle();
    assert_eq!(world.cluster.topic("a").unwrap().id, id);
    assert_ne!(world.cluster.topic("b").unwrap().id, id);
    assert_eq!(world.led("b", 0), (Some(1), 0));
}

#[test]
fn what_is_no_topic_is_left_alone() {
    let mut world = World::new(&[]);
    world.up(1);
    world.settle();
    for (name, json) in [
        ("a b", r#"{"version":1,"partitions":{"0":[1]}}"#),
        ("..x/", ""),
        ("none", ""),
        ("nonsense", "{"),
        ("gap", r#"{"version":1,"partitions":{"1":[1]}}"#),
        ("bare", r#"{"version":1,"partitions":{"0":[]}}"#),
        ("twice", r#"{"version":1,"partitions":{"0":[1,1]}}"#),
        ("below", r#"{"version":1,"partitions":{"0":[-1]}}"#),
        (
            "not-an-id",
            r#"{"version":3,"topic_id":"x","partitions":{"0":[1]}}"#,
        ),
    ] {
        if crate::core::path::validate(&znodes::topic(name)).is_ok() {
            world.by_hand(name, json);
        }
    }
    assert_eq!(world.settle(), 0);
    assert_eq!(world.cluster.topic_count(), 0);
}

#[test]
fn a_dead_leaders_partitions_wait_for_it() {
    let mut world = World::new(&[]);
    world.up(1);
    world.up(2);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1],"1":[2]}}"#);
    world.settle();
    world.down(1);
    world.settle();
    assert_eq!(world.led("t", 0), (None, 1));
    assert_eq!(world.partition("t", 0).isr, [1]);
    assert_eq!(world.led("t", 1), (Some(2), 0), "not touched");
    world.up(1);
    assert_eq!(world.settle(), 1);
    assert_eq!(world.led("t", 0), (Some(1), 2));
}

#[test]
fn a_replica_that_never_fetched_does_not_lead() {
    let mut world = World::new(&[]);
    world.up(2);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1,2]}}"#);
    world.settle();
    // The first live one has led from the start.
    assert_eq!(world.led("t", 0), (Some(2), 0));
    assert_eq!(world.partition("t", 0).isr, [2]);
    world.up(1);
    world.down(2);
    world.settle();
    assert_eq!(world.led("t", 0), (None, 1), "broker 1 has nothing of it");
    world.up(2);
    world.settle();
    assert_eq!(world.led("t", 0), (Some(2), 2));
}

#[test]
fn new_partitions_in_the_assignment_come_to_life() {
    let mut world = World::new(&[]);
    world.up(1);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1]}}"#);
    world.settle();
    let id = world.cluster.topic("t").unwrap().id;
    let grown =
        format!(r#"{{"version":3,"topic_id":"{id}","partitions":{{"0":[1],"1":[1],"2":[7]}}}}"#);
    world.run(vec![Op::set("/brokers/topics/t", grown)]);
    world.settle();
    let leaders: Vec<_> = (0..3).map(|index| world.led("t", index).0).collect();
    assert_eq!(leaders, [Some(1), Some(1), None]);
}

#[test]
fn state_that_a_hand_took_or_spoilt_is_made_again() {
    let mut world = World::new(&[]);
    world.up(1);
    world.by_hand(
        "t",
        r#"{"version":1,"partitions":{"0":[1],"1":[1],"2":[1]}}"#,
    );
    world.settle();
    for _ in 0..3 {
        world.down(1);
        world.settle();
        world.up(1);
        world.settle();
    }
    assert_eq!(world.led("t", 0), (Some(1), 6));
    world.run(vec![
        Op::set(znodes::state("t", 0), "oops"),
        Op::delete(znodes::state("t", 1)),
        Op::set(
            znodes::state("t", 2),
            r#"{"controller_epoch":1,"leader":-1,"version":1,"leader_epoch":9,"isr":[]}"#,
        ),
    ]);
    world.settle();
    assert_eq!(world.led("t", 0), (Some(1), 7), "an epoch never falls");
    assert_eq!(world.led("t", 1), (Some(1), 0));
    assert_eq!(world.led("t", 2), (Some(1), 10));
}

#[test]
fn an_assignment_overwritten_with_nonsense_is_still_served() {
    let mut world = World::new(&[]);
    world.up(1);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1]}}"#);
    world.settle();
    world.run(vec![Op::set("/brokers/topics/t", "oops")]);
    world.down(1);
    world.settle();
    assert_eq!(world.led("t", 0), (None, 1));
    world.up(1);
    world.settle();
    assert_eq!(world.led("t", 0), (Some(1), 2));
}

#[test]
fn a_deletion_request_takes_the_topic_along() {
    let mut world = World::new(&[]);
    world.up(1);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1],"1":[1]}}"#);
    world.run(vec![Op::create("/config/topics/t", "{}")]);
    world.settle();
    world.run(vec![
        Op::create("/admin/delete_topics/t", ""),
        Op::create("/admin/delete_topics/unknown", ""),
    ]);
    world.settle();
    for path in [
        "/brokers/topics/t",
        "/config/topics/t",
        "/admin/delete_topics/t",
        "/admin/delete_topics/unknown",
    ] {
        assert!(!world.exists(path), "{path}");
    }
    assert!(world.cluster.topic("t").is_none());
    assert_eq!(world.cluster.take_gone(), ["t".into()]);
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_deletion_that_is_forbidden_is_only_taken_off_the_list() {
    let mut world = World::new(&[("delete.topic.enable", "false")]);
    world.up(1);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1]}}"#);
    world.run(vec![Op::create("/admin/delete_topics/t", "")]);
    world.settle();
    assert!(!world.exists("/admin/delete_topics/t"));
    assert_eq!(world.led("t", 0), (Some(1), 0));
}

/// 10,000 partitions are 20,001 nodes: more than one multi may hold. Whoever takes over
/// in the middle goes on, and the nodes that are gone do not come back.
#[test]
fn a_large_deletion_outlives_the_controller() {
    let mut world = World::new(&[]);
    world.up(1);
    let replicas = vec![vec![1]; 10_000];
    let json = znodes::topic_json(TopicId(77u128.to_be_bytes()), &replicas);
    world.run(vec![Op::create("/brokers/topics/t", json)]);
    world.settle();
    assert_eq!(world.led("t", 9_999), (Some(1), 0));
    world.run(vec![Op::create("/admin/delete_topics/t", "")]);

    let agenda = std::mem::take(&mut world.agenda);
    let steps = world.plan(&agenda);
    assert!(steps.len() > 10, "{}", steps.len());
    for step in &steps {
        let bytes: usize = step.iter().map(|op| op.path().len() + 64).sum();
        assert!(bytes < 1 << 20, "{bytes}");
    }
    for step in steps.into_iter().take(5) {
        world.run(step);
    }
    world.run(vec![Op::delete("/controller")]);
    world.vote(5);
    world.down(1);
    world.up(1);
    world.agenda = Agenda::everything();
    assert_eq!(world.settle(), 1);
    assert!(!world.exists("/brokers/topics/t") && !world.exists("/admin/delete_topics/t"));
}

#[test]
fn a_preferred_leader_is_elected_where_that_loses_nothing() {
    let mut world = World::new(&[]);
    world.up(1);
    world.up(2);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[2,1],"1":[2,1]}}"#);
    world.settle();
    // Another broker wrote that both are in sync.
    world.run(vec![
        Op::set(znodes::state("t", 0), r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":4,"isr":[1,2]}"#),
        Op::set(znodes::state("t", 1), r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":4,"isr":[1]}"#),
        Op::create("/admin/preferred_replica_election", r#"{"version":1,"partitions":[{"topic":"t","partition":0},{"topic":"t","partition":1},{"topic":"t","partition":0},{"topic":"t","partition":9},{"topic":"u","partition":0}]}"#),
    ]);
    world.settle();
    assert_eq!(world.led("t", 0), (Some(2), 5));
    assert_eq!(world.led("t", 1), (Some(1), 4));
    assert!(!world.exists("/admin/preferred_replica_election"));
}

#[test]
fn what_cannot_be_done_is_removed_and_changes_nothing() {
    let mut world = World::new(&[]);
    world.up(1);
    world.up(2);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1]}}"#);
    world.settle();
    let before = world.text("/brokers/topics/t");
    for json in [
        r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[2]}]}"#,
        r#"{"version":1,"partitions":[{"topic":"u","partition":-1,"replicas":[]}]}"#,
        "nonsense",
    ] {
        world.run(vec![Op::create("/admin/reassign_partitions", json)]);
        assert_eq!(world.settle(), 1);
        assert!(!world.exists("/admin/reassign_partitions"));
    }
    assert_eq!(world.text("/brokers/topics/t"), before);
    assert_eq!(world.led("t", 0), (Some(1), 0));
}

#[test]
fn notices_are_taken_note_of_and_old_ones_purged() {
    let mut world = World::new(&[]);
    world.settle();
    let change = |n: i32| format!("/config/changes/config_change_{n:010}");
    world.run(vec![
        Op::create(change(0), "{}"),
        Op::create("/config/changes/of-a-hand", ""),
        Op::create("/isr_change_notification/isr_change_0000000000", "{}"),
        Op::create("/log_dir_event_notification/log_dir_event_0000000000", "{}"),
    ]);
    world.settle();
    assert!(world.exists(&change(0)));
    for parent in [znodes::ISR_CHANGES, znodes::LOG_DIR_EVENTS] {
        assert_eq!(world.tree.stat(parent).unwrap().num_children, 0, "{parent}");
    }
    world.now.0 += 15 * 60 * 1000;
    world.run(vec![Op::create(change(1), "{}")]);
    world.settle();
    assert!(
        world.exists(&change(0)),
        "not older than a quarter of an hour"
    );
    world.now.0 += 1;
    world.run(vec![Op::create(change(2), "{}")]);
    world.settle();
    let left: Vec<&str> = world.tree.children("/config/changes").unwrap().collect();
    assert_eq!(
        left,
        [
            "config_change_0000000001",
            "config_change_0000000002",
            "of-a-hand"
        ]
    );
}

/// What a broker with very many partitions takes along is written in few commands.
#[test]
fn a_dead_brokers_partitions_share_a_step() {
    let mut world = World::new(&[]);
    world.up(1);
    for topic in 0..500 {
        let json = znodes::topic_json(world.ids.next_id(), &[vec![1], vec![1], vec![1]]);
        world.by_hand(&format!("t{topic}"), std::str::from_utf8(&json).unwrap());
    }
    world.settle();
    world.down(1);
    let agenda = std::mem::take(&mut world.agenda);
    let steps = world.plan(&agenda);
    assert_eq!(steps.iter().map(|s| s.len() - 1).sum::<usize>(), 1500);
    assert!(steps.len() <= 2, "{}", steps.len());
}
