//! The tree as one would write it with no thought of speed: full paths in one map,
//! a multi on a copy of it. The property tests hold the real one against this.

use super::{BadArguments, Event, EventKind, MultiError, Op, OpResult, TreeError};
use crate::core::Zxid;
use crate::core::path;
use crate::core::stat::{Acl, Lifetime, Stat};
use klamm_engine::units::TimestampMs;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct ModelNode {
    pub data: Option<Vec<u8>>,
    pub acl: Vec<Acl>,
    pub lifetime: Lifetime,
    pub stat: Stat,
    creates: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub nodes: BTreeMap<String, ModelNode>,
}

fn parent_of(path: &str) -> String {
    let at = path.rfind('/').unwrap();
    if at == 0 {
        "/".to_owned()
    } else {
        path[..at].to_owned()
    }
}

impl Model {
    pub fn new() -> Model {
        let node = || ModelNode {
            data: Some(Vec::new()),
            acl: Acl::open(),
            lifetime: Lifetime::Persistent,
            stat: Stat::default(),
            creates: 0,
        };
        let paths = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"];
        let mut model = Model {
            nodes: paths.map(|p| (p.to_owned(), node())).into(),
        };
        model.count();
        model
    }

    pub fn multi(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        ops: &[Op],
    ) -> Result<(Vec<OpResult>, Vec<Event>), MultiError> {
        let before = self.clone();
        let (mut results, mut events) = (Vec::new(), Vec::new());
        for (index, op) in ops.iter().enumerate() {
            match self.apply(zxid, time, op, &mut events) {
                Ok(result) => results.push(result),
                Err(error) => {
                    *self = before;
                    return Err(MultiError { index, error });
                }
            }
        }
        Ok((results, events))
    }

    /// What follows from all nodes, counted anew.
    fn count(&mut self) {
        let mut children: BTreeMap<String, i32> = BTreeMap::new();
        for path in self.nodes.keys().filter(|p| *p != "/") {
            *children.entry(parent_of(path)).or_default() += 1;
        }
        for (path, node) in &mut self.nodes {
            node.stat.num_children = children.get(path).copied().unwrap_or(0);
            node.stat.cversion = 2 * node.creates - node.stat.num_children;
            node.stat.data_length = node.data.as_ref().map_or(0, |d| d.len() as i32);
        }
    }

    fn apply(
        &mut self,
        zxid: Zxid,
        time: TimestampMs,
        op: &Op,
        events: &mut Vec<Event>,
    ) -> Result<OpResult, TreeError> {
        let bad = |e| TreeError::BadArguments(BadArguments::Path(e));
        let mut tell = |kind, path: &str| events.push(Event::open(kind, path));
        let result = match op {
            Op::Create {
                path,
                data,
                acl,
                lifetime,
                sequential,
            } => {
                if !path.starts_with('/') {
                    return Err(bad(path::validate(path).unwrap_err()));
                }
                if acl.is_empty() {
                    return Err(TreeError::InvalidAcl);
                }
                let above = self
                    .nodes
                    .get(&parent_of(path))
                    .ok_or(TreeError::NoNode)?
                    .clone();
                let mut path = path.clone();
                if *sequential {
                    path.push_str(&format!("{:010}", above.creates));
                }
                path::validate(&path).map_err(bad)?;
                if self.nodes.contains_key(&path) {
                    return Err(TreeError::NodeExists);
                }
                let mut owner = 0;
                if let Lifetime::Ephemeral(session) = lifetime {
                    owner = *session;
                }
                if let Lifetime::Ephemeral(_) = above.lifetime {
                    return Err(TreeError::NoChildrenForEphemerals);
                }
                let stat = Stat {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ctime: time,
                    mtime: time,
                    ephemeral_owner: owner,
                    ..Stat::default()
                };
                let node = ModelNode {
                    data: data.clone(),
                    acl: acl.clone(),
                    lifetime: *lifetime,
                    stat,
                    creates: 0,
                };
                self.nodes.insert(path.clone(), node);
                let above = self.nodes.get_mut(&parent_of(&path)).unwrap();
                above.creates += 1;
                above.stat.pzxid = zxid;
                tell(EventKind::Created, &path);
                tell(EventKind::ChildrenChanged, &parent_of(&path));
                self.count();
                OpResult::Create {
                    stat: self.nodes[&path].stat,
                    path,
                }
            }
            Op::Delete { path, version } => {
                if ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]
                    .contains(&path.as_str())
                {
                    return Err(TreeError::BadArguments(BadArguments::Reserved));
                }
                if !path.contains('/') {
                    return Err(bad(path::validate(path).unwrap_err()));
                }
                let node = self.nodes.get(path).ok_or(TreeError::NoNode)?;
                if *version != -1 && *version != node.stat.version {
                    return Err(TreeError::BadVersion);
                }
                if node.stat.num_children > 0 {
                    return Err(TreeError::NotEmpty);
                }
                self.nodes.remove(path);
                self.nodes.get_mut(&parent_of(path)).unwrap().stat.pzxid = zxid;
                tell(EventKind::Deleted, path);
                tell(EventKind::ChildrenChanged, &parent_of(path));
                OpResult::Delete
            }
            Op::Set {
                path,
                data,
                version,
            } => {
                path::validate(path).map_err(bad)?;
                let node = self.nodes.get_mut(path).ok_or(TreeError::NoNode)?;
                if *version != -1 && *version != node.stat.version {
                    return Err(TreeError::BadVersion);
                }
                node.data = data.clone();
                node.stat.version += 1;
                node.stat.mzxid = zxid;
                node.stat.mtime = time;
                tell(EventKind::DataChanged, path);
                self.count();
                OpResult::Set {
                    stat: self.nodes[path].stat,
                }
            }
            Op::SetAcl { path, acl, version } => {
                path::validate(path).map_err(bad)?;
                if acl.is_empty() {
                    return Err(TreeError::InvalidAcl);
                }
                let node = self.nodes.get_mut(path).ok_or(TreeError::NoNode)?;
                if *version != -1 && *version != node.stat.aversion {
                    return Err(TreeError::BadVersion);
                }
                node.acl = acl.clone();
                node.stat.aversion += 1;
                OpResult::SetAcl { stat: node.stat }
            }
            Op::Check { path, version } => {
                path::validate(path).map_err(bad)?;
                let node = self.nodes.get(path).ok_or(TreeError::NoNode)?;
                if *version != -1 && *version != node.stat.version {
                    return Err(TreeError::BadVersion);
                }
                OpResult::Check
            }
        };
        self.count();
        Ok(result)
    }
}
