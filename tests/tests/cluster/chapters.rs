//! What is true of every cluster, whoever keeps it; each function is one story.

use crate::asking::{self, View};
use crate::clients;
use crate::load::Load;
use klamm_tests::broker::klamm;
use klamm_tests::cluster::{Cluster, Tree, eventually};
use klamm_tests::ensemble::Ensemble;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::thread;

const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER: i16 = 6;
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// What every broker that is asked says alike, once it is as it should be.
fn agreed<T>(
    cluster: &Cluster,
    who: &[i32],
    what: &str,
    is: impl Fn(&View) -> Result<T, String>,
) -> T {
    eventually(what, || {
        let mut found = None;
        for id in who {
            let view = View::of(cluster.address(*id)).map_err(|e| format!("broker {id}: {e}"))?;
            found = Some(is(&view).map_err(|why| format!("broker {id}: {why}: {view:?}"))?);
        }
        Ok(found.expect("somebody is asked"))
    })
}

fn all(cluster: &Cluster) -> Vec<i32> {
    cluster.ids().collect()
}

/// As each broker says, and as the topic's nodes do: the leader of each partition.
fn led(cluster: &Cluster, who: &[i32], name: &str, partitions: usize) -> Vec<i32> {
    agreed(cluster, who, &format!("{name} is led"), |view| {
        let leaders = view.leaders(name);
        let is_led = leaders.len() == partitions && leaders.iter().all(|id| *id > 0);
        if is_led {
            Ok(leaders)
        } else {
            Err(format!("leaders {leaders:?}"))
        }
    })
}

fn epoch(tree: &mut Tree) -> i64 {
    let text = tree.text("/controller_epoch").expect("/controller_epoch");
    text.parse().expect("a plain number")
}

/// The broker that `/controller` names.
pub fn controller(cluster: &Cluster) -> i32 {
    let mut tree = cluster.tree();
    eventually("a controller", || {
        let node = tree.json("/controller").ok_or("no /controller")?;
        let id = node["brokerid"].as_i64().ok_or(format!("{node}"))?;
        i32::try_from(id).map_err(|e| e.to_string())
    })
}

pub fn the_tree_is_kafkas(cluster: &Cluster) {
    eprintln!("-- the tree is Kafka's");
    let mut tree = cluster.tree();
    let mut owners = BTreeSet::new();
    for id in cluster.ids() {
        let path = format!("/brokers/ids/{id}");
        let (_, stat) = eventually(&path, || tree.node(&path).ok_or("missing".into()));
        assert!(
            owners.insert(stat.ephemeral_owner),
            "{path}: its own session"
        );
        let node = tree.json(&path).expect("a registration");
        let port = cluster.address(id).port();
        assert_eq!(node["version"], 5, "{node}");
        assert_eq!(node["host"], "127.0.0.1", "{node}");
        assert_eq!(node["port"], port, "{node}");
        assert_eq!(node["jmx_port"], -1, "{node}");
        let endpoint = format!("PLAINTEXT://127.0.0.1:{port}");
        assert_eq!(node["endpoints"], json!([endpoint]), "{node}");
        let map = json!({ "PLAINTEXT": "PLAINTEXT" });
        assert_eq!(node["listener_security_protocol_map"], map, "{node}");
        assert!(is_time(&node["timestamp"]), "{node}");
        assert!(node["features"].is_object(), "{node}");
    }
    assert!(!owners.contains(&0), "registrations are ephemeral");

    let (_, stat) = tree.node("/controller").expect("/controller");
    let node = tree.json("/controller").expect("/controller");
    let elected = node["brokerid"].as_i64().expect("an id");
    assert_eq!(node["version"], 2, "{node}");
    assert_eq!(node["kraftControllerEpoch"], -1, "{node}");
    assert!(is_time(&node["timestamp"]), "{node}");
    let (_, registered) = tree
        .node(&format!("/brokers/ids/{elected}"))
        .expect("the controller is a broker");
    assert_eq!(stat.ephemeral_owner, registered.ephemeral_owner);
    assert_eq!(epoch(&mut tree), 1, "the first term");

    let cluster_id = tree.json("/cluster/id").expect("/cluster/id");
    assert_eq!(cluster_id["version"], "1", "{cluster_id}");
    assert_eq!(
        cluster_id["id"].as_str().map(str::len),
        Some(22),
        "{cluster_id}"
    );
    for path in [
        "/admin/delete_topics",
        "/brokers/seqid",
        "/config/brokers",
        "/config/changes",
        "/config/clients",
        "/config/topics",
        "/config/users",
        "/consumers",
        "/isr_change_notification",
        "/latest_producer_id_block",
        "/log_dir_event_notification",
    ] {
        assert!(tree.has(path), "{path}");
    }
    let brokers: BTreeSet<i32> = cluster.ids().collect();
    agreed(cluster, &all(cluster), "one cluster", |view| {
        let same = view.brokers == brokers && i64::from(view.controller) == elected;
        if same {
            Ok(())
        } else {
            Err(format!("the controller is {elected}"))
        }
    });
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|ms| ms.parse::<u64>().is_ok())
}

pub fn topics_are_spread(cluster: &Cluster) {
    eprintln!("-- topics are spread");
    let code = asking::create_topic(cluster.address(2), "spread", 6);
    assert_eq!(code, 0);
    let leaders = led(cluster, &all(cluster), "spread", 6);
    for id in cluster.ids() {
        let count = leaders.iter().filter(|leader| **leader == id).count();
        assert_eq!(count, 2, "of {leaders:?} broker {id} has its share");
    }
    let mut tree = cluster.tree();
    let node = tree.json("/brokers/topics/spread").expect("its node");
    let assignment: BTreeMap<String, Vec<i32>> =
        serde_json::from_value(node["partitions"].clone()).expect("an assignment");
    assert_eq!(node["version"], 3, "{node}");
    assert_eq!(node["topic_id"].as_str().map(str::len), Some(22), "{node}");
    assert_eq!(node["adding_replicas"], json!({}), "{node}");
    assert_eq!(node["removing_replicas"], json!({}), "{node}");
    for (partition, leader) in leaders.iter().enumerate() {
        assert_eq!(assignment[&partition.to_string()], [*leader]);
        let state = state(&mut tree, "spread", partition);
        assert_eq!(state["leader"], *leader, "{state}");
        assert_eq!(state["isr"], json!([leader]), "{state}");
        assert_eq!(state["leader_epoch"], 0, "{state}");
        assert_eq!(state["controller_epoch"], 1, "{state}");
        assert_eq!(state["version"], 1, "{state}");
    }
    let settings = tree.json("/config/topics/spread").expect("its settings");
    assert_eq!(settings, json!({ "version": 1, "config": {} }));
    // Who does not lead a partition says so.
    let leader = leaders[0];
    let other = cluster.ids().find(|id| *id != leader).expect("another");
    let batch = klamm_tests::batch::Batch::of(&[b"1"]).encode();
    let mut connection =
        klamm_tests::wire::Connection::open(cluster.address(other)).expect("connect");
    assert_eq!(connection.produce("spread", 0, batch).0, NOT_LEADER);
}

fn state(tree: &mut Tree, name: &str, partition: usize) -> Value {
    let path = format!("/brokers/topics/{name}/partitions/{partition}/state");
    tree.json(&path).unwrap_or_else(|| panic!("{path}"))
}

pub fn clients_find_leaders(cluster: &Cluster) {
    eprintln!("-- clients find leaders through any broker");
    let count = i64::try_from(all(cluster).len()).expect("a few");
    for (turn, id) in (0..).zip(cluster.ids()) {
        let values = turn * 60..(turn + 1) * 60;
        clients::produce(&cluster.bootstrap(id), "spread", 6, values);
    }
    for id in cluster.ids() {
        let seen = clients::consume(&cluster.bootstrap(id), "spread", 6, 60 * count as usize);
        assert_eq!(seen, (0..60 * count).collect(), "through broker {id}");
    }
    let leaders = led(cluster, &all(cluster), "spread", 6);
    for (partition, leader) in (0..).zip(leaders) {
        let values = asking::values(cluster, leader, "spread", partition);
        let sent: Vec<i64> = (0..60 * count)
            .filter(|n| n % 6 == i64::from(partition))
            .collect();
        assert_eq!(values, sent, "spread-{partition} on broker {leader}");
    }
}

/// The broker that all name as the group's coordinator.
fn coordinator(cluster: &Cluster, who: &[i32], group: &str) -> i32 {
    eventually(&format!("the coordinator of {group}"), || {
        let mut named = BTreeSet::new();
        for id in who {
            let found = asking::coordinator(cluster.address(*id), group);
            named.insert(found.map_err(|e| format!("broker {id}: {e}"))?);
        }
        match (named.len(), named.first()) {
            (1, Some(Some(one))) if who.contains(one) => Ok(*one),
            _ => Err(format!("{named:?}")),
        }
    })
}

/// The group's offsets, from whoever looks after it now.
fn offsets(cluster: &Cluster, who: &[i32], group: &str, of: &str, partitions: i32) -> Vec<i64> {
    eventually(&format!("the offsets of {group}"), || {
        let owner = coordinator(cluster, who, group);
        let fetched = asking::offsets(cluster.address(owner), group, of, partitions);
        let fetched = fetched.map_err(|e| format!("broker {owner}: {e}"))?;
        fetched.map_err(|code| format!("broker {owner}: code {code}"))
    })
}

fn commit(cluster: &Cluster, who: &[i32], group: &str, of: &str, at: (i32, i64)) {
    eventually(&format!("a commit for {group}"), || {
        let owner = coordinator(cluster, who, group);
        match asking::commit(cluster.address(owner), group, of, at) {
            Ok(0) => Ok(()),
            Ok(code) => Err(format!("broker {owner}: code {code}")),
            Err(error) => Err(format!("broker {owner}: {error}")),
        }
    });
}

pub fn a_group_is_one_everywhere(cluster: &Cluster) {
    eprintln!("-- a group is one everywhere");
    assert_eq!(asking::create_topic(cluster.address(1), "read", 6), 0);
    led(cluster, &all(cluster), "read", 6);
    let a = clients::member(&cluster.bootstrap(2), "readers", "read");
    let b = clients::member(&cluster.bootstrap(3), "readers", "read");
    clients::await_assignment(&[&a, &b], 6);
    clients::produce(&cluster.bootstrap(1), "read", 6, 0..120);
    let seen = clients::poll(&[&a, &b], 120);
    assert_eq!(seen, (0..120).collect());
    let mut tree = cluster.tree();
    let ids = eventually("the members' nodes", || {
        let ids = tree.children("/consumers/readers/ids");
        if ids.len() == 2 {
            Ok(ids)
        } else {
            Err(format!("{ids:?}"))
        }
    });
    let member = tree
        .json(&format!("/consumers/readers/ids/{}", ids[0]))
        .expect("a member's node");
    assert_eq!(member["version"], 1, "{member}");
    assert_eq!(member["subscription"], json!({ "read": 1 }), "{member}");
    for partition in 0..6 {
        let path = format!("/consumers/readers/owners/read/{partition}");
        let owner = eventually(&path, || tree.text(&path).ok_or("missing".into()));
        assert!(
            ids.iter().any(|id| owner.starts_with(id.as_str())),
            "{path}: {owner}"
        );
    }
    clients::commit(&a);
    clients::commit(&b);
    drop((a, b));
    for partition in 0..6 {
        let path = format!("/consumers/readers/offsets/read/{partition}");
        eventually(&path, || match tree.text(&path) {
            Some(offset) if offset == "20" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    eventually("the members have left", || {
        let ids = tree.children("/consumers/readers/ids");
        if ids.is_empty() {
            Ok(())
        } else {
            Err(format!("{ids:?}"))
        }
    });
    let committed = offsets(cluster, &all(cluster), "readers", "read", 6);
    assert_eq!(committed, [20; 6]);
    // Whoever reads on in the group begins where it left off.
    let next = clients::member(&cluster.bootstrap(1), "readers", "read");
    clients::await_assignment(&[&next], 6);
    clients::produce(&cluster.bootstrap(3), "read", 6, 120..132);
    assert_eq!(clients::poll(&[&next], 12), (120..132).collect());
}

pub fn topics_by_hand(cluster: &Cluster) {
    eprintln!("-- topics by hand");
    let mut tree = cluster.tree();
    // As the tools of Kafka 0.8 wrote it: no id, no states.
    let by_hand = json!({ "version": 1, "partitions": { "0": [3], "1": [1], "2": [2] } });
    tree.create("/brokers/topics/by-hand", &by_hand.to_string());
    assert_eq!(led(cluster, &all(cluster), "by-hand", 3), [3, 1, 2]);
    let node = tree.json("/brokers/topics/by-hand").expect("its node");
    assert_eq!(node["topic_id"].as_str().map(str::len), Some(22), "{node}");
    assert_eq!(state(&mut tree, "by-hand", 0)["leader"], 3);
    clients::produce(&cluster.bootstrap(2), "by-hand", 3, 0..30);
    let seen = clients::consume(&cluster.bootstrap(1), "by-hand", 3, 30);
    assert_eq!(seen, (0..30).collect());

    tree.create("/admin/delete_topics/by-hand", "");
    agreed(
        cluster,
        &all(cluster),
        "by-hand is deleted",
        |view| match view.topics.get("by-hand") {
            None => Ok(()),
            Some(_) => Err("still there".into()),
        },
    );
    for path in [
        "/brokers/topics/by-hand",
        "/config/topics/by-hand",
        "/admin/delete_topics/by-hand",
    ] {
        eventually(&format!("{path} goes"), || match tree.text(path) {
            None => Ok(()),
            Some(data) => Err(data),
        });
    }
    // One of the same name is another one: nothing of the old one shows.
    assert_eq!(asking::create_topic(cluster.address(3), "by-hand", 3), 0);
    let leaders = led(cluster, &all(cluster), "by-hand", 3);
    for (partition, leader) in (0..).zip(leaders) {
        let values = asking::values(cluster, leader, "by-hand", partition);
        assert_eq!(values, Vec::<i64>::new(), "by-hand-{partition}");
    }
    // Settings by hand, as kafka-configs.sh wrote them: the node alone is enough here.
    let settings = json!({ "version": 1, "config": { "retention.ms": "12345" } });
    tree.delete("/config/topics/by-hand");
    tree.create("/config/topics/by-hand", &settings.to_string());
    for id in cluster.ids() {
        eventually("the settings take effect", || {
            let said = describe(cluster, id, "by-hand");
            if said.contains("retention.ms=12345  (topic)") {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
}

/// What `klamm topic describe` says, asked through that broker.
fn describe(cluster: &Cluster, broker: i32, name: &str) -> String {
    let described = Command::new(klamm())
        .args(["topic", "describe", name, "--bootstrap"])
        .arg(cluster.bootstrap(broker))
        .output()
        .expect("klamm topic describe");
    let said = String::from_utf8_lossy(&described.stdout);
    let errors = String::from_utf8_lossy(&described.stderr);
    assert!(described.status.success(), "{said}{errors}");
    said.into_owned()
}

pub fn two_create_one_topic(cluster: &Cluster) {
    eprintln!("-- two brokers create one topic");
    for round in 0..5 {
        let name = format!("created-{round}");
        let codes: Vec<i16> = thread::scope(|scope| {
            let create = |id| {
                let (address, name) = (cluster.address(id), name.as_str());
                scope.spawn(move || asking::create_topic(address, name, 3))
            };
            let all: Vec<_> = cluster.ids().map(create).collect();
            all.into_iter()
                .map(|t| t.join().expect("a creator"))
                .collect()
        });
        let made = codes.iter().filter(|code| **code == 0).count();
        assert!(made <= 1, "{name} was created {made} times");
        assert!(
            codes
                .iter()
                .all(|code| [0, TOPIC_ALREADY_EXISTS].contains(code))
        );
        is_one_topic(cluster, &name, 3);
    }
    for round in 0..5 {
        let name = format!("mentioned-{round}");
        thread::scope(|scope| {
            for id in cluster.ids() {
                let (address, name) = (cluster.address(id), name.as_str());
                scope.spawn(move || {
                    eventually(&format!("{name} is there"), || {
                        let view = View::creating(address, name).map_err(|e| e.to_string())?;
                        match &view.topics[name] {
                            topic if topic.code == 0 => Ok(()),
                            topic => Err(format!("code {}", topic.code)),
                        }
                    });
                });
            }
        });
        is_one_topic(cluster, &name, 1);
    }
    for name in ["created-4", "mentioned-4"] {
        clients::produce(&cluster.bootstrap(1), name, 1, 0..3);
        assert_eq!(clients::consume(&cluster.bootstrap(2), name, 1, 3).len(), 3);
    }
}

fn is_one_topic(cluster: &Cluster, name: &str, partitions: usize) {
    led(cluster, &all(cluster), name, partitions);
    let ids = cluster.ids().map(|id| {
        let view = View::of(cluster.address(id)).expect("an answer to Metadata");
        view.topics[name].id
    });
    let ids: BTreeSet<_> = ids.collect();
    assert_eq!(ids.len(), 1, "{name} is the same topic everywhere: {ids:?}");
}

pub fn the_controller_is_deleted(cluster: &Cluster) {
    eprintln!("-- the controller is deleted by hand");
    let mut tree = cluster.tree();
    let before = epoch(&mut tree);
    tree.delete("/controller");
    eventually("another term", || match epoch(&mut tree) {
        now if now == before + 1 && tree.has("/controller") => Ok(()),
        now => Err(format!("epoch {now} after {before}")),
    });
    let elected = controller(cluster);
    agreed(cluster, &all(cluster), "all know the controller", |view| {
        if view.controller == elected {
            Ok(())
        } else {
            Err(format!("not {elected}"))
        }
    });
    // It does its work.
    assert_eq!(
        asking::create_topic(cluster.address(1), "second-term", 3),
        0
    );
    led(cluster, &all(cluster), "second-term", 3);
    assert_eq!(
        state(&mut tree, "second-term", 0)["controller_epoch"],
        before + 1
    );
}

/// A stop in order takes the registration along: nobody waits for a session to end.
pub fn a_broker_leaves_and_comes_back(cluster: &mut Cluster) {
    eprintln!("-- a broker leaves and comes back");
    let mut tree = cluster.tree();
    let leaders = led(cluster, &all(cluster), "spread", 6);
    cluster.broker(3).stop();
    tree.sync();
    assert!(
        !tree.has("/brokers/ids/3"),
        "it goes before the process does"
    );
    agreed(cluster, &[1, 2], "without broker 3", |view| {
        let led = view.leaders("spread");
        let is_so = led.iter().zip(&leaders).all(|(now, before)| match before {
            3 => *now == -1,
            other => now == other,
        });
        if is_so && view.brokers.len() == 2 {
            Ok(())
        } else {
            Err(format!("{led:?}"))
        }
    });
    cluster.broker(3).start_again();
    assert_eq!(led(cluster, &all(cluster), "spread", 6), leaders);
}

pub fn a_broker_dies_and_comes_back(cluster: &mut Cluster, victim: i32) {
    eprintln!("-- broker {victim} dies and comes back");
    let mut tree = cluster.tree();
    let everyone = all(cluster);
    let others: Vec<i32> = everyone
        .iter()
        .copied()
        .filter(|id| *id != victim)
        .collect();
    assert_eq!(
        asking::create_topic(cluster.address(others[0]), "mortal", 6),
        0
    );
    let leaders = led(cluster, &everyone, "mortal", 6);
    clients::produce(&cluster.bootstrap(victim), "mortal", 6, 0..120);
    // A group that the victim looks after, where that is shared out at all.
    let group = (0..100)
        .map(|n| format!("mourners-{n}"))
        .find(|group| coordinator(cluster, &everyone, group) == victim);
    let group = group.unwrap_or_else(|| "mourners".into());
    for (partition, leader) in (0..).zip(&leaders) {
        let at = (partition, i64::from(*leader) + 10);
        commit(cluster, &everyone, &group, "mortal", at);
    }
    let expected: Vec<i64> = leaders.iter().map(|id| i64::from(*id) + 10).collect();
    let was_controller = controller(cluster) == victim;
    let before = epoch(&mut tree);

    cluster.broker(victim).kill9();
    let path = format!("/brokers/ids/{victim}");
    eventually(&format!("{path} goes with its session"), || {
        match tree.text(&path) {
            None => Ok(()),
            Some(data) => Err(data),
        }
    });
    if was_controller {
        eventually("another controller", || {
            let node = tree.json("/controller").ok_or("none")?;
            let is_other = node["brokerid"] != victim && epoch(&mut tree) == before + 1;
            if is_other {
                Ok(())
            } else {
                Err(format!("{node} after epoch {before}"))
            }
        });
    } else {
        assert_eq!(epoch(&mut tree), before, "the same term");
    }
    let elected = controller(cluster);
    agreed(
        cluster,
        &others,
        "the dead broker's partitions have no leader",
        |view| {
            let topic = &view.topics["mortal"];
            let brokers: BTreeSet<i32> = others.iter().copied().collect();
            let as_it_should = topic.partitions.iter().zip(&leaders).all(|(p, leader)| {
                let is_dead = *leader == victim;
                let leaderless = p.code == LEADER_NOT_AVAILABLE && p.leader == -1;
                let led = p.code == 0 && p.leader == *leader;
                p.replicas == [*leader]
                    && p.isr == [*leader]
                    && if is_dead {
                        leaderless && p.offline == [victim]
                    } else {
                        led
                    }
            });
            let is_so = topic.code == 0
                && as_it_should
                && view.brokers == brokers
                && view.controller == elected;
            if is_so {
                Ok(())
            } else {
                Err(format!("controller {elected}"))
            }
        },
    );
    for (partition, leader) in leaders.iter().enumerate() {
        let leader = if *leader == victim { -1 } else { *leader };
        eventually(&format!("the state of mortal-{partition}"), || {
            let state = state(&mut tree, "mortal", partition);
            let epoch = i32::from(leader == -1);
            let is_so = state["leader"] == leader && state["leader_epoch"] == epoch;
            if is_so {
                Ok(())
            } else {
                Err(state.to_string())
            }
        });
    }
    a_person_sees_it(cluster, &others, &leaders, victim);

    // What is led goes on, new topics keep off, and the group is somebody else's.
    let alive: Vec<i32> = (0..)
        .zip(&leaders)
        .filter(|(_, l)| **l != victim)
        .map(|(p, _)| p)
        .collect();
    for partition in &alive {
        let leader = leaders[*partition as usize];
        let values = asking::values(cluster, leader, "mortal", *partition);
        assert_eq!(values.len(), 20, "mortal-{partition}");
    }
    assert_eq!(
        asking::create_topic(cluster.address(others[1]), "wake", 4),
        0
    );
    let wake = led(cluster, &others, "wake", 4);
    assert!(!wake.contains(&victim), "{wake:?}");
    clients::produce(&cluster.bootstrap(others[0]), "wake", 4, 0..40);
    let seen = clients::consume(&cluster.bootstrap(others[1]), "wake", 4, 40);
    assert_eq!(seen, (0..40).collect());
    assert_ne!(coordinator(cluster, &others, &group), victim);
    assert_eq!(offsets(cluster, &others, &group, "mortal", 6), expected);
    commit(cluster, &others, &group, "mortal", (0, 1000));

    cluster.broker(victim).start_again();
    let again = led(cluster, &everyone, "mortal", 6);
    assert_eq!(again, leaders);
    for (partition, leader) in (0..).zip(leaders) {
        let values = asking::values(cluster, leader, "mortal", partition);
        let sent: Vec<i64> = (0..120).filter(|n| n % 6 == i64::from(partition)).collect();
        assert_eq!(values, sent, "mortal-{partition} on broker {leader}");
    }
    clients::produce(&cluster.bootstrap(victim), "mortal", 6, 120..180);
    let seen = clients::consume(&cluster.bootstrap(others[0]), "mortal", 6, 180);
    assert_eq!(seen, (0..180).collect());
    // The group may be the old one's again: with what was committed meanwhile.
    let mut expected = expected;
    expected[0] = 1000;
    assert_eq!(offsets(cluster, &everyone, &group, "mortal", 6), expected);
}

/// One that stands still for longer than its session wakes up as if nothing had been:
/// it finds out, registers again, and leaves to others what they do now.
pub fn a_broker_sleeps_past_its_session(cluster: &mut Cluster, victim: i32) {
    eprintln!("-- broker {victim} sleeps past its session");
    let mut tree = cluster.tree();
    let everyone = all(cluster);
    let others: Vec<i32> = everyone
        .iter()
        .copied()
        .filter(|id| *id != victim)
        .collect();
    let leaders = led(cluster, &everyone, "spread", 6);
    let was_controller = controller(cluster) == victim;
    let before = epoch(&mut tree);
    let path = format!("/brokers/ids/{victim}");
    let (_, old) = tree.node(&path).expect("it is registered");

    cluster.broker(victim).suspend();
    eventually(&format!("{path} goes with its session"), || {
        match tree.text(&path) {
            None => Ok(()),
            Some(data) => Err(data),
        }
    });
    agreed(cluster, &others, "a controller that is awake", |view| {
        let is_so = others.contains(&view.controller) && !view.brokers.contains(&victim);
        if is_so { Ok(()) } else { Err("not yet".into()) }
    });
    assert_eq!(
        asking::create_topic(cluster.address(others[0]), "overslept", 3),
        0
    );
    cluster.broker(victim).resume();

    let (_, new) = eventually("it registers again", || {
        tree.node(&path).ok_or("missing".into())
    });
    assert_ne!(new.ephemeral_owner, old.ephemeral_owner);
    assert_eq!(led(cluster, &everyone, "spread", 6), leaders);
    let term = before + i64::from(was_controller);
    tree.sync();
    assert_eq!(epoch(&mut tree), term, "one election at most");
    let elected = controller(cluster);
    agreed(cluster, &everyone, "one controller", |view| {
        let is_so = view.controller == elected && view.topics.contains_key("overslept");
        if is_so {
            Ok(())
        } else {
            Err(format!("not {elected}"))
        }
    });
    for (partition, leader) in (0..).zip(leaders) {
        let values = asking::values(cluster, leader, "spread", partition);
        assert_eq!(values.len(), 30, "spread-{partition} on broker {leader}");
    }
    let name = format!("awake-{victim}");
    assert_eq!(asking::create_topic(cluster.address(victim), &name, 3), 0);
    led(cluster, &everyone, &name, 3);
}

/// While nobody keeps the tree: what is asked of the cluster is refused so that clients
/// ask again, and nothing of it shows; records are written and read as ever.
fn nothing_is_made_up(cluster: &Cluster, through: i32, existing: &str) {
    let address = cluster.address(through);
    let retriable = |code: i16| [5, 7, 15, 41].contains(&code);
    let mut connection = klamm_tests::wire::Connection::open(address).expect("connect");
    // Twice: the second finds what the first has left.
    for _ in 0..2 {
        let (code, message) = connection.try_create_topic("made-up", 3, 1, &[]);
        assert!(retriable(code), "creating made-up: {code} {message}");
        let code = asking::delete_topic(address, existing).expect("an answer");
        assert!(retriable(code), "deleting {existing}: {code}");
        let view = View::of(address).expect("an answer to Metadata");
        assert!(!view.topics.contains_key("made-up"), "{view:?}");
        let led = view.leaders(existing);
        let own = (0..).zip(led).find(|(_, leader)| *leader == through);
        let (partition, _) = own.unwrap_or_else(|| panic!("{existing} is led: {view:?}"));
        let batch = klamm_tests::batch::Batch::of(&[b"1000"]).encode();
        let (code, _) = connection.produce(existing, partition, batch);
        assert_eq!(code, 0, "a record for {existing}-{partition}");
    }
}

/// Two of three ZooKeepers are killed: the one that is left answers nobody.
pub fn the_ensemble_is_away(cluster: &Cluster, ensemble: &mut Ensemble) {
    eprintln!("-- the ensemble is away");
    let everyone = all(cluster);
    assert_eq!(asking::create_topic(cluster.address(1), "patient", 6), 0);
    let leaders = led(cluster, &everyone, "patient", 6);
    clients::produce(&cluster.bootstrap(2), "patient", 6, 0..60);
    let leader = ensemble.leader();
    let killed = [leader, (leader + 1) % 3];
    for at in killed {
        ensemble.kill9(at);
    }
    // Whoever has not noticed yet is told by the write that is lost.
    for id in &everyone {
        nothing_is_made_up(cluster, *id, "patient");
    }
    for at in killed {
        ensemble.launch(at);
    }
    for at in killed {
        ensemble.await_session(at);
    }
    assert_eq!(led(cluster, &everyone, "patient", 6), leaders);
    for (partition, leader) in (0..).zip(leaders) {
        let values = asking::values(cluster, leader, "patient", partition);
        let sent: Vec<i64> = (0..60).filter(|n| n % 6 == i64::from(partition)).collect();
        assert!(values.starts_with(&sent), "patient-{partition}: {values:?}");
    }
    assert_eq!(asking::create_topic(cluster.address(2), "made-up", 3), 0);
    led(cluster, &everyone, "made-up", 3);
}

/// `klamm topic describe` shows what there is, and dashes for the rest.
fn a_person_sees_it(cluster: &Cluster, others: &[i32], leaders: &[i32], victim: i32) {
    let said = describe(cluster, others[0], "mortal");
    let rows: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<&str>| row.first().is_some_and(|n| n.parse::<i32>().is_ok()))
        .collect();
    assert_eq!(rows.len(), leaders.len(), "{said}");
    for (row, leader) in rows.iter().zip(leaders) {
        let id = leader.to_string();
        // PARTITION LEADER EPOCH REPLICAS ISR OFFLINE START END RECORDS
        let shown = [row[1], row[3], row[5], row[6], row[7], row[8]];
        let expected = if *leader == victim {
            ["-", id.as_str(), id.as_str(), "-", "-", "-"]
        } else {
            [id.as_str(), id.as_str(), "-", "0", "20", "20"]
        };
        assert_eq!(shown, expected, "{said}");
    }
}

/// The broker that keeps the tree is killed: the others go on with what they lead, and
/// all is as it was once it is back.
pub fn the_host_dies_and_comes_back(cluster: &mut Cluster) {
    eprintln!("-- the host dies and comes back");
    let everyone = all(cluster);
    let others: Vec<i32> = everyone.iter().copied().filter(|id| *id != 1).collect();
    assert_eq!(asking::create_topic(cluster.address(3), "hosted", 6), 0);
    let leaders = led(cluster, &everyone, "hosted", 6);
    clients::produce(&cluster.bootstrap(2), "hosted", 6, 0..60);
    commit(cluster, &everyone, "guests", "hosted", (0, 7));
    let mut tree = cluster.tree();
    let before = epoch(&mut tree);
    let owner = |tree: &mut Tree, id: i32| {
        let node = tree.node(&format!("/brokers/ids/{id}"));
        node.map(|(_, stat)| stat.ephemeral_owner)
    };
    let owners: Vec<_> = others.iter().map(|id| owner(&mut tree, *id)).collect();
    let was_controller = controller(cluster) == 1;

    cluster.broker(1).kill9();
    for (partition, leader) in (0..).zip(&leaders).filter(|(_, leader)| **leader != 1) {
        let values = asking::values(cluster, *leader, "hosted", partition);
        assert_eq!(
            values.len(),
            10,
            "hosted-{partition} while the host is away"
        );
        let batch = klamm_tests::batch::Batch::of(&[b"1000"]).encode();
        let mut connection =
            klamm_tests::wire::Connection::open(cluster.address(*leader)).expect("connect");
        assert_eq!(connection.produce("hosted", partition, batch), (0, 10));
    }
    for id in &others {
        nothing_is_made_up(cluster, *id, "hosted");
    }
    cluster.broker(1).start_again();

    assert_eq!(led(cluster, &everyone, "hosted", 6), leaders);
    let now: Vec<_> = others.iter().map(|id| owner(&mut tree, *id)).collect();
    assert_eq!(
        now, owners,
        "sessions outlive the restart of who keeps them"
    );
    let term = before + i64::from(was_controller);
    eventually("a controller", || match epoch(&mut tree) {
        now if now == term && tree.has("/controller") => Ok(()),
        now => Err(format!("epoch {now} after {before}")),
    });
    assert_eq!(offsets(cluster, &everyone, "guests", "hosted", 1), [7]);
    for id in &others {
        let name = format!("after-{id}");
        assert_eq!(asking::create_topic(cluster.address(*id), &name, 3), 0);
        led(cluster, &everyone, &name, 3);
        clients::produce(&cluster.bootstrap(*id), &name, 3, 0..30);
        let seen = clients::consume(&cluster.bootstrap(1), &name, 3, 30);
        assert_eq!(seen, (0..30).collect());
    }
}

/// Without who keeps the tree the others cannot take their registration away: they stop
/// in order nevertheless, and their records are there at the next start.
pub fn the_others_stop_without_the_host(cluster: &mut Cluster) {
    eprintln!("-- the others stop without the host");
    let leaders = led(cluster, &all(cluster), "hosted", 6);
    cluster.broker(1).kill9();
    let others: Vec<i32> = cluster.ids().skip(1).collect();
    for id in &others {
        cluster.broker(*id).stop();
    }
    cluster.broker(1).start_again();
    for id in others {
        cluster.broker(id).start_again();
    }
    assert_eq!(led(cluster, &all(cluster), "hosted", 6), leaders);
    let again = led(cluster, &all(cluster), "spread", 6);
    for (partition, leader) in (0..).zip(again) {
        let values = asking::values(cluster, leader, "spread", partition);
        assert_eq!(values.len(), 30, "spread-{partition} on broker {leader}");
    }
}

/// The ensemble's leader, to which every broker is connected, is killed while clients
/// are at work; then it comes back, and the next one is killed.
pub fn a_zookeeper_dies_under_load(cluster: &Cluster, ensemble: &mut Ensemble) {
    eprintln!("-- a ZooKeeper dies under load");
    assert_eq!(asking::create_topic(cluster.address(1), "load", 3), 0);
    led(cluster, &all(cluster), "load", 3);
    let mut tree = cluster.tree();
    let mut owners = |cluster: &Cluster| -> Vec<_> {
        let owner = |id| {
            tree.node(&format!("/brokers/ids/{id}"))
                .map(|(_, stat)| stat.ephemeral_owner)
        };
        cluster.ids().map(owner).collect()
    };
    let before = owners(cluster);
    let load = Load::start(cluster, "load", 3);
    load.await_progress();
    for _ in 0..2 {
        let leader = ensemble.leader();
        ensemble.kill9(leader);
        load.await_progress();
        ensemble.start_again(leader);
        load.await_progress();
    }
    let promised = load.end();
    assert_eq!(owners(cluster), before, "every broker kept its session");

    let leaders = led(cluster, &all(cluster), "load", 3);
    let mut logs = Vec::new();
    for (partition, leader) in (0..).zip(leaders) {
        logs.push(asking::values(cluster, leader, "load", partition));
    }
    for (value, partition, offset) in &promised.records {
        let there = logs[*partition as usize].get(*offset as usize);
        assert_eq!(there, Some(value), "load-{partition} at {offset}");
    }
    let committed = offsets(cluster, &all(cluster), "loaders", "load", 1);
    assert!(
        promised.committed <= committed[0] && committed[0] <= promised.asked,
        "{committed:?} where {} was acknowledged, and {} asked for at last",
        promised.committed,
        promised.asked
    );
    agreed(
        cluster,
        &all(cluster),
        "every topic that was acknowledged",
        |view| {
            let missing: Vec<_> = promised
                .topics
                .iter()
                .filter(|name| view.leaders(name).iter().filter(|id| **id > 0).count() != 2)
                .collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{missing:?}"))
            }
        },
    );
}
