"""The clients of the matrix: how each is made ready and started.

`prepare()` returns the command line of the client's program. The runner adds to it

    KAFKA       BOOTSTRAP TOPIC GROUP FIRST_TIMESTAMP (see ../python/plan.py)
    ZOOKEEPER   HOST:PORT ROOT REAPS_WITHIN_S (see ../zookeeper/python/plan.py)
"""

import os
import shutil
import sys
from collections import namedtuple

from . import cache, coordinator

Client = namedtuple("Client", "name version prepare")


def _debian(package):
    """Debian's own packages are the machine's; as root they are a command away."""
    cache.shell(package, ["apt-get", "update"])
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    cache.shell(package, ["apt-get", "install", "-y", "--no-install-recommends", package], env=environment)


def _kcat():
    if not shutil.which("kcat"):
        _debian("kcat")
    return [sys.executable, os.path.join(cache.HERE, "kcat", "with_kcat.py")]


def _python(program, folder="python", name="python", venv="venv"):
    def prepare():
        root = os.path.join(cache.ROOT, venv)
        python = os.path.join(root, "bin", "python")
        requirements = os.path.join(cache.HERE, folder, "requirements.txt")

        def build():
            # Debian's python3 has no ensurepip unless python3-venv is there;
            # the pip that is there can fill a venv that has none.
            cache.shell(name, [sys.executable, "-m", "venv", "--clear", "--without-pip", root])
            pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
            cache.shell(name, [*pip, "install", "--only-binary=:all:", "-r", requirements])

        cache.once(name, [f"{folder}/requirements.txt"], python, build)
        return [python, os.path.join(cache.HERE, folder, program)]

    return prepare


def _cargo(name, folder, binary):
    def prepare():
        target = os.path.join(cache.ROOT, name)
        manifest = os.path.join(cache.HERE, folder, "Cargo.toml")
        # Its own target folder: what it depends on is built once, whatever the workspace does.
        cache.shell(name, ["cargo", "build", "--locked", "--manifest-path", manifest], env={"CARGO_TARGET_DIR": target})
        return [os.path.join(target, "debug", binary)]

    return prepare


def _node(name, folder, program, has_native_code=False):
    def prepare():
        out = os.path.join(cache.ROOT, name)
        sources = ["package.json", "package-lock.json", ".npmrc"]

        def build():
            cache.fresh_folder(name)
            for source in sources:
                shutil.copy(os.path.join(cache.HERE, folder, source), out)
            install, environment = ["npm", "ci", "--no-audit", "--no-fund"], {}
            if has_native_code:
                # Node's headers lie beside it; node-gyp would fetch them from elsewhere.
                prefix = os.path.dirname(os.path.dirname(os.path.realpath(shutil.which("node") or "")))
                if os.path.exists(os.path.join(prefix, "include", "node", "node.h")):
                    environment["npm_config_nodedir"] = prefix
            else:
                install.append("--ignore-scripts")
            cache.shell(name, install, cwd=out, env=environment)

        cache.once(name, [f"{folder}/{source}" for source in sources], os.path.join(out, "node_modules"), build)
        # Node looks for packages beside the program, and the source tree stays clean.
        shutil.copy(os.path.join(cache.HERE, folder, program), out)
        return ["node", os.path.join(out, program)]

    return prepare


def _java(profile):
    def prepare():
        classpath = cache.java_program(f"java-{profile}", "java", profile)
        return ["java", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath, "WithKafkaClients"]

    return prepare


def _go(command):
    def prepare():
        binary = os.path.join(cache.ROOT, "go", command)
        source = os.path.join(cache.HERE, "go")
        cache.shell("go", ["go", "build", "-mod=readonly", "-o", binary, f"./{command}"], cwd=source)
        return [binary]

    return prepare


# These start in a second instead of two: they run for some seconds only.
_JVM = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1"]


def _zookeeper_java(profile):
    def prepare():
        return [*_JVM, "-cp", coordinator.libraries(profile), "WithZooKeeper"]

    return prepare


def _zkcli(profile):
    def prepare():
        classpath = coordinator.libraries(profile)
        return [sys.executable, os.path.join(cache.HERE, "zookeeper", "python", "with_zkcli.py"), classpath]

    return prepare


def _curator():
    classpath = cache.java_program("zookeeper-curator", "zookeeper/java", "curator")
    return [*_JVM, "-cp", classpath, "WithCurator"]


def _zookeeper_c():
    if not os.path.exists("/usr/include/zookeeper/zookeeper.h"):
        _debian("libzookeeper-mt-dev")
    folder = cache.folder("zookeeper-c")
    binary = os.path.join(folder, "with_zookeeper_c")
    source = os.path.join(cache.HERE, "zookeeper", "c", "with_zookeeper_c.c")

    def build():
        flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-DTHREADED"]
        cache.shell("zookeeper-c", ["cc", *flags, "-o", binary, source, "-lzookeeper_mt", "-lpthread"])

    cache.once("zookeeper-c", ["zookeeper/c/with_zookeeper_c.c"], binary, build)
    return [binary]


KAFKA = (
    Client("kcat", "1.7.1", _kcat),
    Client("rdkafka", "0.39.0", _cargo("rdkafka", "rdkafka", "klamm-client-rdkafka")),
    Client("confluent-kafka", "2.16.1", _python("with_confluent_kafka.py")),
    Client("kafka-python", "3.0.12", _python("with_kafka_python.py")),
    Client("aiokafka", "0.14.0", _python("with_aiokafka.py")),
    Client("kafkajs", "2.2.4", _node("kafkajs", "kafkajs", "with_kafkajs.js")),
    Client("java-3.9", "3.9.2", _java("v3.9")),
    Client("java-4", "4.4.0", _java("v4")),
    Client("franz-go", "1.22.2", _go("franz")),
    Client("sarama", "1.61.1", _go("sarama")),
)

ZOOKEEPER = (
    Client("zkcli-3.8", "3.8.0", _zkcli("v3.8")),
    Client("zkcli-3.9", "3.9.5", _zkcli("v3.9")),
    Client("zk-java-3.8", "3.8.0", _zookeeper_java("v3.8")),
    Client("zk-java-3.9", "3.9.5", _zookeeper_java("v3.9")),
    Client("curator", "5.9.0", _curator),
    Client("kazoo", "2.11.0", _python("with_kazoo.py", "zookeeper/python", "zookeeper-kazoo", "zookeeper-kazoo")),
    Client("zk-c", "3.8.0", _zookeeper_c),
    Client("zk-node", "7.3.0", _node("zookeeper-node", "zookeeper/node", "with_zookeeper_node.js", has_native_code=True)),
    Client("zk-rust", "0.11.2", _cargo("zookeeper-rust", "zookeeper/rust", "klamm-client-zookeeper")),
)
