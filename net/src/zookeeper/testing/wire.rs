//! The bytes themselves, as clients and servers of Apache ZooKeeper's send them.

use super::*;
use klamm_coord::core::stat::Stat;
use klamm_engine::units::TimestampMs;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

macro_rules! golden {
    ($record:ident, $bytes:expr, $value:expr) => {{
        let bytes = hex($bytes);
        let mut from = Reader::new(&bytes);
        assert_eq!(from.take::<$record<'_>>().as_ref(), Ok(&$value));
        assert!(from.is_empty());
        let mut written = Vec::new();
        $value.put(&mut written);
        assert_eq!(written, bytes);
    }};
}

#[test]
fn connect_both_ways() {
    golden!(
        ConnectRequest,
        "00000000 0000000000000007 00002710 0000000000000000
         00000010 00000000000000000000000000000000 00",
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(7),
            timeout_ms: 10_000,
            session: 0,
            password: Some(&[0; 16]),
            read_only: Some(false),
        }
    );
    // Before 3.4, without readOnly.
    golden!(
        ConnectResponse,
        "00000000 00000fa0 1a203bb28e400000 00000002 abcd",
        ConnectResponse {
            protocol_version: 0,
            timeout_ms: 4000,
            session: 0x1a20_3bb2_8e40_0000,
            password: Some(&[0xab, 0xcd]),
            read_only: None,
        }
    );
}

#[test]
fn requests() {
    golden!(
        CreateRequest,
        "00000002 2f61 00000001 78
         00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000003",
        create("/a", b"x", 3)
    );
    golden!(ReadRequest, "00000001 2f 01", read("/", true));
    golden!(
        VersionRequest,
        "00000002 2f61 ffffffff",
        versioned("/a", -1)
    );
    golden!(
        SetDataRequest,
        "00000002 2f61 ffffffff 00000003",
        SetDataRequest {
            path: Some("/a".into()),
            data: None,
            version: 3
        }
    );
    golden!(
        SetWatchesRequest,
        "0000000000000005 00000001 00000002 2f61 00000000 ffffffff",
        SetWatchesRequest {
            relative_zxid: Zxid(5),
            data: Some(vec![Some("/a".into())]),
            exist: Some(vec![]),
            child: None,
        }
    );
    golden!(
        AuthRequest,
        "00000000 00000006 646967657374 00000003 613a62",
        AuthRequest {
            kind: 0,
            scheme: Some("digest".into()),
            auth: Some(b"a:b"),
        }
    );
}

#[test]
fn answers() {
    let stat = Stat {
        czxid: Zxid(1),
        mzxid: Zxid(2),
        ctime: TimestampMs(3),
        mtime: TimestampMs(4),
        version: 5,
        cversion: 6,
        aversion: 7,
        ephemeral_owner: 8,
        data_length: 9,
        num_children: 10,
        pzxid: Zxid(11),
    };
    golden!(
        GetDataResponse,
        "00000001 78
         0000000000000001 0000000000000002 0000000000000003 0000000000000004
         00000005 00000006 00000007 0000000000000008 00000009 0000000a 000000000000000b",
        GetDataResponse {
            data: Some(b"x"),
            stat,
        }
    );
    golden!(
        WatcherEvent,
        "00000003 00000003 00000002 2f61",
        WatcherEvent {
            kind: 3,
            state: SYNC_CONNECTED,
            path: Some("/a".into()),
        }
    );
}

/// What a whole exchange looks like, byte for byte.
#[test]
fn an_exchange() {
    story(Limits::default(), async |server| {
        let client = server.connect();
        client.send(&hex(
            "0000002d 00000000 0000000000000000 00002710 0000000000000000
             00000010 00000000000000000000000000000000 00",
        ));
        let connected = client.frame().await.unwrap();
        assert_eq!(connected.len(), 37);
        assert_eq!(connected[..8], hex("00000000 00002710"));
        assert_eq!(connected[16..20], hex("00000010"));
        assert_eq!(connected[36], 0);
        // A missing node: header alone.
        client.send(&hex("0000000f 00000001 00000004 00000002 2f61 00"));
        let missing = client.frame().await.unwrap();
        assert_eq!(missing[..4], hex("00000001"));
        assert_eq!(missing[12..], hex("ffffff9b"));
        // A ping.
        client.send(&hex("00000008 fffffffe 0000000b"));
        let ping = client.frame().await.unwrap();
        assert_eq!((ping.len(), &ping[..4]), (16, &hex("fffffffe")[..]));
        // Create, and the event of it.
        client.send(&hex("0000000f 00000002 00000003 00000002 2f61 01"));
        client.frame().await.unwrap();
        client.send(&hex(
            "00000032 00000003 00000001 00000002 2f61 00000001 78
             00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000",
        ));
        let event = client.frame().await.unwrap();
        assert_eq!(event[..4], hex("ffffffff"));
        assert_eq!(event[12..], hex("00000000 00000001 00000003 00000002 2f61"));
        let created = client.frame().await.unwrap();
        assert_eq!(created[..4], hex("00000003"));
        assert_eq!(created[12..], hex("00000000 00000002 2f61"));
        assert_eq!(created[4..12], event[4..12], "one zxid");
    });
}
