//! The nodes that clients are told of: a broker is one, or one for each of its cores.
//!
//! Clients connect to the node that leads a partition. Where each core of a broker has a
//! port of its own (`klamm.core.ports`), each is a node, so that a client's connection is
//! accepted on the core where the partition lives, and its requests cross to no other.
//!
//! ```text
//!   /brokers/ids/7   PLAINTEXT://h:9092          the port that all cores accept at
//!                    PLAINTEXT-CORE-0://h:9093   core 0 alone: node 7
//!                    PLAINTEXT-CORE-1://h:9094   core 1 alone: node 1000007
//!
//!   partition --home_shard(id, 2)--> core 1      leader, replicas, in-sync: 1000007
//!   controller, group coordinator                7: the coordinator runs on core 0
//! ```
//!
//! Every broker of a cluster reads this off the registrations, so all of them say the same
//! of each other's cores, and the number of cores may be another after a start.
//!
//! Nodes are only what clients are told. In the tree, and wherever a client names a broker
//! to do something with it, there are brokers. A core serves every request, also for what
//! does not live there: a client that goes by an old answer loses nothing but the hop.

use crate::kafka::errors::{Code, Failure};
use klamm_coord::core::cluster::ConfigResource;
use klamm_coord::core::image::{Broker, Endpoint, Image};
use klamm_engine::shard::home_shard;
use klamm_engine::units::PartitionId;
use std::collections::BTreeMap;

/// From the node id of a core to that of the next; broker ids are below it where cores have
/// ports of their own. A person reads both off a node id, and the last of 256 cores is
/// still below 2^31.
pub const NODE_ID_STEP: i32 = 1_000_000;

/// The listener of one core, beside that of all.
#[must_use]
pub fn core_listener(listener: &str, core: usize) -> String {
    format!("{listener}-CORE-{core}")
}

/// One node, as it stands in a list of brokers.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    pub id: i32,
    pub endpoint: &'a Endpoint,
    pub rack: Option<&'a str>,
}

/// The nodes of one image, for clients of one listener.
pub struct Nodes<'a> {
    /// Of each broker one, or one a core in the order of the cores.
    brokers: BTreeMap<i32, Vec<Node<'a>>>,
}

impl<'a> Nodes<'a> {
    #[must_use]
    pub fn of(image: &'a Image, listener: &str) -> Nodes<'a> {
        let brokers = image.brokers.values();
        let brokers = brokers
            .map(|broker| (broker.id, nodes_of(broker, listener, image)))
            .filter(|(_, nodes)| !nodes.is_empty())
            .collect();
        Nodes { brokers }
    }

    /// All of them, each once.
    pub fn all(&self) -> impl Iterator<Item = Node<'a>> {
        self.brokers.iter().flat_map(|(broker, nodes)| {
            let cores = nodes.iter().enumerate();
            cores.filter_map(|(core, node)| (core == 0 || node.id != *broker).then_some(*node))
        })
    }

    /// A broker, for what is no partition's.
    #[must_use]
    pub fn broker(&self, id: i32) -> Option<Node<'a>> {
        self.brokers.get(&id)?.first().copied()
    }

    /// The node of a broker that a partition has its home in, or would have it. A broker
    /// that is not there keeps its id.
    #[must_use]
    pub fn home(&self, broker: i32, partition: PartitionId) -> i32 {
        let Some(nodes) = self.brokers.get(&broker) else {
            return broker;
        };
        nodes[usize::from(home_shard(partition, nodes.len()).0)].id
    }
}

/// None where the broker has no address at all.
fn nodes_of<'a>(broker: &'a Broker, listener: &str, image: &Image) -> Vec<Node<'a>> {
    let node = |id, endpoint| Node {
        id,
        endpoint,
        rack: broker.rack.as_deref(),
    };
    let ports = core_ports(broker, listener);
    let Some(first) = ports.first().copied().or(broker.endpoint(listener)) else {
        return Vec::new();
    };
    let mut nodes = vec![node(broker.id, first)];
    for (core, endpoint) in ports.into_iter().enumerate().skip(1) {
        // A core that could be taken for another broker is not told apart: what lives there
        // is asked of the broker, and forwarded.
        nodes.push(match core_node(broker.id, core) {
            Some(id) if !image.brokers.contains_key(&id) => node(id, endpoint),
            _ => nodes[0],
        });
    }
    nodes
}

/// The ports of a broker's cores, from core 0 on.
fn core_ports<'a>(broker: &'a Broker, listener: &str) -> Vec<&'a Endpoint> {
    let port = |core| {
        let name = core_listener(listener, core);
        broker.endpoints.iter().find(|e| e.listener == name)
    };
    (0..).map_while(port).collect()
}

/// None where it would be that of another broker's core, or none at all.
fn core_node(broker: i32, core: usize) -> Option<i32> {
    let core = i32::try_from(core).ok()?;
    let is_ours = (0..NODE_ID_STEP).contains(&broker);
    is_ours.then(|| core.checked_mul(NODE_ID_STEP)?.checked_add(broker))?
}

/// The broker whose core a node is; None where it is no core, or that of a broker itself.
fn broker_of_core(image: &Image, listener: &str, node: i32) -> Option<i32> {
    let nodes = Nodes::of(image, listener);
    let mut brokers = nodes.brokers.into_iter();
    let (broker, _) =
        brokers.find(|(broker, nodes)| *broker != node && nodes.iter().any(|of| of.id == node))?;
    Some(broker)
}

/// What a question for settings means: a core has those of its broker. Tools ask every node
/// that they were told of.
pub fn described(resource: ConfigResource, image: &Image, listener: &str) -> ConfigResource {
    match resource {
        ConfigResource::Broker(Some(node)) => {
            let broker = broker_of_core(image, listener, node);
            ConfigResource::Broker(broker.or(Some(node)))
        }
        resource => resource,
    }
}

/// Refuses to change the settings of a core: it has none, and whoever changes them would
/// not expect that all other cores change with it.
pub fn alterable(resource: &ConfigResource, image: &Image, listener: &str) -> Result<(), Failure> {
    let ConfigResource::Broker(Some(node)) = resource else {
        return Ok(());
    };
    match broker_of_core(image, listener, *node) {
        Some(broker) => Err(Failure::new(
            Code::INVALID_REQUEST,
            format!(
                "node {node} is a core of broker {broker}: settings are the broker's, alter those"
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_coord::core::settings::BrokerConfig;
    use klamm_engine::units::TopicId;
    use std::sync::Arc;

    const LISTENER: &str = "PLAINTEXT";

    fn endpoint(listener: &str, port: u16) -> Endpoint {
        Endpoint {
            listener: listener.to_owned(),
            protocol: LISTENER.to_owned(),
            host: "h".to_owned(),
            port,
        }
    }

    /// Brokers by id, each with so many cores that have a port of their own. Ports are
    /// 100 a broker, the cores' behind that of all.
    fn cluster(brokers: &[(i32, usize)]) -> Image {
        let mut image = Image::empty("klamm-klamm-klamm-klam", BrokerConfig::default());
        for (at, (id, cores)) in brokers.iter().enumerate() {
            let port = 100 * (at as u16 + 1);
            let own = (0..*cores)
                .map(|core| endpoint(&core_listener(LISTENER, core), port + 1 + core as u16));
            let broker = Broker {
                id: *id,
                rack: None,
                endpoints: std::iter::once(endpoint(LISTENER, port))
                    .chain(own)
                    .collect(),
                hosts_coordinator: false,
            };
            image.brokers.insert(*id, Arc::new(broker));
        }
        image
    }

    /// A partition of a topic whose first one lives on core 0, whatever their number.
    fn partition(index: i32) -> PartitionId {
        PartitionId {
            topic: TopicId([0; 16]),
            index,
        }
    }

    #[test]
    fn each_core_with_a_port_is_a_node_and_core_0_is_the_broker() {
        for (brokers, nodes) in [
            (&[][..], &[][..]),
            (&[(1, 0)], &[(1, 100)]),
            (&[(1, 1)], &[(1, 101)]),
            (&[(7, 3)], &[(7, 101), (1_000_007, 102), (2_000_007, 103)]),
            // One has the option, the other has not.
            (&[(0, 2), (9, 0)], &[(0, 101), (1_000_000, 102), (9, 200)]),
            // Broker 1000001 is somebody else's: core 1 of broker 1 is not told of.
            (
                &[(1, 3), (1_000_001, 0)],
                &[(1, 101), (2_000_001, 103), (1_000_001, 200)],
            ),
            // Its core 1 would be core 2 of broker 1.
            (&[(1_000_001, 2)], &[(1_000_001, 101)]),
        ] {
            let image = cluster(brokers);
            let told: Vec<(i32, u16)> = Nodes::of(&image, LISTENER)
                .all()
                .map(|node| (node.id, node.endpoint.port))
                .collect();
            assert_eq!(told, nodes, "{brokers:?}");
        }
    }

    #[test]
    fn a_partitions_node_is_the_core_where_it_lives() {
        for (brokers, asked, homes) in [
            (&[(1, 0)][..], 1, [1, 1, 1, 1]),
            (&[(1, 1)], 1, [1, 1, 1, 1]),
            (&[(1, 2)], 1, [1, 1_000_001, 1, 1_000_001]),
            (&[(1, 3)], 1, [1, 1_000_001, 2_000_001, 1]),
            (&[(1, 3), (1_000_001, 0)], 1, [1, 1, 2_000_001, 1]),
            (&[(1, 2), (2, 3)], 2, [2, 1_000_002, 2_000_002, 2]),
            // It was there once.
            (&[(1, 2)], 5, [5, 5, 5, 5]),
        ] {
            let image = cluster(brokers);
            let nodes = Nodes::of(&image, LISTENER);
            let home = |index| nodes.home(asked, partition(index));
            assert_eq!([0, 1, 2, 3].map(home), homes, "{brokers:?}");
            for home in homes.iter().filter(|home| **home != 5) {
                assert!(nodes.all().any(|node| node.id == *home), "{home} is told");
            }
        }
    }

    #[test]
    fn what_is_no_partitions_is_the_coordinators_core() {
        let image = cluster(&[(1, 2), (2, 0)]);
        let nodes = Nodes::of(&image, LISTENER);
        let port = |id| nodes.broker(id).map(|node| node.endpoint.port);
        assert_eq!(
            [1, 2, 3, 1_000_001].map(port),
            [Some(101), Some(200), None, None]
        );
    }

    #[test]
    fn settings_of_a_core_are_its_brokers_to_read_and_to_change() {
        let image = cluster(&[(1, 2), (2, 0)]);
        for (node, broker) in [
            (1, None),
            (2, None),
            (1_000_001, Some(1)),
            (2_000_001, None),
        ] {
            let resource = ConfigResource::Broker(Some(node));
            let read = described(resource.clone(), &image, LISTENER);
            assert_eq!(read, ConfigResource::Broker(broker.or(Some(node))));
            let refused = alterable(&resource, &image, LISTENER).is_err();
            assert_eq!(refused, broker.is_some(), "{node}");
        }
        let topic = ConfigResource::Topic("t".to_owned());
        assert_eq!(described(topic.clone(), &image, LISTENER), topic);
    }
}
