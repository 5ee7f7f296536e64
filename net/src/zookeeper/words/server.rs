//! Words about the server itself.

use crate::zookeeper::front::{Client, Front};
use crate::zookeeper::requests::Turn;
use std::fmt::Write as _;
use std::path::Path;

/// The ZooKeeper whose behaviour is shown: monitors read three numbers and a dash.
const AS: &str = "3.9.3";

fn version(front: &Front) -> String {
    format!(
        "{AS}-klamm-{}, built on {}-{}",
        front.about.version,
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

/// As Java prints a double.
fn avg(ms: f64) -> String {
    format!("{:?}", (ms * 10_000.0).round() / 10_000.0)
}

/// `srvr`, and with the clients `stat`.
pub fn srvr(turn: &mut Turn<'_>, with_clients: bool) -> String {
    let front = turn.out.front;
    let stats = &front.stats;
    let mut text = format!("Zookeeper version: {}\n", version(front));
    if with_clients {
        text += "Clients:\n";
        for client in front.all() {
            brief(&client, &mut text);
            text += ")\n";
        }
        text += "\n";
    }
    text += &format!(
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\n\
         Outstanding: {}\nZxid: {}\nMode: standalone\nNode count: {}\n",
        stats.latency.min_ms(),
        avg(stats.latency.avg_ms()),
        stats.latency.max_ms(),
        stats.received_count(),
        stats.sent_count(),
        front.connections(),
        outstanding(front),
        turn.core.zxid(),
        turn.core.tree().len(),
    );
    text
}

/// The beginning of a connection's line, without the bracket at its end.
pub fn brief(client: &Client, to: &mut String) {
    let counts = &client.counts;
    write!(
        to,
        " /{}[1](queued={},recved={},sent={}",
        client.address,
        client.outbox.borrow().gated_items(),
        counts.received.get(),
        counts.sent.get()
    )
    .expect("a String takes everything");
}

fn outstanding(front: &Front) -> u64 {
    let of_one = |client: &std::rc::Rc<Client>| client.outbox.borrow().gated_items();
    front.all().iter().map(of_one).sum()
}

/// Figures, one a line, for monitors.
pub fn mntr(turn: &mut Turn<'_>) -> String {
    let front = turn.out.front;
    let (stats, core) = (&front.stats, &turn.core);
    let sessions = core.sessions();
    let (_, ephemerals) = core.tree().count_ephemerals();
    let clients = sessions.iter().filter(|s| !s.record.internal).count();
    let (files, files_max) = descriptors();
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "zk_{key}\t{value}").expect("a String takes everything");
    };
    line("version", &version(front));
    line("server_state", &"standalone");
    line("avg_latency", &avg(stats.latency.avg_ms()));
    line("max_latency", &stats.latency.max_ms());
    line("min_latency", &stats.latency.min_ms());
    line("packets_received", &stats.received_count());
    line("packets_sent", &stats.sent_count());
    line("num_alive_connections", &front.connections());
    line("outstanding_requests", &outstanding(front));
    line("znode_count", &core.tree().len());
    line("watch_count", &core.watches().summary().watches);
    line("ephemerals_count", &ephemerals);
    line(
        "approximate_data_size",
        &core.tree().approximate_data_size(),
    );
    line("global_sessions", &clients);
    line("connection_rejected", &stats.rejected.get());
    if let Some(files) = files {
        line("open_file_descriptor_count", &files);
    }
    if let Some(max) = files_max {
        line("max_file_descriptor_count", &max);
    }
    line("uptime", &front.uptime_ms());
    text
}

/// How many there are, and how many there may be.
fn descriptors() -> (Option<usize>, Option<u64>) {
    let open = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let limits = std::fs::read_to_string("/proc/self/limits").ok();
    let max = limits.and_then(|text| {
        let line = text
            .lines()
            .find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(3)?.parse().ok()
    });
    (open, max)
}

pub fn conf(turn: &mut Turn<'_>) -> String {
    let front = turn.out.front;
    let about = &front.about;
    let data = std::path::absolute(&about.data).unwrap_or_else(|_| about.data.clone());
    let bytes = folder_bytes(&data);
    let of_ip = match front.limits.connections_per_ip_max {
        usize::MAX => 0,
        max => max,
    };
    format!(
        "clientPort={}\nsecureClientPort=-1\ndataDir={data}\ndataDirSize={bytes}\n\
         dataLogDir={data}\ndataLogSize={bytes}\ntickTime={}\nmaxClientCnxns={of_ip}\n\
         minSessionTimeout={}\nmaxSessionTimeout={}\nclientPortListenBacklog=-1\nserverId=0\n",
        about.address.port(),
        about.tick_time_ms,
        about.min_session_timeout_ms,
        about.max_session_timeout_ms,
        data = data.display(),
    )
}

pub fn dirs(turn: &mut Turn<'_>) -> String {
    let bytes = folder_bytes(&turn.out.front.about.data);
    format!("datadir_size: {bytes}\nlogdir_size: {bytes}\n")
}

/// The coordinator's folder has one or two snapshots and a few segments, no folders
/// within folders: a look at a dozen names.
fn folder_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                // It was removed meanwhile.
                Err(_) => {}
            }
        }
    }
    bytes
}

pub fn envi(turn: &mut Turn<'_>) -> String {
    let front = turn.out.front;
    let kernel = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
        text.map_or_else(|_| "<NA>".to_owned(), |text| text.trim().to_owned())
    };
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "<NA>".to_owned());
    let folder = std::env::current_dir().unwrap_or_default();
    format!(
        "Environment:\nzookeeper.version={}\nklamm.version={}\nhost.name={}\nos.name={}\n\
         os.arch={}\nos.version={}\nuser.name={}\nuser.home={}\nuser.dir={}\n",
        version(front),
        front.about.version,
        kernel("hostname"),
        kernel("ostype"),
        std::env::consts::ARCH,
        kernel("osrelease"),
        variable("USER"),
        variable("HOME"),
        folder.display(),
    )
}
