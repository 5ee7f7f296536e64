//! A look for a person: a table of times by API and part, one of sizes, one of stalls.
//!
//! ```text
//!   klamm-data  1.0 s  2 shards
//!   MICROSECONDS       SHARE  COUNT/S  MEAN  P50  P90  P99  P99.9  MAX
//!   Produce                     9,812   301  ...
//!     sync               71%    9,812   214  ...
//! ```

use crate::output::Table;
use klamm_engine::profile::{Series, Unit};
use klamm_net::kafka::profile::PARTS;
use klamm_net::profile::{ENGINE, SHARD, Snapshot};
use std::io::{self, Write};
use std::path::Path;

/// What a name of the broker's is called on the screen, in this order.
const ENGINE_TIMES: [(&str, &str); 2] = [("write", "disk write"), ("sync", "disk sync")];
const SHARD_TIMES: [(&str, &str); 2] = [("timer", "timer late"), ("turn", "turn late")];
const SIZES: [(&str, &str); 5] = [
    ("batch_bytes", "batch, bytes"),
    ("batch_records", "batch, records"),
    ("write_bytes", "write, bytes"),
    ("sync_batches", "sync, batches"),
    ("sync_bytes", "sync, bytes"),
];

pub fn print(out: &mut impl Write, data: &Path, snapshot: &Snapshot, live: bool) -> io::Result<()> {
    let seconds = snapshot.span().as_secs_f64();
    let covers = if live { "the last" } else { "since its start," };
    let shards = match snapshot.shards {
        1 => "1 shard".to_owned(),
        n => format!("{n} shards"),
    };
    writeln!(
        out,
        "{}: {covers} {seconds:.1} s, {shards}\n",
        data.display()
    )?;
    let mut times = table("MICROSECONDS");
    let totals = snapshot.entries.iter().filter(|e| e.name == "total");
    for total in totals.filter(|e| e.series.count() > 0) {
        row(&mut times, &total.group, "", &total.series, seconds);
        for (_, name) in PARTS {
            let part = snapshot.get(&total.group, name);
            if let Some(part) = part.filter(|part| part.count() > 0) {
                let share = 100.0 * part.sum() as f64 / total.series.sum().max(1) as f64;
                row(
                    &mut times,
                    &format!("  {name}"),
                    &format!("{share:.0}%"),
                    part,
                    seconds,
                );
            }
        }
    }
    let mut sizes = table("SIZES");
    let of = |table: &mut Table, group: &str, names: &[(&str, &str)]| {
        for (name, shown) in names {
            let series = snapshot.get(group, name);
            if let Some(series) = series.filter(|series| series.count() > 0) {
                row(table, shown, "", series, seconds);
            }
        }
    };
    of(&mut times, ENGINE, &ENGINE_TIMES);
    of(&mut times, SHARD, &SHARD_TIMES);
    of(&mut sizes, ENGINE, &SIZES);
    times.print(out)?;
    if !sizes.is_empty() {
        writeln!(out)?;
        sizes.print(out)?;
    }
    writeln!(out)
}

fn table(name: &str) -> Table {
    Table::new(&[
        name, ">SHARE", ">COUNT/S", ">MEAN", ">P50", ">P90", ">P99", ">P99.9", ">MAX",
    ])
}

fn row(table: &mut Table, name: &str, share: &str, series: &Series, seconds: f64) {
    let histogram = series.histogram();
    let scaled = |value: f64| match series.unit() {
        Unit::Nanos => number(value / 1000.0),
        Unit::Bytes | Unit::Count => number(value),
    };
    let at = |quantile| scaled(histogram.value_at_quantile(quantile) as f64);
    table.row([
        name.to_owned(),
        share.to_owned(),
        number(series.count() as f64 / seconds),
        scaled(series.sum() as f64 / series.count() as f64),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        scaled(histogram.max() as f64),
    ]);
}

/// Three digits below a hundred, whole numbers in groups above.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use klamm_engine::units::Nanos;
    use klamm_net::profile::Entry;

    pub fn some() -> Snapshot {
        let entry = |group: &'static str, name: &'static str, unit, values: &[u64]| {
            let mut series = Series::new(unit);
            values.iter().for_each(|v| series.record(*v));
            Entry {
                group: group.into(),
                name: name.into(),
                series,
            }
        };
        Snapshot {
            began: Nanos(0),
            taken: Nanos(2_000_000_000),
            shards: 2,
            entries: vec![
                entry("Produce", "total", Unit::Nanos, &[1_000_000, 3_000_000]),
                entry("Produce", "sync", Unit::Nanos, &[1_000_000, 2_000_000]),
                entry("Fetch", "total", Unit::Nanos, &[]),
                entry("engine", "batch_bytes", Unit::Bytes, &[1_000, 4_000]),
                entry("engine", "sync", Unit::Nanos, &[900_000]),
                entry("shard", "timer", Unit::Nanos, &[20_000]),
            ],
        }
    }

    #[test]
    fn a_look_reads_from_apis_to_parts() {
        let mut out = Vec::new();
        print(&mut out, Path::new("data"), &some(), true).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "data: the last 2.0 s, 2 shards");
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        assert_eq!(words(lines[3])[..3], ["Produce", "1.00", "2,000"]);
        assert_eq!(words(lines[4])[..4], ["sync", "75%", "1.00", "1,500"]);
        assert!(lines[5].starts_with("disk sync"), "nothing of Fetch: {out}");
        assert!(out.contains("timer late"), "{out}");
        assert!(out.contains("batch, bytes"), "{out}");
    }

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        assert_eq!(number(0.0), "0.00");
        assert_eq!(number(9.876), "9.88");
        assert_eq!(number(98.76), "98.8");
        assert_eq!(number(987.6), "988");
        assert_eq!(number(1_234_567.0), "1,234,567");
    }
}
