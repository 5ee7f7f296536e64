//! auth, whoAmI, and sasl, which nobody is configured for.

use crate::zookeeper::jute::{Field, Malformed, Reader, put_str};
use crate::zookeeper::records::{AuthRequest, SaslToken, err};
use crate::zookeeper::requests::{After, Turn};
use klamm_coord::core::Zxid;
use klamm_coord::core::acl;

/// Every ACL is looked through once for each of them.
const IDENTITIES_MAX: usize = 64;

/// What a client shows to be is added to what it is already; who shows something that is
/// not known loses the connection.
pub(super) fn auth(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> After {
    let Ok(request) = from.take::<AuthRequest<'_>>() else {
        return After::Drop("an auth request that can't be read");
    };
    let front = turn.out.front;
    let known = acl::authenticate(
        request.scheme.as_deref().unwrap_or_default(),
        request.auth.unwrap_or_default(),
        turn.out.client.address.ip(),
        front.limits.super_digest.as_deref(),
    );
    let has_room = turn.who.identities.len() < IDENTITIES_MAX;
    let Some(shown) = known.filter(|_| has_room) else {
        turn.out.header(xid, Zxid::ZERO, err::AUTH_FAILED);
        return After::Close("it could not be authenticated");
    };
    let mut identities = turn.who.identities.to_vec();
    for identity in shown {
        if !identities.contains(&identity) {
            identities.push(identity);
        }
    }
    turn.who.identities = identities.into();
    *turn.out.client.identities.borrow_mut() = turn.who.identities.clone();
    turn.out.header(xid, Zxid::ZERO, err::OK);
    After::Go
}

/// What the client is, without what only it may know.
pub(super) fn who_am_i(turn: &mut Turn<'_>, xid: i32) -> Result<(), Malformed> {
    turn.out.reply(xid, Zxid::ZERO, |to| {
        let count = i32::try_from(turn.who.identities.len());
        count.expect("bounded by the requests").put(to);
        for identity in turn.who.identities.iter() {
            let user = match identity.scheme.as_str() {
                "digest" => identity.id.split(':').next().unwrap_or_default(),
                _ => identity.id.as_str(),
            };
            put_str(&identity.scheme, to);
            put_str(user, to);
        }
    });
    Ok(())
}

/// As a ZooKeeper without a login configuration: a null token, and the client goes on
/// without.
pub(super) fn sasl(turn: &mut Turn<'_>, xid: i32, from: &mut Reader<'_>) -> Result<(), Malformed> {
    let _: SaslToken<'_> = from.take()?;
    turn.out
        .reply(xid, Zxid::ZERO, |to| SaslToken { token: None }.put(to));
    Ok(())
}
