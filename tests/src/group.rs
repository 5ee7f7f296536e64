//! A consumer group of librdkafka's members.

use crate::cluster::WITHIN;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::{Duration, Instant};

/// Polls the members until they share all partitions among them, each with some.
pub fn await_assignment(members: &[&BaseConsumer], partitions: usize) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let held = members.iter().map(|m| {
            // Nothing is there to be read yet: a poll only sees to the membership.
            m.poll(Duration::from_millis(20));
            m.assignment().map_or(0, |assigned| assigned.count())
        });
        let held: Vec<usize> = held.collect();
        if held.iter().all(|n| *n > 0) && held.iter().sum::<usize>() == partitions {
            return;
        }
        assert!(Instant::now() < deadline, "partitions held: {held:?}");
    }
}
