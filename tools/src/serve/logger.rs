//! The broker's log: a line an event on stderr, with the time and the shard.
//!
//! What comes from outside is escaped where it is put into a line, so that a client's
//! name can't write lines of its own.

use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

struct Logger;

static LOGGER: Logger = Logger;

/// From here on lines up to `level` are printed.
pub fn install(level: LevelFilter) {
    // Refused only where there is a logger already, and then lines go there.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // glommio tells at info and debug of what only its own authors need.
        !metadata.target().starts_with("glommio") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as i64);
        let thread = std::thread::current();
        let line = format!(
            "{} {:<5} {:<9} {}\n",
            crate::datetime::format(ms),
            record.level(),
            thread.name().unwrap_or("-"),
            record.args()
        );
        // A log that nobody can read is no reason to stop serving.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
