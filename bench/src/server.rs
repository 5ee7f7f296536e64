//! A server process of this run's own, whatever it is: started, asked, stopped, killed.
//!
//! ```text
//!   start(command) --exec--> ...        stdout and stderr: FOLDER/broker.log
//!      |   every 200 us: ask()
//!      |<------ answered -------
//!   stop() SIGTERM, an exit status that is clean    kill() SIGKILL     drop: kill
//! ```

use crate::{Outcome, interrupt};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A virtual machine that shares its core with others' work takes its time.
const START_WITHIN: Duration = Duration::from_secs(180);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A figure's resolution: fine against 100 ms, and coarse enough that the asking
/// (20 us a refused connection) takes a tenth of a core from the server and not all.
pub const ASK_EVERY: Duration = Duration::from_micros(200);

pub struct Server {
    /// As a message calls it: "the broker".
    name: &'static str,
    child: Child,
    log_file: PathBuf,
    /// Just before exec.
    pub began: Instant,
}

impl Server {
    /// In `folder`, which is made where it is not there. It may not answer yet.
    pub fn start(name: &'static str, mut command: Command, folder: &Path) -> Outcome<Server> {
        fs::create_dir_all(folder)
            .map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
        let log_file = folder.join("broker.log");
        let log = OpenOptions::new().create(true).append(true).open(&log_file);
        let log = log.map_err(|e| format!("{} can't be opened: {e}", log_file.display()))?;
        let errors = log
            .try_clone()
            .map_err(|e| format!("{name}'s log can't be shared: {e}"))?;
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let began = Instant::now();
        let child = interrupt::starting(|| command.spawn()).map_err(|e| {
            format!(
                "{} can't be started: {e}",
                command.get_program().to_string_lossy()
            )
        })?;
        Ok(Server {
            name,
            child,
            log_file,
            began,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks until there is an answer; with it, how long after exec it came.
    pub fn await_answer<T>(
        &mut self,
        mut ask: impl FnMut() -> io::Result<T>,
    ) -> Outcome<(T, Duration)> {
        loop {
            let error = match ask() {
                Ok(answer) => return Ok((answer, self.began.elapsed())),
                Err(error) => error,
            };
            self.check()?;
            if self.began.elapsed() > START_WITHIN {
                return Err(format!(
                    "no answer within {START_WITHIN:?}: {error}\n{}",
                    self.end_of_log()
                ));
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// Still there.
    pub fn check(&mut self) -> Outcome {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!(
                "{} ended by itself with {status}\n{}",
                self.name,
                self.end_of_log()
            )),
            Err(e) => Err(format!("{} can't be asked after: {e}", self.name)),
        }
    }

    /// As an operator does it: SIGTERM, and an exit code that this server calls clean.
    pub fn stop(mut self, clean: &[i32]) -> Outcome {
        let name = self.name;
        // By the command: the standard library can only kill.
        let sent = Command::new("kill")
            .arg("-TERM")
            .arg(self.pid().to_string())
            .status()
            .map_err(|e| format!("the kill command: {e}"))?;
        if !sent.success() {
            return Err(format!("{name} can't be stopped: kill ended with {sent}"));
        }
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.code().is_some_and(|code| clean.contains(&code)) => {
                    return Ok(());
                }
                Ok(Some(status)) => {
                    return Err(format!(
                        "SIGTERM ended {name} with {status}\n{}",
                        self.end_of_log()
                    ));
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    return Err(format!(
                        "no end of {name} within {STOP_WITHIN:?} of SIGTERM\n{}",
                        self.end_of_log()
                    ));
                }
                Err(e) => return Err(format!("{name} can't be waited for: {e}")),
            }
        }
    }

    /// Between two instructions, as a crash does it.
    pub fn kill(mut self) -> Outcome {
        let killed = self.child.kill();
        interrupt::ending(self.pid());
        killed
            .and_then(|()| self.child.wait())
            .map(drop)
            .map_err(|e| format!("{} can't be killed: {e}", self.name))
    }

    pub fn end_of_log(&self) -> String {
        let log = fs::read(&self.log_file).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(4 << 10)..]).into_owned();
        format!("the end of its log:\n{tail}")
    }
}

/// No figure is worth a server that stays behind; after a stop there is none to kill.
impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
        }
        interrupt::ending(self.pid());
        let _ = self.child.wait();
    }
}
