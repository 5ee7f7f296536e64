//! What a run has to say: a short table for people, JSON for scripts.
//!
//! ```text
//!   start: 1000 partitions, stopped cleanly; 5 starts
//!     first answer                    12.3 ms   (11.0 to 15.2)
//!     every partition's last batch   412.0 ms   (400.1 to 433.9)   aim: under 1000 ms, reached
//!   klamm: /.../klamm   cores: 2   load before: 0.41
//!   warning: ...
//! ```
//!
//! A figure may stand beside another server's of the same run: then it is the ratio
//! that counts, on a machine that has other things to do.
//!
//! ```text
//!     create, 8 x 64   120000 /s (..)   Apache ZooKeeper: 40000 (..), 3.00 x   aim: at least 3 x, reached
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
    id: String,
    label: String,
    unit: &'static str,
    measured: Measured,
    /// The same of another server, by its name.
    beside: Option<(&'static str, Measured)>,
    aim: Option<Aim>,
}

/// A value, and the least and the greatest where it is a median.
#[derive(Clone, Copy)]
struct Measured {
    value: f64,
    spread: Option<(f64, f64)>,
}

impl Measured {
    /// The median of an odd number of measurements, or the upper one of the middle two.
    fn median(mut of: Vec<f64>) -> Measured {
        of.sort_by(f64::total_cmp);
        Measured {
            value: of[of.len() / 2],
            spread: (of.len() > 1).then(|| (of[0], of[of.len() - 1])),
        }
    }

    fn json(&self, into: &mut Value) {
        into["value"] = rounded(self.value).into();
        if let Some((min, max)) = self.spread {
            into["min"] = rounded(min).into();
            into["max"] = rounded(max).into();
        }
    }
}

/// What is wanted of a figure. The last two are of its ratio to the one beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    Under(f64),
    AtLeast(f64),
    TimesAtMost(f64),
    TimesAtLeast(f64),
}

impl Figure {
    pub fn new(
        id: impl Into<String>,
        label: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Figure {
        let spread = None;
        Figure {
            id: id.into(),
            label: label.into(),
            unit,
            measured: Measured { value, spread },
            beside: None,
            aim: None,
        }
    }

    /// With the least and the greatest, if there is more than one.
    pub fn median(
        id: impl Into<String>,
        label: impl Into<String>,
        of: Vec<f64>,
        unit: &'static str,
    ) -> Figure {
        let measured = Measured::median(of);
        Figure {
            measured,
            ..Figure::new(id, label, 0.0, unit)
        }
    }

    /// The median of what `server` did in the same run.
    #[must_use]
    pub fn beside(self, server: &'static str, of: Vec<f64>) -> Figure {
        Figure {
            beside: Some((server, Measured::median(of))),
            ..self
        }
    }

    #[must_use]
    pub fn aim(self, aim: Aim) -> Figure {
        Figure {
            aim: Some(aim),
            ..self
        }
    }

    #[must_use]
    pub fn aim_under(self, limit: f64) -> Figure {
        self.aim(Aim::Under(limit))
    }

    /// To the one beside it.
    fn ratio(&self) -> Option<f64> {
        let beside = self.beside.as_ref()?.1.value;
        (beside > 0.0).then_some(self.measured.value / beside)
    }

    /// None without an aim, and where the aim needs a figure that could not be had.
    fn reached(&self) -> Option<bool> {
        let value = self.measured.value;
        Some(match self.aim? {
            Aim::Under(limit) => value < limit,
            Aim::AtLeast(limit) => value >= limit,
            Aim::TimesAtMost(limit) => self.ratio()? <= limit,
            Aim::TimesAtLeast(limit) => self.ratio()? >= limit,
        })
    }

    fn json(&self) -> Value {
        let mut figure = json!({ "figure": self.id, "unit": self.unit });
        self.measured.json(&mut figure);
        if let Some((server, measured)) = &self.beside {
            let mut beside = json!({ "server": server });
            measured.json(&mut beside);
            figure["beside"] = beside;
            figure["ratio"] = self.ratio().map(rounded).into();
        }
        match self.aim {
            Some(Aim::Under(limit)) => figure["aim_under"] = limit.into(),
            Some(Aim::AtLeast(limit)) => figure["aim_at_least"] = limit.into(),
            Some(Aim::TimesAtMost(limit)) => figure["aim_ratio_at_most"] = limit.into(),
            Some(Aim::TimesAtLeast(limit)) => figure["aim_ratio_at_least"] = limit.into(),
            None => {}
        }
        if let Some(reached) = self.reached() {
            figure["reached"] = reached.into();
        }
        figure
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", figures(self.value))?;
        match self.spread {
            Some((min, max)) => write!(f, " ({} to {})", figures(min), figures(max)),
            None => Ok(()),
        }
    }
}

impl Report {
    /// Made before the run: the load is that of the others.
    pub fn new(name: &'static str, workload: String, klamm: Option<&Binary>) -> Outcome<Report> {
        let machine_cores = thread::available_parallelism().map_or(1, usize::from);
        let load = process::load()?;
        let mut warnings = Vec::new();
        if klamm.is_some_and(Binary::is_debug) {
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
        let klamm = klamm.map_or("not started".to_owned(), |k| k.path.display().to_string());
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

    /// Where it can be said only behind the run.
    pub fn workload(&mut self, workload: String) {
        self.workload = workload;
    }

    /// What makes the figures worth less.
    pub fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
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
            .map(|figure| figure.label.chars().count())
            .max()
            .unwrap_or(0);
        for figure in &self.figures {
            let (Figure { label, unit, .. }, value) = (figure, figure.measured.value);
            write!(f, "  {label:wide$}  {:>10} {unit}", figures(value))?;
            if let Some((min, max)) = figure.measured.spread {
                write!(f, "  ({} to {})", figures(min), figures(max))?;
            }
            if let Some((server, measured)) = &figure.beside {
                write!(f, "  {server}: {measured}")?;
            }
            if let Some(ratio) = figure.ratio() {
                write!(f, ", {ratio:.2} x")?;
            }
            match figure.aim {
                Some(Aim::Under(limit)) => write!(f, "  aim: under {limit} {unit}")?,
                Some(Aim::AtLeast(limit)) => write!(f, "  aim: at least {limit} {unit}")?,
                Some(Aim::TimesAtMost(limit)) => write!(f, "  aim: at most {limit} x")?,
                Some(Aim::TimesAtLeast(limit)) => write!(f, "  aim: at least {limit} x")?,
                None => {}
            }
            match figure.reached() {
                Some(true) => write!(f, ", reached")?,
                Some(false) => write!(f, ", NOT reached")?,
                None => {}
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
    fn a_ratio_is_held_against_an_aim_only_where_there_is_one() {
        let klamm = || Figure::median("create", "create", vec![120.0], "/s");
        let alone = klamm().aim(Aim::TimesAtLeast(3.0));
        assert_eq!(alone.reached(), None, "nothing is beside it");
        let beside = klamm()
            .beside("Apache ZooKeeper", vec![30.0, 41.0, 40.0])
            .aim(Aim::TimesAtLeast(3.0));
        assert_eq!(beside.reached(), Some(true));
        let json = beside.json();
        assert_eq!(json["ratio"].as_f64(), Some(3.0));
        assert_eq!(json["beside"]["min"].as_f64(), Some(30.0));
        let cpu = klamm()
            .beside("Apache ZooKeeper", vec![40.0])
            .aim(Aim::TimesAtMost(0.25));
        assert_eq!(cpu.reached(), Some(false));
    }

    #[test]
    fn three_figures_are_shown() {
        assert_eq!(figures(1234.56), "1235");
        assert_eq!(figures(12.345), "12.3");
        assert_eq!(figures(0.123), "0.12");
    }
}
