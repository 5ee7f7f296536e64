//! Whether this machine can run the executors, and what to do where it can't.
//!
//! glommio panics, or ends the process, in most of these cases; so all of it is asked
//! beforehand, from the main thread, before there is any other.
//!
//! | asked | in the way |
//! |---|---|
//! | io_uring | an old kernel, `kernel.io_uring_disabled`, seccomp (containers) |
//! | its operations | an old kernel |
//! | locked memory | RLIMIT_MEMLOCK below 512 KiB |
//! | /proc, /sys | a container without them, an unusual device |
//! | the data folder | not writable, full, no direct I/O |

use crate::io::BLOCK;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What glommio asks of every executor.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// What it registers for an executor at the least.
const IO_MEMORY_BYTES_MIN: usize = 64 * 1024;

/// Why Klamm can't run here. `Display` says what to do.
#[derive(Debug)]
pub enum Unfit {
    /// The kernel has no io_uring (ENOSYS).
    NoUring {
        kernel: String,
    },
    /// It may not be used (EPERM).
    UringForbidden {
        by: Forbidder,
    },
    UringFailed {
        error: io::Error,
    },
    KernelTooOld {
        kernel: String,
        missing: Vec<&'static str>,
    },
    MemlockTooLow {
        limit: u64,
    },
    NoProc {
        error: io::Error,
    },
    /// A block device that glommio would panic over.
    UnknownDevice {
        path: PathBuf,
        missing: PathBuf,
    },
    DataFolder {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    DataFolderFull {
        path: PathBuf,
    },
    NoDirectIo {
        path: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidder {
    /// `kernel.io_uring_disabled` is 2: for everyone.
    SysctlForAll,
    /// It is 1: for those that are not in `kernel.io_uring_group`.
    SysctlForGroup,
    Seccomp,
    Unknown,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NoUring { kernel } => write!(
                f,
                "this kernel ({kernel}) has no io_uring; Klamm needs Linux 5.8 or newer with \
                 io_uring, and a sandbox (gVisor, some container runtimes) must pass it through"
            ),
            Unfit::UringForbidden {
                by: Forbidder::SysctlForAll,
            } => f.write_str(
                "io_uring is switched off on this machine (kernel.io_uring_disabled = 2); switch \
                 it on with: sysctl kernel.io_uring_disabled=0",
            ),
            Unfit::UringForbidden {
                by: Forbidder::SysctlForGroup,
            } => f.write_str(
                "io_uring is not allowed for this user (kernel.io_uring_disabled = 1); add the \
                 user to the group that kernel.io_uring_group names, or allow all with: sysctl \
                 kernel.io_uring_disabled=0",
            ),
            Unfit::UringForbidden {
                by: Forbidder::Seccomp,
            } => f.write_str(
                "io_uring is forbidden by a seccomp filter, as containers have by default; allow \
                 io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
                 profile (Docker: --security-opt seccomp=FILE, or seccomp=unconfined)",
            ),
            Unfit::UringForbidden {
                by: Forbidder::Unknown,
            } => f.write_str(
                "io_uring is forbidden for this process (EPERM); check the security module's \
                 (SELinux, AppArmor) log, and kernel.io_uring_disabled",
            ),
            Unfit::UringFailed { error } => write!(
                f,
                "io_uring could not be set up: {error}; check the limits of memory and of open \
                 files"
            ),
            Unfit::KernelTooOld { kernel, missing } => write!(
                f,
                "this kernel ({kernel}) is too old: its io_uring lacks {}; Klamm needs Linux 5.8 \
                 or newer",
                missing.join(", ")
            ),
            Unfit::MemlockTooLow { limit } => write!(
                f,
                "only {} KiB of memory may be locked, and io_uring needs {} KiB; raise it with: \
                 ulimit -l {} (systemd: LimitMEMLOCK=infinity, Docker: --ulimit memlock=-1)",
                limit / 1024,
                MEMLOCK_BYTES_MIN / 1024,
                8 * 1024
            ),
            Unfit::NoProc { error } => {
                write!(f, "/proc/self/fd can't be read: {error}; mount /proc")
            }
            Unfit::UnknownDevice { path, missing } => write!(
                f,
                "{} is on a device that the I/O library does not know how to ask ({} is \
                 missing); put the data on another device",
                path.display(),
                missing.display()
            ),
            Unfit::DataFolder { doing, path, error } => write!(
                f,
                "could not {doing} {}: {error}; check its owner and permissions, and the disk, \
                 or choose another data folder",
                path.display()
            ),
            Unfit::DataFolderFull { path } => write!(
                f,
                "there is no room on the disk of {}; free some, or choose another data folder",
                path.display()
            ),
            Unfit::NoDirectIo { path } => write!(
                f,
                "the file system of {} has no direct I/O (O_DIRECT); put the data on ext4, XFS \
                 or another one that has it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Unfit {}

/// What was found, where all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Registered memory for each executor, for `RuntimeConfig::io_memory_bytes`.
    pub io_memory_bytes: usize,
    /// How many files may be open, after raising it as far as it goes.
    pub files_max: u64,
    /// The data folder is in memory: nothing in it survives a restart of the machine.
    pub in_memory: bool,
}

/// Everything, in the order in which the answers make sense. Makes the data folder where
/// it is missing. Call it first thing on the main thread.
pub fn machine(data: &Path, cores: usize, io_memory_bytes: usize) -> Result<Fit, Unfit> {
    register_barrier();
    io_uring()?;
    let limit = memlock()?;
    let files_max = raise_files_max();
    fs::metadata("/proc/self/fd").map_err(|error| Unfit::NoProc { error })?;
    let in_memory = data_folder(data)?;
    let io_memory_bytes = io_memory(limit, cores, io_memory_bytes);
    Ok(Fit {
        io_memory_bytes,
        files_max,
        in_memory,
    })
}

// -- io_uring

/// The operations that the I/O library asks for, by their numbers in linux/io_uring.h.
const OPERATIONS: [(u8, &str); 23] = [
    (0, "NOP"),
    (1, "READV"),
    (2, "WRITEV"),
    (3, "FSYNC"),
    (4, "READ_FIXED"),
    (5, "WRITE_FIXED"),
    (6, "POLL_ADD"),
    (7, "POLL_REMOVE"),
    (9, "SENDMSG"),
    (10, "RECVMSG"),
    (11, "TIMEOUT"),
    (12, "TIMEOUT_REMOVE"),
    (13, "ACCEPT"),
    (15, "LINK_TIMEOUT"),
    (16, "CONNECT"),
    (17, "FALLOCATE"),
    (18, "OPENAT"),
    (19, "CLOSE"),
    (21, "STATX"),
    (22, "READ"),
    (23, "WRITE"),
    (26, "SEND"),
    (27, "RECV"),
];

/// struct io_uring_params: 120 bytes that may all be 0, read and written by the kernel.
const PARAMS_LEN: usize = 120;
const REGISTER_PROBE: libc::c_uint = 8;
/// struct io_uring_probe: 16 bytes, then 8 for each operation, of which the third and
/// fourth are flags; the lowest flag says that the kernel has it.
const PROBE_HEAD: usize = 16;
const PROBE_OPS: usize = 256;

/// Whether io_uring is there, allowed, and has what is needed.
pub fn io_uring() -> Result<(), Unfit> {
    let ring = setup_ring().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => Unfit::NoUring { kernel: kernel() },
        Some(libc::EPERM | libc::EACCES) => Unfit::UringForbidden { by: forbidder() },
        _ => Unfit::UringFailed { error },
    })?;
    let missing = match supported(&ring) {
        Ok(supported) => missing_of(&supported),
        // Before Linux 5.6 there is not even the question.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => vec!["the probe"],
        Err(error) => return Err(Unfit::UringFailed { error }),
    };
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Unfit::KernelTooOld {
            kernel: kernel(),
            missing,
        }),
    }
}

fn missing_of(supported: &[bool]) -> Vec<&'static str> {
    let has = |op: u8| supported.get(usize::from(op)).copied().unwrap_or(false);
    OPERATIONS
        .iter()
        .filter(|(op, _)| !has(*op))
        .map(|(_, name)| *name)
        .collect()
}

fn setup_ring() -> io::Result<OwnedFd> {
    let mut params = [0u64; PARAMS_LEN / 8];
    // SAFETY: the kernel reads and writes one io_uring_params, which this has the size and
    // alignment of, and which may be all zero.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn supported(ring: &OwnedFd) -> io::Result<Vec<bool>> {
    let mut probe = [0u64; (PROBE_HEAD + 8 * PROBE_OPS) / 8];
    // SAFETY: the kernel writes at most PROBE_OPS operations after the head, for which
    // there is room, and asks that it be all zero before.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_PROBE,
            probe.as_mut_ptr(),
            PROBE_OPS,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let ops = &probe[PROBE_HEAD / 8..];
    Ok(ops.iter().map(|op| op.to_ne_bytes()[2] & 1 != 0).collect())
}

fn forbidder() -> Forbidder {
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    forbidder_by(sysctl.trim(), &status)
}

fn forbidder_by(sysctl: &str, status: &str) -> Forbidder {
    match sysctl {
        "2" => Forbidder::SysctlForAll,
        "1" => Forbidder::SysctlForGroup,
        _ if field(status, "Seccomp:") == Some("2") => Forbidder::Seccomp,
        _ => Forbidder::Unknown,
    }
}

/// One field of /proc/self/status.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(
        |_| "unknown".to_owned(),
        |release| release.trim().to_owned(),
    )
}

/// Tells the kernel that this process will use `membarrier`, as the executors do before
/// they sleep. It takes no time while the process has one thread; later, in the first
/// sleep, it takes 30 to 50 ms. Where it can't be had glommio does without.
pub(super) fn register_barrier() {
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    // SAFETY: membarrier takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0) };
}

// -- limits

fn limit(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit. It fails only for a bad resource or address.
    let result = unsafe { libc::getrlimit(resource, &mut limit) };
    assert_eq!(result, 0, "getrlimit of a resource that there is");
    limit
}

/// Raises the soft limit to the hard one, and returns what it is then.
fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let before = limit(resource);
    let raised = libc::rlimit {
        rlim_cur: before.rlim_max,
        ..before
    };
    // SAFETY: the kernel reads one rlimit. Where it says no, the limit stays.
    unsafe { libc::setrlimit(resource, &raised) };
    limit(resource).rlim_cur
}

/// How much memory may be locked, after raising it as far as it goes.
pub fn memlock() -> Result<u64, Unfit> {
    match raise(libc::RLIMIT_MEMLOCK) {
        limit if limit < MEMLOCK_BYTES_MIN => Err(Unfit::MemlockTooLow { limit }),
        limit => Ok(limit),
    }
}

/// How many files may be open, after raising it as far as it goes: each segment, each
/// connection takes one.
pub fn raise_files_max() -> u64 {
    raise(libc::RLIMIT_NOFILE)
}

/// What each of the executors may register of `wanted`. The kernel counts it for each of
/// an executor's three rings, and for all processes of a user together.
fn io_memory(limit: u64, cores: usize, wanted: usize) -> usize {
    const CAP_IPC_LOCK: u64 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = field(&status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let uncounted = rights.is_some_and(|rights| rights >> CAP_IPC_LOCK & 1 == 1);
    if uncounted || limit == libc::RLIM_INFINITY {
        return wanted;
    }
    // Half of it: rings of older kernels count too, and so does a second process.
    let share = (limit - MEMLOCK_BYTES_MIN.min(limit)) / 2 / 3 / cores as u64;
    let share = usize::try_from(share).unwrap_or(usize::MAX) / BLOCK * BLOCK;
    wanted.min(share).max(IO_MEMORY_BYTES_MIN)
}

/// The processors that this process may use.
pub(super) fn processors() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set, the kernel writes at most its size,
    // and CPU_ISSET only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize)
            .filter(|cpu| libc::CPU_ISSET(*cpu, &set))
            .collect()
    }
}

// -- the data folder

/// Whether files in `path` can be written with direct I/O; makes the folder where it is
/// missing. True: it is in memory only (tmpfs).
pub fn data_folder(path: &Path) -> Result<bool, Unfit> {
    let failed = |doing| {
        move |error: io::Error| match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Unfit::DataFolderFull {
                path: path.to_owned(),
            },
            _ => Unfit::DataFolder {
                doing,
                path: path.to_owned(),
                error,
            },
        }
    };
    fs::create_dir_all(path).map_err(failed("create"))?;
    let metadata = fs::metadata(path).map_err(failed("look at"))?;
    known_device(
        path,
        libc::major(metadata.dev()),
        Path::new("/sys/dev/block"),
    )?;
    let in_memory = is_tmpfs(path).map_err(failed("look at"))?;
    let trial = path.join(format!(".klamm-trial-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    if !in_memory {
        options.custom_flags(libc::O_DIRECT);
    }
    let file = options.open(&trial).map_err(|e| match e.raw_os_error() {
        // The name is made before the flag is refused.
        Some(libc::EINVAL) => {
            let _ = fs::remove_file(&trial);
            Unfit::NoDirectIo {
                path: path.to_owned(),
            }
        }
        _ => failed("create a file in")(e),
    })?;
    let written = write_a_block(&file).and_then(|()| file.sync_data());
    let removed = fs::remove_file(&trial);
    written.map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => Unfit::NoDirectIo {
            path: path.to_owned(),
        },
        _ => failed("write a file in")(e),
    })?;
    removed.map_err(failed("remove a file in"))?;
    Ok(in_memory)
}

fn write_a_block(file: &fs::File) -> io::Result<()> {
    let room = vec![0xa5u8; 2 * BLOCK];
    let start = room.as_ptr().align_offset(BLOCK);
    file.write_all_at(&room[start..start + BLOCK], 0)
}

fn is_tmpfs(path: &Path) -> io::Result<bool> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the path ends in 0, and the kernel writes one statfs, which may be all zero.
    let (result, found) = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::statfs(path.as_ptr(), &mut found), found)
    };
    match result {
        0 => Ok(found.f_type == libc::TMPFS_MAGIC),
        _ => Err(io::Error::last_os_error()),
    }
}

/// glommio looks a file's device up as MAJOR:0, and panics where that is something
/// without a queue, such as a partition.
fn known_device(path: &Path, major: u32, devices: &Path) -> Result<(), Unfit> {
    let device = devices.join(format!("{major}:0"));
    if !device.exists() {
        return Ok(());
    }
    let asked = [
        "queue/rotational",
        "queue/minimum_io_size",
        "queue/optimal_io_size",
        "queue/logical_block_size",
        "queue/physical_block_size",
        "queue/max_sectors_kb",
        "queue/max_segment_size",
        "queue/write_cache",
        "slaves",
    ];
    match asked
        .iter()
        .map(|name| device.join(name))
        .find(|file| !file.exists())
    {
        Some(missing) => Err(Unfit::UnknownDevice {
            path: path.to_owned(),
            missing,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        tempfile::tempdir_in(target).unwrap()
    }

    #[test]
    fn the_probe_agrees_with_what_the_kernel_says_of_itself() {
        match io_uring() {
            Ok(()) => {
                let supported = supported(&setup_ring().unwrap()).unwrap();
                assert!(supported[0] && !supported[255], "NOP is there, 255 is not");
            }
            Err(unfit) => eprintln!("not fit: {unfit}"),
        }
    }

    #[test]
    fn an_operation_that_is_missing_is_named() {
        let mut supported = vec![true; 28];
        assert_eq!(missing_of(&supported), Vec::<&str>::new());
        supported[17] = false;
        assert_eq!(missing_of(&supported), ["FALLOCATE"]);
        assert_eq!(
            missing_of(&supported[..22]),
            ["FALLOCATE", "READ", "WRITE", "SEND", "RECV"]
        );
        let message = Unfit::KernelTooOld {
            kernel: "5.4.0".into(),
            missing: vec!["READ"],
        };
        assert!(message.to_string().contains("5.4.0") && message.to_string().contains("READ"));
    }

    #[test]
    fn who_forbids_it_is_told_apart() {
        let free = "Name:\tklamm\nSeccomp:\t0\n";
        let filtered = "Name:\tklamm\nSeccomp:\t2\n";
        assert_eq!(forbidder_by("2", filtered), Forbidder::SysctlForAll);
        assert_eq!(forbidder_by("1", free), Forbidder::SysctlForGroup);
        assert_eq!(forbidder_by("0", filtered), Forbidder::Seccomp);
        assert_eq!(forbidder_by("", filtered), Forbidder::Seccomp);
        assert_eq!(forbidder_by("0", free), Forbidder::Unknown);
    }

    #[test]
    fn registered_memory_fits_the_limit_and_is_never_nothing() {
        let mib = 1 << 20;
        assert_eq!(io_memory(libc::RLIM_INFINITY, 64, 4 * mib), 4 * mib);
        assert_eq!(
            raise(libc::RLIMIT_NOFILE),
            limit(libc::RLIMIT_NOFILE).rlim_max
        );
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let rights = u64::from_str_radix(field(&status, "CapEff:").unwrap(), 16).unwrap();
        if rights >> 14 & 1 == 0 {
            let of_eight = io_memory(8 << 20, 2, 4 * mib);
            assert!(
                of_eight * 3 * 2 <= 8 << 20 && of_eight >= mib / 2,
                "{of_eight}"
            );
            assert_eq!(
                io_memory(MEMLOCK_BYTES_MIN, 2, 4 * mib),
                IO_MEMORY_BYTES_MIN
            );
        }
    }

    #[test]
    fn a_folder_is_made_tried_and_left_empty() {
        let dir = folder();
        let data = dir.path().join("a/b");
        data_folder(&data).unwrap();
        data_folder(&data).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_one_is_said_to_be_so() {
        let dir = folder();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        let unfit = data_folder(&file).unwrap_err();
        assert!(
            matches!(
                unfit,
                Unfit::DataFolder {
                    doing: "create",
                    ..
                }
            ),
            "{unfit:?}"
        );
        assert!(unfit.to_string().contains(file.to_str().unwrap()));
        let below = data_folder(&file.join("x")).unwrap_err();
        assert!(matches!(below, Unfit::DataFolder { .. }), "{below:?}");
    }

    #[test]
    fn a_file_system_without_direct_io_is_said_to_be_so() {
        // /proc is one; it has no files to make either, which is answered first.
        let unfit = data_folder(Path::new("/proc/self")).unwrap_err();
        assert!(
            matches!(unfit, Unfit::DataFolder { .. } | Unfit::NoDirectIo { .. }),
            "{unfit:?}"
        );
    }

    #[test]
    fn a_device_without_a_queue_is_found_before_it_is_opened() {
        let dir = folder();
        let data = Path::new("/data");
        known_device(data, 259, dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("259:0")).unwrap();
        let unfit = known_device(data, 259, dir.path()).unwrap_err();
        assert!(unfit.to_string().contains("queue/rotational"), "{unfit}");
    }

    #[test]
    fn the_processors_that_may_be_used_are_known() {
        let processors = processors();
        assert_eq!(
            processors.len(),
            std::thread::available_parallelism()
                .unwrap()
                .get()
                .max(processors.len()),
            "no fewer than the standard library finds"
        );
        assert!(!processors.is_empty());
    }
}
