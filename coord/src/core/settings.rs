//! Kafka's settings: what each is called, what it may be, what it does here.
//!
//! ```text
//!   text "604800000"  --parse-->  Value::Long  --resolve-->  TopicConfig.retention_ms
//!
//!   a topic's value =  its override          /config/topics/T      DYNAMIC_TOPIC_CONFIG
//!                 else the broker's synonym  /config/brokers/N     DYNAMIC_BROKER_CONFIG
//!                                            /config/brokers/<default>
//!                                                          DYNAMIC_DEFAULT_BROKER_CONFIG
//!                                            flags, file           STATIC_BROKER_CONFIG
//!                 else the default           this table            DEFAULT_CONFIG
//! ```
//!
//! Names, types, ranges and defaults are those of Kafka 4 (`LogConfig`,
//! `ServerLogConfigs`, `SocketServerConfigs`, `GroupCoordinatorConfig`), so that an
//! operator's knowledge and tools carry over. Where Klamm differs, the entry's `doc`
//! says so. A setting is listed only if it does something here, or if leaving it
//! without effect harms no one; then its `doc` says that too. A value that Klamm
//! cannot honour is refused, never swallowed.

pub mod broker;
pub mod describe;
pub mod topic;

pub use broker::BrokerConfig;
pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym};
pub use topic::{TimestampType, TopicConfig};

use std::fmt;

/// One setting's entry in the registry.
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    pub kind: Kind,
    /// As text; None: not set (Kafka's null).
    pub default: Option<&'static str>,
    pub valid: Valid,
    /// What it does here, in a sentence or two.
    pub doc: &'static str,
    /// Whether AlterConfigs may change it while the broker runs.
    pub dynamic: bool,
}

/// A setting's type, as DescribeConfigs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Long,
    Double,
    /// Comma-separated.
    List,
    Class,
    Password,
}

impl Kind {
    /// DescribeConfigs' `config_type` (Kafka's `DescribeConfigsResponse.ConfigType`).
    #[must_use]
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }
}

/// Which values a setting takes, beyond its type.
#[derive(Clone, Copy, Debug)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// For doubles.
    Fraction,
    OneOf(&'static [&'static str]),
    /// Kafka knows more values; these are the ones that Klamm can honour today.
    /// `missing` says what the others wait for.
    OnlyYet {
        possible: &'static [&'static str],
        kafka: &'static [&'static str],
        missing: &'static str,
    },
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    String(String),
    Int(i32),
    Long(i64),
    Double(f64),
    List(Vec<String>),
}

/// Why a setting was refused, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    pub name: String,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no setting of that name for a topic, or for a broker.
    Unknown { scope: &'static str },
    /// What is wrong with the value, and which values would do.
    Bad(String),
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Unknown { scope } => {
                write!(
                    f,
                    "{:?} is not a {scope} setting that Klamm knows",
                    self.name
                )
            }
            Reason::Bad(what) => write!(f, "{}: {what}", self.name),
        }
    }
}

impl std::error::Error for SettingError {}

impl Setting {
    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        default: Option<&'static str>,
        valid: Valid,
        doc: &'static str,
    ) -> Setting {
        Setting {
            name,
            kind,
            default,
            valid,
            doc,
            dynamic: false,
        }
    }

    pub(super) const fn dynamic(mut self) -> Setting {
        self.dynamic = true;
        self
    }

    /// Reads a value as it was written in a file, a flag or a request. Blanks around
    /// it do not count.
    pub fn parse(&self, text: &str) -> Result<Value, SettingError> {
        let text = text.trim();
        let bad = |what: String| SettingError {
            name: self.name.to_owned(),
            reason: Reason::Bad(what),
        };
        let value = match self.kind {
            Kind::Boolean if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
            Kind::Boolean if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
            Kind::Boolean => return Err(bad(format!("{text:?} is neither true nor false"))),
            Kind::Int => Value::Int(text.parse().map_err(|_| {
                bad(format!(
                    "{text:?} is not a whole number of 32 bits{}",
                    self.valid.hint()
                ))
            })?),
            Kind::Long => Value::Long(text.parse().map_err(|_| {
                bad(format!(
                    "{text:?} is not a whole number of 64 bits{}",
                    self.valid.hint()
                ))
            })?),
            Kind::Double => Value::Double(
                text.parse()
                    .ok()
                    .filter(|d: &f64| d.is_finite())
                    .ok_or_else(|| bad(format!("{text:?} is not a number{}", self.valid.hint())))?,
            ),
            Kind::List if text.is_empty() => Value::List(Vec::new()),
            Kind::List => Value::List(text.split(',').map(|item| item.trim().to_owned()).collect()),
            Kind::String | Kind::Class | Kind::Password => Value::String(text.to_owned()),
        };
        self.valid
            .check(&value)
            .map_err(|what| bad(format!("{text:?} {what}")))?;
        Ok(value)
    }

    /// The default as a value; None where there is none.
    #[must_use]
    pub fn default_value(&self) -> Option<Value> {
        self.default.map(|text| {
            self.parse(text)
                .expect("a default in the registry is valid")
        })
    }

    /// Whether DescribeConfigs must hide the value.
    #[must_use]
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }
}

impl Valid {
    /// What would be right, for the end of a message.
    fn hint(&self) -> String {
        match self {
            Valid::AtLeast(min) => format!("; give one of at least {min}"),
            Valid::Between(min, max) => format!("; give one from {min} to {max}"),
            Valid::Fraction => "; give one from 0 to 1".to_owned(),
            Valid::Any | Valid::OneOf(_) | Valid::OnlyYet { .. } => String::new(),
        }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Valid::Any, _) => Ok(()),
            (Valid::AtLeast(min), v) if v.as_i64() >= *min => Ok(()),
            (Valid::AtLeast(min), _) => Err(format!("is below the smallest value, {min}")),
            (Valid::Between(min, max), v) if (*min..=*max).contains(&v.as_i64()) => Ok(()),
            (Valid::Between(min, max), _) => Err(format!("is not from {min} to {max}")),
            (Valid::Fraction, Value::Double(d)) if (0.0..=1.0).contains(d) => Ok(()),
            (Valid::Fraction, _) => Err("is not from 0 to 1".to_owned()),
            (Valid::OneOf(values), v) => {
                match v.items().iter().find(|i| !values.contains(&i.as_str())) {
                    None => Ok(()),
                    Some(item) => Err(format!("has {item:?}; possible: {}", values.join(", "))),
                }
            }
            (Valid::OnlyYet { possible, .. }, v) if v.items().is_empty() => {
                Err(format!("names nothing; possible: {}", possible.join(", ")))
            }
            (
                Valid::OnlyYet {
                    possible,
                    kafka,
                    missing,
                },
                v,
            ) => match v.items().iter().find(|i| !possible.contains(&i.as_str())) {
                None => Ok(()),
                Some(item) if kafka.contains(&item.as_str()) => Err(format!(
                    "is not there yet: {missing}; possible today: {}",
                    possible.join(", ")
                )),
                Some(item) => Err(format!("has {item:?}; possible: {}", possible.join(", "))),
            },
        }
    }
}

impl Value {
    /// For the checks and the typed structs; the registry pairs type and use.
    fn as_i64(&self) -> i64 {
        match self {
            Value::Int(v) => i64::from(*v),
            Value::Long(v) => *v,
            other => unreachable!("{other:?} is used as a whole number"),
        }
    }

    fn items(&self) -> Vec<String> {
        match self {
            Value::List(items) => items.clone(),
            Value::String(item) => vec![item.clone()],
            Value::Boolean(b) => vec![b.to_string()],
            other => unreachable!("{other:?} is used as text"),
        }
    }
}

impl fmt::Display for Value {
    /// As Kafka writes it into an answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(v) => v.fmt(f),
            Value::String(v) => v.fmt(f),
            Value::Int(v) => v.fmt(f),
            Value::Long(v) => v.fmt(f),
            Value::Double(v) => v.fmt(f),
            Value::List(v) => f.write_str(&v.join(",")),
        }
    }
}

/// Reads one topic setting: `parse_topic("retention.ms", "1000")`.
pub fn parse_topic(name: &str, text: &str) -> Result<Value, SettingError> {
    topic::find(name)
        .ok_or_else(|| unknown(name, "topic"))?
        .setting
        .parse(text)
}

/// Reads one broker setting: `parse_broker("num.partitions", "3")`.
pub fn parse_broker(name: &str, text: &str) -> Result<Value, SettingError> {
    broker::find(name)
        .ok_or_else(|| unknown(name, "broker"))?
        .parse(text)
}

pub(super) fn unknown(name: &str, scope: &'static str) -> SettingError {
    SettingError {
        name: name.to_owned(),
        reason: Reason::Unknown { scope },
    }
}
