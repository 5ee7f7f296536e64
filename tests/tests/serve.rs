//! How the broker starts, refuses to start, and stops: what an operator sees of it.
//!
//! ```text
//!   klamm serve  --could not-->  status 1 or 2, and on stderr the cause and a remedy
//!        |
//!      serves  --SIGTERM, Ctrl-C-->  status 0, DATA marked clean
//!        |---- SIGKILL ----------->  DATA not marked: the next start recovers
//! ```

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{DescribeConfigsRequest, MetadataRequest};
use klamm_tests::batch::Batch;
use klamm_tests::broker::{Broker, klamm};
use klamm_tests::wire::{Connection, text};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A refusal takes no longer than a start.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

fn marker(broker: &Broker) -> PathBuf {
    broker.data().join(".kafka_cleanshutdown")
}

// -- stopping

#[test]
fn sigterm_and_ctrl_c_leave_a_folder_that_is_marked_clean() {
    let mut broker = Broker::start();
    broker.connect().create_topic("orders", 1, &[]);
    for (round, stop) in [Broker::stop, Broker::interrupt].into_iter().enumerate() {
        let value = format!("round {round}");
        let base = i64::try_from(round).expect("two rounds");
        let sent = broker
            .connect()
            .produce("orders", 0, Batch::of(&[value]).encode());
        assert_eq!(sent, (0, base));
        assert!(!marker(&broker).exists(), "a running broker is not stopped");
        // `stop` itself asserts status 0.
        stop(&mut broker);
        assert!(marker(&broker).exists(), "stopped in order");
        broker.start_again();
        assert!(!marker(&broker).exists(), "the mark is good for one start");
        assert_eq!(broker.connect().read_all("orders", 0).len(), round + 1);
    }
    broker.kill9();
    assert!(!marker(&broker).exists(), "killed is not stopped");
}

#[test]
fn a_stop_answers_a_waiting_reader_or_closes_but_does_not_wait_for_it() {
    use klamm_tests::fetch::{Fetch, Patience, request};
    let mut broker = Broker::start();
    let mut reader = broker.connect();
    reader.create_topic("orders", 1, &[]);
    let of = Fetch {
        topic: "orders",
        partition: 0,
        offset: 0,
        partition_bytes_max: 1 << 20,
    };
    let patience = Patience {
        bytes_min: 1,
        wait_max: Duration::from_secs(600),
    };
    reader
        .send_request(11, &request(&[of], patience))
        .expect("sent");
    // Ends within the harness's deadline, which is far below the reader's patience.
    broker.stop();
    broker.start_again();
}

// -- refusing

/// A `klamm serve` that ends by itself: its status, and what it said.
struct Refusal {
    status: ExitStatus,
    said: String,
}

impl Refusal {
    fn of(command: &mut Command) -> Refusal {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KLAMM_") {
                command.env_remove(name);
            }
        }
        command.env("KLAMM_COORDINATOR_LISTEN", "none");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start klamm");
        let output = ended(child).wait_with_output().expect("its last words");
        Refusal {
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Status 1, no panic, and every one of these words.
    fn says(&self, words: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "{}", self.said);
        assert!(!self.said.contains("panicked"), "{}", self.said);
        for word in words {
            assert!(self.said.contains(word), "no {word:?} in: {}", self.said);
        }
    }
}

/// Waits until it has ended; one that serves instead is ended, and the test fails.
fn ended(mut child: Child) -> Child {
    let deadline = Instant::now() + REFUSED_WITHIN;
    while child.try_wait().expect("ask after klamm").is_none() {
        if Instant::now() >= deadline {
            child.kill().expect("end it");
            let output = child.wait_with_output().expect("its output");
            panic!(
                "it serves although it can't:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// A data folder on a disk, as /tmp may have no direct I/O.
fn folder() -> TempDir {
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(3).expect("cargo's target folder");
    let root = target.join("tmp");
    std::fs::create_dir_all(&root).expect("the folder of the tests' data");
    tempfile::tempdir_in(root).expect("a folder")
}

fn serve(data: &Path, listen: &str) -> Command {
    let mut command = Command::new(klamm());
    command
        .args(["serve", "--listen", listen, "--data"])
        .arg(data);
    command
}

#[test]
fn a_second_broker_on_the_same_data_is_refused() {
    let broker = Broker::start();
    let data = broker.data();
    Refusal::of(&mut serve(&data, "127.0.0.1:0")).says(&[
        "in use",
        data.to_str().expect("a path of text"),
        "--data",
    ]);
    broker
        .connect()
        .api_versions()
        .expect("the first one goes on");
}

#[test]
fn a_port_that_is_taken_is_said_so() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("any port");
    let address = taken.local_addr().expect("its address").to_string();
    Refusal::of(&mut serve(folder.path(), &address)).says(&[&address, "taken", "--listen"]);
    // Another broker's is taken too, although a broker's own cores share their port.
    let broker = Broker::start();
    let address = broker.bootstrap();
    Refusal::of(&mut serve(folder.path(), &address)).says(&[&address, "taken", "--listen"]);
    broker
        .connect()
        .api_versions()
        .expect("the first one goes on");
}

/// Both may find the port free before either listens there.
#[test]
fn of_two_brokers_that_start_at_once_one_has_the_port() {
    let reserved = Broker::with().prepare();
    let address = reserved.address().to_string();
    for _ in 0..5 {
        let folders = [folder(), folder()];
        let mut brokers = folders.each_ref().map(|folder| {
            let mut command = serve(folder.path(), &address);
            command.args(["--coordinator-listen", "none"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            Killed(command.spawn().expect("run klamm serve"))
        });
        // Its errors end with it.
        let (tell, refused) = mpsc::channel();
        for broker in &mut brokers {
            let (tell, mut errors) = (tell.clone(), broker.0.stderr.take().expect("piped"));
            std::thread::spawn(move || {
                let mut said = String::new();
                errors.read_to_string(&mut said).expect("text");
                // The other one's end is of no interest.
                let _ = tell.send(said);
            });
        }
        let said = refused.recv_timeout(REFUSED_WITHIN);
        let said = said.expect("both of them serve");
        let mut connection = Connection::open(reserved.address()).expect("the other one's");
        connection.api_versions().expect("it serves");
        assert!(
            said.contains(&address) && said.contains("--listen"),
            "{said}"
        );
    }
}

/// At its end; one that has ended by itself is only waited for.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn too_little_lockable_memory_is_said_so() {
    let folder = folder();
    let mut shell = Command::new("sh");
    // Both limits, the soft and the hard one, to 64 KiB.
    shell
        .args(["-c", "ulimit -l 64 && exec \"$@\"", "sh"])
        .arg(klamm())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path());
    Refusal::of(&mut shell).says(&["64 KiB", "may be locked", "ulimit -l"]);
}

/// A segment is opened once more for batches of this size. Where it cannot be, they are
/// written and synced in two calls.
#[test]
fn without_a_descriptor_to_spare_records_are_taken_all_the_same() {
    let mut broker = Broker::start();
    let mut client = broker.connect();
    client.create_topic("orders", 1, &[]);
    let open = descriptors(&broker);
    let lowest_free = (0..).find(|n| !open.contains(n)).expect("one is free");
    let limited = Command::new("prlimit")
        .args(["--pid", &broker.pid().to_string()])
        .arg(format!("--nofile={lowest_free}:{lowest_free}"))
        .status();
    assert!(limited.expect("run prlimit").success());
    let value = "v".repeat(100_000);
    let taken = client.produce("orders", 0, Batch::of(&[&value]).encode());
    assert_eq!(taken, (0, 0), "{}", broker.log());
    // A connection of the start may be closed only now.
    let then = descriptors(&broker);
    assert!(then.is_subset(&open), "there was none for it: {then:?}");
    broker.kill9();
    broker.start_again();
    let mut client = broker.connect();
    assert_eq!(client.list_offset("orders", 0, -1), (0, 1));
    let taken = client.produce("orders", 0, Batch::of(&[&value]).encode());
    assert_eq!(taken, (0, 1));
}

/// The numbers of the broker's open files.
fn descriptors(broker: &Broker) -> BTreeSet<u32> {
    let folder = format!("/proc/{}/fd", broker.pid());
    let names = std::fs::read_dir(folder).expect("list the broker's open files");
    names
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

#[test]
fn a_data_folder_that_cannot_be_is_said_so() {
    let folder = folder();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "not a folder").expect("a file");
    let data = file.join("data");
    Refusal::of(&mut serve(&data, "127.0.0.1:0")).says(&[
        data.to_str().expect("a path of text"),
        "create",
        "choose another",
    ]);
    // Kernel files that nobody can make a folder in.
    Refusal::of(&mut serve(Path::new("/proc/klamm"), "127.0.0.1:0"))
        .says(&["/proc/klamm", "choose another"]);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let folder = folder();
    let data = folder.path().join("data");
    let with = |flags: &[&str]| Refusal::of(serve(&data, "127.0.0.1:0").args(flags));
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a settings file");
        path.to_str().expect("a path of text").to_owned()
    };
    with(&["--config", "/no/such.toml"]).says(&["/no/such.toml"]);
    let no_toml = file("no-toml", "num.partitions = = 3");
    with(&["--config", &no_toml]).says(&[&no_toml, "TOML", "line 1"]);
    let unknown = file("unknown", "no.such.setting = 1");
    with(&["--config", &unknown]).says(&["no.such.setting"]);
    let wrong = file("wrong", "num.partitions = \"many\"");
    with(&["--config", &wrong]).says(&["num.partitions", "many", "whole number"]);
    with(&["--cores", "0"]).says(&["klamm.cores", "1 to 256"]);
    Refusal::of(&mut serve(&data, "0.0.0.0:9092")).says(&["--advertise"]);
    assert!(
        !data.exists(),
        "nothing was made for a start that could not be"
    );

    // What clap refuses by itself has status 2, as the help says.
    let unknown = with(&["--no-such-flag"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", unknown.said);
    assert!(unknown.said.contains("--no-such-flag"), "{}", unknown.said);
    let unnumbered = with(&["--partitions", "many"]);
    assert_eq!(unnumbered.status.code(), Some(2), "{}", unnumbered.said);
    assert!(
        unnumbered.said.contains("--partitions"),
        "{}",
        unnumbered.said
    );
}

// -- settings that take effect

#[test]
fn flags_are_stronger_than_the_environment_and_that_than_the_file() {
    // Three settings, so that each source wins once.
    let all = Broker::with()
        .setting("num.partitions", 2)
        .setting("log.retention.ms", 7_200_000)
        .setting("broker.id", 5)
        .env("KLAMM_PARTITIONS", "3")
        .env("KLAMM_BROKER_ID", "6")
        .flag("--partitions", "4");
    let broker = all.start();
    let mut connection = broker.connect();
    assert_eq!(
        broker_setting(&mut connection, 6, "log.retention.ms"),
        "7200000",
        "the file's"
    );
    assert_eq!(
        broker_setting(&mut connection, 6, "broker.id"),
        "6",
        "the environment's"
    );
    assert_eq!(
        broker_setting(&mut connection, 6, "num.partitions"),
        "4",
        "the flag's"
    );

    // And it is not only said: a topic whose creator leaves it open.
    let (code, message) = connection.try_create_topic("open", -1, -1, &[]);
    assert_eq!((code, message.as_str()), (0, ""));
    let answer = connection
        .call(7, &MetadataRequest::default().with_topics(None))
        .expect("an answer to Metadata");
    let open = answer
        .topics
        .iter()
        .find(|t| t.name.as_ref().is_some_and(|n| &*n.0 == "open"));
    assert_eq!(open.expect("the topic").partitions.len(), 4);
    assert_eq!(answer.controller_id.0, 6);
}

/// As DescribeConfigs says it, which must name the start as its source.
fn broker_setting(connection: &mut Connection, id: i32, name: &str) -> String {
    const BROKER: i8 = 4;
    const STATIC_BROKER_CONFIG: i8 = 4;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(&id.to_string()))
        .with_configuration_keys(Some(vec![text(name)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = connection
        .call(2, &request)
        .expect("an answer to DescribeConfigs");
    let result = &answer.results[0];
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let entry = &result.configs[0];
    assert_eq!(
        (&*entry.name, entry.config_source),
        (name, STATIC_BROKER_CONFIG)
    );
    entry.value.as_deref().expect("a value").to_owned()
}

// -- cores

#[test]
fn the_same_data_is_served_by_any_number_of_cores() {
    const PARTITIONS: i32 = 5;
    let cores = |n: &str| Broker::with().flag("--cores", n);
    let mut broker = cores("1").start();
    broker.connect().create_topic("orders", PARTITIONS, &[]);
    let mut batches = 0;
    // Home shards move each time; once after a crash, whose recovery they do too.
    for (n, crash) in [("1", false), ("2", true), ("3", false), ("1", false)] {
        if batches > 0 {
            broker.change(cores(n));
            if crash {
                broker.kill9();
                broker.start_again();
            } else {
                broker.restart();
            }
        }
        let mut connection = broker.connect();
        for partition in 0..PARTITIONS {
            let values = [
                format!("{partition}, {batches}, 0"),
                format!("{partition}, {batches}, 1"),
            ];
            let sent = connection.produce("orders", partition, Batch::of(&values).encode());
            assert_eq!(sent, (0, 2 * batches), "{n} cores");
        }
        batches += 1;
        for partition in 0..PARTITIONS {
            let records = connection.read_all("orders", partition);
            let values: Vec<_> = records
                .iter()
                .map(|r| r.value.clone().expect("a value"))
                .collect();
            let expected: Vec<_> = (0..2 * batches)
                .map(|n| format!("{partition}, {}, {}", n / 2, n % 2))
                .collect();
            assert_eq!(values, expected, "orders-{partition} with {n} cores");
        }
    }
}
