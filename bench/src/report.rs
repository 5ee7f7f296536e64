//! What a run has to say: a short table for people, JSON for scripts.
//!
//! ```text
//!   start: 1000 partitions, stopped cleanly; 5 starts
//!     first answer                    12.3 ms   (11.0 to 15.2)
//!     every partition's last batch   412.0 ms   (400.1 to 433.9)   aim: under 1000 ms, reached
//!   klamm: /.../klamm   cores: 2   load before: 0.41
//!   warning: ...
//! ```

use crate::Outcome;
use crate::broker::Binary;
use crate::process;
use serde_json::{Value, json};
use std::fmt;
use std::thread;

/// Above this share of the cores wanted by others before we begin, figures of time
/// are theirs as much as ours.
const BUSY: f64 = 0.25;

pub struct Report {
    /// The subcommand.
    name: &'static str,
    workload: String,
    klamm: String,
    machine_cores: usize,
    load: f64,
    warnings: Vec<String>,
    figures: Vec<Figure>,
}

/// One number.
pub struct Figure {
    /// What it is called in JSON.
    id: &'static str,
    label: &'static str,
    unit: &'static str,
    value: f64,
    /// The least and the greatest, where `value` is a median.
    spread: Option<(f64, f64)>,
    under: Option<f64>,
}

impl Figure {
    pub fn new(id: &'static str, label: &'static str, value: f64, unit: &'static str) -> Figure {
        Figure {
            id,
            label,
            unit,
            value,
            spread: None,
            under: None,
        }
    }

    /// The median of an odd number of measurements, or the upper one of the middle two.
    pub fn median(
        id: &'static str,
        label: &'static str,
        mut of: Vec<f64>,
        unit: &'static str,
    ) -> Figure {
        of.sort_by(f64::total_cmp);
        let figure = Figure::new(id, label, of[of.len() / 2], unit);
        Figure {
            spread: Some((of[0], of[of.len() - 1])),
            ..figure
        }
    }

    #[must_use]
    pub fn aim_under(self, limit: f64) -> Figure {
        Figure {
            under: Some(limit),
            ..self
        }
    }

    fn json(&self) -> Value {
        let mut figure =
            json!({ "figure": self.id, "unit": self.unit, "value": rounded(self.value) });
        if let Some((min, max)) = self.spread {
            figure["min"] = rounded(min).into();
            figure["max"] = rounded(max).into();
        }
        if let Some(limit) = self.under {
            figure["aim_under"] = limit.into();
            figure["reached"] = (self.value < limit).into();
        }
        figure
    }
}

impl Report {
    /// Made before the run: the load is that of the others.
    pub fn new(name: &'static str, workload: String, klamm: &Binary) -> Outcome<Report> {
        let machine_cores = thread::available_parallelism().map_or(1, usize::from);
        let load = process::load()?;
        let mut warnings = Vec::new();
        if klamm.is_debug() {
            warnings.push(
                "the broker is a debug build: its figures say nothing of a release".to_owned(),
            );
        }
        if cfg!(debug_assertions) {
            warnings.push(
                "klamm-bench is a debug build: it takes more CPU from the broker than it should"
                    .to_owned(),
            );
        }
        #[allow(clippy::cast_precision_loss)] // a number of cores
        if load > BUSY * machine_cores as f64 {
            warnings.push(format!(
                "the machine was busy before the run (load {load:.1} on {machine_cores} cores): \
                 times and rates are not the broker's own"
            ));
        }
        let klamm = klamm.path.display().to_string();
        Ok(Report {
            name,
            workload,
            klamm,
            machine_cores,
            load,
            warnings,
            figures: Vec::new(),
        })
    }

    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub fn json(&self) -> Value {
        json!({
            "bench": self.name,
            "workload": self.workload,
            "klamm": self.klamm,
            "machine_cores": self.machine_cores,
            "load_before": self.load,
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.workload)?;
        let wide = self
            .figures
            .iter()
            .map(|figure| figure.label.len())
            .max()
            .unwrap_or(0);
        for figure in &self.figures {
            write!(
                f,
                "  {:wide$}  {:>10} {}",
                figure.label,
                figures(figure.value),
                figure.unit
            )?;
            if let Some((min, max)) = figure.spread {
                write!(f, "  ({} to {})", figures(min), figures(max))?;
            }
            if let Some(limit) = figure.under {
                let reached = if figure.value < limit {
                    "reached"
                } else {
                    "NOT reached"
                };
                write!(f, "  aim: under {limit} {}, {reached}", figure.unit)?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "  klamm: {}, machine: {} cores, load before: {:.2}",
            self.klamm, self.machine_cores, self.load
        )?;
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

/// Three figures that mean something, or all of a whole number.
fn figures(value: f64) -> String {
    let decimals = match value.abs() {
        at_least if at_least >= 100.0 => 0,
        at_least if at_least >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_keeps_its_spread_and_an_aim_is_held_against_it() {
        let figure = Figure::median("start", "start", vec![9.0, 1.0, 3.0], "ms").aim_under(3.0);
        let json = figure.json();
        assert_eq!(
            (
                json["value"].as_f64(),
                json["min"].as_f64(),
                json["max"].as_f64()
            ),
            (Some(3.0), Some(1.0), Some(9.0))
        );
        assert_eq!(
            json["reached"].as_bool(),
            Some(false),
            "an aim is to be under it"
        );
    }

    #[test]
    fn three_figures_are_shown() {
        assert_eq!(figures(1234.56), "1235");
        assert_eq!(figures(12.345), "12.3");
        assert_eq!(figures(0.123), "0.12");
    }
}
