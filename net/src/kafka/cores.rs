//! The way from one shard to another, as the handlers see it.
//!
//! ```text
//!   on(shard, work) --here--> work(local)            in place
//!                   --there-> a message and back     Shards::submit_to
//! ```

use crate::kafka::context::Local;
use futures_util::future::LocalBoxFuture;
use klamm_engine::io::Io;
use klamm_engine::units::ShardId;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

/// Whoever was asked is no longer there: the broker is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the broker is stopping")
    }
}

impl std::error::Error for Gone {}

/// The shards of this process.
pub enum Cores<I: Io> {
    /// There is one, and it is this one.
    Alone(std::marker::PhantomData<I>),
}

impl<I: Io> Cores<I> {
    /// One shard.
    pub fn alone() -> Cores<I> {
        Cores::Alone(std::marker::PhantomData)
    }

    /// This one.
    pub fn here(&self) -> ShardId {
        match self {
            Cores::Alone(_) => ShardId(0),
        }
    }

    /// How many there are: homes of partitions are chosen by it.
    pub fn count(&self) -> usize {
        match self {
            Cores::Alone(_) => 1,
        }
    }

    /// Runs work on a shard. The call of `work` itself is made in the order of the
    /// calls of `on`; here at once, elsewhere when the message arrives.
    pub fn on<R, F, W>(
        &self,
        local: &Rc<Local<I>>,
        shard: ShardId,
        work: W,
    ) -> LocalBoxFuture<'static, Result<R, Gone>>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
        W: FnOnce(Rc<Local<I>>) -> F + Send + 'static,
    {
        match self {
            Cores::Alone(_) => {
                assert_eq!(shard, ShardId(0), "there is one shard");
                let done = work(local.clone());
                Box::pin(async move { Ok(done.await) })
            }
        }
    }
}
