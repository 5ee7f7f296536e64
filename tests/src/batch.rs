//! Record batches (v2) by hand, so that any field can be wrong.
//!
//! ```text
//!    0 base offset   8 length   12 leader epoch   16 magic   17 CRC-32C of 21..
//!   21 attributes   23 last offset delta   27 base timestamp   35 max timestamp
//!   43 producer id   51 producer epoch   53 base sequence   57 count   61 records
//! ```
//!
//! Nothing here is shared with the engine: a mistake made twice is not found.

/// The fields as they go out; [`Batch::encode`] adds the length and the CRC.
#[derive(Clone, Debug)]
pub struct Batch {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub magic: i8,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
    pub records: Vec<u8>,
}

pub const TRANSACTIONAL: i16 = 1 << 4;
pub const CONTROL: i16 = 1 << 5;

impl Batch {
    /// Uncompressed records without keys, one a value, all of one time.
    pub fn of<V: AsRef<[u8]>>(values: &[V]) -> Batch {
        let count = i32::try_from(values.len()).expect("a few records");
        let mut records = Vec::new();
        for (delta, value) in (0..).zip(values) {
            record(&mut records, delta, value.as_ref());
        }
        let now = now_ms();
        Batch {
            base_offset: 0,
            leader_epoch: -1,
            magic: 2,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: now,
            max_timestamp: now,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
            records,
        }
    }

    #[must_use]
    pub fn from_producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Batch {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    #[must_use]
    pub fn change(mut self, change: impl FnOnce(&mut Batch)) -> Batch {
        change(&mut self);
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(40 + self.records.len());
        body.extend(self.attributes.to_be_bytes());
        body.extend(self.last_offset_delta.to_be_bytes());
        body.extend(self.base_timestamp.to_be_bytes());
        body.extend(self.max_timestamp.to_be_bytes());
        body.extend(self.producer_id.to_be_bytes());
        body.extend(self.producer_epoch.to_be_bytes());
        body.extend(self.base_sequence.to_be_bytes());
        body.extend(self.count.to_be_bytes());
        body.extend(&self.records);

        // What `length` counts: leader epoch 4, magic 1, CRC 4, then the body.
        let length = i32::try_from(9 + body.len()).expect("a batch of less than 2 GiB");
        let mut batch = Vec::with_capacity(21 + body.len());
        batch.extend(self.base_offset.to_be_bytes());
        batch.extend(length.to_be_bytes());
        batch.extend(self.leader_epoch.to_be_bytes());
        batch.extend(self.magic.to_be_bytes());
        batch.extend(crc32c(&body).to_be_bytes());
        batch.extend(body);
        batch
    }
}

/// One record: length, attributes, timestamp delta, offset delta, key, value, headers.
pub fn record(out: &mut Vec<u8>, offset_delta: i64, value: &[u8]) {
    let mut body = vec![0];
    varint(&mut body, 0);
    varint(&mut body, offset_delta);
    varint(&mut body, -1);
    varint(
        &mut body,
        i64::try_from(value.len()).expect("a small value"),
    );
    body.extend(value);
    varint(&mut body, 0);
    varint(out, i64::try_from(body.len()).expect("a small record"));
    out.extend(body);
}

/// Zigzag, then seven bits a byte, the lowest first.
pub fn varint(out: &mut Vec<u8>, n: i64) {
    let mut bits = ((n << 1) ^ (n >> 63)).cast_unsigned();
    loop {
        let low = (bits & 0x7f) as u8;
        bits >>= 7;
        if bits == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Castagnoli's polynomial, reflected, a byte at a time from a table.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    let crc = bytes.iter().fold(!0u32, |crc, &byte| {
        (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize]
    });
    !crc
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the year 292,000,000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::records::RecordBatchDecoder;

    #[test]
    fn the_crc_has_its_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn another_implementation_reads_what_is_written() {
        let bytes = Batch::of(&["first", "second"])
            .from_producer(7, 1, 40)
            .encode();
        let set = RecordBatchDecoder::decode(&mut Bytes::from(bytes)).expect("a sound batch");
        let values: Vec<_> = set
            .records
            .iter()
            .map(|r| r.value.clone().unwrap())
            .collect();
        assert_eq!(values, ["first", "second"]);
        assert_eq!(
            (set.records[1].sequence, set.records[1].producer_id),
            (41, 7)
        );
    }
}
