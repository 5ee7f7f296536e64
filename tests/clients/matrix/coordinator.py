"""Coordinators that ZooKeeper's clients can run against; the adapter is the one
of broker.py, but the port speaks ZooKeeper's protocol.

Ready means that `srvr` is answered with a version: ZooKeeper binds its port
earlier than that, and says then that it is "not currently serving requests".
"""

import os
import socket
import time

from . import broker, cache, wire

ZOOKEEPER_VERSIONS = {"v3.8": "3.8.0", "v3.9": "3.9.5"}


def libraries(profile):
    """The class path of the Java client of one version, which is its server's too."""
    return cache.java_program(f"zookeeper-java-{profile}", "zookeeper/java", profile)


def four_letters(port, word, timeout_s=2.0):
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(word.encode())
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
        return answer.decode(errors="replace")


class CoordinatorPort:
    # In how many seconds an empty container and a TTL node are surely gone; 0 is
    # a coordinator that looks for them too rarely to wait for it.
    reaps_within_s = 0

    def wait_ready(self, port, alive, deadline_s):
        until = time.monotonic() + deadline_s
        last = "nothing tried"
        while time.monotonic() < until:
            dead = alive()
            if dead:
                raise wire.WireError(dead)
            try:
                last = four_letters(port, "srvr").strip() or "an empty answer"
                if last.startswith("Zookeeper version:"):
                    return
            except OSError as error:
                last = str(error)
            time.sleep(0.05)
        raise wire.WireError(f"srvr is not answered on port {port} within {deadline_s} s: {last.splitlines()[0]}")


class Klamm(CoordinatorPort, broker.Klamm):
    """The coordinator inside of `klamm serve`."""

    reaps_within_s = 15

    def __init__(self):
        self.kafka_ports = {}

    def command(self, port, directory):
        kafka = self.kafka_ports.setdefault(directory, broker.free_port())
        data = os.path.join(directory, "data")
        listeners = ["--listen", f"127.0.0.1:{kafka}", "--coordinator-listen", f"127.0.0.1:{port}"]
        # Sooner than after a minute, as the yardstick is told to as well.
        often = ["--set", "znode.container.checkIntervalMs=1000"]
        return [self.binary, "serve", *listeners, "--data", data, *often]


class Template(CoordinatorPort, broker.Template):
    """Any other, by a command line with {port} and {data} in it."""


class ApacheZooKeeper(CoordinatorPort):
    """Apache ZooKeeper from Maven Central, standalone. The yardstick."""

    reaps_within_s = 15
    # Who connects while it starts may never be answered, and then waits for as long
    # as its session lasts.
    answers_early = False

    def __init__(self, profile):
        self.profile = profile
        self.name = f"apache-zookeeper {ZOOKEEPER_VERSIONS[profile]}"

    def prepare(self):
        self.classpath = libraries(self.profile)

    def command(self, port, directory):
        config = os.path.join(directory, "zoo.cfg")
        # tickTime as in the sample configuration that everybody starts from. The
        # rest of this is what the checks look at and is off or slow by default.
        settings = {
            "clientPort": port,
            "clientPortAddress": "127.0.0.1",
            "dataDir": os.path.join(directory, "data"),
            "tickTime": 2000,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "extendedTypesEnabled": "true",
            "znode.container.checkIntervalMs": 1000,
        }
        with open(config, "w") as file:
            file.writelines(f"{key}={value}\n" for key, value in settings.items())
        java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dlevel=INFO", "-cp", self.classpath]
        # This one is read before zoo.cfg in some of its versions.
        java.insert(1, "-Dzookeeper.extendedTypesEnabled=true")
        java.insert(1, "-Dznode.container.checkIntervalMs=1000")
        return [*java, "org.apache.zookeeper.server.quorum.QuorumPeerMain", config]
