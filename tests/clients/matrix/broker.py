"""Brokers that the matrix can run against, behind one small adapter.

    adapter.prepare()               build or fetch it, once
    adapter.command(port, dir)      the command line of one broker on loopback
    adapter.wait_ready(port, ...)   until it answers (ApiVersions; see wire.py)
    Broker(adapter, dir)            start, stop (SIGTERM), kill, start again:
                                    same port, same data

A broker is stopped when its process has ended by itself with status 0 (143 from
a JVM, whose way of saying SIGTERM that is). One that has to be killed counts as
a failed restart. coordinator.py has the adapters for ZooKeeper's protocol.
"""

import os
import random
import shlex
import signal
import socket
import subprocess
import threading

from . import cache, wire

READY_WITHIN_S = 60
STOPPED_WITHIN_S = 30


class BrokerError(Exception):
    """Why there is no broker, and which file says more."""


class KafkaPort:
    """What all adapters here share: the clients speak Kafka's protocol."""

    def wait_ready(self, port, alive, deadline_s):
        wire.wait_ready(port, alive, deadline_s)


class Klamm(KafkaPort):
    """The `klamm` binary: $KLAMM_BIN, or a release build of this repository."""

    name = "klamm"

    def prepare(self):
        given = os.environ.get("KLAMM_BIN")
        if given:
            self.binary = os.path.abspath(given)
        else:
            cache.shell("klamm", ["cargo", "build", "--release", "-p", "klamm"], cwd=cache.REPO)
            target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(cache.REPO, "target")
            self.binary = os.path.join(target, "release", "klamm")
        if not os.access(self.binary, os.X_OK):
            raise BrokerError(f"{self.binary} is not an executable file: set KLAMM_BIN to the klamm binary")

    def command(self, port, directory):
        data = os.path.join(directory, "data")
        # Two brokers at a time must not want the coordinator's default port.
        listeners = ["--listen", f"127.0.0.1:{port}", "--coordinator-listen", "none"]
        return [self.binary, "serve", *listeners, "--data", data]


class KlammCorePorts(Klamm):
    """Klamm with a port for each core: clients are told of as many nodes. The ports
    stay over a restart, as an operator's do: a client that knows no other address has
    to find the broker again."""

    name = "klamm-core-ports"
    CORES = 2

    def __init__(self):
        self.first = {}

    def command(self, port, directory):
        if directory not in self.first:
            self.first[directory] = free_ports(self.CORES)
        own = ["--cores", str(self.CORES), "--core-ports", str(self.first[directory])]
        return [*super().command(port, directory), *own]


class Template(KafkaPort):
    """Any broker, by a command line with {port} and {data} in it."""

    name = "template"

    def __init__(self, template):
        self.words = shlex.split(template)
        if not any("{port}" in word for word in self.words):
            raise BrokerError("--broker needs {port} (and usually {data}) in its command")

    def prepare(self):
        pass

    def command(self, port, directory):
        data = os.path.join(directory, "data")
        return [word.replace("{port}", str(port)).replace("{data}", data) for word in self.words]


class ApacheKafka(KafkaPort):
    """Apache Kafka from Maven Central: one KRaft node that is broker and
    controller. The yardstick: what fails here is a fault of the matrix."""

    name = "apache-kafka"
    # Any base64 UUID will do: each data folder is formatted for one run.
    CLUSTER_ID = "a2xhbW0tbWF0cml4LTAwMQ"
    # What bench/peers/apache-kafka has otherwise: it measures, and does not hurry.
    JVM = ("-Xms256m", "-Xmx768m")
    # Few partitions of the internal topics start faster than the default fifty.
    SETTINGS = {"offsets.topic.num.partitions": "4", "transaction.state.log.num.partitions": "4"}

    def prepare(self):
        self.lib = cache.maven_libraries("apache-kafka")

    def _java(self, *words):
        return ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self.lib}/*", *words]

    def command(self, port, directory):
        config = os.path.join(directory, "server.properties")
        if not os.path.exists(config):
            self._format(config, port, directory)
        return self._java(*self.JVM, "kafka.Kafka", config)

    def _format(self, config, port, directory):
        controller = free_port()
        # One broker can hold one replica. All else is Kafka's default.
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "log.dirs": os.path.join(directory, "data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            **self.SETTINGS,
        }
        with open(config, "w") as file:
            file.writelines(f"{key}={value}\n" for key, value in settings.items())
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", "format", "-t", self.CLUSTER_ID, "-c", config),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise BrokerError(f"Apache Kafka could not format its data folder:\n{done.stdout}")


# Below the kernel's ephemeral range: a port from inside of it could be taken by
# somebody's outgoing connection while the broker is down, or a client that
# reconnects could even connect to itself.
_PORTS = range(20_000, 32_000)
_taken = set()
_taken_lock = threading.Lock()


def free_port():
    return free_ports(1)


def free_ports(count):
    """The first of so many that follow each other."""
    with _taken_lock:
        for first in random.sample(_PORTS, 500):
            ports = range(first, first + count)
            if ports[-1] in _PORTS and all(map(_is_free, ports)):
                _taken.update(ports)
                return first
    raise BrokerError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _is_free(port):
    if port in _taken:
        return False
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Broker:
    """One broker with its own folder; used as a context it is stopped at the end."""

    def __init__(self, adapter, directory):
        os.makedirs(directory)
        self.adapter, self.directory = adapter, directory
        self.port = free_port()
        self.log = os.path.join(directory, "broker.log")
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process:
            cache.end_group(self.process)

    def start(self):
        command = self.adapter.command(self.port, self.directory)
        with open(self.log, "ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            try:
                self.process = cache.spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            except OSError as error:
                raise BrokerError(f"{command[0]} could not be started: {error}") from error
        try:
            self.adapter.wait_ready(self.port, self._died, READY_WITHIN_S)
        except wire.WireError as error:
            self.__exit__()
            raise BrokerError(f"the broker did not come up: {error} (see {self.log})") from error

    def _died(self):
        status = self.process.poll()
        return None if status is None else f"it ended with status {status}"

    def stop(self):
        dead = self._died()
        if dead:
            raise BrokerError(f"the broker was gone before it was told to stop: {dead} (see {self.log})")
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            cache.end_group(self.process)
            raise BrokerError(f"the broker did not stop within {STOPPED_WITHIN_S} s of SIGTERM (see {self.log})") from None
        if status not in (0, 143):
            raise BrokerError(f"the broker ended with status {status} after SIGTERM (see {self.log})")

    def kill(self):
        """SIGKILL: what it did not sync, or has only in memory, is gone."""
        dead = self._died()
        if dead:
            raise BrokerError(f"the broker was gone before it was killed: {dead} (see {self.log})")
        cache.end_group(self.process)

    def restart(self, client, kill=False):
        """Down and up again, as `client`, a process, has asked for."""
        self.kill() if kill else self.stop()
        # A client meets the absence, and tries to connect through it all; but where
        # that is more than the broker can take, it is held until the broker is ready.
        held = not getattr(self.adapter, "answers_early", True)
        if held:
            os.killpg(client.pid, signal.SIGSTOP)
        try:
            self.start()
        finally:
            if held:
                os.killpg(client.pid, signal.SIGCONT)
