//! DATA/klamm.sock: where `klamm profile` asks a broker that runs.
//!
//! ```text
//!   klamm profile --question--> thread of the connection --Ask--> shard 0: every shard
//!                 <--answer---        encodes            <-------  copies its histograms
//! ```
//!
//! - The socket is its owner's alone (0600). It is made beside its place and renamed
//!   into it, so what is there is always whole; one that a killed broker left behind is
//!   replaced, which is safe because DATA is locked by one process.
//! - A socket's path has at most 107 bytes, a folder's has more: where it is too long the
//!   folder is named by its descriptor, `/proc/self/fd/N`.
//! - Whatever a client sends costs the broker a thread of its own, of which there are at
//!   most [`CLIENTS_MAX`], and a copy of the histograms; never more.

use super::{Snapshot, wire};
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

pub const NAME: &str = "klamm.sock";
/// Where it is before it is whole.
const MAKING: &str = "klamm.sock.new";

/// `sun_path` has 108 bytes, with a zero at the end.
const PATH_BYTES_MAX: usize = 107;

const CLIENTS_MAX: usize = 8;

/// How long a client may be silent between two questions.
const SILENT_MAX: Duration = Duration::from_secs(600);

/// How long an answer may take: the shards to give it, then the client to read it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Somebody asks for a snapshot of each shard.
pub struct Ask(SyncSender<Result<Vec<Snapshot>, String>>);

impl Ask {
    /// The shards' snapshots, or why there are none.
    pub fn answer(self, snapshots: Result<Vec<Snapshot>, String>) {
        // Who asked may have lost patience.
        let _ = self.0.try_send(snapshots);
    }
}

/// What is asked, for a shard to take.
pub type Asks = UnboundedReceiver<Ask>;

/// The socket's name. Taken away when this goes; the threads end with the process.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
}

impl Drop for Door {
    fn drop(&mut self) {
        // Where it fails it is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// A path that a socket's address has room for. The file is open as long as it is used.
struct Reach {
    folder: PathBuf,
    _open: Option<File>,
}

impl Reach {
    fn to(folder: &Path) -> io::Result<Reach> {
        if folder.as_os_str().len() + 1 + MAKING.len() <= PATH_BYTES_MAX {
            return Ok(Reach {
                folder: folder.to_owned(),
                _open: None,
            });
        }
        let open = File::open(folder)?;
        Ok(Reach {
            folder: PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())),
            _open: Some(open),
        })
    }
}

/// Opens the door in `data`, which is locked by this process.
pub fn open(data: &Path) -> io::Result<(Door, Asks)> {
    let reach = Reach::to(data)?;
    let making = reach.folder.join(MAKING);
    match fs::remove_file(&making) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&making)?;
    fs::set_permissions(&making, Permissions::from_mode(0o600))?;
    fs::rename(&making, reach.folder.join(NAME))?;
    let door = Door {
        path: data.join(NAME),
    };
    let (sender, asks) = unbounded();
    thread::Builder::new()
        .name("profile".into())
        .spawn(move || accept(&listener, &sender))?;
    Ok((door, asks))
}

/// A client's place among the few that there are.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(listener: &UnixListener, asks: &UnboundedSender<Ask>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let mut client = match listener.accept() {
            Ok((client, _)) => client,
            Err(e) => {
                log::debug!("klamm profile can't connect for now: {e}");
                // Descriptors may have run out; they come back without a word.
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let place = Place(clients.clone());
        if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            let full = format!("{CLIENTS_MAX} are connected already; close one of them");
            let _ = client.set_write_timeout(Some(Duration::from_millis(100)));
            let _ = client.write_all(&wire::encode(&Err(full)));
            continue;
        }
        let asks = asks.clone();
        let spawned = thread::Builder::new()
            .name("profile-client".into())
            .spawn(move || {
                let end = serve(&mut client, &asks);
                log::debug!("klamm profile disconnected: {end}");
                drop(place);
            });
        if let Err(e) = spawned {
            log::debug!("klamm profile can't be served: {e}");
        }
    }
}

/// Answers until the client has no more questions, or asks one that makes no sense.
fn serve(client: &mut UnixStream, asks: &UnboundedSender<Ask>) -> io::Error {
    let mut talk = || -> io::Result<()> {
        client.set_read_timeout(Some(SILENT_MAX))?;
        client.set_write_timeout(Some(ANSWER_WITHIN))?;
        loop {
            let mut question = [0; wire::QUESTION_BYTES];
            client.read_exact(&mut question)?;
            if let Err(malformed) = wire::check_question(&question) {
                client.write_all(&wire::encode(&Err(malformed.to_string())))?;
                return Err(io::Error::new(ErrorKind::InvalidData, malformed));
            }
            client.write_all(&wire::encode(&ask(asks)))?;
        }
    };
    talk().expect_err("it goes on until something ends it")
}

fn ask(asks: &UnboundedSender<Ask>) -> Result<Snapshot, String> {
    let (sender, answer) = sync_channel(1);
    let stopping = || "the broker is stopping".to_owned();
    asks.unbounded_send(Ask(sender)).map_err(|_| stopping())?;
    let shards = match answer.recv_timeout(ANSWER_WITHIN) {
        Ok(answer) => answer?,
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(stopping()),
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            return Err(format!(
                "the broker's shards did not answer within {ANSWER_WITHIN:?}; it may still be starting"
            ));
        }
    };
    Snapshot::merged(shards).ok_or_else(stopping)
}

/// A client's side.
#[derive(Debug)]
pub struct Line(UnixStream);

/// Why there is no snapshot, for a person.
pub type Refusal = String;

impl Line {
    /// Reaches the broker that serves from `data`.
    pub fn open(data: &Path) -> Result<Line, Refusal> {
        let path = data.join(NAME);
        let connect = || -> io::Result<UnixStream> {
            let stream = UnixStream::connect(Reach::to(data)?.folder.join(NAME))?;
            stream.set_read_timeout(Some(2 * ANSWER_WITHIN))?;
            stream.set_write_timeout(Some(ANSWER_WITHIN))?;
            Ok(stream)
        };
        connect().map(Line).map_err(|e| match e.kind() {
            ErrorKind::NotFound => format!(
                "there is no {}: no broker serves from this folder; name the broker's folder with --data",
                path.display()
            ),
            ErrorKind::ConnectionRefused => format!(
                "nobody answers at {}: the broker that served from this folder is gone; start it again",
                path.display()
            ),
            ErrorKind::PermissionDenied => format!(
                "{} is the broker's user's alone: run this as that user",
                path.display()
            ),
            _ => format!("{} can't be reached: {e}", path.display()),
        })
    }

    /// What the broker has recorded since it started.
    pub fn snapshot(&mut self) -> Result<Snapshot, Refusal> {
        let bytes = self.exchange().map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                "the broker has ended".to_owned()
            }
            _ => format!("the broker did not answer: {e}"),
        })?;
        wire::decode(&bytes).map_err(|e| e.to_string())?
    }

    fn exchange(&mut self) -> io::Result<Vec<u8>> {
        // One that is refused at the door is told so before it asks; what it then sends
        // may find the door closed, and the answer is there all the same.
        let sent = self.0.write_all(&wire::QUESTION);
        let mut length = [0; 4];
        self.0.read_exact(&mut length).map_err(|e| match &sent {
            Err(sent) => io::Error::from(sent.kind()),
            Ok(()) => e,
        })?;
        let length = u32::from_be_bytes(length) as usize;
        if length > wire::ANSWER_BYTES_MAX {
            let what = format!("it announced an answer of {length} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
