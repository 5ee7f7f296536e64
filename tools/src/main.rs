//! The `klamm` command: a broker, and the tools for this and any other Kafka broker.
//!
//! ```text
//!  serve                                  the broker itself
//!  topic · produce · consume · group      clients, over the Kafka protocol
//!  profile                                what a broker's requests take, live
//!  inspect · repair                       a data folder's files, no broker needed
//!  completions                            for the shell
//! ```

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

mod base64;
mod client;
mod consume;
mod datetime;
mod group;
mod inspect;
mod interrupt;
mod output;
mod produce;
mod profile;
mod repair;
mod serve;
mod topic;

/// A request is a dozen small objects that another core may free: the system's allocator
/// took an eighth of a small request's CPU more (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EXIT_CODES: &str = "\
Exit status:
  0  done (a reader that went away, as in `| head`, counts as done)
  1  it failed; stderr says what, where and what to do
  2  the command line makes no sense; nothing was done

With --json, results on stdout are one object, or one object a line where they \
stream, with stable field names; an error is one object on stderr with the fields \
`error` (Kafka's name of it, or one of the command's own) and `message`.";

/// A Kafka-compatible broker with its coordinator inside, and tools for any Kafka broker.
#[derive(Parser)]
#[command(name = "klamm", version, after_long_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker.
    Serve(serve::Args),
    /// Create, list, describe, delete and alter topics.
    #[command(after_long_help = EXIT_CODES)]
    Topic(topic::Args),
    /// Send records: a line each, from files or stdin.
    #[command(after_long_help = EXIT_CODES)]
    Produce(produce::Args),
    /// Print records, alone or as a member of a consumer group.
    #[command(after_help = consume::format::HELP,
              after_long_help = format!("{}\n\n{EXIT_CODES}", consume::format::HELP))]
    Consume(consume::Args),
    /// List, describe, reset and delete consumer groups.
    #[command(after_long_help = EXIT_CODES)]
    Group(group::Args),
    /// Show what a running broker's requests take, and what for: live, or since its start.
    #[command(after_long_help = EXIT_CODES)]
    Profile(profile::Args),
    /// Look into files of a data folder, Klamm's or Kafka's: no broker is needed.
    #[command(after_long_help = inspect::HELP)]
    Inspect(inspect::Args),
    /// Say what is damaged in a partition's folder, and give it up if told to.
    #[command(after_long_help = EXIT_CODES)]
    Repair(repair::Args),
    /// Print a completion script, as in: klamm completions bash > /etc/bash_completion.d/klamm
    Completions { shell: clap_complete::Shell },
}

/// How to reach the cluster. The same for every client command.
#[derive(Args, Clone, Debug)]
pub struct ConnectArgs {
    /// Brokers to ask first, separated by commas; the rest of the cluster is found through them.
    #[arg(
        short,
        long,
        global = true,
        env = "KLAMM_BOOTSTRAP",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092",
        help_heading = "Connection"
    )]
    bootstrap: String,

    /// The name that the brokers' logs and quotas know this client by.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = "klamm",
        help_heading = "Connection"
    )]
    client_id: String,

    /// How long to wait for an answer, retries included: `30`, `30s`, `500ms`, `2m`.
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration,
        help_heading = "Connection"
    )]
    timeout: Duration,

    /// Print results as JSON, and errors too.
    #[arg(long, global = true, help_heading = "Connection")]
    json: bool,
}

impl ConnectArgs {
    pub fn connect(&self) -> client::Result<client::Client> {
        client::Client::connect(&self.bootstrap, self.options())
    }

    pub fn options(&self) -> client::Options {
        client::Options {
            client_id: self.client_id.clone(),
            timeout: self.timeout,
        }
    }
}

/// `30`, `30s`, `500ms`, `2m`, `1h`, `7d`. Seconds where no unit is said.
pub fn parse_duration(given: &str) -> Result<Duration, String> {
    let split = given
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(given.len());
    let (digits, unit) = given.split_at(split);
    let wrong = || format!("`{given}` is not a time; write 30s, 500ms, 2m, 1h or 7d");
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    // Beyond what Kafka's i32 milliseconds hold nothing is meant seriously.
    n.checked_mul(ms)
        .filter(|ms| (1..=i64::MAX as u64 / 4).contains(ms))
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "klamm", &mut script);
    let mut out = output::stdout();
    let printed = out.write_all(&script).and_then(|()| out.flush());
    output::conclude(false, printed.map_err(output::Failure::from))
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Topic(args) => topic::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Group(args) => group::run(args),
        Command::Profile(args) => profile::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Completions { shell } => completions(shell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("30").unwrap(), Duration::from_secs(30));
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        for wrong in ["", "s", "3x", "-1", "0", "1.5s", "99999999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn connection_flags_stand_anywhere_behind_the_command() {
        let cli = Cli::try_parse_from([
            "klamm",
            "topic",
            "list",
            "--json",
            "-b",
            "h:1",
            "--timeout",
            "5",
        ])
        .unwrap();
        let Command::Topic(args) = cli.command else {
            panic!("not topic")
        };
        assert_eq!(args.connect.bootstrap, "h:1");
        assert_eq!(args.connect.timeout, Duration::from_secs(5));
        assert!(args.connect.json);
    }
}
