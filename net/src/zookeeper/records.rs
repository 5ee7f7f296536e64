//! The records of ZooKeeper's client protocol (`zookeeper.jute`), each declared once and
//! readable and writable by that.
//!
//! ```text
//!   frame = int32 length, then
//!     first of a connection    ConnectRequest                 ConnectResponse
//!     every other              RequestHeader, XRequest        ReplyHeader, XResponse
//!                                                             ReplyHeader alone where err is not 0
//!     told without asking                                     ReplyHeader{-1}, WatcherEvent
//! ```

use crate::zookeeper::jute::{Buf, Field, List, Malformed, Reader, Str};
use klamm_coord::core::Zxid;
use klamm_coord::core::stat::{Acl, Stat};

/// What is asked (`ZooDefs.OpCode`).
pub mod op {
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const GET_ACL: i32 = 6;
    pub const SET_ACL: i32 = 7;
    pub const GET_CHILDREN: i32 = 8;
    pub const SYNC: i32 = 9;
    pub const PING: i32 = 11;
    pub const GET_CHILDREN2: i32 = 12;
    /// Within a multi only.
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CHECK_WATCHES: i32 = 17;
    pub const REMOVE_WATCHES: i32 = 18;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const DELETE_CONTAINER: i32 = 20;
    pub const CREATE_TTL: i32 = 21;
    pub const MULTI_READ: i32 = 22;
    pub const AUTH: i32 = 100;
    pub const SET_WATCHES: i32 = 101;
    pub const SASL: i32 = 102;
    pub const GET_EPHEMERALS: i32 = 103;
    pub const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub const SET_WATCHES2: i32 = 105;
    pub const ADD_WATCH: i32 = 106;
    pub const WHO_AM_I: i32 = 107;
    pub const CLOSE_SESSION: i32 = -11;
    /// In the answer to a multi: an operation's error, and with `done` its end.
    pub const ERROR: i32 = -1;
}

/// The xids that no request of an application has.
pub mod xid {
    pub const NOTIFICATION: i32 = -1;
    pub const PING: i32 = -2;
    pub const AUTH: i32 = -4;
    pub const SET_WATCHES: i32 = -8;
}

/// Errors that do not come from the tree (`KeeperException.Code`).
pub mod err {
    pub const OK: i32 = 0;
    pub const MARSHALLING: i32 = -5;
    pub const UNIMPLEMENTED: i32 = -6;
    pub const BAD_ARGUMENTS: i32 = -8;
    pub const AUTH_FAILED: i32 = -115;
    pub const NO_WATCHER: i32 = -121;
    pub const RECONFIG_DISABLED: i32 = -123;
}

/// The state in every event of a live connection: SyncConnected.
pub const SYNC_CONNECTED: i32 = 3;

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        records!(@field $name, ($($life)?), $($field: $type,)*);
    )*};
    (@field $name:ident, (), $($field:ident: $type:ty,)*) => {
        impl<'r> Field<'r> for $name {
            const BYTES_MIN: usize = 0 $(+ <$type as Field<'r>>::BYTES_MIN)*;

            #[allow(unused_variables)]
            fn get(from: &mut Reader<'r>) -> Result<Self, Malformed> {
                Ok($name { $($field: from.take()?,)* })
            }

            #[allow(unused_variables)]
            fn put(&self, to: &mut Vec<u8>) {
                $(self.$field.put(to);)*
            }
        }
    };
    (@field $name:ident, ($life:lifetime), $($field:ident: $type:ty,)*) => {
        impl<$life> Field<$life> for $name<$life> {
            const BYTES_MIN: usize = 0 $(+ <$type as Field<$life>>::BYTES_MIN)*;

            fn get(from: &mut Reader<$life>) -> Result<Self, Malformed> {
                Ok($name { $($field: from.take()?,)* })
            }

            fn put(&self, to: &mut Vec<u8>) {
                $(self.$field.put(to);)*
            }
        }
    };
}

records! {
    ConnectRequest<'a> {
        protocol_version: i32,
        last_zxid_seen: Zxid,
        timeout_ms: i32,
        /// 0: a new one.
        session: i64,
        password: Buf<'a>,
        /// Clients before 3.4 leave it out, and want it left out of the answer.
        read_only: Option<bool>,
    }

    ConnectResponse<'a> {
        protocol_version: i32,
        /// 0 where the session is none, or no more.
        timeout_ms: i32,
        session: i64,
        password: Buf<'a>,
        read_only: Option<bool>,
    }

    RequestHeader {
        xid: i32,
        op: i32,
    }

    ReplyHeader {
        xid: i32,
        zxid: Zxid,
        err: i32,
    }

    WatcherEvent<'a> {
        kind: i32,
        state: i32,
        path: Str<'a>,
    }

    /// create, create2 and createContainer.
    CreateRequest<'a> {
        path: Str<'a>,
        data: Buf<'a>,
        acl: List<Acl>,
        flags: i32,
    }

    CreateTtlRequest<'a> {
        path: Str<'a>,
        data: Buf<'a>,
        acl: List<Acl>,
        flags: i32,
        ttl_ms: i64,
    }

    /// A path and nothing else: getACL, sync, deleteContainer, getEphemerals,
    /// getAllChildrenNumber.
    PathRequest<'a> {
        path: Str<'a>,
    }

    /// A path and whether to watch: exists, getData, getChildren, getChildren2.
    ReadRequest<'a> {
        path: Str<'a>,
        watch: bool,
    }

    /// A path and the version that it must have: delete and check.
    VersionRequest<'a> {
        path: Str<'a>,
        version: i32,
    }

    SetDataRequest<'a> {
        path: Str<'a>,
        data: Buf<'a>,
        version: i32,
    }

    SetAclRequest<'a> {
        path: Str<'a>,
        acl: List<Acl>,
        version: i32,
    }

    ReconfigRequest<'a> {
        joining: Str<'a>,
        leaving: Str<'a>,
        new_members: Str<'a>,
        config: i64,
    }

    /// A path and which watches on it: checkWatches, removeWatches (1 children, 2 data,
    /// 3 any) and addWatch (0 persistent, 1 recursive).
    WatchesRequest<'a> {
        path: Str<'a>,
        kind: i32,
    }

    SetWatchesRequest<'a> {
        relative_zxid: Zxid,
        data: List<Str<'a>>,
        exist: List<Str<'a>>,
        child: List<Str<'a>>,
    }

    SetWatches2Request<'a> {
        relative_zxid: Zxid,
        data: List<Str<'a>>,
        exist: List<Str<'a>>,
        child: List<Str<'a>>,
        persistent: List<Str<'a>>,
        recursive: List<Str<'a>>,
    }

    AuthRequest<'a> {
        kind: i32,
        scheme: Str<'a>,
        auth: Buf<'a>,
    }

    /// Both ways.
    SaslToken<'a> {
        token: Buf<'a>,
    }

    /// Before each operation of a multi, and after the last with `done`.
    MultiHeader {
        op: i32,
        done: bool,
        err: i32,
    }

    /// A path and nothing else: create, sync.
    PathResponse<'a> {
        path: Str<'a>,
    }

    /// create2, createContainer, createTTL.
    Create2Response<'a> {
        path: Str<'a>,
        stat: Stat,
    }

    /// exists, setData, setACL.
    StatResponse {
        stat: Stat,
    }

    GetDataResponse<'a> {
        data: Buf<'a>,
        stat: Stat,
    }

    GetAclResponse {
        acl: List<Acl>,
        stat: Stat,
    }

    /// getChildren, getEphemerals.
    PathsResponse<'a> {
        paths: List<Str<'a>>,
    }

    GetChildren2Response<'a> {
        children: List<Str<'a>>,
        stat: Stat,
    }

    CountResponse {
        count: i32,
    }

    /// addWatch, and a multi's operation that was not done.
    ErrorResponse {
        err: i32,
    }

    ClientInfo<'a> {
        scheme: Str<'a>,
        user: Str<'a>,
    }

    WhoAmIResponse<'a> {
        clients: List<ClientInfo<'a>>,
    }
}

#[cfg(test)]
mod tests;
