"""kazoo through the plan, with its recipes."""

import itertools
import logging
import os
import subprocess
import sys
import threading
import time

from kazoo import exceptions as errors
from kazoo.client import KazooClient, KazooState
from kazoo.protocol.states import EventType
from kazoo.recipe.cache import TreeCache
from kazoo.recipe.watchers import ChildrenWatch, DataWatch
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

import plan as p

HOST, ROOT, REAPS_WITHIN_S = sys.argv[1], sys.argv[2], float(sys.argv[3])


def connect(path="", timeout=p.SESSION_S, **options):
    client = KazooClient(hosts=HOST + path, timeout=timeout, **options)
    client.start(timeout=p.WAIT_S)
    return client


def close(client):
    client.stop()
    client.close()


class Events:
    """The events of one watch, in their order."""

    def __init__(self):
        self.seen = []

    def __call__(self, event):
        self.seen.append((event.type, event.path))

    def wait(self, *wanted):
        p.until(lambda: len(self.seen) >= len(wanted), f"{wanted}; there was {self.seen}")
        p.equal("the events", self.seen, list(wanted))


def below(zk, name):
    path = f"{ROOT}/{name}"
    zk.ensure_path(path)
    return path


def create(zk):
    base = below(zk, "create")
    path, stat = zk.create(f"{base}/node", b"hello", include_data=True)
    p.equal("the path", path, f"{base}/node")
    shown = (stat.version, stat.cversion, stat.aversion, stat.ephemeralOwner, stat.dataLength, stat.numChildren)
    p.equal("version, cversion, aversion, owner, length, children", shown, (0, 0, 0, 0, 5, 0))
    p.expect(stat.czxid == stat.mzxid == stat.pzxid > 0, f"one zxid everywhere: {stat}")
    p.expect(stat.ctime == stat.mtime and abs(stat.ctime / 1000 - time.time()) < 60, f"the time is now: {stat}")
    p.equal("get", zk.get(path), (b"hello", stat))
    p.equal("exists", zk.exists(path), stat)
    p.equal("of a missing node", zk.exists(f"{base}/missing"), None)
    p.equal("a name beyond ASCII", zk.create(f"{base}/grün-日本"), f"{base}/grün-日本")
    p.equal("its parents", zk.create(f"{base}/a/b/c", b"", makepath=True), f"{base}/a/b/c")
    p.equal("the children", sorted(zk.get_children(base)), ["a", "grün-日本", "node"])


def set_data(zk):
    path = f"{below(zk, 'set')}/node"
    _, before = zk.create(path, b"0", include_data=True)
    stat = zk.set(path, b"one", version=0)
    p.equal("version, length", (stat.version, stat.dataLength), (1, 3))
    p.expect(stat.mzxid > before.mzxid and stat.mtime >= before.mtime, f"{stat} is after {before}")
    p.equal("czxid, ctime, pzxid", (stat.czxid, stat.ctime, stat.pzxid), (before.czxid, before.ctime, before.pzxid))
    p.raises(errors.BadVersionError, "set at an old version", zk.set, path, b"no", version=0)
    p.equal("the data", zk.get(path), (b"one", stat))
    p.equal("version without asking for one", zk.set(path, b"").version, 2)
    p.equal("the data", zk.get(path)[0], b"")


def delete(zk):
    base = below(zk, "delete")
    zk.create(f"{base}/node/child", makepath=True)
    p.raises(errors.NotEmptyError, "delete with a child", zk.delete, f"{base}/node")
    p.raises(errors.BadVersionError, "delete at a wrong version", zk.delete, f"{base}/node/child", version=7)
    zk.delete(f"{base}/node/child", version=0)
    p.equal("the child", zk.exists(f"{base}/node/child"), None)
    p.raises(errors.NoNodeError, "delete it again", zk.delete, f"{base}/node/child")
    zk.delete(f"{base}/node")
    p.equal("the children", zk.get_children(base), [])


def children(zk):
    base = below(zk, "children")
    stats = [zk.create(f"{base}/{name}", include_data=True)[1] for name in ("c", "a", "b")]
    names, stat = zk.get_children(base, include_data=True)
    p.equal("the names", sorted(names), ["a", "b", "c"])
    p.equal("children, cversion, pzxid", (stat.numChildren, stat.cversion, stat.pzxid), (3, 3, stats[-1].czxid))
    zk.set(f"{base}/a", b"not the parent's business")
    p.equal("the parent", zk.exists(base), stat)
    zk.delete(f"{base}/a")
    after = zk.exists(base)
    p.equal("children, cversion, version", (after.numChildren, after.cversion, after.version), (2, 4, 0))
    p.expect(after.pzxid > stat.pzxid and after.mzxid == stat.mzxid, f"{after} after {stat}")


def sequence(zk):
    base = below(zk, "sequence")
    made = [zk.create(f"{base}/n-", sequence=True) for _ in range(2)]
    zk.create(f"{base}/plain")
    made.append(zk.create(f"{base}/m-", sequence=True))
    zk.delete(made[2])
    made.append(zk.create(f"{base}/n-", sequence=True, ephemeral=True))
    p.equal("the names", made, [f"{base}/{n}" for n in ("n-0000000000", "n-0000000001", "m-0000000003", "n-0000000004")])


def ephemeral(zk):
    base = below(zk, "ephemeral")
    other, events = connect(), Events()
    path = other.create(f"{base}/node", b"x", ephemeral=True)
    p.equal("the owner", zk.exists(path, watch=events).ephemeralOwner, other.client_id[0])
    p.raises(errors.NoChildrenForEphemeralsError, "a child of it", zk.create, f"{path}/child")
    close(other)
    events.wait((EventType.DELETED, path))
    p.equal("the children", zk.get_children(base), [])


def error_names(zk):
    base = below(zk, "errors")
    missing = f"{base}/missing"
    for what, call, *args in (
        ("get", zk.get, missing),
        ("set", zk.set, missing, b""),
        ("children", zk.get_children, missing),
        ("acl", zk.get_acls, missing),
        ("create below", zk.create, f"{missing}/child"),
    ):
        p.raises(errors.NoNodeError, f"{what} of a missing node", call, *args)
    p.raises(errors.NodeExistsError, "create again", zk.create, base)
    p.raises(errors.InvalidACLError, "an ACL of an unknown scheme", zk.create, missing, acl=[make_acl("nobody", "x", all=True)])
    p.raises(errors.BadArgumentsError, "delete of the root", zk.delete, "/zookeeper")


def watches(zk):
    base = below(zk, "watches")
    other = connect()
    node, missing = other.create(f"{base}/node", b"0"), f"{base}/missing"
    data, exists, child = Events(), Events(), Events()
    zk.get(node, watch=data)
    p.equal("a missing node", zk.exists(missing, watch=exists), None)
    zk.get_children(base, watch=child)
    for value in (b"1", b"2"):
        other.set(node, value)
    other.create(missing)
    data.wait((EventType.CHANGED, node))
    exists.wait((EventType.CREATED, missing))
    child.wait((EventType.CHILD, base))
    gone = Events()
    zk.exists(missing, watch=gone)
    other.delete(missing)
    gone.wait((EventType.DELETED, missing))
    # The session's own order: what fires twice would have come before this answer.
    zk.sync(base)
    p.equal("all that fired", (len(data.seen), len(exists.seen), len(child.seen)), (1, 1, 1))
    seen = []
    DataWatch(zk, node, lambda value, _: seen.append(value))
    other.set(node, b"3")
    p.until(lambda: seen == [b"2", b"3"], f"DataWatch to see both values, not {seen}")
    names = []
    ChildrenWatch(zk, base, lambda now: names.append(sorted(now)))
    other.create(f"{base}/other")
    p.until(lambda: names == [["node"], ["node", "other"]], f"ChildrenWatch to see both, not {names}")
    close(other)


def multi(zk):
    base = below(zk, "multi")
    zk.create(f"{base}/old", b"0")
    t = zk.transaction()
    t.check(f"{base}/old", 0)
    t.set_data(f"{base}/old", b"1")
    t.create(f"{base}/new", b"n")
    t.create(f"{base}/seq-", sequence=True)
    t.create(f"{base}/gone")
    t.delete(f"{base}/gone")
    done = t.commit()
    p.equal("check", done[0], True)
    p.equal("the version after set", done[1].version, 1)
    p.equal("the created", done[2:5], [f"{base}/new", f"{base}/seq-0000000002", f"{base}/gone"])
    p.equal("delete", done[5], True)
    new, old = zk.exists(f"{base}/new"), zk.exists(f"{base}/old")
    p.expect(new.czxid == old.mzxid == zk.exists(base).pzxid, "one zxid")


def undone(zk):
    base = below(zk, "undone")
    zk.create(f"{base}/old", b"0")
    t = zk.transaction()
    t.create(f"{base}/new")
    t.set_data(f"{base}/old", b"1", version=5)
    t.delete(f"{base}/old")
    kinds = [type(result) for result in t.commit()]
    p.equal("the results", kinds, [errors.RolledBackError, errors.BadVersionError, errors.RuntimeInconsistency])
    p.equal("the children", zk.get_children(base), ["old"])
    p.equal("the data", zk.get(f"{base}/old")[0], b"0")


def acl(zk):
    base = below(zk, "acl")
    path, read_only = f"{base}/node", [make_acl("world", "anyone", read=True)]
    zk.create(path, b"x", acl=read_only)
    p.equal("the ACL", zk.get_acls(path)[0], read_only)
    p.equal("the data", zk.get(path)[0], b"x")
    p.raises(errors.NoAuthError, "set", zk.set, path, b"y")
    p.raises(errors.NoAuthError, "create below", zk.create, f"{path}/child")
    p.raises(errors.NoAuthError, "setACL", zk.set_acls, path, OPEN_ACL_UNSAFE)
    zk.create(f"{base}/open")
    p.equal("aversion", zk.set_acls(f"{base}/open", read_only, version=0).aversion, 1)
    p.raises(errors.NoAuthError, "set", zk.set, f"{base}/open", b"y")
    # Deleting is the parent's permission.
    zk.delete(path)


def auth(zk):
    base = below(zk, "auth")
    mine = connect()
    mine.add_auth("digest", "alice:secret")
    theirs = make_digest_acl("alice", "secret", all=True)
    path = mine.create(f"{base}/node", b"secret", acl=[theirs])
    p.equal("the data", mine.get(path)[0], b"secret")
    p.raises(errors.NoAuthError, "get without it", zk.get, path)
    other = connect(auth_data=[("digest", "alice:wrong")])
    p.raises(errors.NoAuthError, "get with another password", other.get, path)
    other.add_auth("digest", "alice:secret")
    p.equal("the data", other.get(path)[0], b"secret")
    bad = connect()
    p.raises(errors.AuthFailedError, "an unknown scheme", bad.add_auth, "nosuch", "x")
    for client in (mine, other, bad):
        close(client)


def large(zk):
    base = below(zk, "large")
    path = zk.create(f"{base}/node", p.LARGE)
    p.expect(zk.get(path)[0] == p.LARGE, "the data that came back is another")
    p.equal("the length", zk.exists(path).dataLength, len(p.LARGE))
    other = connect()
    session = other.client_id[0]
    p.raises((errors.ZookeeperError), "more than jute.maxbuffer", other.set, path, p.TOO_LARGE)
    p.until(lambda: other.connected, "the connection after it")
    p.equal("the version", other.retry(other.exists, path).version, 0)
    p.equal("the session", other.client_id[0], session)
    close(other)


def outstanding(zk):
    base = below(zk, "async")
    answered = []
    pending = []
    for n in range(p.OUTSTANDING):
        pending.append(zk.create_async(f"{base}/{n:04}", b"%04d" % n * 25))
        pending[-1].rawlink(lambda _, n=n: answered.append(n))
    paths = [one.get(timeout=p.WAIT_S) for one in pending]
    p.equal("the paths", paths, [f"{base}/{n:04}" for n in range(p.OUTSTANDING)])
    p.until(lambda: len(answered) == p.OUTSTANDING, "the callbacks")
    p.expect(answered == sorted(answered), "the answers came in another order than they were asked for")
    got = [one.get(timeout=p.WAIT_S) for one in [zk.get_async(path) for path in paths]]
    p.equal("the data", [data for data, _ in got], [b"%04d" % n * 25 for n in range(p.OUTSTANDING)])
    p.expect(all(a.czxid < b.czxid for (_, a), (_, b) in itertools.pairwise(got)), "zxids in the order of asking")
    return f"{2 * p.OUTSTANDING} answers"


def sync(zk):
    base = below(zk, "sync")
    p.equal("the path", zk.sync(base), base)


def chroot(zk):
    base = below(zk, "chroot")
    other, events = connect(path=base), Events()
    other.ensure_path("/")
    p.equal("the path", other.create("/a/b", b"x", makepath=True), "/a/b")
    p.equal("seen from outside", zk.get(f"{base}/a/b")[0], b"x")
    other.get("/a/b", watch=events)
    zk.set(f"{base}/a/b", b"y")
    events.wait((EventType.CHANGED, "/a/b"))
    p.equal("the children", other.get_children("/"), ["a"])
    close(other)


def hold():
    zk, doomed = connect(), connect(timeout=p.SHORT_SESSION_S)
    doomed.create(f"{ROOT}/expiry/doomed", ephemeral=True, makepath=True)
    zk.create(f"{ROOT}/move/kept", b"kept", ephemeral=True, makepath=True)
    session, password = zk.client_id
    p.say(f"HELD {session} {password.hex()}")
    time.sleep(600)


class Victim:
    """The program once more, which holds sessions until it is killed."""

    def __init__(self):
        command = [sys.executable, *sys.argv[:4], "hold"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        words = self.process.stdout.readline().split()
        p.expect(words[:1] == ["HELD"], f"the victim said {words}")
        self.client_id = int(words[1]), bytes.fromhex(words[2])

    def kill(self):
        self.process.kill()
        self.process.wait()


def move(zk, victim):
    path = f"{ROOT}/move/kept"
    session, password = victim.client_id
    stranger = connect(client_id=(session, bytes(16)))
    p.differ("the session of a wrong password", stranger.client_id[0], session)
    p.equal("the owner", zk.exists(path).ephemeralOwner, session)
    moved = connect(client_id=(session, password))
    p.equal("the session", moved.client_id[0], session)
    p.equal("its ephemeral", moved.get(path)[0], b"kept")
    gone = Events()
    zk.exists(path, watch=gone)
    close(moved)
    gone.wait((EventType.DELETED, path))
    close(stranger)


def expiry(zk, killed_at):
    path, events = f"{ROOT}/expiry/doomed", Events()
    if zk.exists(path, watch=events):
        events.wait((EventType.DELETED, path))
    took = time.monotonic() - killed_at
    p.expect(took > 1, f"it was gone {took:.1f} s after the kill, with a timeout of {p.SHORT_SESSION_S} s")
    return f"at most {took:.1f} s after the kill"


def lock(zk):
    path = below(zk, "lock")
    other, order, holders = connect(), [], []

    def work(name, client):
        with client.Lock(path, name):
            holders.append(name)
            order.append((name, len(holders)))
            time.sleep(0.02)
            holders.remove(name)

    first = zk.Lock(path, "first")
    p.expect(first.acquire(timeout=p.WAIT_S), "the lock could not be had")
    p.equal("a second one that does not wait", other.Lock(path, "no").acquire(blocking=False), False)
    threads = []
    for n, client in enumerate((other, zk, other, zk)):
        threads.append(threading.Thread(target=work, args=(f"w{n}", client)))
        threads[-1].start()
        p.until(lambda: len(first.contenders()) == n + 2, "the next to stand in line")
    p.equal("those in line", first.contenders(), ["first", "w0", "w1", "w2", "w3"])
    first.release()
    for thread in threads:
        thread.join(p.WAIT_S)
    p.equal("who held it, how many at once", order, [(f"w{n}", 1) for n in range(4)])
    close(other)


def election(zk):
    path = below(zk, "election")
    other, leading, stop = connect(), [], threading.Event()

    def lead(name):
        leading.append(name)
        stop.wait(p.WAIT_S)

    def run(client, name):
        try:
            client.Election(path, name).run(lead, name)
        except errors.ConnectionClosedError:
            pass  # its session was closed under it: that is how this leader goes

    first = threading.Thread(target=run, args=(other, "first"))
    first.start()
    p.until(lambda: leading == ["first"], "the first to lead")
    second = threading.Thread(target=run, args=(zk, "second"))
    second.start()
    p.until(lambda: zk.Election(path).contenders() == ["first", "second"], "the second to stand in line")
    close(other)
    p.until(lambda: leading == ["first", "second"], "the second to lead when the first is gone")
    stop.set()
    first.join(p.WAIT_S), second.join(p.WAIT_S)


def counter(zk):
    path = below(zk, "counter") + "/n"
    clients = [connect() for _ in range(2)]

    def add(client):
        mine = client.Counter(path)
        for _ in range(50):
            mine += 1

    threads = [threading.Thread(target=add, args=(client,)) for client in clients for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(p.WAIT_S)
    p.equal("the sum", zk.Counter(path).value, 200)
    for client in clients:
        close(client)


def party(zk):
    path = below(zk, "party")
    other = connect()
    mine, theirs = zk.Party(path, "me"), other.Party(path, "them")
    mine.join(), theirs.join()
    p.equal("the members", sorted(mine), ["me", "them"])
    close(other)
    p.until(lambda: list(mine) == ["me"], "the other to be gone")
    mine.leave()
    p.equal("the members", len(mine), 0)


def cache(zk):
    path = below(zk, "cache")
    other = connect()
    copy = TreeCache(zk, path)
    copy.start()
    other.create(f"{path}/a/b", b"1", makepath=True)
    p.until(lambda: (found := copy.get_data(f"{path}/a/b")) and found.data == b"1", "the new node in the copy")
    other.set(f"{path}/a/b", b"2")
    p.until(lambda: copy.get_data(f"{path}/a/b").data == b"2", "the new data in the copy")
    other.delete(f"{path}/a", recursive=True)
    p.until(lambda: copy.get_children(path) == frozenset(), "the deletion in the copy")
    copy.close()
    close(other)


def words(zk):
    version = zk.server_version()
    p.expect(len(version) == 3 and version >= (3, 5, 0), f"srvr shows version {version}")
    # Which words are allowed is the server's setting; none may be left without text.
    answers = {word: zk.command(word.encode()) for word in ("ruok", "stat", "mntr", "conf", "cons", "wchs", "isro")}
    for word, answer in answers.items():
        allowed = answer and "not executed because it is not in the whitelist" not in answer
        p.expect(answer.strip(), f"{word} has no answer")
        if word == "ruok" and allowed:
            p.equal("ruok", answer.strip(), "imok")
        if word == "mntr" and allowed:
            p.expect("zk_znode_count\t" in answer, f"mntr: {answer!r}")
        if word == "isro" and allowed:
            p.equal("isro", answer.strip(), "rw")
    return f"version {'.'.join(map(str, version))}"


def survive(zk, kill):
    base = below(zk, "kill" if kill else "restart")
    # kazoo forgets its plain watches when the connection is lost (it never sends
    # setWatches); DataWatch and ChildrenWatch are what it has for that.
    states, data, exists, child = [], [], [], []
    zk.add_listener(states.append)
    session = zk.client_id[0]
    mine = zk.create(f"{base}/mine", ephemeral=True)
    node, missing = zk.create(f"{base}/data", b"before"), f"{base}/missing"
    pending = [zk.create_async(f"{base}/data/{n}", b"%d" % n) for n in range(p.SURVIVORS)]
    for one in pending:
        one.get(timeout=p.WAIT_S)
    DataWatch(zk, node, lambda value, _: data.append(value))
    DataWatch(zk, missing, lambda value, _: exists.append(value))
    ChildrenWatch(zk, base, lambda names: child.append(sorted(names)))
    p.await_restart(kill)
    p.until(lambda: zk.state == KazooState.CONNECTED and zk.connected, "the connection after the restart")
    zk.remove_listener(states.append)
    p.expect(KazooState.LOST not in states, f"the session was lost: {states}")
    p.equal("the session", zk.client_id[0], session)
    stat = zk.retry(zk.exists, mine)
    p.expect(stat and stat.ephemeralOwner == session, f"the ephemeral node is {stat}")
    for n in range(p.SURVIVORS):
        p.equal(f"node {n}", zk.retry(zk.get, f"{node}/{n}")[0], b"%d" % n)
    other = connect()
    other.set(node, b"after")
    other.create(missing, b"made")
    seen = lambda: (data[0], data[-1], exists[0], exists[-1], child[0], child[-1])
    wanted = (b"before", b"after", None, b"made", ["data", "mine"], ["data", "mine", "missing"])
    p.until(lambda: seen() == wanted, f"the watches to see {wanted}; they saw {data}, {exists}, {child}")
    close(other)
    return f"session {session:#x}"


def program():
    victim = Victim()
    zk = connect()
    victim.kill()
    killed_at = time.monotonic()
    for name, made in (
        ("create", create),
        ("set", set_data),
        ("delete", delete),
        ("children", children),
        ("sequence", sequence),
        ("ephemeral", ephemeral),
        ("errors", error_names),
        ("watches", watches),
        ("multi", multi),
        ("undone", undone),
        ("acl", acl),
        ("auth", auth),
        ("large", large),
        ("async", outstanding),
        ("sync", sync),
        ("chroot", chroot),
        ("lock", lock),
        ("election", election),
        ("counter", counter),
        ("party", party),
        ("cache", cache),
        ("words", words),
    ):
        p.check(name, made, zk)
    p.skip("container ttl persistent unwatch multiread whoami quota", "kazoo has no such call")
    p.check("move", move, zk, victim)
    p.check("expiry", expiry, zk, killed_at)
    p.check("restart", survive, zk, False)
    p.check("kill", survive, zk, True)
    close(zk)


logging.basicConfig(level=logging.WARNING)
if sys.argv[4:] == ["hold"]:
    hold()
else:
    program()
    # A thread that a failed check left behind must not keep the program.
    sys.stdout.flush()
    os._exit(0)
