//! What `io.rs` promises, held against each implementation.
//!
//! One story a promise, generic over `Io`, in a folder of its own. The stories say
//! nothing of power cuts: those the simulator is held to in `sim/tests.rs`.

use super::glommio::GlommioIo;
use super::sim::{DATA, Faults, Sim};
use super::{BLOCK, Buf, Entry, File, Io, Open, Want};
use crate::units::Nanos;
use futures_channel::oneshot;
use futures_util::future::join;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Makes one test a story and implementation.
macro_rules! contract {
    ($($story:ident),+ $(,)?) => {
        mod simulated {
            use super::*;
            $(#[test]
            fn $story() {
                for seed in 0..50 {
                    let sim = Sim::from_seed(seed);
                    sim.faults(Faults { slow: 0.05, ..Faults::default() });
                    let io = sim.io();
                    sim.run(super::$story(&io, Path::new(DATA)));
                }
            })+
        }
        mod real {
            use super::*;
            $(#[test]
            fn $story() {
                on_executor(async |io, dir| super::$story(io, dir).await);
            })+
        }
    };
}

contract![
    a_new_file_must_not_be_there_and_an_existing_one_must,
    what_was_written_is_read_at_any_position_and_length,
    a_buffer_shrinks_and_one_used_before_has_its_length,
    a_written_buffer_can_be_written_again_elsewhere,
    a_synced_write_is_a_write,
    a_read_at_the_end_is_short_and_beyond_it_empty,
    allocated_bytes_are_zero_and_kept_when_it_asks_for_less,
    truncated_bytes_are_gone_for_good,
    a_file_lives_on_without_its_name,
    writes_at_once_all_arrive,
    names_are_listed_in_order,
    a_rename_takes_the_place_of_what_was_there,
    a_folder_moves_with_what_is_in_it,
    a_folder_goes_with_all_that_is_in_it,
    a_replaced_file_is_read_whole,
    a_folder_is_looked_into_in_one_go,
    a_file_s_data_ends_before_the_room_that_was_reserved,
    everything_is_synced_at_once_or_it_says_that_it_can_not,
    a_sleep_lasts_as_long_as_it_was_told,
    a_sleep_counts_from_the_call,
    tasks_start_after_the_caller_waits_and_in_call_order,
    a_dropped_operation_does_no_harm,
];

/// Runs a story on an executor of its own, in a folder on the disk that the build is on:
/// /tmp may be in memory. Where the machine has no io_uring it says so and is skipped.
fn on_executor(story: impl AsyncFnOnce(&GlommioIo, &Path)) {
    if let Err(reason) = super::glommio::probe::io_uring() {
        eprintln!("skipped: {reason}");
        return;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::fs::create_dir_all(&target).unwrap();
    let dir = tempfile::tempdir_in(target).unwrap();
    let executor = glommio::LocalExecutorBuilder::default()
        .io_memory(1 << 20)
        .make()
        .unwrap();
    executor.run(async {
        let io = GlommioIo::new();
        story(&io, dir.path()).await;
        io.settle().await;
    });
}

fn filled<I: Io>(io: &I, byte: u8, blocks: usize) -> Rc<I::Buf> {
    let mut buf = io.alloc(blocks * BLOCK);
    buf.as_mut().fill(byte);
    Rc::new(buf)
}

/// Bytes that say where they are: no two windows of 8 are the same.
fn numbered<I: Io>(io: &I, blocks: usize) -> Rc<I::Buf> {
    let mut buf = io.alloc(blocks * BLOCK);
    for (i, word) in buf.as_mut().chunks_mut(4).enumerate() {
        word.copy_from_slice(&(i as u32).to_be_bytes());
    }
    Rc::new(buf)
}

async fn write_all<F: File>(file: &F, buf: Rc<F::Buf>, pos: u64) {
    let len = buf.len();
    assert_eq!(
        file.write_at(buf, pos).await.unwrap(),
        len,
        "a short write on a disk with room"
    );
}

async fn a_new_file_must_not_be_there_and_an_existing_one_must<I: Io>(io: &I, dir: &Path) {
    let path = dir.join("f");
    let kind = |r: std::io::Result<I::File>| r.err().map(|e| e.kind());
    assert_eq!(
        kind(io.open(&path, Open::Existing).await),
        Some(ErrorKind::NotFound)
    );
    let nowhere = dir.join("no/f");
    assert_eq!(
        kind(io.open(&nowhere, Open::New).await),
        Some(ErrorKind::NotFound)
    );
    let file = io.open(&path, Open::New).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 0);
    assert_eq!(
        kind(io.open(&path, Open::New).await),
        Some(ErrorKind::AlreadyExists)
    );
    write_all(&file, filled(io, 7, 1), 0).await;
    let again = io.open(&path, Open::Existing).await.unwrap();
    assert_eq!(again.read_at(0, BLOCK).await.unwrap()[..], [7; BLOCK]);
    assert!(
        io.open(dir, Open::Existing).await.is_err(),
        "a folder is not a file"
    );
}

async fn what_was_written_is_read_at_any_position_and_length<I: Io>(io: &I, dir: &Path) {
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    let buf = numbered(io, 3);
    write_all(&file, buf.clone(), 0).await;
    for (pos, len) in [
        (0, 3 * BLOCK),
        (0, 1),
        (1, 1),
        (511, 2),
        (BLOCK - 1, 2),
        (BLOCK, BLOCK),
        (100, 2 * BLOCK),
        (3 * BLOCK - 1, 1),
    ] {
        let read = file.read_at(pos as u64, len).await.unwrap();
        assert!(read[..] == buf[pos..pos + len], "{len} bytes at {pos}");
    }
    assert!(file.read_at(5, 0).await.unwrap().is_empty());
    // Over what is there, in the middle.
    write_all(&file, filled(io, 9, 1), BLOCK as u64).await;
    let read = file.read_at(BLOCK as u64 - 4, BLOCK + 8).await.unwrap();
    assert!(read[..4] == buf[BLOCK - 4..BLOCK] && read[4..4 + BLOCK] == [9; BLOCK]);
    assert!(read[4 + BLOCK..] == buf[2 * BLOCK..2 * BLOCK + 4]);
    file.fdatasync().await.unwrap();
}

async fn a_buffer_shrinks_and_one_used_before_has_its_length<I: Io>(io: &I, dir: &Path) {
    // Given back, shrunk or not: the next one may get the same memory, and has all of it.
    let large = 1 << 20;
    for shrunk in [large, BLOCK, large] {
        let mut buf = io.alloc(large);
        assert_eq!(buf.len(), large);
        buf.as_mut().fill(0xff);
        buf.shrink(shrunk);
    }
    let mut buf = io.alloc(3 * BLOCK);
    buf.as_mut()[BLOCK - 1] = 1;
    buf.shrink(BLOCK);
    assert_eq!(buf.len(), BLOCK);
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    write_all(&file, Rc::new(buf), 0).await;
    assert_eq!(file.len().await.unwrap(), BLOCK as u64);
    assert_eq!(file.read_at(BLOCK as u64 - 1, 1).await.unwrap()[..], [1]);
}

async fn a_written_buffer_can_be_written_again_elsewhere<I: Io>(io: &I, dir: &Path) {
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    let buf = numbered(io, 1);
    write_all(&file, buf.clone(), 0).await;
    write_all(&file, buf.clone(), BLOCK as u64).await;
    assert_eq!(
        Rc::strong_count(&buf),
        1,
        "a write that is done holds its buffer no more"
    );
    let read = file.read_at(0, 2 * BLOCK).await.unwrap();
    assert!(read[..BLOCK] == buf[..] && read[BLOCK..] == buf[..]);
}

/// Whose name may be gone by then, and which others write to beside.
async fn a_synced_write_is_a_write<I: Io>(io: &I, dir: &Path) {
    let path = dir.join("f");
    let file = io.open(&path, Open::New).await.unwrap();
    write_all(&file, filled(io, 1, 3), 0).await;
    io.remove_file(&path).await.unwrap();
    for at in [1, 3] {
        let (buf, pos) = (filled(io, 9, 1), at * BLOCK as u64);
        let (taken, beside) = join(
            file.write_synced_at(buf, pos),
            file.write_synced_at(filled(io, 8, 1), 5 * BLOCK as u64),
        )
        .await;
        assert_eq!((taken.unwrap(), beside.unwrap()), (BLOCK, BLOCK));
    }
    let read = file.read_at(0, 6 * BLOCK).await.unwrap();
    let blocks: Vec<_> = read.chunks(BLOCK).map(|block| block[0]).collect();
    assert_eq!(blocks, [1, 9, 1, 9, 0, 8]);
    assert!(
        read.chunks(BLOCK)
            .all(|b| b.iter().all(|byte| *byte == b[0]))
    );
}

async fn a_read_at_the_end_is_short_and_beyond_it_empty<I: Io>(io: &I, dir: &Path) {
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    assert!(file.read_at(0, BLOCK).await.unwrap().is_empty());
    write_all(&file, filled(io, 3, 2), 0).await;
    let end = 2 * BLOCK as u64;
    assert_eq!(file.read_at(end - 10, 100).await.unwrap()[..], [3; 10]);
    assert!(file.read_at(end, 100).await.unwrap().is_empty());
    assert!(file.read_at(end + 123, 100).await.unwrap().is_empty());
    assert_eq!(file.read_at(0, 100 * BLOCK).await.unwrap().len(), 2 * BLOCK);
    // An end that is not a block's.
    file.truncate(5000).await.unwrap();
    assert_eq!(file.read_at(4990, 100).await.unwrap()[..], [3; 10]);
    assert_eq!(file.read_at(4097, 2).await.unwrap()[..], [3; 2]);
    assert!(file.read_at(5000, 1).await.unwrap().is_empty());
    assert!(file.read_at(5001, 1).await.unwrap().is_empty());
}

async fn allocated_bytes_are_zero_and_kept_when_it_asks_for_less<I: Io>(io: &I, dir: &Path) {
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    file.allocate(1 << 20).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1 << 20);
    assert!(
        file.read_at(0, 1 << 20)
            .await
            .unwrap()
            .iter()
            .all(|b| *b == 0)
    );
    write_all(&file, filled(io, 1, 1), 65536).await;
    file.allocate(4096).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1 << 20);
    assert_eq!(file.read_at(65535, 2).await.unwrap()[..], [0, 1]);
    file.fdatasync().await.unwrap();
}

async fn truncated_bytes_are_gone_for_good<I: Io>(io: &I, dir: &Path) {
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    write_all(&file, filled(io, 1, 3), 0).await;
    file.truncate(BLOCK as u64 + 10).await.unwrap();
    assert_eq!(file.len().await.unwrap(), BLOCK as u64 + 10);
    file.allocate(3 * BLOCK as u64).await.unwrap();
    let read = file.read_at(BLOCK as u64, 2 * BLOCK).await.unwrap();
    assert!(read[..10] == [1; 10] && read[10..].iter().all(|b| *b == 0));
    file.truncate(0).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 0);
    // A write beyond the end leaves zeros between.
    write_all(&file, filled(io, 2, 1), BLOCK as u64).await;
    assert_eq!(file.len().await.unwrap(), 2 * BLOCK as u64);
    assert!(
        file.read_at(0, BLOCK)
            .await
            .unwrap()
            .iter()
            .all(|b| *b == 0)
    );
}

async fn a_file_lives_on_without_its_name<I: Io>(io: &I, dir: &Path) {
    let (path, moved) = (dir.join("f"), dir.join("g"));
    let file = io.open(&path, Open::New).await.unwrap();
    write_all(&file, filled(io, 1, 1), 0).await;
    io.rename(&path, &moved).await.unwrap();
    assert_eq!(file.len().await.unwrap(), BLOCK as u64);
    write_all(&file, filled(io, 2, 1), BLOCK as u64).await;
    assert_eq!(io.read_file(&moved).await.unwrap().len(), 2 * BLOCK);
    io.remove_file(&moved).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 2 * BLOCK as u64);
    assert_eq!(file.read_at(BLOCK as u64, 1).await.unwrap()[..], [2]);
    file.fdatasync().await.unwrap();
    let gone = io.remove_file(&moved).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

async fn writes_at_once_all_arrive<I: Io>(io: &I, dir: &Path) {
    const WRITES: usize = 40;
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    file.allocate((WRITES * BLOCK) as u64).await.unwrap();
    let writes = (0..WRITES).map(|i| {
        let file = &file;
        async move { write_all(file, filled(io, i as u8, 1), (i * BLOCK) as u64).await }
    });
    futures_util::future::join_all(writes).await;
    file.fdatasync().await.unwrap();
    let read = file.read_at(0, WRITES * BLOCK).await.unwrap();
    for (i, block) in read.chunks(BLOCK).enumerate() {
        assert!(block.iter().all(|b| *b == i as u8), "block {i}");
    }
}

async fn names_are_listed_in_order<I: Io>(io: &I, dir: &Path) {
    let missing = io.read_dir(&dir.join("none")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    io.create_dir_all(&dir.join("d/e/f")).await.unwrap();
    io.create_dir_all(&dir.join("d/e/f")).await.unwrap();
    for name in ["d/c", "d/a", "d/b", "d/00000000000000000010.log"] {
        io.open(&dir.join(name), Open::New).await.unwrap();
    }
    let entry = |name: &str, is_dir| Entry {
        name: name.into(),
        is_dir,
    };
    assert_eq!(
        io.read_dir(&dir.join("d")).await.unwrap(),
        [
            entry("00000000000000000010.log", false),
            entry("a", false),
            entry("b", false),
            entry("c", false),
            entry("e", true)
        ]
    );
    io.sync_dir(&dir.join("d")).await.unwrap();
    assert!(io.sync_dir(&dir.join("none")).await.is_err());
    assert!(io.read_dir(&dir.join("d/a")).await.is_err());
    assert!(
        io.create_dir_all(&dir.join("d/a")).await.is_err(),
        "a file is in the way"
    );
}

async fn a_rename_takes_the_place_of_what_was_there<I: Io>(io: &I, dir: &Path) {
    let (from, to) = (dir.join("from"), dir.join("to"));
    let missing = io.rename(&from, &to).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    io.replace_file(&from, b"new".to_vec()).await.unwrap();
    io.replace_file(&to, b"old".to_vec()).await.unwrap();
    io.rename(&from, &to).await.unwrap();
    assert_eq!(io.read_file(&to).await.unwrap(), b"new");
    assert_eq!(io.read_dir(dir).await.unwrap().len(), 1);
}

async fn a_folder_moves_with_what_is_in_it<I: Io>(io: &I, dir: &Path) {
    io.create_dir_all(&dir.join("t-0")).await.unwrap();
    let file = io.open(&dir.join("t-0/log"), Open::New).await.unwrap();
    write_all(&file, filled(io, 1, 1), 0).await;
    io.create_dir_all(&dir.join("full/x")).await.unwrap();
    assert!(
        io.rename(&dir.join("t-0"), &dir.join("full"))
            .await
            .is_err(),
        "it is not empty"
    );
    io.rename(&dir.join("t-0"), &dir.join("t-0.deleted"))
        .await
        .unwrap();
    write_all(&file, filled(io, 2, 1), 0).await;
    let read = io.read_file(&dir.join("t-0.deleted/log")).await.unwrap();
    assert_eq!(read, [2; BLOCK]);
    assert!(io.read_dir(&dir.join("t-0")).await.is_err());
}

async fn a_folder_goes_with_all_that_is_in_it<I: Io>(io: &I, dir: &Path) {
    let top = dir.join("top");
    io.create_dir_all(&top.join("a/b")).await.unwrap();
    io.replace_file(&top.join("a/b/f"), vec![1]).await.unwrap();
    io.replace_file(&top.join("g"), vec![2]).await.unwrap();
    io.remove_dir_all(&top).await.unwrap();
    assert_eq!(io.read_dir(dir).await.unwrap(), []);
    assert_eq!(
        io.remove_dir_all(&top).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

async fn a_replaced_file_is_read_whole<I: Io>(io: &I, dir: &Path) {
    let path = dir.join("checkpoint");
    assert_eq!(
        io.read_file(&path).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    for len in [0, 1, 4095, 4096, 4097, 100_000, 3] {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        io.replace_file(&path, bytes.clone()).await.unwrap();
        assert_eq!(io.read_file(&path).await.unwrap(), bytes);
    }
    assert_eq!(
        io.read_dir(dir).await.unwrap().len(),
        1,
        "nothing is left beside it"
    );
    // What a crash left beside it is in nobody's way.
    io.open(&dir.join("checkpoint.tmp"), Open::New)
        .await
        .unwrap();
    io.replace_file(&path, b"x".to_vec()).await.unwrap();
    assert_eq!(io.read_file(&path).await.unwrap(), b"x");
    assert!(io.replace_file(&dir.join("no/x"), vec![]).await.is_err());
}

async fn a_folder_is_looked_into_in_one_go<I: Io>(io: &I, dir: &Path) {
    let missing = io.open_dir(&dir.join("none"), |_| Vec::new()).await;
    assert_eq!(missing.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    let file = io.open(&dir.join("log"), Open::New).await.unwrap();
    write_all(&file, numbered(io, 3), 0).await;
    file.truncate(2 * BLOCK as u64 + 10).await.unwrap();
    io.open(&dir.join("empty"), Open::New).await.unwrap();
    io.replace_file_unsynced(&dir.join("small"), b"old".to_vec())
        .await
        .unwrap();
    io.replace_file_unsynced(&dir.join("small"), b"new".to_vec())
        .await
        .unwrap();
    let mut opened = io
        .open_dir(dir, |entries| {
            let names: Vec<&str> = entries.iter().map(|e| &e.name[..]).collect();
            assert_eq!(names, ["empty", "log", "small"]);
            let file = |front| Want::File { front };
            vec![
                ("log".into(), file(BLOCK + 1)),
                ("empty".into(), file(BLOCK)),
                ("small".into(), Want::Bytes),
                ("gone".into(), Want::Bytes),
                ("lost".into(), file(0)),
            ]
        })
        .await
        .unwrap();
    assert_eq!(opened.entries.len(), 3);
    assert_eq!(opened.bytes.remove("small").unwrap().unwrap(), b"new");
    let kind = |e: Option<std::io::Error>| e.map(|e| e.kind());
    let gone = opened.bytes.remove("gone").unwrap();
    assert_eq!(kind(gone.err()), Some(ErrorKind::NotFound));
    let lost = opened.files.remove("lost").unwrap();
    assert_eq!(kind(lost.err()), Some(ErrorKind::NotFound));
    let empty = opened.files.remove("empty").unwrap().unwrap();
    assert_eq!((empty.len, empty.data_end, empty.front.len()), (0, 0, 0));
    write_all(&empty.file, filled(io, 4, 1), 0).await;
    let log = opened.files.remove("log").unwrap().unwrap();
    assert_eq!(log.len, 2 * BLOCK as u64 + 10);
    assert_eq!(log.data_end, log.len);
    assert!(log.front[..] == numbered(io, 2)[..BLOCK + 1]);
    // It is the file, for reads and for writes, in whatever order the handles go.
    drop(file);
    write_all(&log.file, filled(io, 9, 1), BLOCK as u64).await;
    log.file.fdatasync().await.unwrap();
    assert_eq!(
        log.file.read_at(BLOCK as u64 - 1, 2).await.unwrap()[1..],
        [9]
    );
    drop(log);
    assert_eq!(io.read_file(&dir.join("log")).await.unwrap()[BLOCK], 9);
    assert_eq!(empty.file.read_at(0, 1).await.unwrap()[..], [4]);
}

async fn a_file_s_data_ends_before_the_room_that_was_reserved<I: Io>(io: &I, dir: &Path) {
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    assert_eq!(file.data_end().await.unwrap(), 0);
    file.allocate(1 << 20).await.unwrap();
    for (at, blocks) in [(0, 2), (5, 1), (3, 1), (100, 3)] {
        write_all(&file, filled(io, 1, blocks), (at * BLOCK) as u64).await;
        let (end, len) = (
            file.data_end().await.unwrap(),
            file.len().await.unwrap() as usize,
        );
        assert!(end >= ((at + blocks) * BLOCK) as u64 && end as usize <= len);
        let behind = file.read_at(end, len).await.unwrap();
        assert!(behind.len() == len - end as usize && behind.iter().all(|b| *b == 0));
    }
    file.truncate(101 * BLOCK as u64 + 5).await.unwrap();
    assert_eq!(file.data_end().await.unwrap(), 101 * BLOCK as u64 + 5);
}

async fn everything_is_synced_at_once_or_it_says_that_it_can_not<I: Io>(io: &I, dir: &Path) {
    let known = |result: std::io::Result<()>| match result {
        Err(e) if e.kind() == ErrorKind::Unsupported => false,
        other => {
            other.unwrap();
            true
        }
    };
    // Before anything was opened, of a folder and of a file, and twice at once.
    let first = known(io.sync_all(dir).await);
    let path = dir.join("f");
    let file = io.open(&path, Open::New).await.unwrap();
    write_all(&file, filled(io, 1, 2), 0).await;
    let (a, b) = futures_util::future::join(io.sync_all(dir), io.sync_all(&path)).await;
    assert!(known(a) == first && known(b) == first);
    assert_eq!(file.read_at(BLOCK as u64, 1).await.unwrap()[..], [1]);
    let missing = io.sync_all(&dir.join("none")).await.unwrap_err();
    if first {
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}

async fn a_sleep_lasts_as_long_as_it_was_told<I: Io>(io: &I, _: &Path) {
    for ms in [0, 1, 20] {
        let (before, wall) = (io.now(), io.wall());
        io.sleep(Duration::from_millis(ms)).await;
        assert!(io.now() >= before.plus(Duration::from_millis(ms)));
        assert!(io.wall() >= wall);
    }
}

async fn a_sleep_counts_from_the_call<I: Io>(io: &I, _: &Path) {
    let before = io.now();
    let early = io.sleep(Duration::from_millis(40));
    io.sleep(Duration::from_millis(50)).await;
    let between = io.now();
    early.await;
    let after = io.now();
    assert!(between >= before.plus(Duration::from_millis(50)));
    let waited = Nanos(after.0 - between.0);
    assert!(
        waited < Nanos(40_000_000),
        "it began to count only when it was awaited: {waited}"
    );
}

async fn tasks_start_after_the_caller_waits_and_in_call_order<I: Io>(io: &I, _: &Path) {
    let order = Rc::new(RefCell::new(Vec::new()));
    let (done, all) = oneshot::channel();
    let mut done = Some(done);
    for i in 0..10 {
        let (order, io2) = (order.clone(), io.clone());
        let done = if i == 9 { done.take() } else { None };
        io.spawn(async move {
            order.borrow_mut().push(i);
            let (order, at_end) = (order.clone(), i);
            // One that is spawned by a task comes after those that wait already.
            io2.spawn(async move {
                order.borrow_mut().push(100 + at_end);
                if let Some(done) = done {
                    done.send(()).unwrap();
                }
            });
        });
    }
    assert!(
        order.borrow().is_empty(),
        "a task started before the caller waited"
    );
    all.await.unwrap();
    let order = order.borrow();
    let (first, second): (Vec<i32>, Vec<i32>) = order.iter().partition(|i| **i < 100);
    assert_eq!(first, (0..10).collect::<Vec<_>>());
    assert_eq!(second, (100..110).collect::<Vec<_>>());
}

async fn a_dropped_operation_does_no_harm<I: Io>(io: &I, dir: &Path) {
    use futures_util::future::{Either, select};
    use std::pin::pin;
    let file = io.open(&dir.join("f"), Open::New).await.unwrap();
    file.allocate(4 * BLOCK as u64).await.unwrap();
    for i in 0..20u8 {
        // Each is polled once, then dropped where it did not win.
        let write = pin!(file.write_at(filled(io, i, 4), 0));
        let other = pin!(async {});
        assert!(matches!(select(write, other).await, Either::Right(_)));
        let read = pin!(file.read_at(0, BLOCK));
        assert!(matches!(
            select(read, pin!(async {})).await,
            Either::Right(_)
        ));
        let cut = pin!(file.truncate(4 * BLOCK as u64));
        assert!(matches!(
            select(cut, pin!(async {})).await,
            Either::Right(_)
        ));
    }
    file.fdatasync().await.unwrap();
    let len = file.len().await.unwrap();
    assert_eq!(len, 4 * BLOCK as u64);
    write_all(&file, filled(io, 99, 4), 0).await;
    // What was dropped may still arrive; a sync waits for none of it, so only the shape
    // can be held to: each block is whole of one write.
    let read = file.read_at(0, 4 * BLOCK).await.unwrap();
    assert!(
        read.chunks(BLOCK)
            .all(|block| block.iter().all(|b| *b == block[0]))
    );
}
