//! Settings of topics and brokers: read, replaced, changed one by one.

use super::state::Cluster;
use super::topics::{check_configs, check_name, empty, known, put};
use super::{
    ClusterError, ClusterErrorKind as Kind, ConfigChange, ConfigOp, ConfigQuery, ConfigReplacement,
    ConfigResource, Overrides, znodes,
};
use crate::core::image::Image;
use crate::core::settings::{self, ConfigEntry, ConfigSource, Kind as Type, broker, describe};
use crate::core::stat::{Acl, Lifetime};
use crate::core::tree::{Op, Tree};
use std::collections::BTreeSet;

/// Kafka's numbers of resources (`ConfigResource.Type`).
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

impl ConfigResource {
    /// From a request's type and name. What is nothing that has settings here is told
    /// so when it is used, with its name in the answer.
    #[must_use]
    pub fn from_wire(kind: i8, name: &str) -> ConfigResource {
        match (kind, name.parse()) {
            (TOPIC, _) => ConfigResource::Topic(name.to_owned()),
            (BROKER, _) if name.is_empty() => ConfigResource::Broker(None),
            (BROKER, Ok(id)) => ConfigResource::Broker(Some(id)),
            _ => ConfigResource::Other(kind, name.to_owned()),
        }
    }

    /// The type and name for an answer.
    #[must_use]
    pub fn to_wire(&self) -> (i8, String) {
        match self {
            ConfigResource::Topic(name) => (TOPIC, name.clone()),
            ConfigResource::Broker(None) => (BROKER, String::new()),
            ConfigResource::Broker(Some(id)) => (BROKER, id.to_string()),
            ConfigResource::Other(kind, name) => (*kind, name.clone()),
        }
    }

    fn unknown(&self) -> ClusterError {
        let (kind, name) = self.to_wire();
        Kind::InvalidRequest.because(match kind {
            BROKER => format!("a broker's id is a number, or empty for all of them, not {name:?}"),
            _ => format!(
                "settings belong to topics (2) and brokers (4), not to {name:?} of type {kind}"
            ),
        })
    }
}

impl Image {
    /// DescribeConfigs for one resource.
    pub fn describe_configs(&self, query: &ConfigQuery) -> Result<Vec<ConfigEntry>, ClusterError> {
        let names = query.names.as_deref();
        match &query.resource {
            ConfigResource::Topic(name) => {
                check_name(name)?;
                let topic = self.topic(name).ok_or_else(|| {
                    Kind::UnknownTopicOrPartition.because(format!("there is no topic {name:?}"))
                })?;
                Ok(describe::topic(&topic.overrides, &self.settings, names))
            }
            ConfigResource::Broker(Some(id)) => {
                check_broker(*id, self.settings.broker_id)?;
                Ok(describe::broker(&self.settings, names))
            }
            // Of all brokers there is only what was set for all of them.
            ConfigResource::Broker(None) => {
                let mut entries = describe::broker(&self.settings, names);
                entries.retain_mut(|entry| {
                    entry
                        .synonyms
                        .retain(|s| s.source == ConfigSource::DynamicDefaultBroker);
                    entry.source = ConfigSource::DynamicDefaultBroker;
                    entry.value = entry.synonyms.first().and_then(|s| s.value.clone());
                    !entry.synonyms.is_empty()
                });
                Ok(entries)
            }
            resource @ ConfigResource::Other(..) => Err(resource.unknown()),
        }
    }
}

/// What AlterConfigs would do to one resource.
pub fn plan_replace(
    cluster: &Cluster,
    tree: &Tree,
    request: &ConfigReplacement,
) -> Result<Vec<Op>, ClusterError> {
    let place = Place::of(cluster, &request.resource)?;
    let configs = match place.scope {
        Scope::Topic => check_configs(&request.configs)?,
        Scope::Broker => {
            let mut configs = Overrides::new();
            for (name, value) in &request.configs {
                let Some(value) = value else {
                    return Err(Kind::InvalidConfig.because(format!("{name}: null is not a value")));
                };
                check_dynamic(name, value)?;
                if configs.insert(name.clone(), value.clone()).is_some() {
                    return Err(Kind::InvalidRequest.because(format!("{name} is given twice")));
                }
            }
            configs
        }
    };
    Ok(place.write(tree, &configs))
}

/// What IncrementalAlterConfigs would do to one resource.
pub fn plan_change(
    cluster: &Cluster,
    tree: &Tree,
    request: &ConfigChange,
) -> Result<Vec<Op>, ClusterError> {
    let place = Place::of(cluster, &request.resource)?;
    let mut configs = znodes::read_config(tree.data(&place.path).flatten());
    let mut seen = BTreeSet::new();
    for op in &request.ops {
        if !seen.insert(op.name.as_str()) {
            return Err(Kind::InvalidRequest.because(format!("{} is changed twice", op.name)));
        }
        place.change(cluster, &mut configs, op)?;
    }
    Ok(place.write(tree, &configs))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Topic,
    Broker,
}

/// Where a resource's settings stand.
struct Place {
    scope: Scope,
    path: String,
}

impl Place {
    fn of(cluster: &Cluster, resource: &ConfigResource) -> Result<Place, ClusterError> {
        match resource {
            ConfigResource::Topic(name) => {
                check_name(name)?;
                known(cluster, name)?;
                Ok(Place {
                    scope: Scope::Topic,
                    path: znodes::topic_config(name),
                })
            }
            ConfigResource::Broker(id) => {
                if let Some(id) = id {
                    check_broker(*id, cluster.settings().broker_id)?;
                }
                Ok(Place {
                    scope: Scope::Broker,
                    path: znodes::broker_config(*id),
                })
            }
            ConfigResource::Other(..) => Err(resource.unknown()),
        }
    }

    fn change(
        &self,
        cluster: &Cluster,
        configs: &mut Overrides,
        op: &ConfigOp,
    ) -> Result<(), ClusterError> {
        let name = &op.name;
        let value = match (op.op, &op.value) {
            (1, _) => {
                // Deleting a name that is no setting is a slip too, but a setting
                // that a later Klamm no longer has must be removable.
                if configs.remove(name).is_none() {
                    self.check_known(name)?;
                }
                return Ok(());
            }
            (0 | 2 | 3, None) => {
                return Err(Kind::InvalidRequest.because(format!("{name}: null is not a value")));
            }
            (0, Some(value)) => value.clone(),
            (2 | 3, Some(value)) => self.change_list(cluster, configs, name, op.op == 2, value)?,
            (other, _) => {
                return Err(Kind::InvalidRequest.because(format!(
                    "{name}: {other} is no operation; 0 sets, 1 deletes, 2 appends, 3 subtracts"
                )));
            }
        };
        match self.scope {
            Scope::Topic => settings::parse_topic(name, &value).map(|_| ())?,
            Scope::Broker => check_dynamic(name, &value)?,
        }
        configs.insert(name.clone(), value);
        Ok(())
    }

    /// A list with some items more, or fewer.
    fn change_list(
        &self,
        cluster: &Cluster,
        configs: &Overrides,
        name: &str,
        append: bool,
        value: &str,
    ) -> Result<String, ClusterError> {
        let setting = self.check_known(name)?;
        if setting.kind != Type::List {
            return Err(Kind::InvalidConfig.because(format!(
                "{name} is no list, so nothing can be added to it or taken from it"
            )));
        }
        let now = match (configs.get(name), self.scope) {
            (Some(text), _) => text.clone(),
            (None, Scope::Topic) => {
                describe::topic(configs, cluster.settings(), Some(&[name.to_owned()]))
                    .pop()
                    .and_then(|entry| entry.value)
                    .unwrap_or_default()
            }
            (None, Scope::Broker) => cluster
                .settings()
                .get(name)
                .map(|v| v.to_string())
                .unwrap_or_default(),
        };
        let items = |text: &str| -> Vec<String> {
            text.split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect()
        };
        let (mut list, changed) = (items(&now), items(value));
        if append {
            for item in changed {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
        } else {
            list.retain(|item| !changed.contains(item));
        }
        Ok(list.join(","))
    }

    fn check_known(&self, name: &str) -> Result<&'static settings::Setting, ClusterError> {
        match self.scope {
            Scope::Topic => settings::topic::find(name)
                .map(|t| &t.setting)
                .ok_or_else(|| settings::unknown(name, "topic").into()),
            Scope::Broker => {
                broker::find(name).ok_or_else(|| settings::unknown(name, "broker").into())
            }
        }
    }

    /// The settings, and the notice that they changed: brokers and tools that keep
    /// their own copy wait for the notice.
    fn write(&self, tree: &Tree, configs: &Overrides) -> Vec<Op> {
        let mut ops = vec![put(tree, &self.path, znodes::config_json(configs))];
        if !tree.exists(znodes::CONFIG_CHANGES) {
            ops.push(empty(znodes::CONFIG_CHANGES.to_owned()));
        }
        let entity = self.path.strip_prefix("/config/").unwrap_or(&self.path);
        ops.push(Op::Create {
            path: znodes::CONFIG_CHANGE.to_owned(),
            data: Some(znodes::config_change_json(entity)),
            acl: Acl::open(),
            lifetime: Lifetime::Persistent,
            sequential: true,
        });
        ops
    }
}

fn check_broker(id: i32, own: i32) -> Result<(), ClusterError> {
    if id == own {
        return Ok(());
    }
    Err(Kind::InvalidRequest.because(format!(
        "this is broker {own}; ask broker {id} itself for its settings"
    )))
}

fn check_dynamic(name: &str, value: &str) -> Result<(), ClusterError> {
    settings::parse_broker(name, value)?;
    match broker::find(name) {
        Some(setting) if setting.dynamic => Ok(()),
        _ => Err(Kind::InvalidRequest.because(format!(
            "{name} cannot change while the broker runs; set it at its start"
        ))),
    }
}
