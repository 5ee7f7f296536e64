//! The way from one shard to another, as the handlers see it.
//!
//! ```text
//!   on(shard, work) --here--> work(local)            in place
//!                   --there-> a message and back     Shards::submit_to
//! ```

use crate::kafka::context::Local;
use futures_util::future::LocalBoxFuture;
use klamm_engine::io::Io;
use klamm_engine::io::shards::Shards;
use klamm_engine::units::ShardId;
use std::cell::OnceCell;
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
    /// There are several, or one that runs as one of several would.
    Many(Shards<Rc<Local<I>>>),
    /// As many, but known only after the shards' locals are made.
    Later(OnceCell<Shards<Rc<Local<I>>>>),
}

impl<I: Io> Cores<I> {
    /// One shard.
    pub fn alone() -> Cores<I> {
        Cores::Alone(std::marker::PhantomData)
    }

    /// To be linked before anything is served.
    pub fn later() -> Cores<I> {
        Cores::Later(OnceCell::new())
    }

    /// Once, and only where it was left for later.
    pub fn link(&self, shards: Shards<Rc<Local<I>>>) {
        let Cores::Later(cell) = self else {
            panic!("the shards are known already")
        };
        assert!(cell.set(shards).is_ok(), "the shards are linked once");
    }

    /// None: there is only this one.
    fn shards(&self) -> Option<&Shards<Rc<Local<I>>>> {
        match self {
            Cores::Alone(_) => None,
            Cores::Many(shards) => Some(shards),
            Cores::Later(cell) => Some(cell.get().expect("linked before it serves")),
        }
    }

    /// This one.
    pub fn here(&self) -> ShardId {
        self.shards().map_or(ShardId(0), Shards::here)
    }

    /// How many there are: homes of partitions are chosen by it.
    pub fn count(&self) -> usize {
        self.shards().map_or(1, Shards::count)
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
        let Some(shards) = self.shards() else {
            assert_eq!(shard, ShardId(0), "there is one shard");
            let done = work(local.clone());
            return Box::pin(async move { Ok(done.await) });
        };
        if shard == shards.here() {
            // Most of what a client asks of the leader that it found. No message, no task:
            // where the connection goes, nobody waits for the rest any more.
            let done = work(local.clone());
            return Box::pin(async move { Ok(done.await) });
        }
        let done = shards.submit_to(shard, move |local| work((*local).clone()));
        Box::pin(async move { done.await.map_err(|_| Gone) })
    }
}
