//! Where the cluster is kept: in this process, or by an ensemble elsewhere.
//!
//! ```text
//!   Coordinator::call  --+--> Driver   tree, changelog and ZooKeeper's listener in here
//!   (one interface)      +--> Remote   --coordinator zk://...: a mirror, over the wire
//! ```

use klamm_coord::core::coordinator::{Request, Response};
use klamm_coord::core::image::Image;
use klamm_coord::driver::{Driver, Host, Stopped};
use klamm_coord::remote::Remote;
use klamm_engine::io::glommio::GlommioIo;
use klamm_net::kafka::context::Coordinator;
use klamm_net::kafka::cores::Gone;
use klamm_net::socket::Connector;
use klamm_net::zookeeper::client::ZooKeeper;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

type Ensemble = ZooKeeper<GlommioIo, Connector>;

pub enum Keeping<H: Host> {
    Here(Rc<Driver<GlommioIo, H>>),
    Elsewhere(Rc<Remote<GlommioIo, H, Ensemble>>),
}

impl<H: Host> Clone for Keeping<H> {
    fn clone(&self) -> Keeping<H> {
        match self {
            Keeping::Here(driver) => Keeping::Here(driver.clone()),
            Keeping::Elsewhere(remote) => Keeping::Elsewhere(remote.clone()),
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Stopped>>>>;

impl<H: Host> Keeping<H> {
    pub fn ask(&self, request: Request) -> Answer {
        match self {
            Keeping::Here(driver) => Box::pin(driver.call(request)),
            Keeping::Elsewhere(remote) => Box::pin(remote.call(request)),
        }
    }

    pub fn image(&self) -> Arc<Image> {
        match self {
            Keeping::Here(driver) => driver.image(),
            Keeping::Elsewhere(remote) => remote.image(),
        }
    }

    /// Whether what was not answered may be another time: somebody else was quicker, or
    /// the ensemble was away.
    pub fn may_be_asked_again(&self) -> bool {
        match self {
            Keeping::Here(_) => false,
            Keeping::Elsewhere(remote) => remote.stopped().is_none(),
        }
    }

    /// Takes this broker's registration away, and closes what is open here.
    pub async fn close(&self) -> Result<(), String> {
        match self {
            Keeping::Here(driver) => driver
                .close()
                .await
                .map_err(|e| format!("the coordinator could not be closed: {e}")),
            Keeping::Elsewhere(remote) => {
                remote.close().await;
                Ok(())
            }
        }
    }
}

/// As the handlers reach it.
impl<H: Host> Coordinator for Keeping<H> {
    fn call(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<Response, Gone>>>> {
        let answer = self.ask(request);
        Box::pin(async move {
            answer.await.map_err(|stopped| {
                log::debug!("not answered: {stopped}");
                Gone
            })
        })
    }
}
