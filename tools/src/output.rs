//! What the command prints: results to stdout, everything else to stderr.
//!
//! A reader that goes away (`| head`) is no error: the command ends quietly.
//! `--json` output has stable field names, documented in docs/cli.md.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::client::ClientError;

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    Client(ClientError),
    /// A file, a name, a state: said in full.
    Other(String),
    /// stdout is gone or full.
    Output(io::Error),
    /// The results printed already tell which parts failed.
    Reported,
}

pub type Outcome = Result<(), Failure>;

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        Failure::Client(e)
    }
}

/// Only writing to stdout gives a bare io::Error; files are opened with a context.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Failure::Output(e)
    }
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: &'a str,
    message: &'a str,
}

/// An error on stderr: a line for people, or with `--json` one object.
pub fn complain(json: bool, name: &str, message: &str) {
    let mut stderr = io::stderr().lock();
    // Where stderr is gone too, there is nobody left to tell.
    let _ = if json {
        let line = ErrorLine {
            error: name,
            message,
        };
        match serde_json::to_string(&line) {
            Ok(line) => writeln!(stderr, "{line}"),
            Err(e) => writeln!(stderr, "klamm: {message} (and not as JSON: {e})"),
        }
    } else {
        writeln!(stderr, "klamm: {message}")
    };
}

pub fn complain_client(json: bool, error: &ClientError) {
    complain(json, &error.name(), &error.to_string());
}

/// The exit status that a command's outcome means, with its message said.
pub fn conclude(json: bool, outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(e)) => {
            complain(json, "OUTPUT", &format!("cannot write to stdout: {e}"));
            ExitCode::FAILURE
        }
        Err(Failure::Client(e)) => {
            complain_client(json, &e);
            ExitCode::FAILURE
        }
        Err(Failure::Other(message)) => {
            complain(json, "FAILED", &message);
            ExitCode::FAILURE
        }
        Err(Failure::Reported) => ExitCode::FAILURE,
    }
}

pub type Stdout = BufWriter<StdoutLock<'static>>;

pub fn stdout() -> Stdout {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// One JSON value on one line.
pub fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Prints one value, as `--json` commands end.
pub fn print_json(value: &impl Serialize) -> Outcome {
    let mut out = stdout();
    json_line(&mut out, value)?;
    out.flush()?;
    Ok(())
}

/// Columns as wide as their widest cell; numbers to the right.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A column whose name begins with `>` is set to the right.
    pub fn new(columns: &[&str]) -> Table {
        Table {
            right: columns.iter().map(|c| c.starts_with('>')).collect(),
            rows: vec![
                columns
                    .iter()
                    .map(|c| c.trim_start_matches('>').to_string())
                    .collect(),
            ],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.right.len(), "a cell for every column");
        self.rows.push(cells.into());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|r| r[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[at] - cell.chars().count());
                if self.right[at] {
                    line += &pad;
                    line += cell;
                } else {
                    line += cell;
                    line += &pad;
                }
                line += "  ";
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A dash where there is nothing.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |v| v.to_string())
}

pub fn joined<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values
        .into_iter()
        .map(|v| v.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// Names come from brokers and files: what would steer a terminal is made visible.
pub fn printable(s: &str) -> String {
    if s.chars().any(char::is_control) {
        s.chars().flat_map(char::escape_default).collect()
    } else {
        s.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["TOPIC", ">OFFSET", "LEADER"]);
        table.row(["orders".into(), "7".into(), "1".into()]);
        table.row(["é".into(), "1234567".into(), String::new()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "TOPIC    OFFSET  LEADER\n\
             orders        7  1\n\
             é       1234567\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(printable("größe"), "größe");
    }
}
