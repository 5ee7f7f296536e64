//! The broker's life on its shards.
//!
//! ```text
//!   make    every shard      a store, no partitions yet
//!   serve   shard 0          coordinator open -> every shard's partitions open
//!                            -> registered -> every shard listens -> signal
//!                            -> drain -> coordinator closed -> partitions closed
//!           the others       do what shard 0 submits to them, until it says stop
//! ```

use crate::serve::keeping::Keeping;
use crate::serve::profile;
use crate::serve::settings::Settings;
use crate::serve::{cannot_listen, core_ports};
use futures_channel::oneshot;
use futures_util::future::{Either, join_all, select};
use klamm_coord::core::coordinator::{CoreConfig, Request, Response};
use klamm_coord::core::image::{Broker, Endpoint, Image};
use klamm_coord::driver::{Driver, DriverConfig, Host};
use klamm_coord::remote::Remote;
use klamm_engine::data_folder::DataFolder;
use klamm_engine::io::Io;
use klamm_engine::io::glommio::GlommioIo;
use klamm_engine::io::glommio::termination::Termination;
use klamm_engine::io::shards::Shards;
use klamm_engine::journal::{self, JournalConfig, ReplayConfig};
use klamm_engine::shard::home_shard;
use klamm_engine::store::Store;
use klamm_engine::units::ShardId;
use klamm_net::kafka::context::Local;
use klamm_net::kafka::cores::Cores;
use klamm_net::kafka::following;
use klamm_net::kafka::limits::Limits;
use klamm_net::kafka::nodes;
use klamm_net::kafka::profile::watch_stalls;
use klamm_net::kafka::server::{self, Admission, Port};
use klamm_net::profile::socket::Asks;
use klamm_net::socket::{Connector, Listener};
use klamm_net::zookeeper;
use klamm_net::zookeeper::client::ZooKeeper;
use klamm_net::zookeeper::front::Front;
use klamm_net::zookeeper::limits::About;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The listener's name, as clients see it in the broker's endpoints.
const LISTENER: &str = "PLAINTEXT";

/// How often the logs are looked at for checkpoints that are due.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

type Here = Rc<Local<GlommioIo>>;
type Cluster = Shards<Here>;

/// Where it listens.
pub struct Addresses {
    /// Every shard, for Kafka's clients.
    pub all: SocketAddr,
    /// Each shard by itself, where they have ports of their own; else none.
    pub core_ports: Vec<SocketAddr>,
    /// For ZooKeeper's clients, if they are listened for.
    pub coordinator: Option<SocketAddr>,
}

/// What all shards go by.
pub struct Plan {
    settings: Settings,
    folder: DataFolder,
    addresses: Addresses,
    termination: Termination,
    /// What `klamm profile` asks; for shard 0 to take.
    asks: Mutex<Option<Asks>>,
    started: Instant,
    limits: Limits,
    admission: Admission,
    /// How it ended: None as long as it has not.
    outcome: Mutex<Option<Result<(), String>>>,
}

impl Plan {
    pub fn new(
        settings: Settings,
        folder: DataFolder,
        addresses: Addresses,
        termination: Termination,
        asks: Option<Asks>,
        started: Instant,
    ) -> Plan {
        let limits = limits(&settings);
        let admission = server::admission(&limits);
        Plan {
            settings,
            folder,
            addresses,
            termination,
            asks: Mutex::new(asks),
            started,
            limits,
            admission,
            outcome: Mutex::new(None),
        }
    }

    fn end(&self, outcome: Result<(), String>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// After all shards have ended: everything was closed, so the folder is clean.
    pub fn finish(&self) -> Result<(), String> {
        match self
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(Ok(())) => self.folder.mark_clean().map_err(|e| e.to_string()),
            Some(Err(message)) => Err(message),
            None => Err("the broker stopped without saying why; please report it".to_owned()),
        }
    }

    /// Where clients are told to connect.
    fn advertised(&self) -> (String, u16) {
        let all = self.addresses.all;
        let own = || (all.ip().to_string(), all.port());
        self.settings.advertise.clone().unwrap_or_else(own)
    }

    /// What the cluster is told: the address of all shards first, then one a shard.
    fn endpoints(&self) -> Vec<Endpoint> {
        let (host, port) = self.advertised();
        let endpoint = |listener, port| Endpoint {
            listener,
            protocol: LISTENER.to_owned(),
            host: host.clone(),
            port,
        };
        let cores = self.addresses.core_ports.iter().enumerate();
        let cores = cores
            .map(|(core, address)| endpoint(nodes::core_listener(LISTENER, core), address.port()));
        std::iter::once(endpoint(LISTENER.to_owned(), port))
            .chain(cores)
            .collect()
    }
}

fn limits(settings: &Settings) -> Limits {
    let broker = &settings.broker;
    let size = |n: i32| usize::try_from(n).unwrap_or(0);
    let defaults = Limits::default();
    Limits {
        frame_bytes_max: size(broker.socket_request_max_bytes),
        // A frame of the largest size may always be under way.
        in_flight_bytes_max: size(broker.socket_request_max_bytes).max(defaults.outbox_bytes_max),
        idle_time_max: Duration::from_millis(broker.connections_max_idle_ms.unsigned_abs()),
        connections_max: size(broker.max_connections),
        connections_per_ip_max: size(broker.max_connections_per_ip),
        in_flight_max: size(broker.queued_max_requests).min(defaults.in_flight_max),
        fetch_bytes_max: size(broker.fetch_max_bytes),
        ..defaults
    }
}

/// What a shard owns.
pub fn make(plan: &Plan, shards: Cluster, io: GlommioIo) -> Here {
    let settings = &plan.settings;
    let tail_bytes = settings.tail_cache_bytes / shards.count();
    let store = Store::profiled(
        io.clone(),
        settings.data.clone(),
        plan.folder.clean,
        tail_bytes,
        settings.profile.store_profile(),
    );
    let nothing_yet = Arc::new(Image::empty("", settings.broker.clone()));
    Local::profiled(
        io,
        Cores::Many(shards),
        store,
        nothing_yet,
        settings.broker.broker_id,
        LISTENER.to_owned(),
        plan.limits.clone(),
        settings.profile,
    )
}

pub async fn serve(plan: &Arc<Plan>, shards: Cluster, io: GlommioIo) {
    let upkeep = Duration::from_millis(
        plan.settings
            .broker
            .log_retention_check_interval_ms
            .unsigned_abs(),
    );
    io.spawn(shards.local().store.clone().housekeep_every(upkeep));
    let store = shards.local().store.clone();
    io.spawn(store.checkpoint_every(CHECKPOINT_EVERY));
    io.spawn(watch_stalls(shards.local().profile.clone()));
    if shards.here() != ShardId::COORDINATOR {
        shards.stopping().await;
        return;
    }
    let asks = plan
        .asks
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(asks) = asks {
        io.spawn(profile::answer((*shards.local()).clone(), asks));
    }
    let outcome = lead(plan, &shards, io).await;
    plan.end(outcome);
    shards.stop();
}

/// Shard 0's part: opens everything, waits for a signal, closes everything.
async fn lead(plan: &Arc<Plan>, shards: &Cluster, io: GlommioIo) -> Result<(), String> {
    let local = shards.local();
    local
        .store
        .remove_leftovers()
        .await
        .map_err(|e| e.to_string())?;
    open_journals(plan, shards, &io).await?;
    let core = CoreConfig {
        broker: plan.settings.broker.clone(),
        cluster_id: plan.folder.cluster_id().map(str::to_owned),
        id_seed: random_bits()?,
        session_secret: random_bits()?,
        zookeeper: plan.settings.coordinator.core.clone(),
    };
    let keeping = open_coordinator(plan, shards, &io, core).await?;
    local.set_coordinator(Rc::new(keeping.clone()));
    let ready = async {
        plan.folder
            .join(&keeping.image().cluster_id)
            .map_err(|e| e.to_string())?;
        register(plan, &keeping, &io).await?;
        let at_coordinator = match plan.addresses.coordinator {
            Some(address) => {
                let bound = Listener::bind(address);
                let bound = bound.map_err(|e| cannot_listen(address, "--coordinator-listen", &e));
                Some((address, bound?))
            }
            None => None,
        };
        let mut doors = listen(plan, shards).await?;
        let front = match (&keeping, at_coordinator) {
            (Keeping::Here(driver), Some((address, listener))) => {
                let (front, door) = serve_zookeeper(plan, &io, driver, address, listener);
                doors.push(door);
                Some(front)
            }
            _ => None,
        };
        Ok::<_, String>((doors, front))
    };
    let served = match ready.await {
        Ok::<_, String>((doors, front)) => {
            announce(plan, shards.count());
            let signal = plan.termination.next().await;
            log::info!("{signal:?}: finishing what is under way; a second signal ends at once");
            if let Some(front) = front {
                front.close();
            }
            let drained = close_doors(shards, doors);
            give_up_at_second_signal(plan, drained).await;
            Ok(())
        }
        Err(message) => Err(message),
    };
    keeping.close().await?;
    let closed = join_all(shards.ids().map(|id| {
        shards.submit_to(id, async |local: Rc<Here>| {
            local
                .store
                .close_all()
                .await
                .map_err(|offline| offline.to_string())
        })
    }))
    .await;
    served?;
    for closed in closed {
        closed.map_err(|gone| gone.to_string())??;
    }
    Ok(())
}

/// Before any partition is opened: what the journals of all shards hold is brought to the
/// segments, then each shard has its own anew.
async fn open_journals(plan: &Plan, shards: &Cluster, io: &GlommioIo) -> Result<(), String> {
    let config = JournalConfig::default();
    let replaying = ReplayConfig {
        clean: plan.folder.clean,
        sync_all_from: config.sync_all_from,
    };
    let mut replayed = journal::replay(io, plan.folder.path(), shards.count(), replaying)
        .await
        .map_err(|offline| offline.to_string())?;
    let committed = replayed.committed;
    replayed.keep(|id| home_shard(id, shards.count()) == shards.here());
    shards.local().store.note_replayed(replayed);
    let opened = join_all(shards.ids().map(|id| {
        shards.submit_to(id, async move |local: Rc<Here>| {
            local.store.note_committed(committed);
            let opened = local.store.use_journal(id, config).await;
            opened.map_err(|offline| offline.to_string())
        })
    }))
    .await;
    for opened in opened {
        opened.map_err(|gone| gone.to_string())??;
    }
    Ok(())
}

/// Bits for ids that must never repeat.
fn random_bits() -> Result<u128, String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|e| format!("/dev/urandom can't be read: {e}"))?;
    Ok(u128::from_le_bytes(bytes))
}

async fn open_coordinator(
    plan: &Plan,
    shards: &Cluster,
    io: &GlommioIo,
    core: CoreConfig,
) -> Result<Keeping<EveryShard>, String> {
    let host = EveryShard {
        shards: shards.clone(),
    };
    let opening = |e: &dyn std::fmt::Display| format!("the coordinator can't be opened: {e}");
    let Some(ensemble) = &plan.settings.coordinator.ensemble else {
        let config = DriverConfig::new(core, plan.folder.clean);
        let driver = Driver::open(io.clone(), plan.folder.path(), config, host).await;
        return Ok(Keeping::Here(driver.map_err(|e| opening(&e))?));
    };
    let session = ZooKeeper::open(io.clone(), Connector, ensemble.clone()).await?;
    let remote = Remote::open(io.clone(), session, core, host).await;
    Ok(Keeping::Elsewhere(remote.map_err(|e| opening(&e))?))
}

/// Before a registration is asked for again that others came in the way of.
const REGISTER_AGAIN: Duration = Duration::from_millis(100);

/// Tells the cluster of this broker. Where several start at once, one's registration may
/// be refused only because another became the controller: it is asked for again, for as
/// long as a first connection may take.
async fn register(
    plan: &Plan,
    keeping: &Keeping<EveryShard>,
    io: &GlommioIo,
) -> Result<(), String> {
    let broker = Broker {
        id: plan.settings.broker.broker_id,
        rack: plan.settings.broker.rack.clone(),
        endpoints: plan.endpoints(),
        hosts_coordinator: false,
    };
    let ensemble = plan.settings.coordinator.ensemble.as_ref();
    let patience = ensemble.map_or(Duration::ZERO, |e| e.connection_timeout);
    let began = Instant::now();
    loop {
        let broker = broker.clone();
        match keeping.ask(Request::RegisterBroker { broker }).await {
            Ok(Response::RegisterBroker(registered)) => {
                return registered
                    .map_err(|e| format!("the broker could not be registered: {}", e.message));
            }
            Ok(other) => unreachable!("RegisterBroker was answered with {other:?}"),
            Err(why) if keeping.may_be_asked_again() && began.elapsed() < patience => {
                log::debug!("not registered yet: {why}");
                io.sleep(REGISTER_AGAIN).await;
            }
            Err(stopped) => return Err(format!("the coordinator stopped: {stopped}")),
        }
    }
}

type Door = Pin<Box<dyn Future<Output = ()>>>;

/// Has every shard accept connections. The futures end with the last connection. Nobody
/// is served before all addresses are ours: a broker that finds one taken stops, and
/// whoever it had answered until then would have seen a cluster that comes apart.
async fn listen(plan: &Arc<Plan>, shards: &Cluster) -> Result<Vec<Door>, String> {
    let own = &plan.addresses.core_ports;
    assert!(own.is_empty() || own.len() == shards.count(), "one a core");
    let all = shards
        .ids()
        .map(|id| (id, plan.addresses.all, Port::Shared));
    let own = shards.ids().zip(own).map(|(id, own)| (id, *own, Port::Own));
    let (mut doors, mut opens) = (Vec::new(), Vec::new());
    for (id, address, port) in all.chain(own) {
        let plan = plan.clone();
        let (tell, bound) = oneshot::channel();
        let (open, opened) = oneshot::channel::<()>();
        let joins = port == Port::Shared && id != ShardId::COORDINATOR;
        let door = shards.submit_to(id, async move |local: Rc<Here>| {
            let listener = match joins {
                false => Listener::bind(address),
                true => Listener::join(address),
            };
            let flag = match port {
                Port::Shared => "--listen",
                Port::Own => "--core-ports",
            };
            match listener {
                Ok(listener) => {
                    // Nobody waits only where the shard that asked is gone.
                    let _ = tell.send(Ok(()));
                    if opened.await.is_ok() {
                        let admission = plan.admission.clone();
                        server::serve((*local).clone(), listener, port, admission).await;
                    }
                }
                Err(e) => {
                    let _ = tell.send(Err(cannot_listen(address, flag, &e)));
                }
            }
        });
        // In turn: who joins comes after the first.
        bound.await.map_err(|_| "a shard is gone".to_owned())??;
        opens.push(open);
        doors.push(Box::pin(async move {
            // A shard that is gone has no connections either.
            let _ = door.await;
        }) as Door);
    }
    for open in opens {
        // Where the shard is gone, so is its door.
        let _ = open.send(());
    }
    Ok(doors)
}

/// Accepts ZooKeeper's clients on this shard alone: the state machine is here.
fn serve_zookeeper(
    plan: &Plan,
    io: &GlommioIo,
    driver: &Rc<Driver<GlommioIo, EveryShard>>,
    address: SocketAddr,
    listener: Listener,
) -> (Rc<Front>, Door) {
    let settings = &plan.settings.coordinator;
    let about = About {
        version: env!("CARGO_PKG_VERSION"),
        address,
        data: plan.folder.path().join(klamm_coord::driver::FOLDER),
        tick_time_ms: settings.tick_time_ms,
        min_session_timeout_ms: settings.core.min_session_timeout_ms,
        max_session_timeout_ms: settings.core.max_session_timeout_ms,
    };
    let clock = io.clone();
    let front = Front::new(
        Rc::new(driver.clone()),
        settings.limits.clone(),
        about,
        move || (clock.now(), clock.wall()),
    );
    let door = zookeeper::server::serve(io.clone(), front.clone(), listener);
    // It runs from here on, also while nobody waits for its end.
    let (tell, told) = oneshot::channel();
    io.spawn(async move {
        door.await;
        let _ = tell.send(());
    });
    let ended = Box::pin(async move {
        let _ = told.await;
    });
    (front, ended)
}

async fn close_doors(shards: &Cluster, doors: Vec<Door>) {
    join_all(
        shards
            .ids()
            .map(|id| shards.submit_to(id, async |local: Rc<Here>| local.closing.say())),
    )
    .await;
    join_all(doors).await;
}

/// Some who stop a process signal it and its group: what comes this soon after the
/// first signal is the same one.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

async fn give_up_at_second_signal(plan: &Plan, drained: impl Future<Output = ()>) {
    let first = Instant::now();
    let mut drained = pin!(drained);
    loop {
        match select(drained.as_mut(), pin!(plan.termination.next())).await {
            Either::Left(_) => return,
            Either::Right(_) if first.elapsed() < SAME_SIGNAL => {}
            Either::Right((signal, _)) => {
                log::warn!("{signal:?}: not waiting; the next start goes through recovery");
                std::process::exit(130);
            }
        }
    }
}

/// A few lines for whoever started it.
fn announce(plan: &Plan, shards: usize) {
    let (host, port) = plan.advertised();
    let data =
        std::path::absolute(plan.folder.path()).unwrap_or_else(|_| plan.folder.path().to_owned());
    let state = if plan.folder.clean {
        ""
    } else {
        " (not closed in order before, or new)"
    };
    let coordinator = match (
        plan.addresses.coordinator,
        &plan.settings.coordinator.ensemble,
    ) {
        (_, Some(ensemble)) => {
            let servers: Vec<String> = ensemble.servers.iter().map(ToString::to_string).collect();
            format!(
                "  cluster    kept by ZooKeeper at {}{}\n",
                servers.join(","),
                ensemble.chroot
            )
        }
        (Some(address), None) => format!("             {address} for ZooKeeper clients\n"),
        (None, None) => String::new(),
    };
    let core_ports = match core_ports::in_words(&plan.addresses.core_ports) {
        None => String::new(),
        Some(ports) => format!("             {ports}: a port for each core\n"),
    };
    println!(
        "klamm {} is ready after {} ms\n\
         \x20 listening  {} for Kafka clients, who are told {host}:{port}\n\
         {core_ports}\
         {coordinator}\
         \x20 data       {}{state}\n\
         \x20 cores      {shards}\n\
         \x20 try        echo hello | klamm produce greetings --bootstrap {host}:{port}\n\
         \x20            klamm consume greetings --from-beginning --bootstrap {host}:{port}",
        env!("CARGO_PKG_VERSION"),
        plan.started.elapsed().as_millis(),
        plan.addresses.all,
        data.display(),
    );
}

/// Has every shard serve by the newest image.
struct EveryShard {
    shards: Cluster,
}

impl Host for EveryShard {
    async fn apply_image(&self, image: Arc<Image>) {
        following::publish(&self.shards.local(), image).await;
    }
}
