//! `klamm produce`: records from lines or JSON, from files or stdin.
//!
//! One thread reads and parses, this one sends (client/produce.rs). On a terminal a
//! bar shows how far it is, and a line at the end what was acknowledged.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use klamm_engine::codec::Codec;
use serde::Serialize;

use crate::client::produce::{Acks, End, Producer, Settings, Stats};
use crate::consume::format::unescape;
use crate::output::{Failure, Outcome, conclude, print_json};
use crate::{ConnectArgs, interrupt, parse_duration};

mod input;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    /// No answer is waited for; loss goes unnoticed.
    #[value(name = "0")]
    None,
    /// The leader has it.
    #[value(name = "1")]
    Leader,
    /// Every in-sync replica has it.
    #[value(name = "all", alias = "-1")]
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    /// A record a line: the value, or key and value with --key-separator.
    Lines,
    /// A JSON object a line, as `klamm consume --json` prints them.
    Json,
}

#[derive(clap::Args)]
pub struct Args {
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Files to read, in order; `-` or none: stdin.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// What the input is made of.
    #[arg(short, long, value_name = "FORMAT", default_value = "lines")]
    input: InputFormat,
    /// Key and value of a line stand before and behind the first of these (\t and \x1f work).
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = unescape_arg)]
    key_separator: Option<Bytes>,
    /// What ends a line (\0 works).
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "\\n",
          value_parser = unescape_arg)]
    delimiter: Bytes,
    /// The same key for every record.
    #[arg(short, long, value_name = "KEY", conflicts_with = "key_separator")]
    key: Option<String>,
    /// A header for every record; may be repeated, also with the same name.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Empty keys and values become null (a null value is a tombstone).
    #[arg(short = 'Z', long)]
    null_empty: bool,
    /// All records to this partition, instead of by key.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// With --input json: each record to the partition that it names.
    #[arg(long, conflicts_with = "partition")]
    keep_partitions: bool,

    /// How batches are packed.
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// When a record counts as sent.
    #[arg(short, long, value_name = "ACKS", default_value = "all")]
    acks: AcksArg,
    /// Without a producer id: a retry after a lost answer may then double records.
    /// (With --acks 0 or 1 there is none anyway.)
    #[arg(long)]
    no_idempotence: bool,
    /// How large a batch gets before it is packed, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "1000000",
          value_parser = clap::value_parser!(u32).range(1..=100 << 20))]
    batch_bytes: u32,
    /// How long a batch waits for more records.
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = parse_linger)]
    linger: Duration,
    /// How long a batch is tried for.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    delivery_timeout: Duration,
    /// No bar and no summary.
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// clap takes a `Vec<u8>` for a list of arguments.
#[derive(Clone, Debug)]
pub struct Bytes(pub Vec<u8>);

pub fn unescape_arg(given: &str) -> Result<Bytes, String> {
    unescape(given).map(Bytes)
}

fn parse_linger(given: &str) -> Result<Duration, String> {
    match given {
        "0" | "0ms" | "0s" => Ok(Duration::ZERO),
        other => parse_duration(other),
    }
}

fn parse_header(given: &str) -> Result<(String, String), String> {
    given
        .split_once('=')
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .ok_or_else(|| format!("`{given}` is not NAME=VALUE"))
}

pub fn run(args: Args) -> ExitCode {
    let json = args.connect.json;
    conclude(json, produce(args, json))
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    records: u64,
    first_offset: Option<i64>,
    last_offset: Option<i64>,
}

#[derive(Serialize)]
struct Summary<'a> {
    topic: &'a str,
    read: u64,
    acknowledged: u64,
    bytes: u64,
    batches: u64,
    retries: u64,
    seconds: f64,
    records_per_second: f64,
    partitions: Vec<Partition>,
}

fn produce(args: Args, json: bool) -> Outcome {
    let parsing = input::Parsing::from(&args);
    let sources = input::open(&args.files)?;
    let codec = match args.compression {
        Compression::None => Codec::None,
        Compression::Gzip => Codec::Gzip,
        Compression::Snappy => Codec::Snappy,
        Compression::Lz4 => Codec::Lz4,
        Compression::Zstd => Codec::Zstd,
    };
    let acks = match args.acks {
        AcksArg::None => Acks::None,
        AcksArg::Leader => Acks::Leader,
        AcksArg::All => Acks::All,
    };
    let client = args.connect.connect()?;
    let mut producer = Producer::open(
        client,
        Settings {
            topic: args.topic.clone(),
            codec,
            acks,
            idempotent: acks == Acks::All && !args.no_idempotence,
            batch_bytes: args.batch_bytes as usize,
            linger: args.linger,
            delivery_timeout: args.delivery_timeout,
        },
    )?;
    // From here on Ctrl-C means: take no more, but see to what was taken.
    interrupt::catch().map_err(|e| Failure::Other(format!("cannot catch signals: {e}")))?;
    interrupt::begin_end();

    let chatty = io::stderr().is_terminal() && !args.quiet;
    let bar = if chatty && !sources.interactive {
        Some(progress_bar(sources.bytes))
    } else {
        None
    };
    let position = sources.position.clone();
    let started = Instant::now();
    let input = producer.input();
    thread::spawn(move || input::feed(sources, &parsing, input));
    let ended = producer.run(|stats| {
        if let Some(bar) = &bar {
            bar.set_position(position.load(std::sync::atomic::Ordering::Relaxed));
            bar.set_message(HumanCount(stats.acknowledged).to_string());
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let stats = producer.stats().clone();
    let seconds = started.elapsed().as_secs_f64();
    if json {
        print_json(&summary(&args.topic, &stats, seconds))?;
    }
    if chatty {
        eprintln!(
            "{} records ({}) acknowledged in {seconds:.2} s: {} records/s, {}/s",
            HumanCount(stats.acknowledged),
            HumanBytes(stats.bytes),
            HumanCount((stats.acknowledged as f64 / seconds) as u64),
            HumanBytes((stats.bytes as f64 / seconds) as u64),
        );
    }
    let told = |why: String| {
        Failure::Other(format!(
            "{why}. {} records were acknowledged before",
            stats.acknowledged
        ))
    };
    match ended {
        Ok(End::Complete) => Ok(()),
        Ok(End::Interrupted) => Err(told("interrupted before the input's end".into())),
        Ok(End::InputFailed(why)) => Err(told(why)),
        Err(e) => {
            crate::output::complain_client(json, &e);
            crate::output::complain(
                json,
                "INCOMPLETE",
                &format!(
                    "{} records were read and {} acknowledged; the rest may or may not be there",
                    stats.read, stats.acknowledged
                ),
            );
            Err(Failure::Reported)
        }
    }
}

fn summary<'a>(topic: &'a str, stats: &Stats, seconds: f64) -> Summary<'a> {
    Summary {
        topic,
        read: stats.read,
        acknowledged: stats.acknowledged,
        bytes: stats.bytes,
        batches: stats.batches,
        retries: stats.retries,
        seconds,
        records_per_second: stats.acknowledged as f64 / seconds,
        partitions: stats
            .partitions
            .iter()
            .map(|(partition, p)| Partition {
                partition: *partition,
                records: p.records,
                first_offset: p.first_offset,
                last_offset: p.last_offset,
            })
            .collect(),
    }
}

fn progress_bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}  {msg} acknowledged",
        ),
        None => (
            ProgressBar::no_length(),
            "{spinner} {bytes} {bytes_per_sec} {elapsed}  {msg} acknowledged",
        ),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}
