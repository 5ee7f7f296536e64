//! The Rust statement of what every client of the matrix does and must see;
//! `../../python/plan.py` describes it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

pub const PARTITIONS: i32 = 3;
pub const STAGES: [Range<usize>; 4] = [
    0..4000,
    4000..7000,
    7000..BEFORE_RESTART,
    BEFORE_RESTART..ALL,
];
pub const BEFORE_RESTART: usize = 10_000;
pub const ALL: usize = 11_000;
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// One wait for one thing (an assignment, a stage's records) takes no longer.
pub const WAIT: Duration = Duration::from_secs(40);

/// Looked up by timestamp: at a record, between two, in the last stage.
const LOOKUPS: [usize; 8] = [0, 1, 1234, 3999, 6999, 9999, 10_500, 10_999];

/// Why nothing after this can be judged.
#[derive(Debug)]
pub struct GivenUp(pub String);

impl<E: std::error::Error> From<E> for GivenUp {
    fn from(error: E) -> Self {
        GivenUp(error.to_string())
    }
}

pub type Outcome<T = ()> = Result<T, GivenUp>;

#[derive(Debug, PartialEq)]
pub struct Record {
    pub key: String,
    pub value: String,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: i64,
}

#[derive(Clone)]
pub struct Plan {
    pub bootstrap: String,
    pub topic: String,
    pub group: String,
    first_timestamp_ms: i64,
}

impl Plan {
    pub fn from_arguments() -> Outcome<Plan> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [bootstrap, topic, group, first] = arguments
            .try_into()
            .map_err(|_| GivenUp("usage: BOOTSTRAP TOPIC GROUP FIRST_TIMESTAMP".to_owned()))?;
        let mut sent = BTreeMap::new();
        for n in 0..ALL {
            *sent.entry(codec_of(n)).or_insert(0) += 1;
        }
        let sent: Vec<String> = sent
            .iter()
            .map(|(codec, count)| format!("{codec}={count}"))
            .collect();
        say(&format!("INFO codecs {}", sent.join(" ")));
        Ok(Plan {
            bootstrap,
            topic,
            group,
            first_timestamp_ms: first.parse()?,
        })
    }

    pub fn timestamp_ms(&self, n: usize) -> i64 {
        self.first_timestamp_ms + 10 * n as i64
    }

    pub fn record(&self, n: usize) -> Record {
        let header = |name: &str, value: &[u8]| (name.to_owned(), Some(value.to_vec()));
        Record {
            key: format!("key-{}", n % 101),
            value: format!("value-{n}:{}", "abcdefghij".repeat(10 + n % 20)),
            headers: vec![
                header("n", n.to_string().as_bytes()),
                header("codec", codec_of(n).as_bytes()),
                header("dup", b"a"),
                header("dup", b"b"),
                header("bytes", &[0x00, 0xff, n as u8]),
                header("empty", b""),
            ],
            timestamp_ms: self.timestamp_ms(n),
        }
    }
}

/// The records of a stage that go out with the codec of that index.
pub fn run(stage: usize, codec: usize) -> Range<usize> {
    let Range { start, end } = STAGES[stage];
    let at = |i| start + (end - start) * i / CODECS.len();
    at(codec)..at(codec + 1)
}

fn codec_of(n: usize) -> &'static str {
    (0..STAGES.len())
        .flat_map(|stage| (0..CODECS.len()).map(move |codec| (stage, codec)))
        .find(|&(stage, codec)| run(stage, codec).contains(&n))
        .map_or("?", |(_, codec)| CODECS[codec])
}

/// Every record that was read, checked as it comes.
pub struct Ledger {
    plan: Plan,
    places: HashMap<usize, (i32, i64)>,
    pub next: BTreeMap<i32, i64>,
    last_of_key: HashMap<String, usize>,
    partition_of_key: HashMap<String, i32>,
    wrong: Vec<String>,
    disordered: Vec<String>,
    not_once: Vec<String>,
}

impl Ledger {
    pub fn new(plan: &Plan) -> Ledger {
        Ledger {
            plan: plan.clone(),
            places: HashMap::new(),
            next: BTreeMap::new(),
            last_of_key: HashMap::new(),
            partition_of_key: HashMap::new(),
            wrong: Vec::new(),
            disordered: Vec::new(),
            not_once: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn add(&mut self, partition: i32, offset: i64, got: Record) {
        let at = format!("{}-{partition} offset {offset}", self.plan.topic);
        let number = got
            .value
            .strip_prefix("value-")
            .and_then(|rest| rest.split_once(':'));
        let Some(n) = number.and_then(|(digits, _)| digits.parse::<usize>().ok()) else {
            self.wrong
                .push(format!("{at}: a value that nobody sent: {}", got.value));
            return;
        };
        let want = self.plan.record(n);
        if got != want {
            self.wrong.push(format!("{at}: {got:?}, not {want:?}"));
        }
        if let Some(before) = self.places.get(&n) {
            self.not_once
                .push(format!("record {n} twice: at {at}, before at {before:?}"));
            return;
        }
        let next = self.next.insert(partition, offset + 1).unwrap_or(0);
        if offset != next {
            self.not_once
                .push(format!("{at} came where offset {next} was next"));
        }
        if let Some(last) = self
            .last_of_key
            .insert(got.key.clone(), n)
            .filter(|&last| last > n)
        {
            self.disordered
                .push(format!("{at}: {} has {n} after {last}", got.key));
        }
        let usual = *self
            .partition_of_key
            .entry(got.key.clone())
            .or_insert(partition);
        if usual != partition {
            self.disordered
                .push(format!("{at}: {} was in partition {usual} before", got.key));
        }
        self.places.insert(n, (partition, offset));
    }

    /// Offset of the first record at or after record n's time.
    fn offset_at(&self, partition: i32, n: usize) -> Option<i64> {
        let places = (n..ALL).filter_map(|n| self.places.get(&n));
        places
            .filter(|place| place.0 == partition)
            .map(|place| place.1)
            .next()
    }
}

pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A runner that is gone is noticed where it is waited for.
    let _ = writeln!(out, "{}", line.replace('\n', " ")).and_then(|()| out.flush());
}

pub fn check(name: &str, ok: bool, detail: impl fmt::Display) -> bool {
    say(&format!(
        "CHECK {name} {} {detail}",
        if ok { "ok" } else { "fail" }
    ));
    ok
}

pub fn must(name: &str, ok: bool, detail: impl fmt::Display) -> Outcome {
    if check(name, ok, detail) {
        Ok(())
    } else {
        Err(GivenUp(name.to_owned()))
    }
}

/// Calls `step`, which blocks for a little while, until it says that all is there.
pub fn until(what: &str, mut step: impl FnMut() -> Outcome<bool>) -> Outcome {
    let end = Instant::now() + WAIT;
    while !step()? {
        if Instant::now() > end {
            return Err(GivenUp(format!("waited {WAIT:?} for {what}")));
        }
    }
    Ok(())
}

/// Returns once the runner has restarted the broker.
pub fn await_restart() -> Outcome {
    say("RESTART");
    if io::stdin().lock().read_line(&mut String::new())? == 0 {
        return Err(GivenUp("the runner is gone".to_owned()));
    }
    Ok(())
}

/// Two members share all partitions, each having some.
pub fn split(a: &[i32], b: &[i32]) -> bool {
    let mut both = [a, b].concat();
    both.sort_unstable();
    !a.is_empty() && !b.is_empty() && both == (0..PARTITIONS).collect::<Vec<_>>()
}

/// Looks up records, and moments between two of them.
pub fn check_timestamps(
    plan: &Plan,
    ledger: &Ledger,
    lookup: impl Fn(i64) -> Outcome<BTreeMap<i32, Option<i64>>>,
) -> Outcome {
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for n in LOOKUPS {
        for late in 0..2 {
            let got = lookup(plan.timestamp_ms(n) + 5 * late as i64)?;
            for partition in 0..PARTITIONS {
                asked += 1;
                let want = ledger.offset_at(partition, n + late);
                if got.get(&partition) != Some(&want) {
                    let got = got.get(&partition);
                    wrong.push(format!(
                        "record {n} + {} ms in partition {partition}: {got:?}, not {want:?}",
                        5 * late
                    ));
                }
            }
        }
    }
    verdict("timestamp", &wrong, &format!("{asked} lookups, each exact"));
    Ok(())
}

/// The verdicts on what the group saw and what is read again at the end.
pub fn check_ledgers(group: &Ledger, again: &Ledger) {
    let read = format!(
        "{} in the group, {} from the beginning",
        group.len(),
        again.len()
    );
    verdict("records", &[&group.wrong[..], &again.wrong].concat(), &read);
    verdict(
        "order",
        &[&group.disordered[..], &again.disordered].concat(),
        &read,
    );
    let mut wrong = [&group.not_once[..], &again.not_once].concat();
    for ledger in [group, again] {
        if let Some(lost) = (0..ALL).find(|n| !ledger.places.contains_key(n)) {
            wrong.push(format!(
                "{} lost, the first is record {lost}",
                ALL - ledger.len()
            ));
        }
    }
    if group.places != again.places {
        wrong.push(
            "the group saw records at other offsets than the read from the beginning".to_owned(),
        );
    }
    verdict(
        "once",
        &wrong,
        &format!("{ALL} records, none lost, none twice"),
    );
}

fn verdict(name: &str, wrong: &[String], good: &str) {
    if wrong.is_empty() {
        check(name, true, good);
    } else {
        check(
            name,
            false,
            format!(
                "{} faults: {}",
                wrong.len(),
                wrong[..wrong.len().min(3)].join("; ")
            ),
        );
    }
}
