//! The client against the real front and its driver, on the simulator; and a broker's
//! coordinator over it.

use super::*;
use crate::pipe::Pipe;
use crate::zookeeper::connection::Connection;
use crate::zookeeper::limits::Limits;
use crate::zookeeper::testing::{Nobody, Server, story};
use klamm_coord::core::coordinator::{CoreConfig, Request, Response};
use klamm_coord::core::image::{Broker, Endpoint};
use klamm_coord::core::settings::BrokerConfig;
use klamm_coord::driver::Keeper;
use klamm_coord::remote::Remote;
use klamm_engine::io::sim::SimIo;
use std::task::Context;

/// The client's end of a pipe.
struct Near(Rc<Pipe>);

impl Socket for Near {
    fn poll_recv(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let came: Vec<u8> = self.0.to_client.borrow_mut().drain(..).collect();
        if !came.is_empty() {
            into.extend_from_slice(&came);
            self.0.changed();
            return Poll::Ready(Ok(came.len()));
        }
        if self.0.server_done.get() {
            return Poll::Ready(Ok(0));
        }
        self.0.wait(cx);
        Poll::Pending
    }

    fn poll_recv_into(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        unreachable!("the client receives into a buffer of its own")
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut sent = 0;
        for slice in slices {
            self.0.to_server.borrow_mut().extend(slice.iter());
            sent += slice.len();
        }
        self.0.changed();
        Poll::Ready(Ok(sent))
    }

    fn close_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.0.client_done.set(true);
        self.0.changed();
    }
}

/// Connects to the server, unless the way is cut.
#[derive(Clone)]
struct Way {
    server: Rc<Server>,
    is_cut: Rc<Cell<bool>>,
    pipes: Rc<RefCell<Vec<Rc<Pipe>>>>,
}

impl Way {
    fn to(server: &Rc<Server>) -> Way {
        Way {
            server: server.clone(),
            is_cut: Rc::default(),
            pipes: Rc::default(),
        }
    }

    /// Ends every connection, and lets no new one be made.
    fn cut(&self) {
        self.is_cut.set(true);
        for pipe in self.pipes.borrow_mut().drain(..) {
            pipe.server_done.set(true);
            pipe.client_done.set(true);
            pipe.changed();
        }
    }
}

impl Connect for Way {
    type Socket = Near;

    async fn connect(&self, _: SocketAddr) -> io::Result<Near> {
        if self.is_cut.get() {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        let pipe = Pipe::with_window(1 << 20);
        self.pipes.borrow_mut().push(pipe.clone());
        let address = "127.0.0.1:50000".parse().unwrap();
        let far = Connection::new(
            self.server.front.clone(),
            address,
            crate::pipe::PipeSocket(pipe.clone()),
        );
        self.server.io.spawn(far.run());
        Ok(Near(pipe))
    }
}

fn config(chroot: &str) -> ClientConfig {
    ClientConfig {
        servers: vec!["127.0.0.1:2181".parse().unwrap()],
        chroot: chroot.to_owned(),
        session_timeout_ms: 6_000,
        connection_timeout: Duration::from_secs(18),
    }
}

async fn open(way: &Way, chroot: &str) -> ZooKeeper<SimIo, Way> {
    let opened = ZooKeeper::open(way.server.io.clone(), way.clone(), config(chroot)).await;
    opened.unwrap_or_else(|e| panic!("{e}"))
}

fn there(server: &Server, path: &str) -> bool {
    let mut there = false;
    server
        .driver
        .with(&mut |core, _| there = core.tree().exists(path));
    there
}

fn ephemeral(path: &str) -> Op {
    Op::Create {
        path: path.to_owned(),
        data: Some(b"here".to_vec()),
        acl: klamm_coord::core::stat::Acl::open(),
        lifetime: Lifetime::Ephemeral(0),
        sequential: false,
    }
}

#[test]
fn everything_is_below_the_chroot_and_events_come_without_it() {
    story(Limits::default(), async |server| {
        let server = Rc::new(server);
        let client = open(&Way::to(&server), "/kafka/one").await;
        client.watch("/a").await.unwrap();
        let ops = [
            Op::create("/a", "x"),
            Op::create("/a/b", "y"),
            Op::set("/a", "z"),
        ];
        let results = client.multi(&ops).await.unwrap().unwrap();
        assert!(matches!(&results[1], OpResult::Create { path, .. } if path == "/a/b"));
        assert!(there(&server, "/kafka/one/a/b"));
        for (kind, path) in [
            (EventKind::Created, "/a"),
            (EventKind::Created, "/a/b"),
            (EventKind::DataChanged, "/a"),
        ] {
            assert_eq!(
                client.notice().await,
                Notice::Event(Event::open(kind, path))
            );
        }
        let seen = client.read("/a").await.unwrap().unwrap();
        assert_eq!(
            (seen.data.as_deref(), seen.stat.version),
            (Some(&b"z"[..]), 1)
        );
        assert_eq!(client.children("/").await.unwrap().unwrap(), ["a"]);
        assert_eq!(client.read("/none").await.unwrap(), Err(TreeError::NoNode));
        let failed = client
            .multi(&[Op::create("/c", ""), Op::delete("/a"), Op::create("/d", "")])
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!((failed.index, failed.error), (1, TreeError::NotEmpty));
        assert!(!there(&server, "/kafka/one/c"));
    });
}

#[test]
fn a_session_outlives_its_connection_but_not_its_timeout() {
    story(Limits::default(), async |server| {
        let server = Rc::new(server);
        let way = Way::to(&server);
        let client = open(&way, "").await;
        client.watch("/").await.unwrap();
        client.multi(&[ephemeral("/e")]).await.unwrap().unwrap();
        let session = client.session();
        assert!(matches!(client.notice().await, Notice::Event(_)));

        way.cut();
        assert!(client.multi(&[Op::create("/lost", "")]).await.is_err());
        server.io.sleep(Duration::from_secs(2)).await;
        way.is_cut.set(false);
        assert_eq!(client.notice().await, Notice::Reconnected);
        assert_eq!(client.session(), session);
        assert!(there(&server, "/e"));
        client
            .multi(&[Op::create("/a", "")])
            .await
            .unwrap()
            .unwrap();
        assert!(
            matches!(client.notice().await, Notice::Event(_)),
            "it watches again"
        );

        way.cut();
        server.io.sleep(Duration::from_secs(7)).await;
        assert!(!there(&server, "/e"), "expired");
        way.is_cut.set(false);
        assert_eq!(client.notice().await, Notice::NewSession);
        assert_ne!(client.session(), session);
    });
}

#[test]
fn pings_keep_a_session_that_asks_nothing() {
    story(Limits::default(), async |server| {
        let server = Rc::new(server);
        let client = open(&Way::to(&server), "").await;
        client.multi(&[ephemeral("/e")]).await.unwrap().unwrap();
        server.io.sleep(Duration::from_secs(60)).await;
        assert!(there(&server, "/e"));
        client.close().await;
        assert!(!there(&server, "/e"));
        assert_eq!(client.notice().await, Notice::Closed);
    });
}

#[test]
fn nobody_there_is_said_in_time() {
    story(Limits::default(), async |server| {
        let server = Rc::new(server);
        let way = Way::to(&server);
        way.cut();
        let opened = ZooKeeper::open(server.io.clone(), way, config("")).await;
        let why = opened.err().expect("nobody listens");
        assert!(
            why.contains("127.0.0.1:2181") && why.contains("18000 ms"),
            "{why}"
        );
    });
}

/// The whole way: a broker's requests over its mirror, the wire and the other broker's
/// state machine, and back.
#[test]
fn a_broker_over_the_wire_shares_the_cluster_with_the_one_inside() {
    story(Limits::default(), async |server| {
        let server = Rc::new(server);
        let client = open(&Way::to(&server), "").await;
        let given = [("broker.id".to_owned(), "7".to_owned())];
        let core = CoreConfig {
            broker: BrokerConfig::new(given).unwrap(),
            cluster_id: None,
            id_seed: 7,
            session_secret: 7,
            zookeeper: Default::default(),
        };
        let remote = Remote::open(server.io.clone(), client, core, Nobody).await;
        let remote = remote.unwrap_or_else(|e| panic!("{e}"));
        let broker = Broker {
            id: 7,
            rack: None,
            hosts_coordinator: false,
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".to_owned(),
                protocol: "PLAINTEXT".to_owned(),
                host: "seven".to_owned(),
                port: 9092,
            }],
        };
        let answer = remote.call(Request::RegisterBroker { broker }).await;
        assert_eq!(answer, Ok(Response::RegisterBroker(Ok(()))));
        assert!(server.driver.image().brokers.contains_key(&7));
        assert_eq!(remote.image().cluster_id, server.driver.image().cluster_id);
        remote.close().await;
        assert!(!server.driver.image().brokers.contains_key(&7));
    });
}

#[test]
fn what_names_an_ensemble() {
    let parsed = parse_connect("zk://a:1,b,[::1]:2181,10.0.0.1/kafka/one/").unwrap();
    let servers = ["a:1", "b:2181", "[::1]:2181", "10.0.0.1:2181"];
    assert_eq!(
        parsed,
        (servers.map(str::to_owned).to_vec(), "/kafka/one".to_owned())
    );
    assert_eq!(
        parse_connect("h:5").unwrap(),
        (vec!["h:5".to_owned()], String::new())
    );
    assert!(parse_connect("zk://").is_err());
    assert!(parse_connect("zk://a,,b").is_err());
    assert!(parse_connect("zk://a/b//c").is_err());
}

#[test]
fn frames_are_taken_whole_or_not() {
    let mut inbox = BytesMut::from(&[0, 0, 0, 2, 7][..]);
    assert_eq!(take_frame(&mut inbox).unwrap(), None);
    inbox.extend_from_slice(&[8, 0]);
    assert_eq!(&take_frame(&mut inbox).unwrap().unwrap()[..], [7, 8]);
    assert_eq!(&inbox[..], [0]);
    assert!(take_frame(&mut BytesMut::from(&[255, 0, 0, 0][..])).is_err());
}
