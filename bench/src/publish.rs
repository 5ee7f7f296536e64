//! A run as files that people and programs can open: `--report FOLDER`.
//!
//! ```text
//!   Measurement, Measurement, ...   Report (figures, floors, aims)
//!        |  \________________            |
//!        |                   \           |
//!   NN-SERVER.hgrm            report.html     one page: plots, tables, warnings,
//!   NN-SERVER.csv                             machine, command line, date
//!   NN-SERVER-percentiles.csv
//! ```

mod html;
mod plot;
mod tables;

use crate::machine::Machine;
use crate::measurement::Measurement;
use crate::report::Report;
use crate::{Common, Outcome};
use std::env;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// What goes into one folder.
pub struct Publication<'a> {
    pub title: &'a str,
    /// Overlaid in the plots, each with a colour of its own.
    pub measurements: &'a [Measurement],
    pub report: Option<&'a Report>,
}

/// Into the folder that --report names, if it names one.
pub fn publish(common: &Common, report: &Report, measurements: &[Measurement]) -> Outcome {
    let Some(folder) = &common.report else {
        return Ok(());
    };
    let publication = Publication {
        title: &report.title(),
        measurements,
        report: Some(report),
    };
    write(folder, &publication)?;
    eprintln!("klamm-bench: {}", folder.join("report.html").display());
    Ok(())
}

/// Makes the folder where it is not there; what else is in it stays.
fn write(folder: &Path, publication: &Publication<'_>) -> Outcome {
    fs::create_dir_all(folder).map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
    let put = |name: &str, text: String| {
        let file = folder.join(name);
        fs::write(&file, text).map_err(|e| format!("{} can't be written: {e}", file.display()))
    };
    for (n, measurement) in publication.measurements.iter().enumerate() {
        let name = format!("{n:02}-{}", plain(&measurement.server));
        let latency = &measurement.latency;
        put(&format!("{name}.hgrm"), tables::hgrm(latency))?;
        put(&format!("{name}.csv"), tables::course_csv(measurement))?;
        put(
            &format!("{name}-percentiles.csv"),
            tables::percentiles_csv(latency),
        )?;
    }
    let command: Vec<String> = env::args().map(|word| quoted(&word)).collect();
    let page = html::page(
        publication,
        &Machine::this()?,
        &command.join(" "),
        SystemTime::now(),
    );
    put("report.html", page)
}

/// A name that is a file's name everywhere.
fn plain(name: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || c == '.' {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    name.chars().map(plain).collect()
}

/// As a shell would take it again.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    match !word.is_empty() && word.chars().all(safe) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::{Second, Used, latencies};
    use crate::process::Cpu;
    use crate::report::Figure;
    use std::time::Duration;

    pub fn measurement(server: &str) -> Measurement {
        let mut latency = latencies();
        (1..=1000).for_each(|n| latency.record(n * 1000).unwrap());
        Measurement {
            workload: "produce".to_owned(),
            server: server.to_owned(),
            requests: 1000,
            records: 1000,
            bytes: 1_000_000_000,
            wall: Duration::from_secs(2),
            latency,
            course: vec![Second::default(); 3],
            used: Some(Used::default()),
            client: Cpu::default(),
            warnings: vec!["a & b".to_owned()],
        }
    }

    #[test]
    fn a_page_says_all_and_runs_nothing_that_came_from_outside() {
        let folder = env::temp_dir().join(format!("klamm-publish-{}", std::process::id()));
        let measurements = [
            measurement("<script>alert(1)</script>"),
            measurement("Klamm"),
        ];
        let mut report = Report::new("compare", "<i>".to_owned(), None).unwrap();
        report.add(Figure::new("rate", "rate <i>", 5.0, "MB/s").aim_under(3.0));
        let publication = Publication {
            title: "it's <b>",
            measurements: &measurements,
            report: Some(&report),
        };
        write(&folder, &publication).unwrap();
        let page = fs::read_to_string(folder.join("report.html")).unwrap();
        for bad in ["<script", "<i>", "<b>", "http://", "https://"] {
            assert!(!page.contains(bad), "{bad}");
        }
        for good in [
            "a &amp; b",
            "&lt;script&gt;",
            "Latency by percentile",
            "Throughput over time",
            "Latency over time",
            "500.0 MB/s",
            "rate &lt;i&gt;",
            "NOT reached",
            "Linux",
        ] {
            assert!(page.contains(good), "{good}: {page}");
        }
        let mut names: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 7, "{names:?}");
        assert!(names.contains(&"01-klamm.hgrm".to_owned()), "{names:?}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_command_line_can_be_pasted() {
        assert_eq!(quoted("--data=/a/b"), "--data=/a/b");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
