//! What DescribeConfigs tells of a topic or a broker.

use super::{BrokerConfig, Setting, broker, topic};
use std::collections::BTreeMap;

/// Where a value comes from. The numbers are Kafka's
/// (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    DynamicTopic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

impl ConfigSource {
    #[must_use]
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// One setting of one resource, as an answer carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    /// None: not set, or hidden because it is a secret.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub read_only: bool,
    pub sensitive: bool,
    /// `Kind::code`.
    pub config_type: i8,
    pub doc: &'static str,
    /// Every place that has a value, the one that counts first.
    pub synonyms: Vec<ConfigSynonym>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: ConfigSource,
}

impl ConfigEntry {
    /// DescribeConfigs v0 has this instead of the source.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }

    fn new(
        setting: &'static Setting,
        value: Option<String>,
        synonyms: Vec<ConfigSynonym>,
    ) -> ConfigEntry {
        let hidden = setting.is_sensitive();
        ConfigEntry {
            name: setting.name,
            value: value.filter(|_| !hidden),
            source: synonyms.first().map_or(ConfigSource::Default, |s| s.source),
            read_only: !setting.dynamic,
            sensitive: hidden,
            config_type: setting.kind.code(),
            doc: setting.doc,
            synonyms: if hidden {
                synonyms
                    .into_iter()
                    .map(|s| ConfigSynonym { value: None, ..s })
                    .collect()
            } else {
                synonyms
            },
        }
    }
}

/// A topic's settings, all or those named, in the order of their names. Names that
/// are no settings are left out, as Kafka does.
#[must_use]
pub fn topic(
    overrides: &BTreeMap<String, String>,
    config: &BrokerConfig,
    names: Option<&[String]>,
) -> Vec<ConfigEntry> {
    let wanted = |name: &str| names.is_none_or(|n| n.iter().any(|n| n == name));
    let mut entries = Vec::new();
    for entry in topic::SETTINGS.iter().filter(|t| wanted(t.setting.name)) {
        let setting = &entry.setting;
        let mut synonyms = Vec::new();
        let mut value = topic::inherited(entry, config).to_string();
        if let Some(text) = overrides.get(setting.name) {
            value.clone_from(text);
            synonyms.push(ConfigSynonym {
                name: setting.name,
                value: Some(text.clone()),
                source: ConfigSource::DynamicTopic,
            });
        }
        let mut default = None;
        for (name, _) in entry.synonyms {
            let broker = broker::find(name).expect("a synonym is in the registry");
            for (text, source) in config.layers(name) {
                let synonym = ConfigSynonym {
                    name: broker.name,
                    value: Some(text),
                    source,
                };
                match source {
                    ConfigSource::Default => default = default.or(Some(synonym)),
                    _ => synonyms.push(synonym),
                }
            }
        }
        synonyms.extend(default.or_else(|| {
            let value = setting.default.map(str::to_owned);
            entry.synonyms.is_empty().then_some(ConfigSynonym {
                name: setting.name,
                value,
                source: ConfigSource::Default,
            })
        }));
        entries.push(ConfigEntry::new(setting, Some(value), synonyms));
    }
    entries
}

/// A broker's settings, all or those named, in the order of their names.
#[must_use]
pub fn broker(config: &BrokerConfig, names: Option<&[String]>) -> Vec<ConfigEntry> {
    let wanted = |name: &str| names.is_none_or(|n| n.iter().any(|n| n == name));
    broker::SETTINGS
        .iter()
        .filter(|s| wanted(s.name))
        .map(|setting| {
            let synonyms: Vec<_> = config
                .layers(setting.name)
                .into_iter()
                .map(|(text, source)| ConfigSynonym {
                    name: setting.name,
                    value: Some(text),
                    source,
                })
                .collect();
            let value = synonyms.first().and_then(|s| s.value.clone());
            ConfigEntry::new(setting, value, synonyms)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_entry_names_every_place_that_has_a_value() {
        let given = [("log.retention.hours", "2"), ("log.retention.ms", "500")];
        let config = BrokerConfig::new(given.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        let overrides = BTreeMap::from([("retention.ms".to_owned(), "7".to_owned())]);
        let names = ["retention.ms".to_owned(), "no.such.setting".to_owned()];

        let entries = topic(&overrides, &config, Some(&names));
        let [entry] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        assert_eq!(
            (entry.value.as_deref(), entry.source),
            (Some("7"), ConfigSource::DynamicTopic)
        );
        assert!(!entry.read_only && !entry.is_default());
        let places: Vec<_> = entry
            .synonyms
            .iter()
            .map(|s| (s.name, s.value.as_deref().unwrap(), s.source))
            .collect();
        assert_eq!(
            places,
            [
                ("retention.ms", "7", ConfigSource::DynamicTopic),
                ("log.retention.ms", "500", ConfigSource::StaticBroker),
                ("log.retention.hours", "2", ConfigSource::StaticBroker),
                ("log.retention.hours", "168", ConfigSource::Default),
            ]
        );

        let inherited = &topic(&BTreeMap::new(), &config, Some(&names))[0];
        assert_eq!(
            (inherited.value.as_deref(), inherited.source),
            (Some("500"), ConfigSource::StaticBroker)
        );
    }

    #[test]
    fn without_names_every_setting_is_told_with_its_default() {
        let config = BrokerConfig::default();
        let topics = topic(&BTreeMap::new(), &config, None);
        assert_eq!(topics.len(), super::topic::SETTINGS.len());
        assert!(
            topics
                .iter()
                .all(|e| e.is_default() && e.value.is_some() && !e.synonyms.is_empty()),
            "{topics:#?}"
        );
        let brokers = broker(&config, None);
        let find = |name: &str| brokers.iter().find(|e| e.name == name).unwrap();
        assert!(find("num.partitions").read_only);
        assert!(!find("log.retention.ms").read_only);
        assert_eq!(find("log.retention.ms").value, None);
        assert_eq!(find("log.retention.hours").value.as_deref(), Some("168"));
    }
}
