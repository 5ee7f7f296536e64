//! What the cluster is now, read from its znodes and kept up as they change.

use super::Overrides;
use super::znodes::{self, TopicNode};
use crate::core::Zxid;
use crate::core::image::{Broker, Image, Topic};
use crate::core::settings::{BrokerConfig, TopicConfig};
use crate::core::tree::{Event, Tree};
use klamm_engine::units::TopicId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The current topics, brokers and settings. The maps are shared with the image that
/// was published last and copied at the first change after it, so that a thousand
/// changes between two images copy once.
#[derive(Debug)]
pub struct Cluster {
    /// As this broker was started, before `/config/brokers`.
    given: BrokerConfig,
    settings: Arc<BrokerConfig>,
    /// What a topic without overrides has: one for all of them.
    plain: Arc<TopicConfig>,
    cluster_id: Arc<str>,
    brokers: BTreeMap<i32, Arc<Broker>>,
    topics: Arc<BTreeMap<Arc<str>, Arc<Topic>>>,
    by_id: Arc<HashMap<TopicId, Arc<Topic>>>,
    /// Names with every `.` as `_`, to find those that differ in nothing else.
    unified: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// Replicas of all partitions, for the limit on them.
    replicas: usize,
    /// Whom `/controller` names, alive or not.
    controller: Option<i32>,
    controller_epoch: i32,
    /// Topics that went since somebody asked.
    gone: Vec<Arc<str>>,
}

impl Cluster {
    /// Reads everything.
    #[must_use]
    pub fn read(tree: &Tree, given: BrokerConfig) -> Cluster {
        let settings = Arc::new(given.clone());
        let mut cluster = Cluster {
            given,
            plain: Arc::new(TopicConfig::resolve_valid(&Overrides::new(), &settings)),
            settings,
            cluster_id: "".into(),
            brokers: BTreeMap::new(),
            topics: Arc::default(),
            by_id: Arc::default(),
            unified: BTreeMap::new(),
            replicas: 0,
            controller: None,
            controller_epoch: 0,
            gone: Vec::new(),
        };
        cluster.read_cluster_id(tree);
        cluster.read_controller(tree);
        cluster.read_settings(tree);
        cluster.read_brokers(tree);
        let names: Vec<String> = tree
            .children(znodes::TOPICS)
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect();
        for name in names {
            cluster.read_topic(tree, &name);
        }
        cluster
    }

    /// Takes in what changed in the tree. True where an image would differ.
    pub fn follow(&mut self, tree: &Tree, events: &[Event]) -> bool {
        let mut topics = BTreeSet::new();
        let (mut brokers, mut settings, mut cluster_id) = (false, false, false);
        let mut controller = false;
        for event in events {
            let path = event.path.as_str();
            if let Some(rest) =
                within(path, znodes::TOPICS).or_else(|| within(path, znodes::TOPIC_CONFIGS))
            {
                topics.insert(rest.split('/').next().unwrap_or(rest));
            } else if within(path, znodes::BROKERS).is_some() {
                brokers = true;
            } else if within(path, znodes::BROKER_CONFIGS).is_some() {
                settings = true;
            } else if path == znodes::CLUSTER_ID {
                cluster_id = true;
            } else if path == znodes::CONTROLLER || path == znodes::CONTROLLER_EPOCH {
                controller = true;
            }
        }
        if controller {
            self.read_controller(tree);
        }
        if cluster_id {
            self.read_cluster_id(tree);
        }
        if brokers {
            self.read_brokers(tree);
        }
        for name in &topics {
            self.read_topic(tree, name);
        }
        if settings {
            self.read_settings(tree);
        }
        cluster_id || controller || brokers || settings || !topics.is_empty()
    }

    /// The topics that went since the last call: what others keep about them goes too.
    pub fn take_gone(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.gone)
    }

    #[must_use]
    pub fn image(&self, zxid: Zxid) -> Image {
        Image {
            zxid,
            cluster_id: self.cluster_id.clone(),
            controller: self.controller.filter(|id| self.brokers.contains_key(id)),
            brokers: self.brokers.clone(),
            settings: self.settings.clone(),
            topics: self.topics.clone(),
            by_id: self.by_id.clone(),
        }
    }

    #[must_use]
    pub fn settings(&self) -> &Arc<BrokerConfig> {
        &self.settings
    }

    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    #[must_use]
    pub fn brokers(&self) -> &BTreeMap<i32, Arc<Broker>> {
        &self.brokers
    }

    /// Whom `/controller` names.
    #[must_use]
    pub fn controller(&self) -> Option<i32> {
        self.controller
    }

    /// The term that decisions of now belong to; 0 before the first election.
    #[must_use]
    pub fn controller_epoch(&self) -> i32 {
        self.controller_epoch
    }

    /// All topics, in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Replicas of all partitions of all topics.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// Another topic whose name differs in nothing but `.` for `_`.
    #[must_use]
    pub fn colliding(&self, name: &str) -> Option<&Arc<str>> {
        self.unified
            .get(&unified(name))?
            .iter()
            .find(|other| &***other != name)
    }

    /// A topic's resolved settings, shared where it has no overrides.
    #[must_use]
    pub fn resolve(&self, overrides: &Overrides) -> Arc<TopicConfig> {
        if overrides.is_empty() {
            return self.plain.clone();
        }
        Arc::new(TopicConfig::resolve_valid(overrides, &self.settings))
    }

    // -- reading

    fn read_cluster_id(&mut self, tree: &Tree) {
        let id = tree
            .data(znodes::CLUSTER_ID)
            .flatten()
            .and_then(znodes::read_cluster_id);
        self.cluster_id = id.unwrap_or_default().into();
    }

    fn read_controller(&mut self, tree: &Tree) {
        self.controller = tree
            .data(znodes::CONTROLLER)
            .flatten()
            .and_then(znodes::read_controller);
        self.controller_epoch = tree
            .data(znodes::CONTROLLER_EPOCH)
            .flatten()
            .and_then(znodes::read_controller_epoch)
            .unwrap_or(self.controller_epoch);
    }

    fn read_brokers(&mut self, tree: &Tree) {
        self.brokers = tree
            .children(znodes::BROKERS)
            .into_iter()
            .flatten()
            .filter_map(|name| {
                let id = name.parse().ok()?;
                let broker = znodes::read_broker(id, tree.data(&znodes::broker(id))??)?;
                Some((id, Arc::new(broker)))
            })
            .collect();
    }

    /// A change of a broker's settings reaches every topic that inherits.
    fn read_settings(&mut self, tree: &Tree) {
        let layer = |id| znodes::read_config(tree.data(&znodes::broker_config(id)).flatten());
        let settings = self
            .given
            .with_dynamic(&layer(None), &layer(Some(self.given.broker_id)));
        if *self.settings == settings {
            return;
        }
        self.settings = Arc::new(settings);
        self.plain = Arc::new(TopicConfig::resolve_valid(
            &Overrides::new(),
            &self.settings,
        ));
        let all: Vec<Arc<Topic>> = self.topics.values().cloned().collect();
        for topic in all {
            let config = self.resolve(&topic.overrides);
            if topic.config != config {
                self.put(Arc::new(Topic {
                    config,
                    ..(*topic).clone()
                }));
            }
        }
    }

    /// A topic counts once its node can be read and its name is one: a name that a
    /// hand wrote into the tree must never become a folder on disk unchecked.
    fn read_topic(&mut self, tree: &Tree, name: &str) {
        let Some(data) = tree.data(&znodes::topic(name)) else {
            if let Some(topic) = self.take(name) {
                self.gone.push(topic.name.clone());
            }
            return;
        };
        // A topic whose node was overwritten with nonsense stays as it was known: its
        // data must not be dropped because of a slip.
        let Some((id, replicas)) = self
            .assignment(name, data)
            .or_else(|| self.known_assignment(name))
        else {
            return;
        };
        let partitions = (0..)
            .zip(replicas)
            .map(|(index, replicas)| {
                znodes::read_partition(replicas, tree.data(&znodes::state(name, index)).flatten())
            })
            .collect();
        let overrides = znodes::read_config(tree.data(&znodes::topic_config(name)).flatten());
        let config = self.resolve(&overrides);
        self.put(Arc::new(Topic {
            name: name.into(),
            id,
            partitions,
            overrides,
            config,
        }));
    }

    /// A topic's id and each partition's replicas, as its node tells them.
    fn assignment(&self, name: &str, data: Option<&[u8]>) -> Option<(TopicId, Vec<Vec<i32>>)> {
        super::topics::check_name(name).ok()?;
        let node = TopicNode::read(data?)?;
        let id = node.id?;
        let other = self.by_id.get(&id).filter(|other| &*other.name != name);
        other.is_none().then_some((id, node.replicas))
    }

    fn known_assignment(&self, name: &str) -> Option<(TopicId, Vec<Vec<i32>>)> {
        let topic = self.topics.get(name)?;
        let replicas = topic.partitions.iter().map(|p| p.replicas.clone());
        Some((topic.id, replicas.collect()))
    }

    fn put(&mut self, topic: Arc<Topic>) {
        self.take(&topic.name);
        self.replicas += topic
            .partitions
            .iter()
            .map(|p| p.replicas.len())
            .sum::<usize>();
        self.unified
            .entry(unified(&topic.name))
            .or_default()
            .insert(topic.name.clone());
        Arc::make_mut(&mut self.by_id).insert(topic.id, topic.clone());
        Arc::make_mut(&mut self.topics).insert(topic.name.clone(), topic);
    }

    fn take(&mut self, name: &str) -> Option<Arc<Topic>> {
        if !self.topics.contains_key(name) {
            return None;
        }
        let topic = Arc::make_mut(&mut self.topics)
            .remove(name)
            .expect("just seen");
        Arc::make_mut(&mut self.by_id).remove(&topic.id);
        self.replicas -= topic
            .partitions
            .iter()
            .map(|p| p.replicas.len())
            .sum::<usize>();
        let key = unified(name);
        let names = self.unified.get_mut(&key).expect("every topic is in it");
        names.remove(name);
        if names.is_empty() {
            self.unified.remove(&key);
        }
        Some(topic)
    }
}

fn unified(name: &str) -> String {
    name.replace('.', "_")
}

/// What of a path stands below `top`.
pub(super) fn within<'a>(path: &'a str, top: &str) -> Option<&'a str> {
    path.strip_prefix(top)?.strip_prefix('/')
}
