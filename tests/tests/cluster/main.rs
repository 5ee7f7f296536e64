//! Three brokers that share one coordinator: Klamm's own in the first of them, and an
//! ensemble of three Apache ZooKeepers.
//!
//! ```text
//!   hosted      broker 1 [tree] <-- brokers 2, 3        kept_by     zk1 zk2 zk3
//!                                                                    ^   ^   ^
//!                                                            brokers 1,  2,  3
//!   the same chapters on both:
//!     the tree is Kafka's, topics spread, clients find leaders, groups,
//!     topics by hand, two creators of one topic, a broker dies and comes back
//!   and each its own:
//!     the host dies and comes back                      a ZooKeeper dies under load
//! ```
//!
//! A chapter leaves the cluster whole. Nothing sleeps for a time that is guessed: what is
//! to come is polled for.

mod asking;
mod chapters;
mod clients;
mod load;

use chapters as chapter;
use klamm_tests::apache_zookeeper::find_or_say_skipped;
use klamm_tests::broker::Setup;
use klamm_tests::cluster::Cluster;
use klamm_tests::ensemble::Ensemble;

const ZOOKEEPER: &str = "3.9.5";

/// Long enough for a machine that stalls, short enough to wait for its end.
const SESSION_MS: &str = "4000";

fn setup() -> Setup {
    Setup::default()
        .flag("--cores", "1")
        .setting("zookeeper.session.timeout.ms", SESSION_MS)
        .setting("group.initial.rebalance.delay.ms", 0)
}

#[test]
fn kept_by_the_first_broker() {
    let mut cluster = Cluster::hosted(3, &setup());
    chapter::the_tree_is_kafkas(&cluster);
    chapter::topics_are_spread(&cluster);
    chapter::clients_find_leaders(&cluster);
    chapter::a_group_is_one_everywhere(&cluster);
    chapter::topics_by_hand(&cluster);
    chapter::two_create_one_topic(&cluster);
    chapter::the_controller_is_deleted(&cluster);
    chapter::a_broker_leaves_and_comes_back(&mut cluster);
    chapter::a_broker_dies_and_comes_back(&mut cluster, 2);
    chapter::a_broker_sleeps_past_its_session(&mut cluster, 3);
    chapter::the_host_dies_and_comes_back(&mut cluster);
    chapter::the_others_stop_without_the_host(&mut cluster);
}

#[test]
fn kept_by_an_ensemble() {
    let Some(release) = find_or_say_skipped(ZOOKEEPER, "a cluster on an ensemble") else {
        return;
    };
    let mut ensemble = Ensemble::start(&release);
    // Brokers connect to the first: its death is then everybody's business.
    let mut keepers = ensemble.addresses();
    let leader = ensemble.leader();
    keepers.swap(0, leader);
    let mut cluster = Cluster::kept_by(keepers, "/kafka/klamm", 3, &setup());
    chapter::the_tree_is_kafkas(&cluster);
    chapter::topics_are_spread(&cluster);
    chapter::clients_find_leaders(&cluster);
    chapter::a_group_is_one_everywhere(&cluster);
    chapter::topics_by_hand(&cluster);
    chapter::two_create_one_topic(&cluster);
    chapter::the_controller_is_deleted(&cluster);
    chapter::a_broker_leaves_and_comes_back(&mut cluster);
    chapter::a_zookeeper_dies_under_load(&cluster, &mut ensemble);
    chapter::the_ensemble_is_away(&cluster, &mut ensemble);
    let controller = chapter::controller(&cluster);
    chapter::a_broker_dies_and_comes_back(&mut cluster, controller);
    let controller = chapter::controller(&cluster);
    chapter::a_broker_sleeps_past_its_session(&mut cluster, controller);
}
