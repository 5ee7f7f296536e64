"""zkCli (Apache ZooKeeper's ZooKeeperMain) through the plan: its commands are
written to its standard input, as somebody at a terminal would.

    with_zkcli.py CLASSPATH HOST:PORT ROOT REAPS_WITHIN_S

After each command comes a `get` of a node that there never is: the line in which
the client complains of it ends the command's output. It is a request on the same
connection, so every event that was on its way has been printed by then, too.
"""

import queue
import re
import subprocess
import sys
import threading
import time

import plan as p

CLASSPATH, HOST, ROOT, REAPS_WITHIN_S = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
# The connection's own events name no path, and 3.9 adds a zxid to the others.
EVENT = re.compile(r"^WatchedEvent state:\w+ type:(\w+) path:(/\S*)")


class Cli:
    def __init__(self, path="", timeout_s=p.SESSION_S):
        java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dlevel=OFF", "-cp", CLASSPATH, "org.apache.zookeeper.ZooKeeperMain"]
        words = [*java, "-waitforconnection", "-timeout", str(timeout_s * 1000), "-server", HOST + path]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.process = subprocess.Popen(words, text=True, **pipes)
        self.lines, self.asked, self.events = queue.Queue(), 0, []
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _line(self, what):
        try:
            line = self.lines.get(timeout=p.WAIT_S)
        except queue.Empty:
            raise p.Failed(f"zkCli says nothing after {what}") from None
        p.expect(line is not None, f"zkCli ended after {what}")
        return line

    def __call__(self, command):
        """What it prints to a command, without events and blank lines."""
        self.asked += 1
        end = f"/end-of-command-{self.asked}"
        self.process.stdin.write(f"{command}\nget {end}\n")
        self.process.stdin.flush()
        said = []
        while end not in (line := self._line(command[:80])):
            if event := EVENT.match(line):
                self.events.append(event.groups())
            elif line and line != "WATCHER::" and not line.startswith("WatchedEvent"):
                said.append(line)
        return "\n".join(said)

    def say(self, command, wanted):
        p.equal(command[:80], self(command).splitlines()[-1:], [wanted] if wanted else [])

    def again(self, command):
        """The same through a connection that is being made anew."""
        end = time.monotonic() + p.WAIT_S
        while "ConnectionLoss" in (said := self(command)) and time.monotonic() < end:
            time.sleep(0.05)
        return said

    def create(self, path, data="", *options, made=None):
        said = self(" ".join(["create", *options, path, data]).rstrip())
        p.equal(f"create {path}", said.splitlines()[-1:], [f"Created {made or path}"])
        return made or path

    def stat(self, path, command="stat"):
        """The fields of a stat by name; numbers as numbers."""
        fields = dict(line.split(" = ", 1) for line in self(f"{command} {path}").splitlines() if " = " in line)
        p.expect(len(fields) == 11, f"stat of {path} has the fields {sorted(fields)}")
        return {name: value if name.endswith("time") else int(value, 0) for name, value in fields.items()}

    def names(self, path):
        return sorted(name for name in self(f"ls {path}").splitlines()[-1].strip("[]").split(", ") if name)

    def expect_events(self, *wanted):
        """What came since it was last asked for, its own commands' events too."""
        until = time.monotonic() + p.WAIT_S
        while len(self.events) < len(wanted) and time.monotonic() < until:
            self("sync /")
        seen, self.events = self.events, []
        p.equal("the events", seen, list(wanted))

    def connect(self, path=""):
        """Closes its session and opens another one."""
        self(f"connect {HOST}{path}")
        self.events.clear()

    def close(self):
        # At the end of its input it would leave its session open.
        self.process.stdin.write("quit\n")
        self.process.stdin.close()
        self.process.wait(p.WAIT_S)

    def kill(self):
        self.process.kill()
        self.process.wait()


def below(zk, name):
    return zk.create(f"{ROOT}/{name}")


def create(zk, _):
    base = below(zk, "create")
    node = zk.create(f"{base}/node", "hello")
    p.equal("get", zk(f"get {node}"), "hello")
    stat = zk.stat(node)
    shown = [stat[name] for name in ("dataVersion", "cversion", "aclVersion", "ephemeralOwner", "dataLength", "numChildren")]
    p.equal("version, cversion, aversion, owner, length, children", shown, [0, 0, 0, 0, 5, 0])
    p.expect(stat["cZxid"] == stat["mZxid"] == stat["pZxid"] > 0, f"one zxid everywhere: {stat}")
    p.equal("get -s", zk.stat(node, "get -s"), stat)
    p.equal("ls", zk.names(base), ["node"])


def set_data(zk, _):
    node = zk.create(f"{below(zk, 'set')}/node", "0")
    before = zk.stat(node)
    zk.say(f"set -v 0 {node} one", "")
    stat = zk.stat(node)
    p.equal("version, length", (stat["dataVersion"], stat["dataLength"]), (1, 3))
    p.expect(stat["mZxid"] > before["mZxid"] and stat["pZxid"] == before["pZxid"], f"{stat} after {before}")
    zk.say(f"set -v 0 {node} no", f"version No is not valid : {node}")
    zk.say(f"get {node}", "one")
    p.equal("version of set -s", zk.stat(f"{node} two", "set -s")["dataVersion"], 2)


def delete(zk, _):
    base = below(zk, "delete")
    node = zk.create(f"{base}/node")
    child = zk.create(f"{node}/child")
    zk.say(f"delete {node}", f"Node not empty: {node}")
    zk.say(f"delete -v 7 {child}", f"version No is not valid : {child}")
    zk.say(f"delete -v 0 {child}", "")
    zk.say(f"delete {child}", f"Node does not exist: {child}")
    for name in ("a", "a/b", "a/b/c", "a/d"):
        zk.create(f"{node}/{name}")
    zk.say(f"deleteall {node}", "")
    p.equal("ls", zk.names(base), [])


def children(zk, _):
    base = below(zk, "children")
    for name in ("c", "a", "a/below", "b"):
        zk.create(f"{base}/{name}")
    p.equal("ls", zk.names(base), ["a", "b", "c"])
    stat = zk.stat(base, "ls -s")
    p.equal("children, cversion", (stat["numChildren"], stat["cversion"]), (3, 3))
    p.equal("pzxid", stat["pZxid"], zk.stat(f"{base}/b")["cZxid"])
    p.equal("ls -R", zk(f"ls -R {base}").splitlines(), [base, *(f"{base}/{name}" for name in ("a", "b", "c", "a/below"))])
    zk.say(f"getAllChildrenNumber {base}", "4")
    zk(f"delete {base}/c")
    after = zk.stat(base)
    p.equal("children, cversion", (after["numChildren"], after["cversion"]), (2, 4))


def sequence(zk, _):
    base = below(zk, "sequence")
    zk.create(f"{base}/n-", "", "-s", made=f"{base}/n-0000000000")
    zk.create(f"{base}/plain")
    zk.create(f"{base}/n-", "", "-s", made=f"{base}/n-0000000002")
    zk(f"delete {base}/n-0000000002")
    zk.create(f"{base}/n-", "", "-s", "-e", made=f"{base}/n-0000000003")


def ephemeral(zk, other):
    base = below(zk, "ephemeral")
    node = other.create(f"{base}/node", "x", "-e")
    p.expect(zk.stat(f"-w {node}")["ephemeralOwner"] != 0, "it has no owner")
    zk.say(f"create {node}/child", f"Ephemerals cannot have children: {node}/child")
    other.say(f"getEphemerals {base}", f"[{node}]")
    zk.say(f"getEphemerals {base}", "[]")
    other.connect()
    zk.expect_events(("NodeDeleted", node))
    p.equal("ls", zk.names(base), [])


def reaped(zk, path):
    if not REAPS_WITHIN_S:
        return "not waited for until it is reaped"
    p.until(lambda: "Node does not exist" in zk(f"stat {path}"), f"{path} to be reaped", REAPS_WITHIN_S)
    return "reaped"


def container(zk, _):
    box = zk.create(f"{below(zk, 'container')}/box", "", "-c")
    p.equal("the owner", zk.stat(box)["ephemeralOwner"], 0)
    zk.create(f"{box}/child")
    zk(f"delete {box}/child")
    return reaped(zk, box)


def ttl(zk, _):
    base = below(zk, "ttl")
    node = zk.create(f"{base}/node", "", "-t", "500")
    numbered = zk.create(f"{base}/n-", "", "-s", "-t", "60000", made=f"{base}/n-0000000001")
    p.equal("the owner", zk.stat(numbered)["ephemeralOwner"], 0)
    how = reaped(zk, node)
    p.expect("n-0000000001" in zk.names(base), "the one with a minute to live is gone")
    return how


def errors(zk, _):
    base = below(zk, "errors")
    for command in ("get", "stat", "ls", "getAcl", "delete"):
        zk.say(f"{command} {base}/missing", f"Node does not exist: {base}/missing")
    zk.say(f"create {base}/missing/child", f"Node does not exist: {base}/missing/child")
    zk.say(f"create {base}", f"Node already exists: {base}")
    zk.say("delete /zookeeper", "Arguments are not valid : /zookeeper")
    said = zk(f"create {base}/node x nobody:x:r")
    p.expect("Acl is not valid : " in said, f"an ACL of an unknown scheme: {said}")


def watches(zk, other):
    base = below(zk, "watches")
    node = other.create(f"{base}/node", "0")
    zk(f"get -w {node}"), zk(f"ls -w {base}")
    other(f"set {node} 1"), other(f"set {node} 2")
    missing = other.create(f"{base}/missing")
    zk.expect_events(("NodeDataChanged", node), ("NodeChildrenChanged", base))
    zk(f"stat -w {missing}")
    other(f"delete {missing}")
    zk.expect_events(("NodeDeleted", missing))


def persistent(zk, other):
    base = below(zk, "persistent")
    node = other.create(f"{base}/node", "0")
    other.say(f"addWatch -m PERSISTENT {node}", "")
    zk.say(f"addWatch -m PERSISTENT_RECURSIVE {base}", "")
    for command in (f"set {node} 1", f"set {node} 2", f"create {node}/child", f"delete {node}/child", f"delete {node}"):
        other(command)
    changed = ("NodeDataChanged", node)
    zk.expect_events(changed, changed, ("NodeCreated", f"{node}/child"), ("NodeDeleted", f"{node}/child"), ("NodeDeleted", node))
    other.expect_events(changed, changed, *[("NodeChildrenChanged", node)] * 2, ("NodeDeleted", node))


def unwatch(zk, other):
    node = zk.create(f"{below(zk, 'unwatch')}/node", "0")
    zk.say(f"removewatches {node}", f"KeeperErrorCode = No such watcher for {node}")
    zk(f"get -w {node}")
    zk.say(f"removewatches {node} -d", "")
    zk.say(f"addWatch {node}", "")
    zk.say(f"removewatches {node}", "")
    other(f"set {node} 1")
    zk.expect_events(("DataWatchRemoved", node), ("PersistentWatchRemoved", node))


def acl(zk, _):
    base = below(zk, "acl")
    node = zk.create(f"{base}/node", "x")
    p.equal("getAcl", zk(f"getAcl {node}").splitlines(), ["'world,'anyone", ": cdrwa"])
    p.equal("aversion", zk.stat(f"{node} world:anyone:r", "setAcl -s")["aclVersion"], 1)
    p.equal("getAcl", zk(f"getAcl {node}").splitlines(), ["'world,'anyone", ": r"])
    zk.say(f"get {node}", "x")
    for command in (f"set {node} y", f"create {node}/child", f"setAcl {node} world:anyone:cdrwa"):
        zk.say(command, f"Insufficient permission : {command.split()[1]}")
    zk.say(f"delete {node}", "")


def auth(zk, other):
    node = zk.create(f"{below(zk, 'auth')}/node", "secret")
    other.say("addauth digest alice:secret", "")
    other.say(f"setAcl {node} auth::cdrwa", "")
    said = other(f"getAcl {node}").splitlines()
    p.expect(said[0].startswith("'digest,'alice:") and said[1] == ": cdrwa", f"getAcl: {said}")
    other.say(f"get {node}", "secret")
    zk.say(f"get {node}", f"Insufficient permission : {node}")


def whoami(_, other):
    p.equal("whoami", sorted(other("whoami").splitlines()), ["Auth scheme: User", "digest: alice", "ip: 127.0.0.1"])


def quota(zk, _):
    node = zk.create(f"{below(zk, 'quota')}/node", "12345")
    zk(f"setquota -n 7 {node}")
    zk(f"setquota -b 100 {node}")
    zk.create(f"{node}/child", "123")
    said = zk(f"listquota {node}")
    p.expect(re.search(r"quota .*count=7,bytes=100\b", said), f"listquota: {said}")
    p.expect(re.search(r"stat .*count=2,bytes=8\b", said), f"listquota: {said}")
    zk(f"delquota {node}")
    p.expect("does not exist" in zk(f"listquota {node}"), "the quota is still there")


def large(zk, other):
    text = "0123456789" * 100_000
    node = zk.create(f"{below(zk, 'large')}/node", text)
    p.expect(other(f"get {node}") == text, "the data that came back is another")
    p.equal("the length", zk.stat(node)["dataLength"], len(text))


def sync(zk, _):
    zk.say("sync /", "Sync is OK")


def chroot(zk, other):
    base = below(zk, "chroot")
    other.connect(base)
    other.create("/a"), other.create("/a/b", "x")
    zk.say(f"get {base}/a/b", "x")
    other("get -w /a/b")
    zk(f"set {base}/a/b y")
    other.expect_events(("NodeDataChanged", "/a/b"))
    p.equal("ls", other.names("/"), ["a"])
    other.connect()


def expiry(zk, doomed, killed_at):
    zk(f"stat -w {doomed}")
    p.until(lambda: "Node does not exist" in zk(f"stat {doomed}"), f"{doomed} to be gone")
    took = time.monotonic() - killed_at
    p.expect(took > 1, f"it was gone {took:.1f} s after the kill")
    zk.events.clear()
    return f"at most {took:.1f} s after the kill"


def survive(zk, other, kill):
    base = below(zk, "kill" if kill else "restart")
    mine = zk.create(f"{base}/mine", "", "-e")
    node = zk.create(f"{base}/data", "before")
    owner = zk.stat(mine)["ephemeralOwner"]
    zk(f"get -w {node}"), zk(f"ls -w {base}")
    other.say(f"addWatch -m PERSISTENT_RECURSIVE {base}", "")
    zk.events.clear(), other.events.clear()
    p.await_restart(kill)
    p.equal("the data", zk.again(f"get {node}"), "before")
    p.equal("the owner", zk.stat(mine)["ephemeralOwner"], owner)
    zk.say(f"getEphemerals {base}", f"[{mine}]")
    p.equal("another session sees", other.again(f"get {node}"), "before")
    zk.expect_events()
    other(f"set {node} after")
    missing = other.create(f"{base}/missing")
    zk.expect_events(("NodeDataChanged", node), ("NodeChildrenChanged", base))
    other.expect_events(("NodeDataChanged", node), ("NodeCreated", missing))
    return f"session {owner:#x}"


def program():
    zk, other, victim = Cli(), Cli(), Cli(timeout_s=p.SHORT_SESSION_S)
    zk.create(ROOT), zk.create(f"{ROOT}/expiry")
    doomed = victim.create(f"{ROOT}/expiry/doomed", "", "-e")
    victim.kill()
    killed_at = time.monotonic()
    for name, made in (
        ("create", create),
        ("set", set_data),
        ("delete", delete),
        ("children", children),
        ("sequence", sequence),
        ("ephemeral", ephemeral),
        ("container", container),
        ("ttl", ttl),
        ("errors", errors),
        ("watches", watches),
        ("persistent", persistent),
        ("unwatch", unwatch),
        ("acl", acl),
        ("auth", auth),
        ("whoami", whoami),
        ("quota", quota),
        ("large", large),
        ("sync", sync),
        ("chroot", chroot),
    ):
        zk.events.clear(), other.events.clear()
        p.check(name, made, zk, other)
    p.skip("multi undone multiread async move words", "zkCli has no such command")
    p.skip("lock election counter party cache", "zkCli has no recipes")
    p.check("expiry", expiry, zk, doomed, killed_at)
    p.check("restart", survive, zk, other, False)
    p.check("kill", survive, zk, other, True)
    zk.close(), other.close()


program()
