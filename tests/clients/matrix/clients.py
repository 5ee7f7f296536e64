"""The clients of the matrix: how each is made ready and started.

`prepare()` returns the command line of the client's program; the runner adds
BOOTSTRAP TOPIC GROUP FIRST_TIMESTAMP to it (see ../python/plan.py).
"""

import os
import shutil
import sys
from collections import namedtuple

from . import cache

Client = namedtuple("Client", "name version prepare")


def _kcat():
    if not shutil.which("kcat"):
        cache.shell("kcat", ["apt-get", "update"])
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        cache.shell("kcat", ["apt-get", "install", "-y", "--no-install-recommends", "kcat"], env=environment)
    return [sys.executable, os.path.join(cache.HERE, "kcat", "with_kcat.py")]


def _python(program):
    def prepare():
        venv = os.path.join(cache.ROOT, "venv")
        python = os.path.join(venv, "bin", "python")
        requirements = os.path.join(cache.HERE, "python", "requirements.txt")

        def build():
            # Debian's python3 has no ensurepip unless python3-venv is there;
            # the pip that is there can fill a venv that has none.
            cache.shell("python", [sys.executable, "-m", "venv", "--clear", "--without-pip", venv])
            pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
            cache.shell("python", [*pip, "install", "--only-binary=:all:", "-r", requirements])

        cache.once("python", ["python/requirements.txt"], python, build)
        return [python, os.path.join(cache.HERE, "python", program)]

    return prepare


def _rdkafka():
    target = os.path.join(cache.ROOT, "rdkafka")
    manifest = os.path.join(cache.HERE, "rdkafka", "Cargo.toml")
    # Its own target folder: librdkafka is built once, whatever the workspace does.
    cache.shell("rdkafka", ["cargo", "build", "--locked", "--manifest-path", manifest], env={"CARGO_TARGET_DIR": target})
    return [os.path.join(target, "debug", "klamm-client-rdkafka")]


def _kafkajs():
    folder = os.path.join(cache.ROOT, "kafkajs")
    sources = ["package.json", "package-lock.json", ".npmrc"]

    def build():
        cache.fresh_folder("kafkajs")
        for name in sources:
            shutil.copy(os.path.join(cache.HERE, "kafkajs", name), folder)
        cache.shell("kafkajs", ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)

    cache.once("kafkajs", [f"kafkajs/{name}" for name in sources], os.path.join(folder, "node_modules"), build)
    # Node looks for packages beside the program, and the source tree stays clean.
    shutil.copy(os.path.join(cache.HERE, "kafkajs", "with_kafkajs.js"), folder)
    return ["node", os.path.join(folder, "with_kafkajs.js")]


def _java(profile):
    def prepare():
        name = f"java-{profile}"
        out = os.path.join(cache.ROOT, name)
        pom = os.path.join(cache.HERE, "java", "pom.xml")

        def build():
            cache.fresh_folder(name)
            cache.shell(name, ["mvn", "-B", "-q", "-f", pom, f"-P{profile}", f"-Dout={out}", "package"])

        sources = [f"java/{path}" for path in _files(os.path.join(cache.HERE, "java"))]
        cache.once(name, sources, os.path.join(out, "lib"), build)
        classpath = f"{out}/classes:{out}/lib/*"
        return ["java", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath, "WithKafkaClients"]

    return prepare


def _go(command):
    def prepare():
        binary = os.path.join(cache.ROOT, "go", command)
        source = os.path.join(cache.HERE, "go")
        cache.shell("go", ["go", "build", "-mod=readonly", "-o", binary, f"./{command}"], cwd=source)
        return [binary]

    return prepare


def _files(folder):
    found = []
    for directory, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(directory, name), folder) for name in names]
    return sorted(found)


CLIENTS = (
    Client("kcat", "1.7.1", _kcat),
    Client("rdkafka", "0.39.0", _rdkafka),
    Client("confluent-kafka", "2.16.1", _python("with_confluent_kafka.py")),
    Client("kafka-python", "3.0.12", _python("with_kafka_python.py")),
    Client("aiokafka", "0.14.0", _python("with_aiokafka.py")),
    Client("kafkajs", "2.2.4", _kafkajs),
    Client("java-3.9", "3.9.2", _java("v3.9")),
    Client("java-4", "4.4.0", _java("v4")),
    Client("franz-go", "1.22.2", _go("franz")),
    Client("sarama", "1.61.1", _go("sarama")),
)
