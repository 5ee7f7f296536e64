//! `aims`: the table of what Klamm must reach, each row measured, held against its aim.
//!
//! ```text
//!   aims/writes   produce beside the floor, beside Apache Kafka, over many partitions,
//!                 at a rate, system calls
//!   aims/reads    catch-up cold and recent, end to end
//!   aims/quiet    idle connections, a start after SIGKILL
//!        |
//!      --repeats of each, medians --> one table, or --only a row of it
//! ```
//!
//! A row starts its own servers on empty folders, on the server's core, with the client
//! on the other, and leaves nothing behind. A row that can't be taken is said so and does
//! not keep the others from theirs. An aim that is not reached is a figure, not an error.

mod quiet;
mod reads;
mod writes;

use crate::against::{Against, Server};
use crate::broker::Binary;
use crate::compare::Bout;
use crate::cores::{self, Cores};
use crate::data_folder::{self, DataFolder};
use crate::floors::Site;
use crate::load::{Spec, Workload};
use crate::measurement::Measurement;
use crate::report::Report;
use crate::{Common, Outcome};
use clap::ValueEnum;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Every aim of Klamm's beside its figure: floors, Apache Kafka, start, idleness.
///
/// Servers have one core and the client another. Apache Kafka (4.x, heap 1 GiB) is
/// fetched by Maven once. All rows together take about a quarter of an hour; --only
/// takes some of them. Given are medians, with the least and the greatest.
#[derive(clap::Args)]
pub struct Args {
    /// How often each figure is taken.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// How long a round lasts, each time.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// Only these rows.
    #[arg(long, value_enum, value_name = "ROW,...", value_delimiter = ',')]
    only: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// 1 MiB of 1 KiB records a request, synced: 80 % of the lower floor.
    Floor,
    /// The same beside Apache Kafka as shipped: 3 x its rate, a third of its CPU a GB.
    Kafka,
    /// The same beside Apache Kafka with flush.messages=1: 10 x.
    KafkaFlush,
    /// librdkafka, 100-byte records: 2 x Kafka's records a CPU second.
    Librdkafka,
    /// 1,000 partitions against 1: 80 % of the rate.
    Partitions,
    /// Catch-up read, cold: 80 % of sendfile's own rate, at most 0.20 CPU s a GB.
    Cold,
    /// Catch-up read of recent records: 90 % of the loopback's floor.
    Recent,
    /// At half of Kafka's peak: a fifth of its p99, p99.9 under 5 x p50.
    Latency,
    /// End to end at 10,000 records a second: p99 under 2 ms.
    Tail,
    /// One 100-byte record a request, 64 connections, beside Apache Kafka as shipped.
    Small,
    /// 64 connections under load: at most 2 system calls a request.
    Syscalls,
    /// 10,000 idle connections: under 100 MiB, under 1 % of a core.
    Idle,
    /// After SIGKILL with 1,000 partitions and 10 GB: under 2 s.
    Start,
}

pub fn run(args: &Args, common: &Common) -> Outcome<(Report, Vec<Measurement>)> {
    let workload = format!("{} x {} s each", args.repeats, args.seconds);
    let klamm = Binary::find(common, common.cores.unwrap_or(1))?;
    let mut report = Report::new("aims", workload, Some(&klamm))?;
    let cores = Cores::for_load(common.cores.unwrap_or(1), &mut report)?;
    // Before any server starts: it inherits the limit.
    cores::raise_open_files()?;
    let folder = DataFolder::make(&common.data)?;
    let rows = match &args.only[..] {
        [] => Row::value_variants(),
        only => only,
    };
    let mut taking = Taking {
        args,
        common,
        cores: &cores,
        folder: &folder,
        report: &mut report,
        shown: Vec::new(),
    };
    for &row in rows {
        eprintln!("klamm-bench: {}", row.name());
        if let Err(message) = taking.take(row) {
            taking.report.missed(format!("{}: {message}", row.name()));
        }
    }
    let shown = taking.shown;
    Ok((report, shown))
}

impl Row {
    fn name(self) -> String {
        let value = self.to_possible_value().expect("no row is hidden");
        value.get_name().to_owned()
    }
}

/// What a row needs to be taken.
pub struct Taking<'a> {
    pub args: &'a Args,
    common: &'a Common,
    pub cores: &'a Cores,
    folder: &'a DataFolder,
    pub report: &'a mut Report,
    /// For the plots.
    pub shown: Vec<Measurement>,
}

impl Taking<'_> {
    fn take(&mut self, row: Row) -> Outcome {
        match row {
            Row::Floor => writes::floor(self),
            Row::Kafka => writes::beside_kafka(self),
            Row::KafkaFlush => writes::beside_kafka_flush(self),
            Row::Librdkafka => writes::librdkafka(self),
            Row::Partitions => writes::partitions(self),
            Row::Latency => writes::latency(self),
            Row::Small => writes::small_requests(self),
            Row::Syscalls => writes::system_calls(self),
            Row::Cold => reads::cold(self),
            Row::Recent => reads::recent(self),
            Row::Tail => reads::tail(self),
            Row::Idle => quiet::idle(self),
            Row::Start => quiet::start(self),
        }
    }

    /// The workload with what is usual for it, on the client's core.
    pub fn spec(&self, workload: Workload) -> Spec {
        let mut spec = Spec::new(workload);
        spec.client_cores = self.cores.of_client();
        spec.threads = spec.client_cores.len();
        spec.warm_up = Duration::from_secs(1);
        spec.time = Duration::from_secs(self.args.seconds.into());
        spec
    }

    /// In the plots, one round of a row is enough: the last.
    pub fn shown_last(&mut self, measured: Measurement) {
        match self.shown.last_mut() {
            Some(last) if last.workload == measured.workload => *last = measured,
            _ => self.shown.push(measured),
        }
    }

    pub fn klamm(&self) -> Outcome<Binary> {
        Binary::find(self.common, self.common.cores.unwrap_or(1))
    }

    /// With a folder of its own, which is gone afterwards.
    pub fn with_folder<T>(
        &mut self,
        name: &str,
        with: impl FnOnce(&mut Self, PathBuf) -> Outcome<T>,
    ) -> Outcome<T> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)
            .map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
        let done = with(self, folder.clone());
        let removed = data_folder::remove(&folder);
        let done = done?;
        removed?;
        Ok(done)
    }

    /// Klamm alone, in `with`; its data is under the folder.
    pub fn with_klamm<T>(
        &mut self,
        name: &str,
        with: impl FnOnce(&mut Self, &Server, PathBuf) -> Outcome<T>,
    ) -> Outcome<T> {
        self.with_folder(name, |this, folder| {
            let server = Server::start(&Against::Klamm, this.common, this.cores, &folder)?;
            let done = with(this, &server, folder)?;
            server.stop()?;
            Ok(done)
        })
    }

    /// Klamm and another, in turns.
    pub fn with_bout<T>(
        &mut self,
        name: &str,
        other: Against,
        with: impl FnOnce(&mut Self, &mut Bout, PathBuf) -> Outcome<T>,
    ) -> Outcome<T> {
        self.with_folder(name, |this, folder| {
            let both = [Against::Klamm, other];
            let mut bout = Bout::start(&both, this.common, this.cores, &folder)?;
            let done = with(this, &mut bout, folder)?;
            bout.stop()?;
            Ok(done)
        })
    }

    pub fn site<'s>(&'s self, folder: &'s std::path::Path, bytes: u64) -> Site<'s> {
        Site {
            folder,
            cores: self.cores,
            bytes,
            request_bytes: 1 << 20,
        }
    }
}

/// Each divided by the one of the same turn.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(a, b)| a / b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_to_be_asked_for_by() {
        let names: Vec<String> = Row::value_variants().iter().map(|row| row.name()).collect();
        assert_eq!(names.len(), 13);
        assert!(names.contains(&"kafka-flush".to_owned()));
        for row in Row::value_variants() {
            assert_eq!(Row::from_str(&row.name(), false).as_ref(), Ok(row));
        }
    }
}
