//! Klamm's coordinator against Apache ZooKeeper: the same requests, the same answers.
//!
//! ```text
//!   seed -> steps -> Apache ZooKeeper --+
//!                 -> Klamm -------------+--> compare -> first difference -> shorten
//! ```
//!
//! Answers, error codes, stats, watch events and their place among the answers must be
//! equal, but for ids, zxids (whose order must be equal) and times. How much runs:
//! `KLAMM_DIFFERENTIAL_OPERATIONS`; which: `KLAMM_TEST_SEED`. The test that runs Apache
//! against itself holds the harness to account, and the lies show that it can fail.

mod compare;
mod run;
mod shrink;
mod steps;
mod versions;

use compare::Outcome;
use klamm_tests::apache_zookeeper::{ApacheZooKeeper, SUPER_DIGEST, Setup, find_or_say_skipped};
use klamm_tests::broker::Broker;
use klamm_tests::random::Random;
use klamm_tests::zookeeper::Message;
use klamm_tests::zookeeper::records::Answer;
use run::{Difference, Lie, Ran, Servers, run};
use std::time::{Duration, Instant};
use steps::{Draw, Step};
use versions::as_3_8;

const STEPS: usize = 60;
const SHORTEN_WITHIN: Duration = Duration::from_secs(60);

fn operations(otherwise: usize) -> usize {
    match std::env::var("KLAMM_DIFFERENTIAL_OPERATIONS") {
        Ok(n) => n
            .parse()
            .expect("KLAMM_DIFFERENTIAL_OPERATIONS is a number"),
        Err(_) => otherwise,
    }
}

/// What was found, with the shortened sequence.
struct Found {
    steps: Vec<Step>,
    difference: Difference,
}

impl Found {
    fn text(&self) -> String {
        let mut text = format!("{}\nafter", self.difference.what);
        for step in &self.steps {
            text.push_str(&format!("\n  {step:?}"));
        }
        text
    }
}

/// What the sequences are made of: all, or what 3.8.0 and 3.9 answer alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    All,
    As38,
}

impl Steps {
    fn of(version: &str) -> Steps {
        match version.starts_with("3.8.") {
            true => Steps::As38,
            false => Steps::All,
        }
    }
}

/// Sequences until so many operations have run, or one differs twice.
fn search(
    servers: &Servers,
    of: Steps,
    random: &mut Random,
    operations: usize,
    ran: &mut Ran,
) -> Option<Found> {
    let mut passing = 0;
    while ran.operations < operations {
        let steps = Draw(random).sequence(STEPS);
        let steps = match of {
            Steps::All => steps,
            Steps::As38 => as_3_8(steps, random),
        };
        let Err(first) = run(servers, &steps, ran) else {
            continue;
        };
        let mut last = None;
        let mut differs = |steps: &[Step]| match run(servers, steps, &mut Ran::default()) {
            Ok(()) => None,
            Err(difference) => {
                let at = difference.at;
                last = Some(difference);
                Some(at)
            }
        };
        // What a server does at a time of its own choice may fall into one run.
        if differs(&steps[..=first.at.min(steps.len() - 1)]).is_none() && differs(&steps).is_none()
        {
            passing += 1;
            eprintln!("seen once, and not again: {}", first.what);
            assert!(passing < 3, "three differences that are not seen again");
            continue;
        }
        let deadline = Instant::now() + SHORTEN_WITHIN;
        let short = shrink::shorten(&steps, deadline, &mut differs);
        differs(&short);
        return Some(Found {
            steps: short,
            difference: last.expect("it differed before"),
        });
    }
    None
}

fn report(what: &str, ran: &Ran, since: Instant) {
    eprintln!(
        "{what}: {} operations in {:.1?}",
        ran.operations,
        since.elapsed()
    );
    let mut opcode = 0;
    for ((of, err), n) in &ran.answers {
        if *of != opcode {
            eprint!("\n  opcode {of}:");
            opcode = *of;
        }
        eprint!("  {err}: {n}");
    }
    eprintln!("\n  events by type: {:?}", ran.events);
}

/// The sequences are worth what they reach: each opcode with success, each event.
fn assert_reached(ran: &Ran) {
    let reached = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 18, 19, 21, 22, 100, 101, 103, 104, 105, 106,
        107,
    ];
    for opcode in reached {
        assert!(
            ran.answers.contains_key(&(opcode, 0)),
            "no success of opcode {opcode} in {} operations",
            ran.operations
        );
    }
    for event in 1..=4 {
        assert!(ran.events.contains_key(&event), "no event of type {event}");
    }
}

fn find_none(what: &str, servers: &Servers, of: Steps, operations: usize) {
    let mut random = Random::new();
    let mut ran = Ran::default();
    let since = Instant::now();
    let found = search(servers, of, &mut random, operations, &mut ran);
    report(what, &ran, since);
    if let Some(found) = found {
        panic!("{what}: {}", found.text());
    }
    if of == Steps::All && operations >= 5_000 {
        assert_reached(&ran);
    }
}

fn apache_against_itself(version: &str, otherwise: usize) {
    let what = format!("Apache ZooKeeper {version} against itself");
    let Some(release) = find_or_say_skipped(version, &what) else {
        return;
    };
    let left = ApacheZooKeeper::start(&release, &Setup::default());
    let right = ApacheZooKeeper::start(&release, &Setup::default());
    let servers = Servers {
        left: left.address(),
        right: right.address(),
        event_zxids: version.starts_with("3.9"),
        lie: None,
    };
    find_none(&what, &servers, Steps::All, operations(otherwise));
}

#[test]
fn apache_3_8_answers_as_itself() {
    apache_against_itself("3.8.0", 3_000);
}

#[test]
fn apache_3_9_answers_as_itself() {
    apache_against_itself("3.9.5", 3_000);
}

/// That what is left out for 3.8 is all that there is to leave out.
#[test]
fn apache_3_9_answers_as_3_8_but_for_what_is_listed() {
    let what = "Apache ZooKeeper 3.8.0 against 3.9.5";
    let releases = ["3.8.0", "3.9.5"].map(|version| find_or_say_skipped(version, what));
    let [Some(old), Some(new)] = releases else {
        return;
    };
    let left = ApacheZooKeeper::start(&old, &Setup::default());
    let right = ApacheZooKeeper::start(&new, &Setup::default());
    let servers = Servers {
        left: left.address(),
        right: right.address(),
        event_zxids: false,
        lie: None,
    };
    find_none(what, &servers, Steps::As38, operations(3_000));
}

fn klamm_against_apache(version: &str, otherwise: usize) {
    let what = format!("Klamm against Apache ZooKeeper {version}");
    let Some(release) = find_or_say_skipped(version, &what) else {
        return;
    };
    let apache = ApacheZooKeeper::start(&release, &Setup::default());
    let klamm = Broker::with()
        .setting("maxClientCnxns", 0)
        .setting("znode.container.checkIntervalMs", 86_400_000)
        .setting("DigestAuthenticationProvider.superDigest", SUPER_DIGEST)
        .start();
    let servers = Servers {
        left: apache.address(),
        right: klamm.coordinator(),
        event_zxids: version.starts_with("3.9."),
        lie: None,
    };
    find_none(&what, &servers, Steps::of(version), operations(otherwise));
}

#[test]
fn klamm_answers_as_apache_3_9() {
    klamm_against_apache("3.9.5", 20_000);
}

#[test]
fn klamm_answers_as_apache_3_8() {
    klamm_against_apache("3.8.0", 10_000);
}

#[test]
fn a_server_that_lies_is_found_out() {
    let what = "the lies of a server";
    let Some(release) = find_or_say_skipped("3.9.5", what) else {
        return;
    };
    let left = ApacheZooKeeper::start(&release, &Setup::default());
    let right = ApacheZooKeeper::start(&release, &Setup::default());
    let lies: [(&str, Lie); 6] = [
        ("an event is lost", |_, heard| {
            heard.retain(|o| o.event().is_none());
        }),
        ("an event comes behind the answer", |_, heard| {
            if let Some(at) = heard.windows(2).position(|w| w[0].event().is_some()) {
                heard.swap(at, at + 1);
            }
        }),
        ("pzxid does not move", |_, heard| {
            for outcome in heard {
                if let Outcome::Message(Message::Reply(r)) = outcome
                    && let Answer::Stat(s) | Answer::Data(_, s) = &mut r.answer
                {
                    s.pzxid = s.czxid;
                }
            }
        }),
        ("an error's code is another", |_, heard| {
            for outcome in heard {
                if let Outcome::Message(Message::Reply(r)) = outcome
                    && r.err == -110
                {
                    r.err = -101;
                }
            }
        }),
        ("a failed write takes no zxid", |_, heard| {
            for outcome in heard {
                if let Outcome::Message(Message::Reply(r)) = outcome
                    && r.err == -103
                {
                    r.zxid -= 1;
                }
            }
        }),
        ("a refused session's connection stays", |step, heard| {
            if matches!(step, Step::WrongPassword(_)) {
                heard.retain(|o| *o != Outcome::Ended);
            }
        }),
    ];
    let mut random = Random::new();
    for (name, lie) in lies {
        let servers = Servers {
            left: left.address(),
            right: right.address(),
            event_zxids: true,
            lie: Some(lie),
        };
        let found = search(
            &servers,
            Steps::All,
            &mut random,
            20_000,
            &mut Ran::default(),
        );
        let found = found.unwrap_or_else(|| panic!("not found out: {name}"));
        assert!(
            found.steps.len() <= 8,
            "{name}: {} steps are left of the sequence\n{}",
            found.steps.len(),
            found.text()
        );
    }
}
