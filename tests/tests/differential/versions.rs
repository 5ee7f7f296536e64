//! What 3.8.0 and 3.9 answer alike: a sequence without what they do not.
//!
//! | of 3.8.0 | here |
//! | --- | --- |
//! | in a multi, create2, createContainer and createTTL are answered as a create | left out |
//! | there, a wrong mode or a null ACL is refused as the entry's, not all with -5 | left out |
//! | checkWatches and removeWatches find other kinds' and sessions' watches | left out |
//! | exists asks for no READ | left out |
//! | an event is told without READ on the node (CVE-2024-23944) | every ACL gives READ |
//! | a session has one kind of watch on a node, the last | one kind in a sequence |
//! | a body that cannot be read takes a zxid | left out |

use crate::steps::Step;
use klamm_tests::random::Random;
use klamm_tests::zookeeper::records::{Acl, READ, Request, Watches};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standard,
    Persistent,
    Recursive,
}

pub fn as_3_8(steps: Vec<Step>, random: &mut Random) -> Vec<Step> {
    let kinds = [Kind::Standard, Kind::Persistent, Kind::Recursive];
    let kind = kinds[random.below(kinds.len())];
    let alike = |requests: Vec<Request>| -> Vec<Request> {
        let requests = requests.into_iter().filter(is_alike);
        requests.filter_map(|r| made_alike(r, kind)).collect()
    };
    let steps = steps.into_iter().filter_map(|step| match step {
        Step::Calls(slot, requests) => {
            let requests = alike(requests);
            (!requests.is_empty()).then_some(Step::Calls(slot, requests))
        }
        Step::Reconnect(slot, watches) => Some(Step::Reconnect(
            slot,
            watches.and_then(|request| made_alike(request, kind)),
        )),
        other => Some(other),
    });
    steps.collect()
}

fn is_alike(request: &Request) -> bool {
    match request {
        Request::Multi(entries) => entries.iter().all(|entry| match entry {
            Request::Create(c) => (0..=4).contains(&c.flags) && c.acl.is_some(),
            Request::Create2(_) | Request::CreateContainer(_) | Request::CreateTtl(..) => false,
            _ => true,
        }),
        Request::CheckWatches(..) | Request::RemoveWatches(..) | Request::Exists(..) => false,
        Request::Raw(opcode, _) => !(1..=22).contains(opcode),
        _ => true,
    }
}

fn made_alike(mut request: Request, kind: Kind) -> Option<Request> {
    match &mut request {
        Request::Create(c) | Request::Create2(c) | Request::CreateContainer(c) => {
            give_read(&mut c.acl);
        }
        Request::CreateTtl(c, _) => give_read(&mut c.acl),
        Request::SetAcl(_, acl, _) => give_read(acl),
        Request::Multi(entries) => {
            for entry in entries {
                if let Request::Create(c) = entry {
                    give_read(&mut c.acl);
                }
            }
        }
        Request::GetData(_, watch)
        | Request::GetChildren(_, watch)
        | Request::GetChildren2(_, watch) => *watch &= kind == Kind::Standard,
        Request::AddWatch(_, mode) => match (kind, *mode) {
            (Kind::Standard, 0 | 1) => return None,
            (Kind::Persistent, 0 | 1) => *mode = 0,
            (Kind::Recursive, 0 | 1) => *mode = 1,
            _ => {}
        },
        Request::SetWatches(w) | Request::SetWatches2(w) => only(kind, w),
        _ => {}
    }
    Some(request)
}

fn only(kind: Kind, watches: &mut Watches) {
    if kind != Kind::Standard {
        watches.data.clear();
        watches.exist.clear();
        watches.child.clear();
    }
    if kind != Kind::Persistent {
        watches.persistent.clear();
    }
    if kind != Kind::Recursive {
        watches.recursive.clear();
    }
}

/// To everyone, but where the ACL is one that is refused.
fn give_read(acl: &mut Option<Vec<Acl>>) {
    let Some(acl) = acl.as_mut().filter(|acl| !acl.is_empty()) else {
        return;
    };
    let known = ["world", "digest", "auth", "ip"];
    if acl.iter().all(|e| known.contains(&e.scheme.as_str())) {
        acl.push(Acl::new(READ, "world", "anyone"));
    }
}
