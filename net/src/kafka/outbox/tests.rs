//! Over a real socket, and files of a real disk.

use super::*;
use crate::socket::{Accept, Listener, TcpSocket};
use bytes::Bytes;
use klamm_engine::io::glommio::GlommioIo;
use klamm_engine::io::glommio::probe;
use klamm_engine::io::glommio::runtime::{self, RuntimeConfig};
use klamm_engine::io::{BLOCK, Buf, File, Open};
use std::future::poll_fn;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A folder of its own on the disk that the build is on: /tmp may be memory.
struct Room(PathBuf);

impl Room {
    fn new(story: &str) -> Room {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let dir = target.join(format!("outbox-{story}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Room(dir)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An outbox on a shard, and a client on a thread.
fn meet(
    story: &'static str,
    client: impl FnOnce(TcpStream) + Clone + Send + 'static,
    server: impl AsyncFnOnce(GlommioIo, PathBuf, TcpSocket) + Clone + Send + 'static,
) {
    if let Err(reason) = probe::io_uring() {
        eprintln!("skipped: {reason}");
        return;
    }
    let room = Room::new(story);
    let dir = room.0.clone();
    let config = RuntimeConfig {
        cores: 1,
        pin: false,
        ..RuntimeConfig::default()
    };
    let made = runtime::run(
        &config,
        async |_, _| Ok::<(), std::convert::Infallible>(()),
        async move |_, io| {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || client(TcpStream::connect(address).unwrap()));
            let (socket, _) = listener.accept().await.unwrap();
            server(io.clone(), dir, socket).await;
            // The shard goes on meanwhile: what it waited for at the socket keeps that open
            // until the ring has let go of it.
            while !client.is_finished() {
                io.sleep(std::time::Duration::from_millis(1)).await;
            }
            client.join().unwrap();
        },
    );
    made.unwrap();
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at * 31 + at / 4096 + seed) % 251) as u8)
        .collect()
}

/// Written past the page cache, as segments are.
async fn file(io: &GlommioIo, path: &Path, bytes: &[u8]) -> <GlommioIo as Io>::File {
    let file = io.open(path, Open::New).await.unwrap();
    write(io, &file, bytes).await;
    file
}

async fn write(io: &GlommioIo, file: &<GlommioIo as Io>::File, bytes: &[u8]) {
    let mut buf = io.alloc(bytes.len().next_multiple_of(BLOCK));
    buf.as_mut()[..bytes.len()].copy_from_slice(bytes);
    let len = buf.len();
    assert_eq!(file.write_at(Rc::new(buf), 0).await.unwrap(), len);
}

fn part(file: &CachedFile, from: usize, to: usize) -> Part<GlommioIo> {
    Part::File(FilePiece {
        file: file.clone(),
        from: from as u64,
        to: to as u64,
        settled: to as u64 + (2 << 20),
    })
}

async fn send_all(outbox: &mut Outbox<GlommioIo>, socket: &mut TcpSocket) -> io::Result<()> {
    while !outbox.is_empty() {
        poll_fn(|cx| outbox.poll_send(socket, cx)).await?;
    }
    Ok(())
}

fn expected(first: &[u8], second: &[u8]) -> Vec<u8> {
    [
        b"head",
        &first[777..5_000_001],
        b"between",
        b"and",
        &second[..3],
        &second[4096..3 << 20],
        &first[..9000],
        b"tail",
    ]
    .concat()
}

/// More than the kernel buffers, so that sends are cut anywhere; nothing in the page cache
/// at first.
#[test]
fn files_and_memory_leave_in_order_through_full_buffers() {
    let (first, second) = (pattern(1, 6 << 20), pattern(2, 3 << 20));
    let all = expected(&first, &second);
    meet(
        "order",
        move |mut client| {
            let mut came = vec![0; all.len()];
            let mut at = 0;
            // Odd pieces, and late: the buffers are full by then.
            while at < came.len() {
                let end = came.len().min(at + 77_777);
                at += client.read(&mut came[at..end]).unwrap();
            }
            assert!(came == all, "other bytes than were sent");
        },
        async move |io, dir, mut socket| {
            let one = file(&io, &dir.join("1"), &first).await;
            let two = file(&io, &dir.join("2"), &second).await;
            let one = one.cached().await.unwrap().expect("a real file");
            let two = two.cached().await.unwrap().expect("a real file");
            assert!(!one.is_resident(0..1 << 20), "it was never read");
            let bytes = |b: &'static [u8]| Part::Bytes(Bytes::from_static(b));
            let mut outbox = Outbox::new(io);
            outbox.push(vec![
                bytes(b"head"),
                part(&one, 777, 5_000_001),
                bytes(b"between"),
                bytes(b""),
                bytes(b"and"),
                part(&two, 0, 3),
            ]);
            outbox.push(vec![
                part(&two, 4096, 3 << 20),
                part(&one, 0, 9000),
                bytes(b"tail"),
            ]);
            send_all(&mut outbox, &mut socket).await.unwrap();
            assert_eq!((outbox.bytes, outbox.sent), (0, 0));
        },
    );
}

/// A direct write throws the pages of its range away; here with the bytes they had.
#[test]
fn pages_that_go_before_they_are_sent_are_loaded_again() {
    const LEN: usize = 8 << 20;
    meet(
        "again",
        |mut client| {
            let mut came = vec![0; LEN];
            client.read_exact(&mut came).unwrap();
            assert!(came == pattern(5, LEN));
        },
        async |io, dir, mut socket| {
            let bytes = pattern(5, LEN);
            let written = file(&io, &dir.join("f"), &bytes).await;
            let cached = written.cached().await.unwrap().unwrap();
            let mut outbox = Outbox::new(io.clone());
            outbox.push(vec![part(&cached, 0, LEN)]);
            while !outbox.is_empty() {
                poll_fn(|cx| outbox.poll_send(&mut socket, cx))
                    .await
                    .unwrap();
                write(&io, &written, &bytes).await;
                assert!(!cached.is_resident(0..LEN as u64), "the pages went");
            }
        },
    );
}

#[test]
fn a_file_that_became_shorter_ends_it_and_says_where() {
    const LEN: usize = 4 << 20;
    const CUT: usize = 2_500_000;
    meet(
        "shorter",
        |mut client| {
            let mut came = Vec::new();
            client.read_to_end(&mut came).unwrap();
            assert!(came.len() <= CUT && pattern(9, CUT).starts_with(&came));
        },
        async |io, dir, mut socket| {
            let written = file(&io, &dir.join("f"), &pattern(9, LEN)).await;
            let cached = written.cached().await.unwrap().unwrap();
            written.truncate(CUT as u64).await.unwrap();
            let mut outbox = Outbox::new(io);
            outbox.push(vec![part(&cached, 0, LEN)]);
            let error = send_all(&mut outbox, &mut socket).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
            assert!(error.to_string().contains("could not be read"), "{error}");
        },
    );
}

#[test]
fn a_client_that_goes_midway_ends_it() {
    const LEN: usize = 16 << 20;
    meet(
        "gone",
        |mut client| {
            client.read_exact(&mut [0; 100_000]).unwrap();
        },
        async |io, dir, mut socket| {
            let written = file(&io, &dir.join("f"), &pattern(3, LEN)).await;
            let cached = written.cached().await.unwrap().unwrap();
            let mut outbox = Outbox::new(io);
            outbox.push(vec![part(&cached, 0, LEN)]);
            let error = send_all(&mut outbox, &mut socket).await.unwrap_err();
            let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(gone.contains(&error.kind()), "{error}");
        },
    );
}

/// What a client will ask for next is there before it does.
#[test]
fn what_follows_is_loaded_while_a_range_is_sent() {
    const MIB: usize = 1 << 20;
    meet(
        "ahead",
        |mut client| {
            client.read_exact(&mut vec![0; MIB]).unwrap();
        },
        async |io, dir, mut socket| {
            let written = file(&io, &dir.join("f"), &pattern(4, 4 * MIB)).await;
            let cached = written.cached().await.unwrap().unwrap();
            let mut outbox = Outbox::new(io.clone());
            outbox.push(vec![part(&cached, 0, MIB)]);
            send_all(&mut outbox, &mut socket).await.unwrap();
            let until = io.now().plus(std::time::Duration::from_secs(30));
            while !cached.is_resident(MIB as u64..2 * MIB as u64) {
                assert!(io.now() < until, "it was not loaded");
                io.sleep(std::time::Duration::from_millis(1)).await;
            }
        },
    );
}
