//! The cluster as the data path sees it: immutable, shared, exchanged whole.
//!
//! ```text
//!   Image (Arc)  --+-- topics by name -- Arc<Topic> -- partitions, resolved config
//!                  +-- topics by id   -- (the same Arcs)
//!                  +-- brokers        -- Arc<Broker>
//!                  +-- settings       -- Arc<BrokerConfig>
//! ```
//!
//! Every shard holds the newest image and reads it without a lock. A change makes a
//! new image that shares every topic which did not change; what is copied is two maps
//! of pointers, at the first change after an image was published.

use crate::core::Zxid;
use crate::core::settings::{BrokerConfig, TopicConfig};
use klamm_engine::units::{LeaderEpoch, PartitionId, TopicId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What everyone knows of the cluster at one zxid.
#[derive(Clone, Debug)]
pub struct Image {
    /// The last change that is in it.
    pub zxid: Zxid,
    /// Kafka's cluster id: 22 characters of url-safe base64.
    pub cluster_id: Arc<str>,
    /// The broker that may be told to create topics; none before the first election.
    pub controller: Option<i32>,
    pub brokers: BTreeMap<i32, Arc<Broker>>,
    /// What this broker's settings are now: its file and flags, with the dynamic
    /// ones of `/config/brokers` over them.
    pub settings: Arc<BrokerConfig>,
    pub(super) topics: Arc<BTreeMap<Arc<str>, Arc<Topic>>>,
    pub(super) by_id: Arc<HashMap<TopicId, Arc<Topic>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    /// By partition index, without gaps.
    pub partitions: Vec<Partition>,
    /// The settings given to this topic, as they were written.
    pub overrides: BTreeMap<String, String>,
    /// All settings, resolved: override, else the broker's, else the default.
    pub config: Arc<TopicConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// None where no in-sync replica is alive.
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub rack: Option<String>,
    pub endpoints: Vec<Endpoint>,
    /// The cluster's coordinator runs in this broker's process.
    pub hosts_coordinator: bool,
}

/// Where clients reach a broker. `listener` is Kafka's listener name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub listener: String,
    pub protocol: String,
    pub host: String,
    pub port: u16,
}

impl Image {
    /// A cluster without brokers and topics.
    #[must_use]
    pub fn empty(cluster_id: &str, settings: BrokerConfig) -> Image {
        Image {
            zxid: Zxid::ZERO,
            cluster_id: cluster_id.into(),
            controller: None,
            brokers: Default::default(),
            settings: Arc::new(settings),
            topics: Arc::default(),
            by_id: Arc::default(),
        }
    }

    /// The same with one topic more, or with this one in the place of its namesake.
    #[must_use]
    pub fn with_topic(mut self, topic: Topic) -> Image {
        let topic = Arc::new(topic);
        let by_id = Arc::make_mut(&mut self.by_id);
        if let Some(before) =
            Arc::make_mut(&mut self.topics).insert(topic.name.clone(), topic.clone())
        {
            by_id.remove(&before.id);
        }
        by_id.insert(topic.id, topic);
        self
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic of that id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, in the order of their names.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// Which broker looks after a group. Where one of them has the coordinator inside it is
    /// that one, for all groups; else they share them out so that a broker which comes or
    /// goes moves no other groups than its own (rendezvous hashing).
    #[must_use]
    pub fn group_coordinator(&self, group: &str) -> Option<i32> {
        if let Some(host) = self.brokers.values().find(|b| b.hosts_coordinator) {
            return Some(host.id);
        }
        let weight = |id: i32| {
            let mut hash = crc32fast::Hasher::new();
            hash.update(group.as_bytes());
            hash.update(&id.to_be_bytes());
            // CRCs of like inputs are alike: mixed, so that the highest is anyone's.
            u64::from(hash.finalize())
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29)
                .wrapping_mul(0xBF58_476D_1CE4_E5B9)
        };
        self.brokers
            .keys()
            .copied()
            .max_by_key(|id| (weight(*id), *id))
    }

    /// The topic and partition behind a partition's identity.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<(&Arc<Topic>, &Partition)> {
        let topic = self.by_id.get(&id.topic)?;
        Some((topic, topic.partition(id.index)?))
    }
}

impl Topic {
    /// None where the index is negative or beyond the last partition.
    #[must_use]
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// As the answer to CreateTopics counts it: that of the first partition.
    #[must_use]
    pub fn replication_factor(&self) -> i16 {
        self.partitions
            .first()
            .map_or(0, |p| i16::try_from(p.replicas.len()).unwrap_or(i16::MAX))
    }
}

impl Broker {
    /// The endpoint of a listener name; the first one where there is none of that name.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|e| e.listener == listener)
            .or_else(|| self.endpoints.first())
    }
}
