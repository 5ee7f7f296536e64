"""What the clients need on this machine, fetched once and kept.

Everything lies under target/clients/, so `cargo clean` clears it. A step runs
again only when one of its inputs has changed: a stamp beside its output holds
their digest.

    target/clients/
      logs/NAME.log   output of the last build of NAME
      stamps/NAME     digest of the inputs of the last good build
      run/CLIENT/     broker and client logs of the last run
"""

import hashlib
import os
import shutil
import subprocess

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPO = os.path.dirname(os.path.dirname(HERE))
ROOT = os.path.join(REPO, "target", "clients")

# Every process that is running because of us; see `spawn`.
_living = set()


class PrepareError(Exception):
    """Which step failed, with the end of what it printed."""


def spawn(command, **options):
    """Popen in a session of its own, remembered so that `end_all` finds it."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    _living.add(process)
    return process


def end_group(process):
    """Ends a process of ours with all that it started."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()
    _living.discard(process)


def end_all():
    for process in list(_living):
        if process.poll() is None:
            end_group(process)


def shell(name, command, cwd=HERE, env=None):
    """Runs one step; its output goes to logs/NAME.log."""
    os.makedirs(os.path.join(ROOT, "logs"), exist_ok=True)
    log = os.path.join(ROOT, "logs", name + ".log")
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        try:
            status = subprocess.run(
                command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            ).returncode
        except OSError as error:
            raise PrepareError(f"{name}: {command[0]} could not be run ({error}): is it installed?") from error
    if status:
        with open(log, errors="replace") as file:
            tail = "".join(file.readlines()[-15:])
        raise PrepareError(f"{name}: '{' '.join(command)}' ended with status {status}; the end of {log}:\n{tail}")


def once(name, inputs, output, build):
    """Calls `build` unless `output` exists and was made from these inputs."""
    digest = hashlib.sha256()
    for path in inputs:
        with open(os.path.join(HERE, path), "rb") as file:
            digest.update(path.encode() + b"\0" + file.read() + b"\0")
    os.makedirs(os.path.join(ROOT, "stamps"), exist_ok=True)
    stamp = os.path.join(ROOT, "stamps", name)
    if os.path.exists(output) and os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == digest.hexdigest():
                return output
    if os.path.exists(stamp):
        os.remove(stamp)
    build()
    with open(stamp, "w") as file:
        file.write(digest.hexdigest())
    return output


def files(folder):
    """The inputs of a step that are all of a folder of tests/clients."""
    found = []
    for directory, _, names in os.walk(os.path.join(HERE, folder)):
        found += [os.path.relpath(os.path.join(directory, name), HERE) for name in names]
    return sorted(found)


def folder(*names):
    path = os.path.join(ROOT, *names)
    os.makedirs(path, exist_ok=True)
    return path


def fresh_folder(*names):
    path = os.path.join(ROOT, *names)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def java_program(name, folder, profile):
    """The class path of tests/clients/FOLDER, built by Maven against one profile."""
    out = os.path.join(ROOT, name)
    pom = os.path.join(HERE, folder, "pom.xml")

    def build():
        fresh_folder(name)
        shell(name, ["mvn", "-B", "-q", "-f", pom, f"-P{profile}", f"-Dout={out}", "package"])

    once(name, files(folder), os.path.join(out, "lib"), build)
    return f"{out}/classes:{out}/lib/*"


def maven_libraries(name):
    """The run-time jars of tests/clients/NAME/pom.xml, in one folder."""
    lib = os.path.join(ROOT, name, "lib")
    pom = os.path.join(HERE, name, "pom.xml")

    def build():
        fresh_folder(name, "lib")
        shell(
            name,
            ["mvn", "-B", "-q", "-f", pom, "dependency:copy-dependencies"]
            + [f"-DoutputDirectory={lib}", "-DincludeScope=runtime"],
        )

    return once(name, [f"{name}/pom.xml"], lib, build)
