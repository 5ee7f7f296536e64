//! What was measured, by figure and by server, until it is reported side by side.
//!
//! ```text
//!   create, 8 x 64   | Klamm            | 118000  121000  120000 |
//!                    | Apache ZooKeeper |  39000   41000   40000 |  -> medians, spreads, ratio
//! ```

use super::contender::{APACHE_ZOOKEEPER, Who};
use crate::report::{Aim, Figure, Report};

/// A figure, whoever it is taken of.
#[derive(Clone)]
pub struct Measure {
    pub id: String,
    pub label: String,
    pub unit: &'static str,
    pub aim: Option<Aim>,
}

pub fn measure(id: impl Into<String>, label: impl Into<String>, unit: &'static str) -> Measure {
    Measure {
        id: id.into(),
        label: label.into(),
        unit,
        aim: None,
    }
}

impl Measure {
    #[must_use]
    pub fn aim(self, aim: Aim) -> Measure {
        Measure {
            aim: Some(aim),
            ..self
        }
    }
}

/// In the order in which figures were first taken.
#[derive(Default)]
pub struct Comparison {
    rows: Vec<(Measure, [Vec<f64>; 2])>,
    warnings: Vec<String>,
}

impl Comparison {
    pub fn add(&mut self, who: Who, measure: &Measure, value: f64) {
        let at = match self.rows.iter().position(|(row, _)| row.id == measure.id) {
            Some(at) => at,
            None => {
                self.rows.push((measure.clone(), Default::default()));
                self.rows.len() - 1
            }
        };
        self.rows[at].1[who as usize].push(value);
    }

    /// What makes the figures worth less.
    pub fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    pub fn report(self, to: &mut Report) {
        self.warnings
            .into_iter()
            .for_each(|warning| to.warn(warning));
        for (
            Measure {
                id,
                label,
                unit,
                aim,
            },
            [klamm, zookeeper],
        ) in self.rows
        {
            let figure = match (klamm.is_empty(), zookeeper.is_empty()) {
                (false, true) => Figure::median(id, label, klamm, unit),
                (false, false) => {
                    Figure::median(id, label, klamm, unit).beside(APACHE_ZOOKEEPER, zookeeper)
                }
                // No aim of Klamm's is held against it.
                (true, _) => {
                    let label = format!("{label} ({APACHE_ZOOKEEPER})");
                    to.add(Figure::median(id, label, zookeeper, unit));
                    continue;
                }
            };
            to.add(match aim {
                Some(aim) => figure.aim(aim),
                None => figure,
            });
        }
    }
}
