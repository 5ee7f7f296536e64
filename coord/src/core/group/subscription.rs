//! What consumers tell one another through their group ("consumer" protocol type): the
//! topics that a member subscribes to, and the partitions that it is assigned.
//!
//! ```text
//!  version i16 | topics: count i32, (length i16, UTF-8)* | ... later versions add here
//! ```
//!
//! Every version starts with the fields of version 0, so only those are read
//! (`ConsumerProtocolSubscription.json`). The bytes are a client's: whatever
//! they are, the answer is a set or None.

use std::collections::BTreeSet;

pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Adds the topics to `topics`; None if this is no subscription.
pub fn read_topics(metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = i32::from_be_bytes(*count);
    if count < 0 {
        return None;
    }
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, after) = after.split_at_checked(length)?;
        topics.insert(std::str::from_utf8(topic).ok()?.to_owned());
        rest = after;
    }
    Some(())
}

/// The partitions of an assignment, by topic (`ConsumerProtocolAssignment.json`); None
/// if these bytes are none. A member without partitions may have no bytes at all.
///
/// ```text
///  version i16 | topics: count i32, (length i16, UTF-8 | count i32, partition i32*)* | ...
/// ```
pub fn read_assignment(bytes: &[u8]) -> Option<Vec<(&str, Vec<i32>)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (version, rest) = bytes.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..u32::try_from(i32::from_be_bytes(*count)).ok()? {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, after) = after.split_at_checked(length)?;
        let (count, after) = after.split_first_chunk::<4>()?;
        let bytes = usize::try_from(i32::from_be_bytes(*count))
            .ok()?
            .checked_mul(4)?;
        let (partitions, after) = after.split_at_checked(bytes)?;
        let (partitions, _) = partitions.as_chunks::<4>();
        topics.push((
            std::str::from_utf8(topic).ok()?,
            partitions.iter().map(|p| i32::from_be_bytes(*p)).collect(),
        ));
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
pub fn assignment(topics: &[(&str, &[i32])]) -> bytes::Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend_from_slice(&(topics.len() as i32).to_be_bytes());
    for (topic, partitions) in topics {
        bytes.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(&(partitions.len() as i32).to_be_bytes());
        for partition in *partitions {
            bytes.extend_from_slice(&partition.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF]); // no user data
    bytes.into()
}

#[cfg(test)]
pub fn subscription(topics: &[&str]) -> bytes::Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend_from_slice(&(topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        bytes.extend_from_slice(topic.as_bytes());
    }
    bytes.extend_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF]); // no user data
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_subscription_is_refused_and_the_whole_is_read() {
        let bytes = subscription(&["orders", "trucks"]);
        let mut topics = BTreeSet::new();
        assert_eq!(read_topics(&bytes, &mut topics), Some(()));
        assert_eq!(topics.into_iter().collect::<Vec<_>>(), ["orders", "trucks"]);
        for end in 0..bytes.len() - 4 {
            assert_eq!(
                read_topics(&bytes[..end], &mut BTreeSet::new()),
                None,
                "cut at {end}"
            );
        }
    }

    #[test]
    fn what_is_no_subscription_is_refused() {
        let table: &[&[u8]] = &[
            &[0xFF, 0xFF, 0, 0, 0, 0],       // version -1
            &[0, 0, 0xFF, 0xFF, 0xFF, 0xFF], // null topics
            &[0, 0, 0x7F, 0xFF, 0xFF, 0xFF], // 2^31-1 topics
            &[0, 0, 0, 0, 0, 1, 0xFF, 0xFF], // a null name
            &[0, 0, 0, 0, 0, 1, 0, 1, 0x80], // no UTF-8
        ];
        for bytes in table {
            assert_eq!(read_topics(bytes, &mut BTreeSet::new()), None, "{bytes:?}");
        }
        assert_eq!(
            read_topics(&[0, 0, 0, 0, 0, 0], &mut BTreeSet::new()),
            Some(())
        );
    }

    #[test]
    fn every_cut_of_an_assignment_is_refused_and_the_whole_is_read() {
        let bytes = assignment(&[("orders", &[0, 3]), ("trucks", &[])]);
        let whole = vec![("orders", vec![0, 3]), ("trucks", vec![])];
        assert_eq!(read_assignment(&bytes), Some(whole));
        assert_eq!(read_assignment(&[]), Some(vec![]));
        for end in 1..bytes.len() - 4 {
            assert_eq!(read_assignment(&bytes[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        let table: &[&[u8]] = &[
            &[0xFF, 0xFF, 0, 0, 0, 0],                               // version -1
            &[0, 0, 0xFF, 0xFF, 0xFF, 0xFF],                         // null topics
            &[0, 0, 0x7F, 0xFF, 0xFF, 0xFF],                         // 2^31-1 topics
            &[0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 0],             // a null name
            &[0, 0, 0, 0, 0, 1, 0, 1, 0x80, 0, 0, 0, 0],             // no UTF-8
            &[0, 0, 0, 0, 0, 1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],       // null partitions
            &[0, 0, 0, 0, 0, 1, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0], // 2^31-1 of them
        ];
        for bytes in table {
            assert_eq!(read_assignment(bytes), None, "{bytes:?}");
        }
    }
}
