//! One page that can be looked at: plots, tables, and what it was measured under.
//!
//! No script, no font and no picture from elsewhere, so that it is the same on a plane
//! and in ten years. Whatever comes from outside (names of servers, the command line,
//! warnings) is escaped where it is put in.

use super::Publication;
use super::plot::{Axis, Plot, Scale, Series};
use super::tables::{self, ms};
use crate::machine::{Machine, utc};
use crate::measurement::{Measurement, Second};
use std::fmt::Write as _;
use std::time::SystemTime;

const STYLE: &str = include_str!("report.css");

/// A latency axis gets decades where the slowest is so many times the fastest.
const LOG_FROM: f64 = 50.0;

pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

pub fn page(of: &Publication<'_>, machine: &Machine, command: &str, when: SystemTime) -> String {
    let names = names(of.measurements);
    // A write to a String does not fail.
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        title = escaped(of.title)
    );
    let _ = writeln!(
        page,
        "<p class=\"under\">{}<br>{}, {} cores, {:.1} GiB, Linux {}<br><code>{}</code></p>",
        utc(when),
        escaped(&machine.processor),
        machine.cores,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        escaped(&machine.kernel),
        escaped(command)
    );
    let mut warnings: Vec<&String> = of.measurements.iter().flat_map(|m| &m.warnings).collect();
    warnings.extend(of.report.iter().flat_map(|report| report.warnings()));
    warnings.sort();
    warnings.dedup();
    for warning in warnings {
        let _ = writeln!(page, "<p class=\"warning\">{}</p>", escaped(warning));
    }
    if !of.measurements.is_empty() {
        measured(&mut page, of.measurements, &names);
        page.push_str(&percentiles(of.measurements, &names).svg());
        page.push_str(&throughput(of.measurements, &names).svg());
        page.push_str(&course(of.measurements, &names).svg());
    }
    if let Some(report) = of.report {
        figures(&mut page, report);
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Of the servers; where one comes more than once, with what ran.
fn names(of: &[Measurement]) -> Vec<String> {
    let same = |one: &Measurement| of.iter().filter(|m| m.server == one.server).count() > 1;
    let name = |one: &Measurement| match same(one) {
        true => format!("{}: {}", one.server, one.workload),
        false => one.server.clone(),
    };
    of.iter().map(name).collect()
}

fn measured(page: &mut String, of: &[Measurement], names: &[String]) {
    let optional = |value: Option<String>| value.unwrap_or("not known".to_owned());
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let at = |p: f64| move |m: &Measurement| format!("{:.3} ms", ms(m.latency_at(p)));
    type Cell<'a> = Box<dyn Fn(&Measurement) -> String + 'a>;
    let rows: Vec<(&str, Cell<'_>)> = vec![
        ("workload", Box::new(|m| m.workload.clone())),
        (
            "throughput",
            Box::new(|m| format!("{:.1} MB/s", m.mb_per_second())),
        ),
        (
            "records",
            Box::new(|m| format!("{:.0} /s", m.records_per_second())),
        ),
        (
            "requests",
            Box::new(|m| format!("{} in {:.2} s", m.requests, m.wall.as_secs_f64())),
        ),
        ("latency p50", Box::new(at(50.0))),
        ("p90", Box::new(at(90.0))),
        ("p99", Box::new(at(99.0))),
        ("p99.9", Box::new(at(99.9))),
        ("p99.99", Box::new(at(99.99))),
        ("max", Box::new(at(100.0))),
        (
            "server's CPU, user + system",
            Box::new(|m| {
                optional(
                    m.cpu_per_gb()
                        .map(|(user, system)| format!("{user:.3} + {system:.3} s/GB")),
                )
            }),
        ),
        (
            "server's peak memory",
            Box::new(|m| optional(m.used.map(|used| mib(used.resident_bytes_max)))),
        ),
        (
            "server's context switches, voluntary + not",
            Box::new(|m| {
                optional(m.used.map(|used| {
                    format!(
                        "{} + {}",
                        used.switches_voluntary, used.switches_involuntary
                    )
                }))
            }),
        ),
        (
            "client's CPU, user + system",
            Box::new(|m| format!("{:.2} + {:.2} s", m.client.user_s, m.client.system_s)),
        ),
    ];
    page.push_str("<table>\n<tr><th></th>");
    for name in names {
        let _ = write!(page, "<th>{}</th>", escaped(name));
    }
    page.push_str("</tr>\n");
    for (label, cell) in rows {
        let _ = write!(page, "<tr><th>{label}</th>");
        for measurement in of {
            let _ = write!(page, "<td>{}</td>", escaped(&cell(measurement)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn figures(page: &mut String, report: &crate::report::Report) {
    page.push_str("<h2>Figures</h2>\n<table>\n");
    for line in report.lines() {
        let class = match line.reached {
            Some(true) => " class=\"reached\"",
            Some(false) => " class=\"missed\"",
            None => "",
        };
        let _ = writeln!(
            page,
            "<tr{class}><th>{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&line.label),
            escaped(&line.measured),
            escaped(&line.beside),
            escaped(&line.aim)
        );
    }
    page.push_str("</table>\n");
}

fn percentiles(of: &[Measurement], names: &[String]) -> Plot {
    let series = of.iter().zip(names).enumerate().map(|(n, (m, name))| {
        let points = tables::percentiles(&m.latency);
        Series {
            name: name.clone(),
            colour: n,
            dashed: false,
            points: points.iter().map(|at| (at.quantile, at.value)).collect(),
        }
    });
    let series: Vec<Series> = series.collect();
    Plot {
        title: "Latency by percentile".to_owned(),
        x: Axis {
            label: "percentile".to_owned(),
            scale: Scale::Percentile,
        },
        y: latency_axis(&series),
        series,
    }
}

fn latency_axis(series: &[Series]) -> Axis {
    let all = || series.iter().flat_map(|s| &s.points).map(|point| point.1);
    let fastest = all().filter(|ms| *ms > 0.0).fold(f64::INFINITY, f64::min);
    let log = all().fold(0.0, f64::max) > LOG_FROM * fastest;
    Axis {
        label: if log { "ms (decades)" } else { "ms" }.to_owned(),
        scale: if log { Scale::Log } else { Scale::Linear },
    }
}

/// A line over the seconds; the last one, which is not whole, is left out where there are
/// others.
fn over_time(
    m: &Measurement,
    name: String,
    colour: usize,
    dashed: bool,
    value: impl Fn(&Second) -> f64,
) -> Series {
    let whole = match m.course.len() {
        0..=2 => m.course.len(),
        n => n - 1,
    };
    let points = m.course[..whole].iter().enumerate();
    Series {
        name,
        colour,
        dashed,
        points: points.map(|(n, s)| (n as f64, value(s))).collect(),
    }
}

fn seconds() -> Axis {
    Axis {
        label: "seconds".to_owned(),
        scale: Scale::Linear,
    }
}

fn throughput(of: &[Measurement], names: &[String]) -> Plot {
    let series = of.iter().zip(names).enumerate();
    let series =
        series.map(|(n, (m, name))| over_time(m, name.clone(), n, false, |s| s.bytes as f64 / 1e6));
    Plot {
        title: "Throughput over time".to_owned(),
        x: seconds(),
        y: Axis {
            label: "MB/s".to_owned(),
            scale: Scale::Linear,
        },
        series: series.collect(),
    }
}

fn course(of: &[Measurement], names: &[String]) -> Plot {
    let series = of.iter().zip(names).enumerate();
    let series: Vec<Series> = series
        .flat_map(|(n, (m, name))| {
            [
                over_time(m, format!("{name}, p99"), n, false, |s| ms(s.p99)),
                over_time(m, format!("{name}, p50"), n, true, |s| ms(s.p50)),
            ]
        })
        .collect();
    Plot {
        title: "Latency over time".to_owned(),
        x: seconds(),
        y: latency_axis(&series),
        series,
    }
}
