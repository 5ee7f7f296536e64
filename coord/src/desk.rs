//! Who has asked, and what every shard must know before they are answered.
//!
//! ```text
//!   take_in --> Token --> ... the state machine ... --> publish(image, answers)
//!                                                          |
//!           where topics, brokers or settings changed:     |
//!           Host::apply_image, every shard <---------------+
//!                      |
//!                      v                 groups' answers need not wait for that
//!           the others are answered
//! ```
//!
//! An answer that speaks of topics leaves only once every shard serves by it, so that a
//! client that was told of a topic can produce to it at once.

use crate::core::coordinator::Response;
use crate::core::image::Image;
use crate::core::{Token, Zxid};
use crate::driver::{Host, Stopped};
use futures_channel::oneshot;
use klamm_engine::io::Io;
use klamm_engine::signal::Signal;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

pub type Answer = Result<Response, Stopped>;

pub struct Desk<I: Io, H: Host> {
    io: I,
    pub(crate) host: H,
    tokens: Cell<u64>,
    pub(crate) waiting: RefCell<HashMap<Token, oneshot::Sender<Answer>>>,
    /// Committed, not yet applied, in order; answers that wait for that.
    publishing: RefCell<VecDeque<Published>>,
    is_publishing: Cell<bool>,
    /// Told when everything is published.
    changed: Rc<Signal>,
}

struct Published {
    image: Option<Arc<Image>>,
    send: Vec<(Zxid, Token, Response)>,
}

impl<I: Io, H: Host> Desk<I, H> {
    pub fn new(io: I, host: H, changed: Rc<Signal>) -> Rc<Desk<I, H>> {
        Rc::new(Desk {
            io,
            host,
            tokens: Cell::new(0),
            waiting: RefCell::default(),
            publishing: RefCell::default(),
            is_publishing: Cell::new(false),
            changed,
        })
    }

    /// Someone asks, and waits.
    pub fn take_in(&self) -> (Token, oneshot::Receiver<Answer>) {
        let token = Token(self.tokens.get());
        self.tokens.set(token.0 + 1);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(token, sender);
        (token, receiver)
    }

    /// Someone waits no more. False: they have been answered.
    pub fn forget(&self, token: Token) -> bool {
        self.waiting.borrow_mut().remove(&token).is_some()
    }

    /// Answers what may be answered, and queues what the host must know first.
    pub fn publish(self: &Rc<Self>, image: Option<Arc<Image>>, send: Vec<(Zxid, Token, Response)>) {
        let queued = image.is_some() || self.is_publishing.get();
        let (now, later): (Vec<_>, Vec<_>) = send
            .into_iter()
            .partition(|(_, _, response)| !queued || matches!(response, Response::Group(_)));
        self.answer(now);
        if image.is_none() && later.is_empty() {
            return;
        }
        self.publishing
            .borrow_mut()
            .push_back(Published { image, send: later });
        if !self.is_publishing.replace(true) {
            self.io.spawn(self.clone().run_publishing());
        }
    }

    #[must_use]
    pub fn is_publishing(&self) -> bool {
        self.is_publishing.get()
    }

    async fn run_publishing(self: Rc<Self>) {
        loop {
            // Those that queued meanwhile need only the newest image.
            let queued: Vec<Published> = self.publishing.borrow_mut().drain(..).collect();
            if queued.is_empty() {
                break;
            }
            if let Some(image) = queued.iter().rev().find_map(|p| p.image.clone()) {
                self.host.apply_image(image).await;
            }
            for published in queued {
                self.answer(published.send);
            }
        }
        self.is_publishing.set(false);
        self.changed.wake();
    }

    fn answer(&self, send: Vec<(Zxid, Token, Response)>) {
        for (_, token, response) in send {
            self.tell(token, Ok(response));
        }
    }

    /// Tells someone that there is no answer.
    pub fn refuse(&self, token: Token, why: Stopped) {
        self.tell(token, Err(why));
    }

    /// Tells everyone who waits.
    pub fn refuse_all(&self, why: &Stopped) {
        let waiting: Vec<_> = self.waiting.borrow_mut().drain().collect();
        for (_, sender) in waiting {
            drop(sender.send(Err(why.clone())));
        }
    }

    fn tell(&self, token: Token, answer: Answer) {
        let sender = self.waiting.borrow_mut().remove(&token);
        if let Some(sender) = sender {
            // Who no longer waits need not know.
            drop(sender.send(answer));
        }
    }
}
