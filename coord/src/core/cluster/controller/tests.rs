use super::*;
use crate::core::Zxid;
use crate::core::image::{Broker, Endpoint, Partition};
use crate::core::settings::BrokerConfig;
use klamm_engine::units::TopicId;

mod always;
mod table;

/// The session of broker `id`.
fn session(id: i32) -> i64 {
    1000 + i64::from(id)
}

/// A tree that many write to, and one who holds the office and sees all of it.
struct World {
    tree: Tree,
    cluster: Cluster,
    agenda: Agenda,
    ids: IdSource,
    zxid: i64,
    now: TimestampMs,
    term: Term,
}

impl World {
    /// With the nodes of a first start, and broker 0 as the controller. It is not
    /// registered, so that it leads nothing.
    fn new(given: &[(&str, &str)]) -> World {
        let mut tree = Tree::new();
        let laid: Vec<Op> = znodes::PERSISTENT
            .iter()
            .map(|path| Op::create(*path, ""))
            .collect();
        tree.multi(Zxid(1), TimestampMs(0), &laid, &mut Vec::new())
            .unwrap();
        let given = given
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let cluster = Cluster::read(&tree, BrokerConfig::new(given).unwrap());
        let mut world = World {
            tree,
            cluster,
            agenda: Agenda::everything(),
            ids: IdSource::new(7),
            zxid: 1,
            now: TimestampMs(1_000_000),
            term: Term {
                epoch: 0,
                version: 0,
            },
        };
        world.vote(0);
        world
    }

    fn vote(&mut self, broker: i32) {
        let (step, term) = elect(&self.tree, broker, session(broker), self.now).unwrap();
        self.run(step);
        self.term = term;
    }

    /// All or nothing, and whether it was done.
    fn try_run(&mut self, ops: &[Op]) -> bool {
        self.zxid += 1;
        let mut events = Vec::new();
        let done = self
            .tree
            .multi(Zxid(self.zxid), self.now, ops, &mut events)
            .is_ok();
        self.cluster.follow(&self.tree, &events);
        self.agenda.note(&events);
        done
    }

    fn run(&mut self, ops: Vec<Op>) {
        assert!(self.try_run(&ops), "{ops:?}");
    }

    fn plan(&mut self, agenda: &Agenda) -> Vec<Step> {
        plan(
            &self.tree,
            &self.cluster,
            agenda,
            self.term,
            &mut self.ids,
            self.now,
        )
    }

    /// Plans and carries out until there is nothing to do; how often it was.
    fn settle(&mut self) -> usize {
        for round in 0..10 {
            let agenda = std::mem::take(&mut self.agenda);
            let steps = self.plan(&agenda);
            if steps.is_empty() {
                return round;
            }
            for step in steps {
                self.run(step);
            }
        }
        panic!("this does not come to an end: {:?}", self.agenda);
    }

    fn up(&mut self, id: i32) {
        let broker = Broker {
            id,
            rack: None,
            hosts_coordinator: false,
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".to_owned(),
                protocol: "PLAINTEXT".to_owned(),
                host: "h".to_owned(),
                port: 9092,
            }],
        };
        let ops = super::super::registration::register(&self.tree, &broker, session(id), self.now);
        self.run(ops.unwrap());
    }

    fn down(&mut self, id: i32) {
        self.run(vec![Op::delete(znodes::broker(id))]);
    }

    fn by_hand(&mut self, topic: &str, json: &str) {
        self.run(vec![Op::create(znodes::topic(topic), json)]);
    }

    fn exists(&self, path: &str) -> bool {
        self.tree.exists(path)
    }

    fn text(&self, path: &str) -> String {
        let data = self.tree.data(path).expect(path).unwrap_or_default();
        String::from_utf8(data.to_vec()).unwrap()
    }

    fn state(&self, topic: &str, index: i32) -> String {
        self.text(&znodes::state(topic, index))
    }

    fn partition(&self, topic: &str, index: i32) -> &Partition {
        self.cluster.topic(topic).unwrap().partition(index).unwrap()
    }

    /// Leader and epoch.
    fn led(&self, topic: &str, index: i32) -> (Option<i32>, i32) {
        let partition = self.partition(topic, index);
        (partition.leader, partition.leader_epoch.0)
    }
}

#[test]
fn one_is_elected_and_an_election_makes_a_term() {
    let mut world = World::new(&[]);
    assert_eq!(world.text("/controller_epoch"), "1");
    assert_eq!(
        world.text("/controller"),
        r#"{"version":2,"brokerid":0,"timestamp":"1000000","kraftControllerEpoch":-1}"#
    );
    assert_eq!(
        world.tree.stat("/controller").unwrap().ephemeral_owner,
        session(0)
    );
    assert_eq!(Term::of(&world.tree, 0, session(0)), Some(world.term));
    for (broker, session) in [(1, session(1)), (0, session(1)), (1, session(0))] {
        assert_eq!(Term::of(&world.tree, broker, session), None);
    }
    assert_eq!(elect(&world.tree, 0, session(0), world.now), None, "it is");
    assert_eq!(elect(&world.tree, 1, session(1), world.now), None, "taken");

    // The session ends; two try, and one is late.
    world.run(vec![Op::delete("/controller")]);
    let (first, term) = elect(&world.tree, 1, session(1), world.now).unwrap();
    let (second, _) = elect(&world.tree, 2, session(2), world.now).unwrap();
    world.run(first);
    assert!(!world.try_run(&second));
    assert_eq!(Term::of(&world.tree, 1, session(1)), Some(term));
    assert_eq!((term.epoch, world.cluster.controller()), (2, Some(1)));

    // Another id with the same session, as after a change of broker.id.
    let (step, term) = elect(&world.tree, 9, session(1), world.now).unwrap();
    world.run(step);
    assert_eq!(Term::of(&world.tree, 9, session(1)), Some(term));
    assert_eq!(world.text("/controller_epoch"), "3");
}

#[test]
fn an_epoch_that_a_hand_spoilt_still_grows() {
    let mut world = World::new(&[]);
    for broker in 1..4 {
        world.run(vec![Op::delete("/controller")]);
        world.vote(broker);
    }
    assert_eq!(world.term.epoch, 4);
    world.run(vec![
        Op::delete("/controller"),
        Op::set("/controller_epoch", "x"),
    ]);
    world.vote(1);
    assert_eq!(world.term.epoch, 5);
    assert_eq!(world.cluster.controller_epoch(), 5);
}

#[test]
fn a_controller_that_was_voted_out_does_nothing() {
    let mut world = World::new(&[]);
    world.up(1);
    world.by_hand("t", r#"{"version":1,"partitions":{"0":[1]}}"#);
    let late = world.plan(&Agenda::everything());
    assert!(!late.is_empty());
    world.run(vec![Op::delete("/controller")]);
    world.vote(2);
    for step in late {
        assert!(!world.try_run(&step), "{step:?}");
    }
    world.settle();
    assert_eq!(world.led("t", 0), (Some(1), 0));
    assert!(world.state("t", 0).contains(r#""controller_epoch":2"#));
}

#[test]
fn what_changed_is_looked_at_and_nothing_else() {
    let mut world = World::new(&[]);
    world.settle();
    let noted = |path: &str| {
        let mut agenda = Agenda::default();
        agenda.note(&[Event::open(EventKind::Created, path)]);
        agenda
    };
    for path in [
        "/consumers/g/ids/m",
        "/brokers/seqid",
        "/config/topics/t",
        "/admin",
        "/brokers/topics",
        "/app/lock",
    ] {
        assert!(noted(path).is_empty(), "{path}");
    }
    for path in [
        "/brokers/ids/1",
        "/brokers/topics/t",
        "/brokers/topics/t/partitions/0/state",
        "/admin/delete_topics/t",
        "/admin/reassign_partitions",
        "/isr_change_notification/isr_change_0000000000",
        "/config/changes/config_change_0000000000",
    ] {
        assert!(!noted(path).is_empty(), "{path}");
    }
}
