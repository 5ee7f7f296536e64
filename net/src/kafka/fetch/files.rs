//! Fetches of what lies in files: two real shards, a real disk and a real socket.

use crate::kafka::connection::{Connection, End};
use crate::kafka::context::{Local, Peer};
use crate::kafka::cores::Cores;
use crate::kafka::following;
use crate::kafka::hosted;
use crate::kafka::limits::Limits;
use crate::kafka::testing::{BROKER, LISTENER, frame, topic};
use crate::socket::{Accept, Listener};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, HeaderVersion, StrBytes};
use klamm_coord::core::image::Image;
use klamm_coord::core::settings::BrokerConfig;
use klamm_engine::batch::{BatchBuilder, Batches};
use klamm_engine::codec::Codec;
use klamm_engine::io::Io;
use klamm_engine::io::glommio::GlommioIo;
use klamm_engine::io::glommio::probe;
use klamm_engine::io::glommio::runtime::{self, RuntimeConfig};
use klamm_engine::shard::home_shard;
use klamm_engine::store::Store;
use klamm_engine::units::{PartitionId, ShardId};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

const PARTITIONS: i32 = 4;

/// Of 100,000 bytes each, so that a partition has segments behind its open one.
const RECORDS: u64 = 40;

type Here = Rc<Local<GlommioIo>>;

fn local(io: GlommioIo, dir: &Path) -> Here {
    let settings = BrokerConfig::default();
    let empty = Image::empty("klamm-klamm-klamm-klam", settings);
    // A tail so short that nearly everything is read from files.
    let store = Store::new(io.clone(), dir.join("data"), true, 64 << 10);
    Local::new(
        io,
        Cores::later(),
        store,
        Arc::new(empty),
        BROKER,
        LISTENER.to_owned(),
        Limits::default(),
    )
}

fn value(partition: i32, record: u64) -> Vec<u8> {
    let seed = record * 7 + partition as u64;
    (0..100_000u64)
        .map(|at| ((at * 13 + at / 4096 + seed) % 253) as u8)
        .collect()
}

/// Two topics' worth of images would do; here is one with segments of a megabyte.
async fn fill(local: &Here) -> BTreeSet<ShardId> {
    let mut image = Image::clone(&local.image());
    image.zxid = image.zxid.next();
    let orders = topic(
        "orders",
        PARTITIONS as usize,
        &[("segment.bytes", "1048576")],
    );
    let id = orders.id;
    following::publish(local, Arc::new(image.with_topic(orders))).await;
    let mut homes = BTreeSet::new();
    for index in 0..PARTITIONS {
        let id = PartitionId {
            topic: id,
            index: index as _,
        };
        let home = home_shard(id, local.cores.count());
        homes.insert(home);
        let filled = local.on(home, move |local| async move {
            let partition =
                hosted::partition(&local, &id).unwrap_or_else(|_| panic!("it is there"));
            for record in 0..RECORDS {
                let now = local.io.wall();
                let value = value(index, record);
                let batch = BatchBuilder::new(Codec::None).record(now, None, Some(&value));
                partition.append(&batch.finish()).unwrap();
            }
            let end = partition.offsets().log_end;
            partition.acknowledged(end).await.unwrap();
        });
        filled.await.unwrap();
    }
    homes
}

/// Reads all partitions to their ends, as consumers do.
fn consume(address: SocketAddr, version: i16) {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut next = [0u64; PARTITIONS as usize];
    let mut correlation_id = 0;
    while next.iter().any(|n| *n < RECORDS) {
        let partitions = (0..PARTITIONS).map(|index| {
            FetchPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(next[index as usize] as i64)
                .with_partition_max_bytes(700_000)
        });
        let orders = FetchTopic::default()
            .with_topic(StrBytes::from_static_str("orders").into())
            .with_partitions(partitions.collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_topics(vec![orders]);
        stream
            .write_all(&frame(version, correlation_id, &request))
            .unwrap();
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        let mut bytes = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut bytes).unwrap();
        let mut bytes = Bytes::from(bytes);
        let header = FetchResponse::header_version(version);
        let header = ResponseHeader::decode(&mut bytes, header).unwrap();
        assert_eq!(header.correlation_id, correlation_id);
        correlation_id += 1;
        let response = FetchResponse::decode(&mut bytes, version).unwrap();
        for partition in &response.responses[0].partitions {
            assert_eq!(partition.error_code, 0);
            let index = partition.partition_index;
            for batch in Batches::new(partition.records.as_ref().unwrap()) {
                let batch = batch.expect("whole batches");
                batch.verify_crc().expect("as it was appended");
                let next = &mut next[index as usize];
                assert_eq!(batch.base_offset().0 as u64, *next);
                let unpacked = batch.records_unpacked(1 << 20).unwrap();
                let record = batch.records(&unpacked).next().unwrap().unwrap();
                assert!(record.value == Some(&value(index, *next)[..]));
                *next += 1;
            }
        }
    }
}

async fn serve(local: Here) {
    let homes = fill(&local).await;
    assert_eq!(homes.len(), local.cores.count(), "each shard has some");
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    // Below version 10 the broker looks at the batches, so these are loaded.
    for version in [9, 11, 12] {
        let client = std::thread::spawn(move || consume(at, version));
        let (socket, address) = listener.accept().await.unwrap();
        let end = Connection::new(local.clone(), Peer::at(address), socket)
            .run()
            .await;
        assert!(matches!(end, End::Client), "{end}");
        client.join().unwrap();
    }
}

/// A folder on the disk that the build is on: /tmp may be memory.
struct Room(PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_lies_in_files_of_all_shards_comes_over_one_connection() {
    if let Err(reason) = probe::io_uring() {
        eprintln!("skipped: {reason}");
        return;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let room = Room(target.join(format!("fetch-files-{}", std::process::id())));
    std::fs::create_dir_all(&room.0).unwrap();
    let dir = room.0.clone();
    let config = RuntimeConfig {
        cores: 2,
        pin: false,
        ..RuntimeConfig::default()
    };
    let ended = runtime::run(
        &config,
        async move |shards, io| {
            let local = local(io, &dir);
            local.cores.link(shards);
            Ok::<Here, Infallible>(local)
        },
        async |shards, _| {
            if shards.here() == ShardId(0) {
                serve((*shards.local()).clone()).await;
                shards.stop();
            } else {
                shards.stopping().await;
            }
        },
    );
    ended.unwrap();
}
