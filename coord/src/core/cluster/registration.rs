//! A broker's entry in `/brokers/ids`: there as long as its session is.
//!
//! ```text
//!   no node                    create
//!   this session's             set, where it says something else than ours would
//!   nobody's (persistent)      delete, create: an old Klamm's, or a hand's
//!   another session's
//!     with one of our endpoints  delete, create: ours from before a crash
//!     with others alone        refused: two brokers of one id
//! ```
//!
//! The last but one is what a broker finds that was killed and is back before its
//! session has ended (KAFKA-1387, KAFKA-7165). Nobody else can be behind an endpoint that
//! this process is listening on, and the others may have changed with its settings; if the
//! node were left alone it would go with the old session, and the broker with it.

use super::znodes;
use super::{ClusterError, ClusterErrorKind as Kind};
use crate::core::image::Broker;
use crate::core::stat::{Acl, Lifetime};
use crate::core::tree::{Op, Tree};
use klamm_engine::units::TimestampMs;

/// What registers a broker as this session's. Empty where it is that already.
pub fn register(
    tree: &Tree,
    broker: &Broker,
    session: i64,
    time: TimestampMs,
) -> Result<Vec<Op>, ClusterError> {
    let path = znodes::broker(broker.id);
    let data = Some(znodes::broker_json(broker, time));
    let mut ops = Vec::new();
    if let Some(stat) = tree.stat(&path) {
        let there = tree
            .data(&path)
            .flatten()
            .and_then(|data| znodes::read_broker(broker.id, data));
        let version = stat.version;
        if stat.ephemeral_owner == session {
            if there.as_ref() != Some(broker) {
                ops.push(Op::Set {
                    path,
                    data,
                    version,
                });
            }
            return Ok(ops);
        }
        let is_ours = there
            .as_ref()
            .is_some_and(|b| b.endpoints.iter().any(|e| broker.endpoints.contains(e)));
        if stat.ephemeral_owner != 0 && !is_ours {
            return Err(Kind::InvalidRequest.because(format!(
                "broker.id={} is taken: {path} belongs to the session 0x{:x}, of a broker at {}; give this one another id, or wait until that session has ended",
                broker.id,
                stat.ephemeral_owner,
                there.map_or_else(|| "an address that cannot be read".to_owned(), |b| addresses(&b)),
            )));
        }
        ops.push(Op::Delete {
            path: path.clone(),
            version,
        });
    }
    ops.push(Op::Create {
        path,
        data,
        acl: Acl::open(),
        lifetime: Lifetime::Ephemeral(session),
        sequential: false,
    });
    Ok(ops)
}

fn addresses(broker: &Broker) -> String {
    let all: Vec<String> = broker
        .endpoints
        .iter()
        .map(|e| format!("{}:{}", e.host, e.port))
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Zxid;
    use crate::core::image::Endpoint;

    const PATH: &str = "/brokers/ids/3";

    fn broker(port: u16) -> Broker {
        let endpoints = vec![endpoint("PLAINTEXT", port)];
        Broker {
            id: 3,
            rack: None,
            hosts_coordinator: false,
            endpoints,
        }
    }

    fn endpoint(listener: &str, port: u16) -> Endpoint {
        Endpoint {
            listener: listener.to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "h".to_owned(),
            port,
        }
    }

    /// A tree in which broker 3 is registered at port 9092, by that session.
    fn registered(owner: Option<i64>) -> Tree {
        let mut tree = Tree::new();
        let lifetime = owner.map_or(Lifetime::Persistent, Lifetime::Ephemeral);
        let node = Op::Create {
            path: PATH.to_owned(),
            data: Some(znodes::broker_json(&broker(9092), TimestampMs(1))),
            acl: Acl::open(),
            lifetime,
            sequential: false,
        };
        run(
            &mut tree,
            &["/brokers", "/brokers/ids"].map(|path| Op::create(path, "")),
        );
        run(&mut tree, &[node]);
        tree
    }

    fn run(tree: &mut Tree, ops: &[Op]) {
        tree.multi(Zxid(1), TimestampMs(1), ops, &mut Vec::new())
            .unwrap();
    }

    #[test]
    fn whoever_held_the_id_before_the_outcome_is_ours_or_an_error() {
        let register_at = |port, tree: &Tree| register(tree, &broker(port), 7, TimestampMs(2));
        for (owner, port, ops) in [
            (Some(7), 9092, 0),
            (Some(7), 9093, 1),
            (Some(6), 9092, 2),
            (None, 9092, 2),
            (None, 9093, 2),
        ] {
            let mut tree = registered(owner);
            let plan = register_at(port, &tree).unwrap();
            assert_eq!(plan.len(), ops, "{owner:?} {port}");
            run(&mut tree, &plan);
            assert_eq!(tree.stat(PATH).unwrap().ephemeral_owner, 7);
            let data = tree.data(PATH).unwrap().unwrap();
            assert_eq!(znodes::read_broker(3, data), Some(broker(port)));
        }
        // One that is back with a port more than before.
        let mut more = broker(9092);
        more.endpoints.push(endpoint("PLAINTEXT-CORE-0", 9094));
        let plan = register(&registered(Some(6)), &more, 7, TimestampMs(2)).unwrap();
        assert_eq!(plan.len(), 2);

        let error = register_at(9093, &registered(Some(6))).unwrap_err();
        assert!(
            error.message.contains("0x6, of a broker at h:9092"),
            "{error}"
        );
    }
}
