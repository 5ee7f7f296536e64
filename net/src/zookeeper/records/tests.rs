use super::*;
use crate::zookeeper::jute::Malformed;
use klamm_coord::core::stat::Perms;
use klamm_engine::units::TimestampMs;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

type Text = Option<String>;
type Bytes = Option<Vec<u8>>;

fn text() -> impl Strategy<Value = Text> {
    of(".{0,12}")
}

fn bytes() -> impl Strategy<Value = Bytes> {
    of(vec(any::<u8>(), 0..40))
}

fn texts() -> impl Strategy<Value = Option<Vec<Text>>> {
    of(vec(text(), 0..5))
}

fn acl() -> impl Strategy<Value = List<Acl>> {
    let entry = (any::<i32>(), ".{0,8}", ".{0,8}").prop_map(|(perms, scheme, id)| Acl {
        perms: Perms(perms),
        scheme: scheme.into(),
        id: id.into(),
    });
    of(vec(entry, 0..4))
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(long, int)| Stat {
        czxid: Zxid(long[0]),
        mzxid: Zxid(long[1]),
        ctime: TimestampMs(long[2]),
        mtime: TimestampMs(long[3]),
        version: int[0],
        cversion: int[1],
        aversion: int[2],
        ephemeral_owner: long[4],
        data_length: int[3],
        num_children: int[4],
        pzxid: Zxid(long[5]),
    })
}

fn str(text: &Text) -> Str<'_> {
    text.as_deref().map(Into::into)
}

fn strs(texts: &Option<Vec<Text>>) -> List<Str<'_>> {
    Some(texts.as_ref()?.iter().map(str).collect())
}

/// Writes it, reads it back, and finds every cut of it too short (but where what is cut
/// off may lack).
macro_rules! round_trip {
    ($record:ident, $value:expr) => {{
        let value = $value;
        let mut written = Vec::new();
        value.put(&mut written);
        let mut from = Reader::new(&written);
        let read = from.take::<$record<'_>>();
        prop_assert_eq!(read.as_ref(), Ok(&value));
        prop_assert!(from.is_empty());
        let shortest = <$record<'_> as Field<'_>>::BYTES_MIN;
        prop_assert!(written.len() >= shortest);
        for end in [0, written.len() / 2, written.len().saturating_sub(2)] {
            let cut = Reader::new(&written[..end]).take::<$record<'_>>();
            prop_assert!(end >= shortest || cut == Err(Malformed));
        }
    }};
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (path, other, third) in (text(), text(), text()),
        (data, flag, last) in (bytes(), any::<bool>(), of(any::<bool>())),
        (int, int2, long) in (any::<i32>(), any::<i32>(), any::<i64>()),
        (acl, stat) in (acl(), stat()),
        (a, b, c) in (texts(), texts(), texts()),
    ) {
        let (path, other) = (str(&path), str(&other));
        let zxid = Zxid(long);
        round_trip!(ConnectRequest, ConnectRequest {
            protocol_version: int, last_zxid_seen: zxid, timeout_ms: int2, session: long,
            password: data.as_deref(), read_only: last,
        });
        round_trip!(ConnectResponse, ConnectResponse {
            protocol_version: int, timeout_ms: int2, session: long,
            password: data.as_deref(), read_only: last,
        });
        round_trip!(CreateRequest, CreateRequest {
            path: path.clone(), data: data.as_deref(), acl: acl.clone(), flags: int,
        });
        round_trip!(CreateTtlRequest, CreateTtlRequest {
            path: path.clone(), data: data.as_deref(), acl: acl.clone(), flags: int, ttl_ms: long,
        });
        round_trip!(PathRequest, PathRequest { path: path.clone() });
        round_trip!(ReadRequest, ReadRequest { path: path.clone(), watch: flag });
        round_trip!(VersionRequest, VersionRequest { path: path.clone(), version: int });
        round_trip!(SetDataRequest, SetDataRequest {
            path: path.clone(), data: data.as_deref(), version: int,
        });
        round_trip!(SetAclRequest, SetAclRequest {
            path: path.clone(), acl: acl.clone(), version: int,
        });
        round_trip!(ReconfigRequest, ReconfigRequest {
            joining: path.clone(), leaving: other.clone(), new_members: str(&third), config: long,
        });
        round_trip!(WatchesRequest, WatchesRequest { path: path.clone(), kind: int });
        round_trip!(SetWatchesRequest, SetWatchesRequest {
            relative_zxid: zxid, data: strs(&a), exist: strs(&b), child: strs(&c),
        });
        round_trip!(SetWatches2Request, SetWatches2Request {
            relative_zxid: zxid, data: strs(&a), exist: strs(&b), child: strs(&c),
            persistent: strs(&b), recursive: strs(&a),
        });
        round_trip!(AuthRequest, AuthRequest {
            kind: int, scheme: path.clone(), auth: data.as_deref(),
        });
        round_trip!(SaslToken, SaslToken { token: data.as_deref() });
        round_trip!(WatcherEvent, WatcherEvent { kind: int, state: int2, path: path.clone() });
        round_trip!(PathResponse, PathResponse { path: path.clone() });
        round_trip!(Create2Response, Create2Response { path: path.clone(), stat });
        round_trip!(GetDataResponse, GetDataResponse { data: data.as_deref(), stat });
        round_trip!(PathsResponse, PathsResponse { paths: strs(&a) });
        round_trip!(GetChildren2Response, GetChildren2Response { children: strs(&a), stat });
        round_trip!(WhoAmIResponse, WhoAmIResponse {
            clients: Some(vec![ClientInfo { scheme: path.clone(), user: other.clone() }]),
        });
        let mut written = Vec::new();
        let whole = (
            RequestHeader { xid: int, op: int2 },
            ReplyHeader { xid: int, zxid, err: int2 },
            MultiHeader { op: int, done: flag, err: int2 },
            GetAclResponse { acl, stat },
            StatResponse { stat },
            CountResponse { count: int },
            ErrorResponse { err: int },
        );
        whole.0.put(&mut written);
        whole.1.put(&mut written);
        whole.2.put(&mut written);
        whole.3.put(&mut written);
        whole.4.put(&mut written);
        whole.5.put(&mut written);
        whole.6.put(&mut written);
        let mut from = Reader::new(&written);
        let read = (
            from.take().unwrap(),
            from.take().unwrap(),
            from.take().unwrap(),
            from.take().unwrap(),
            from.take().unwrap(),
            from.take().unwrap(),
            from.take().unwrap(),
        );
        prop_assert_eq!(whole, read);
        prop_assert!(from.is_empty());
    }
}
