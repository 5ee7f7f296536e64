//! Clients at work while something else is killed, and what they were promised.
//!
//! ```text
//!   producer    (librdkafka)     a value after the other, round the partitions
//!   committer   (raw frames)     a group's offset, one higher each time
//!   creator     (raw frames)     a topic after the other
//! ```

use crate::asking;
use crate::clients::{self, Acknowledged, Deliveries};
use klamm_tests::cluster::{Cluster, WITHIN, eventually};
use klamm_tests::wire::Connection;
use rdkafka::producer::Producer;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Sent and not yet acknowledged.
const IN_FLIGHT_MAX: usize = 200;
/// Before a client that was refused, or has enough under way, looks again.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Ledger {
    /// The highest offset that was acknowledged, and that was asked for.
    committed: i64,
    asked: i64,
    topics: Vec<String>,
}

pub struct Load {
    deliveries: Deliveries,
    ledger: Arc<Mutex<Ledger>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// All of it must be there.
pub struct Promised {
    pub records: Vec<Acknowledged>,
    pub committed: i64,
    pub asked: i64,
    pub topics: Vec<String>,
}

impl Load {
    pub fn start(cluster: &Cluster, topic: &str, partitions: i32) -> Load {
        let (producer, deliveries) = clients::producer(&cluster.bootstrap(1));
        let ledger = Arc::<Mutex<Ledger>>::default();
        let over = Arc::<AtomicBool>::default();
        let addresses: Vec<SocketAddr> = cluster.ids().map(|id| cluster.address(id)).collect();
        let mut threads = Vec::new();

        let (is_over, told, name) = (over.clone(), deliveries.clone(), topic.to_owned());
        threads.push(thread::spawn(move || {
            let mut value = 0;
            while !is_over.load(Ordering::Relaxed) {
                let under_way = usize::try_from(value).expect("above 0") - told.count();
                if under_way > IN_FLIGHT_MAX {
                    thread::sleep(PAUSE);
                    continue;
                }
                clients::send(&producer, &name, partitions, value).expect("room for a record");
                value += 1;
            }
            producer.flush(WITHIN).expect("all is acknowledged");
        }));

        let (is_over, told, name) = (over.clone(), ledger.clone(), topic.to_owned());
        let brokers = addresses.clone();
        threads.push(thread::spawn(move || {
            let mut turn = 0;
            while !is_over.load(Ordering::Relaxed) {
                turn += 1;
                let offset = {
                    let mut ledger = told.lock().expect("the ledger");
                    ledger.asked = ledger.committed + 1;
                    ledger.asked
                };
                let ask = || {
                    let owner = asking::coordinator(brokers[turn % brokers.len()], "loaders")?;
                    let Some(owner) = owner else { return Ok(15) };
                    let at = usize::try_from(owner - 1).expect("a broker's number");
                    asking::commit(brokers[at], "loaders", &name, (0, offset))
                };
                match ask().unwrap_or(-1) {
                    0 => told.lock().expect("the ledger").committed = offset,
                    _ => thread::sleep(PAUSE),
                }
            }
        }));

        let (is_over, told) = (over.clone(), ledger.clone());
        threads.push(thread::spawn(move || {
            let mut next = 0;
            while !is_over.load(Ordering::Relaxed) {
                let name = format!("made-{next}");
                let broker = addresses[next % addresses.len()];
                let made =
                    Connection::open(broker).and_then(|mut c| c.ask_for_topic(&name, 2, 1, &[]));
                match made {
                    // 36: it is there already, from a try whose answer was lost.
                    Ok((0 | 36, _)) => {
                        told.lock().expect("the ledger").topics.push(name);
                        next += 1;
                        // What is to be shown needs dozens of topics, not thousands.
                        thread::sleep(PAUSE * 5);
                    }
                    _ => thread::sleep(PAUSE),
                }
            }
        }));
        Load {
            deliveries,
            ledger,
            over,
            threads,
        }
    }

    /// Each of them gets on by a step that began after this was called.
    pub fn await_progress(&self) {
        let state = || {
            let ledger = self.ledger.lock().expect("the ledger");
            (
                self.deliveries.count(),
                ledger.committed,
                ledger.topics.len(),
            )
        };
        let before = state();
        eventually("producer, committer and creator get on", || {
            assert_eq!(self.deliveries.failures(), Vec::<String>::new());
            let now = state();
            let died = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!died, "a client has ended before its time");
            // Two steps: the first may have been under way.
            let gets_on = now.0 > before.0 + 1 && now.1 > before.1 + 1 && now.2 > before.2 + 1;
            if gets_on {
                Ok(())
            } else {
                Err(format!("{now:?} after {before:?}"))
            }
        });
    }

    pub fn end(mut self) -> Promised {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client that did not panic");
        }
        assert_eq!(self.deliveries.failures(), Vec::<String>::new());
        let ledger = self.ledger.lock().expect("the ledger");
        Promised {
            records: self.deliveries.acknowledged(),
            committed: ledger.committed,
            asked: ledger.asked,
            topics: ledger.topics.clone(),
        }
    }
}

impl Drop for Load {
    /// A test that failed does not leave them running.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
