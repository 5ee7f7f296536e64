//! How a group's leader shares partitions out: Kafka's `range` and `roundrobin`.

use std::collections::{BTreeMap, BTreeSet};

use super::offsets::TopicPartition;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Topic by topic, neighbours together; the first members get one more.
    Range,
    /// All partitions of all topics dealt out in turn.
    RoundRobin,
}

impl Assignor {
    /// In order of preference; a group uses the first that all of its members have.
    pub const ALL: [Assignor; 2] = [Assignor::Range, Assignor::RoundRobin];

    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
        }
    }

    pub fn named(name: &str) -> Option<Assignor> {
        Assignor::ALL.into_iter().find(|a| a.name() == name)
    }

    /// `members`: id and topics subscribed to; `counts`: partitions of each topic.
    /// The same input gives the same shares.
    pub fn assign(
        self,
        members: &BTreeMap<String, BTreeSet<String>>,
        counts: &BTreeMap<String, i32>,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut shares: BTreeMap<String, Vec<TopicPartition>> = members
            .keys()
            .map(|member| (member.clone(), Vec::new()))
            .collect();
        match self {
            Assignor::Range => {
                for (topic, count) in counts {
                    let takers: Vec<&String> = members
                        .iter()
                        .filter(|(_, topics)| topics.contains(topic))
                        .map(|(member, _)| member)
                        .collect();
                    if takers.is_empty() {
                        continue;
                    }
                    let each = *count as usize / takers.len();
                    let more = *count as usize % takers.len();
                    let mut next = 0;
                    for (at, member) in takers.into_iter().enumerate() {
                        let n = each + usize::from(at < more);
                        let share = shares.get_mut(member).expect("made for every member");
                        share.extend((next..next + n).map(|p| (topic.clone(), p as i32)));
                        next += n;
                    }
                }
            }
            Assignor::RoundRobin => {
                let ids: Vec<&String> = members.keys().collect();
                let mut turn = 0;
                for (topic, count) in counts {
                    if !members.values().any(|topics| topics.contains(topic)) {
                        continue;
                    }
                    for p in 0..*count {
                        while !members[ids[turn % ids.len()]].contains(topic) {
                            turn += 1;
                        }
                        let share = shares.get_mut(ids[turn % ids.len()]);
                        share
                            .expect("made for every member")
                            .push((topic.clone(), p));
                        turn += 1;
                    }
                }
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        list.iter()
            .map(|(m, topics)| {
                let topics = topics.iter().map(|t| t.to_string()).collect();
                (m.to_string(), topics)
            })
            .collect()
    }

    fn counts(list: &[(&str, i32)]) -> BTreeMap<String, i32> {
        list.iter().map(|(t, n)| (t.to_string(), *n)).collect()
    }

    fn shares(a: Assignor, m: &[(&str, &[&str])], c: &[(&str, i32)]) -> Vec<(String, Vec<String>)> {
        a.assign(&members(m), &counts(c))
            .into_iter()
            .map(|(member, share)| {
                let share = share.into_iter().map(|(t, p)| format!("{t}{p}")).collect();
                (member, share)
            })
            .collect()
    }

    fn of(list: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        list.iter()
            .map(|(m, s)| (m.to_string(), s.iter().map(|p| p.to_string()).collect()))
            .collect()
    }

    #[test]
    fn range_gives_the_first_ones_more_of_each_topic() {
        assert_eq!(
            shares(
                Assignor::Range,
                &[("A", &["t", "u"]), ("B", &["t", "u"])],
                &[("t", 3), ("u", 3)]
            ),
            of(&[("A", &["t0", "t1", "u0", "u1"]), ("B", &["t2", "u2"])])
        );
    }

    #[test]
    fn roundrobin_deals_over_topics_and_skips_who_is_not_subscribed() {
        assert_eq!(
            shares(
                Assignor::RoundRobin,
                &[("A", &["t", "u"]), ("B", &["t", "u"])],
                &[("t", 3), ("u", 3)]
            ),
            of(&[("A", &["t0", "t2", "u1"]), ("B", &["t1", "u0", "u2"])])
        );
        assert_eq!(
            shares(
                Assignor::RoundRobin,
                &[("A", &["t"]), ("B", &["t", "u"]), ("C", &["t", "u"])],
                &[("t", 2), ("u", 2), ("nobody", 4)]
            ),
            of(&[("A", &["t0"]), ("B", &["t1", "u1"]), ("C", &["u0"])])
        );
    }

    #[test]
    fn every_partition_has_one_owner() {
        for assignor in Assignor::ALL {
            for n in 1..6 {
                let ids: Vec<String> = (0..n).map(|i| format!("m{i}")).collect();
                let m = ids
                    .iter()
                    .map(|id| (id.clone(), BTreeSet::from(["t".to_string()])))
                    .collect();
                let shares = assignor.assign(&m, &counts(&[("t", 7)]));
                let mut all: Vec<_> = shares.values().flatten().map(|(_, p)| *p).collect();
                all.sort_unstable();
                assert_eq!(all, (0..7).collect::<Vec<_>>());
                let sizes: Vec<_> = shares.values().map(Vec::len).collect();
                let (least, most) = (sizes.iter().min(), sizes.iter().max());
                assert!(most.unwrap() - least.unwrap() <= 1, "{sizes:?}");
            }
        }
    }
}
