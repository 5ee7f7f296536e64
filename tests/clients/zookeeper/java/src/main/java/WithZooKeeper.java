import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.FourLetterWordMain;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;

/** Apache ZooKeeper's own client through the plan. */
public final class WithZooKeeper {
    private static final byte[] NONE = new byte[0];
    private static final List<ACL> OPEN = Ids.OPEN_ACL_UNSAFE;

    private final String host;
    private final String root;
    private final int reapsWithinS;
    private final ZooKeeper zk;

    private WithZooKeeper(String[] arguments) throws Exception {
        host = arguments[0];
        root = arguments[1];
        reapsWithinS = Integer.parseInt(arguments[2]);
        zk = connect("");
    }

    private static ZooKeeper connected(CountDownLatch up, ZooKeeper zk) throws InterruptedException {
        Plan.expect(up.await(Plan.WAIT_S, TimeUnit.SECONDS), "no session within " + Plan.WAIT_S + " s");
        return zk;
    }

    private static Watcher opens(CountDownLatch up) {
        return event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                up.countDown();
            }
        };
    }

    private ZooKeeper connect(String path) throws Exception {
        return connect(host + path, Plan.SESSION_MS);
    }

    private static ZooKeeper connect(String where, int timeoutMs) throws Exception {
        CountDownLatch up = new CountDownLatch(1);
        return connected(up, new ZooKeeper(where, timeoutMs, opens(up)));
    }

    private String plain(ZooKeeper zk, String path, String data) throws Exception {
        return zk.create(path, Plan.bytes(data), OPEN, CreateMode.PERSISTENT);
    }

    private String below(String name) throws Exception {
        if (zk.exists(root, false) == null) {
            plain(zk, root, "");
        }
        return plain(zk, root + "/" + name, "");
    }

    /** Not List.of, which the client asks for a null and which throws then. */
    private static List<ACL> only(String scheme, String id) {
        return Collections.singletonList(new ACL(Perms.ALL, new Id(scheme, id)));
    }

    private static String text(ZooKeeper zk, String path) throws Exception {
        return new String(zk.getData(path, false, null));
    }

    private static List<String> sorted(List<String> names) {
        return names.stream().sorted().toList();
    }

    private String create() throws Exception {
        String base = below("create");
        Stat stat = new Stat();
        String path = zk.create(base + "/node", Plan.bytes("hello"), OPEN, CreateMode.PERSISTENT, stat);
        Plan.equal("the path", path, base + "/node");
        List<Object> shown = List.of(
                stat.getVersion(), stat.getCversion(), stat.getAversion(), stat.getEphemeralOwner(), stat.getDataLength(), stat.getNumChildren());
        Plan.equal("version, cversion, aversion, owner, length, children", shown, List.of(0, 0, 0, 0L, 5, 0));
        Plan.expect(stat.getCzxid() > 0 && stat.getCzxid() == stat.getMzxid() && stat.getCzxid() == stat.getPzxid(), "one zxid everywhere: " + stat);
        long age = Math.abs(System.currentTimeMillis() - stat.getCtime());
        Plan.expect(stat.getCtime() == stat.getMtime() && age < 60_000, "the time is now: " + stat);
        Stat got = new Stat();
        Plan.equal("the data", new String(zk.getData(path, false, got)), "hello");
        Plan.equal("the stat with it", got, stat);
        Plan.equal("exists", zk.exists(path, false), stat);
        Plan.equal("of a missing node", zk.exists(base + "/missing", false), null);
        Plan.equal("a name beyond ASCII", plain(zk, base + "/grün-日本", ""), base + "/grün-日本");
        zk.create(base + "/null", null, OPEN, CreateMode.PERSISTENT);
        Plan.equal("data that is null", zk.getData(base + "/null", false, null), null);
        Plan.equal("the children", sorted(zk.getChildren(base, false)), List.of("grün-日本", "node", "null"));
        return "";
    }

    private String set() throws Exception {
        String path = plain(zk, below("set") + "/node", "0");
        Stat before = zk.exists(path, false);
        Stat stat = zk.setData(path, Plan.bytes("one"), 0);
        Plan.equal("version, length", List.of(stat.getVersion(), stat.getDataLength()), List.of(1, 3));
        Plan.expect(stat.getMzxid() > before.getMzxid() && stat.getMtime() >= before.getMtime(), stat + " is after " + before);
        Plan.equal("czxid, ctime, pzxid", List.of(stat.getCzxid(), stat.getCtime(), stat.getPzxid()),
                List.of(before.getCzxid(), before.getCtime(), before.getPzxid()));
        Plan.raises(KeeperException.BadVersionException.class, "set at an old version", () -> zk.setData(path, NONE, 0));
        Plan.equal("the data", text(zk, path), "one");
        Plan.equal("version without asking for one", zk.setData(path, NONE, -1).getVersion(), 2);
        Plan.equal("the data", text(zk, path), "");
        return "";
    }

    private String delete() throws Exception {
        String base = below("delete");
        String node = plain(zk, base + "/node", "");
        String child = plain(zk, node + "/child", "");
        Plan.raises(KeeperException.NotEmptyException.class, "delete with a child", () -> zk.delete(node, -1));
        Plan.raises(KeeperException.BadVersionException.class, "delete at a wrong version", () -> zk.delete(child, 7));
        zk.delete(child, 0);
        Plan.equal("the child", zk.exists(child, false), null);
        Plan.raises(KeeperException.NoNodeException.class, "delete it again", () -> zk.delete(child, -1));
        zk.delete(node, -1);
        Plan.equal("the children", zk.getChildren(base, false), List.of());
        return "";
    }

    private String children() throws Exception {
        String base = below("children");
        for (String name : List.of("c", "a", "b")) {
            plain(zk, base + "/" + name, "");
        }
        Stat stat = new Stat();
        Plan.equal("the names", sorted(zk.getChildren(base, false, stat)), List.of("a", "b", "c"));
        Plan.equal("children, cversion", List.of(stat.getNumChildren(), stat.getCversion()), List.of(3, 3));
        Plan.equal("pzxid", stat.getPzxid(), zk.exists(base + "/b", false).getCzxid());
        plain(zk, base + "/a/below", "");
        Plan.equal("the parent", zk.exists(base, false), stat);
        Plan.equal("the names without stat", sorted(zk.getChildren(base, false)), List.of("a", "b", "c"));
        Plan.equal("the count of all below", zk.getAllChildrenNumber(base), 4);
        zk.delete(base + "/b", -1);
        Stat after = zk.exists(base, false);
        Plan.equal("children, cversion, version", List.of(after.getNumChildren(), after.getCversion(), after.getVersion()), List.of(2, 4, 0));
        Plan.expect(after.getPzxid() > stat.getPzxid() && after.getMzxid() == stat.getMzxid(), after + " after " + stat);
        return "";
    }

    private String sequence() throws Exception {
        String base = below("sequence");
        List<String> made = new ArrayList<>();
        made.add(zk.create(base + "/n-", NONE, OPEN, CreateMode.PERSISTENT_SEQUENTIAL));
        made.add(zk.create(base + "/n-", NONE, OPEN, CreateMode.PERSISTENT_SEQUENTIAL));
        plain(zk, base + "/plain", "");
        made.add(zk.create(base + "/m-", NONE, OPEN, CreateMode.PERSISTENT_SEQUENTIAL));
        zk.delete(made.get(2), -1);
        made.add(zk.create(base + "/n-", NONE, OPEN, CreateMode.EPHEMERAL_SEQUENTIAL));
        made.add(zk.create(base + "/", NONE, OPEN, CreateMode.PERSISTENT_SEQUENTIAL));
        Plan.equal("the names", made,
                List.of(base + "/n-0000000000", base + "/n-0000000001", base + "/m-0000000003", base + "/n-0000000004", base + "/0000000005"));
        return "";
    }

    private String ephemeral() throws Exception {
        String base = below("ephemeral");
        ZooKeeper other = connect("");
        Plan.Events events = new Plan.Events();
        String path = other.create(base + "/node", Plan.bytes("x"), OPEN, CreateMode.EPHEMERAL);
        Plan.equal("the owner", zk.exists(path, events).getEphemeralOwner(), other.getSessionId());
        Plan.raises(KeeperException.NoChildrenForEphemeralsException.class, "a child of it", () -> plain(zk, path + "/child", ""));
        Plan.equal("getEphemerals of its session", other.getEphemerals(base), List.of(path));
        Plan.equal("getEphemerals of another", zk.getEphemerals(base), List.of());
        other.close();
        events.await("NodeDeleted " + path);
        Plan.equal("the children", zk.getChildren(base, false), List.of());
        return "";
    }

    /** Waits for the reaping where the server does that often enough. */
    private String reaped(String path) throws Exception {
        if (reapsWithinS == 0) {
            return "not waited for until it is reaped";
        }
        Plan.Events events = new Plan.Events();
        if (zk.exists(path, events) != null) {
            Plan.until(() -> !events.seen.isEmpty(), path + " to be reaped", reapsWithinS);
            Plan.equal("the event", events.seen.peek(), "NodeDeleted " + path);
        }
        return "reaped";
    }

    private String container() throws Exception {
        Stat stat = new Stat();
        String path = zk.create(below("container") + "/box", NONE, OPEN, CreateMode.CONTAINER, stat);
        Plan.equal("the owner", stat.getEphemeralOwner(), 0L);
        plain(zk, path + "/child", "");
        zk.delete(path + "/child", -1);
        return reaped(path);
    }

    private String ttl() throws Exception {
        String base = below("ttl");
        Stat stat = new Stat();
        String path = zk.create(base + "/node", NONE, OPEN, CreateMode.PERSISTENT_WITH_TTL, stat, 500);
        Plan.equal("the owner", zk.exists(path, false).getEphemeralOwner(), 0L);
        String numbered = zk.create(base + "/n-", NONE, OPEN, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, stat, 60_000);
        Plan.equal("a numbered one", numbered, base + "/n-0000000001");
        Plan.raises(IllegalArgumentException.class, "a negative TTL",
                () -> zk.create(base + "/no", NONE, OPEN, CreateMode.PERSISTENT_WITH_TTL, stat, -5));
        String how = reaped(path);
        Plan.expect(zk.exists(numbered, false) != null, "the one with a minute to live is gone");
        return how;
    }

    private String errors() throws Exception {
        String base = below("errors");
        String missing = base + "/missing";
        Class<KeeperException.NoNodeException> noNode = KeeperException.NoNodeException.class;
        Plan.raises(noNode, "get", () -> zk.getData(missing, false, null));
        Plan.raises(noNode, "set", () -> zk.setData(missing, NONE, -1));
        Plan.raises(noNode, "children", () -> zk.getChildren(missing, false));
        Plan.raises(noNode, "acl", () -> zk.getACL(missing, new Stat()));
        Plan.raises(noNode, "create below", () -> plain(zk, missing + "/child", ""));
        Plan.raises(noNode, "count below", () -> zk.getAllChildrenNumber(missing));
        Plan.raises(KeeperException.NodeExistsException.class, "create again", () -> plain(zk, base, ""));
        Plan.raises(KeeperException.InvalidACLException.class, "an ACL of an unknown scheme",
                () -> zk.create(missing, NONE, only("nobody", "x"), CreateMode.PERSISTENT));
        Plan.raises(KeeperException.InvalidACLException.class, "an ACL of the scheme auth without any",
                () -> zk.create(missing, NONE, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        Plan.raises(KeeperException.BadArgumentsException.class, "delete of the root", () -> zk.delete("/zookeeper", -1));
        return "";
    }

    private String watches() throws Exception {
        String base = below("watches");
        ZooKeeper other = connect("");
        String node = plain(other, base + "/node", "0");
        String missing = base + "/missing";
        Plan.Events data = new Plan.Events();
        Plan.Events exists = new Plan.Events();
        Plan.Events child = new Plan.Events();
        Plan.Events gone = new Plan.Events();
        zk.getData(node, data, null);
        Plan.equal("a missing node", zk.exists(missing, exists), null);
        zk.getChildren(base, child);
        other.setData(node, Plan.bytes("1"), -1);
        other.setData(node, Plan.bytes("2"), -1);
        plain(other, missing, "");
        data.await("NodeDataChanged " + node);
        exists.await("NodeCreated " + missing);
        child.await("NodeChildrenChanged " + base);
        zk.getChildren(missing, gone);
        other.delete(missing, -1);
        gone.await("NodeDeleted " + missing);
        // What fires twice would have come before this answer.
        sync(zk, base);
        Plan.equal("all that fired", List.of(data.seen.size(), exists.seen.size(), child.seen.size()), List.of(1, 1, 1));
        other.close();
        return "";
    }

    private String persistent() throws Exception {
        String base = below("persistent");
        ZooKeeper other = connect("");
        String node = plain(other, base + "/node", "0");
        Plan.Events one = new Plan.Events();
        Plan.Events all = new Plan.Events();
        // Of two modes in one session ZooKeeper 3.8 mixes up the events (ZOOKEEPER-4466).
        other.addWatch(node, one, AddWatchMode.PERSISTENT);
        zk.addWatch(base, all, AddWatchMode.PERSISTENT_RECURSIVE);
        other.setData(node, Plan.bytes("1"), -1);
        other.setData(node, Plan.bytes("2"), -1);
        plain(other, node + "/child", "");
        other.setData(node + "/child", Plan.bytes("1"), -1);
        other.delete(node + "/child", -1);
        other.delete(node, -1);
        plain(other, node, "");
        one.await("NodeDataChanged " + node, "NodeDataChanged " + node, "NodeChildrenChanged " + node,
                "NodeChildrenChanged " + node, "NodeDeleted " + node, "NodeCreated " + node);
        all.await("NodeDataChanged " + node, "NodeDataChanged " + node, "NodeCreated " + node + "/child",
                "NodeDataChanged " + node + "/child", "NodeDeleted " + node + "/child", "NodeDeleted " + node, "NodeCreated " + node);
        other.close();
        return "";
    }

    private String unwatch() throws Exception {
        String base = below("unwatch");
        String node = plain(zk, base + "/node", "0");
        Plan.Events data = new Plan.Events();
        Plan.Events child = new Plan.Events();
        Plan.Events all = new Plan.Events();
        Plan.raises(KeeperException.NoWatcherException.class, "to remove one that is not there",
                () -> zk.removeWatches(node, data, Watcher.WatcherType.Data, false));
        zk.getData(node, data, null);
        zk.getChildren(node, child);
        zk.addWatch(base, all, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.removeWatches(node, data, Watcher.WatcherType.Data, false);
        zk.removeAllWatches(base, Watcher.WatcherType.Any, false);
        zk.setData(node, Plan.bytes("1"), -1);
        plain(zk, node + "/child", "");
        child.await("NodeChildrenChanged " + node);
        data.await("DataWatchRemoved " + node);
        all.await("PersistentWatchRemoved " + base);
        return "";
    }

    private String multi() throws Exception {
        String base = below("multi");
        String old = plain(zk, base + "/old", "0");
        List<OpResult> done = zk.multi(List.of(
                Op.check(old, 0),
                Op.setData(old, Plan.bytes("1"), 0),
                Op.create(base + "/new", NONE, OPEN, CreateMode.PERSISTENT),
                Op.create(base + "/seq-", NONE, OPEN, CreateMode.EPHEMERAL_SEQUENTIAL),
                Op.create(base + "/gone", NONE, OPEN, CreateMode.PERSISTENT),
                Op.delete(base + "/gone", -1)));
        Plan.equal("the results", done.size(), 6);
        Plan.equal("the version after set", ((OpResult.SetDataResult) done.get(1)).getStat().getVersion(), 1);
        Plan.equal("the numbered one", ((OpResult.CreateResult) done.get(3)).getPath(), base + "/seq-0000000002");
        Stat created = zk.exists(base + "/new", false);
        Plan.expect(created.getCzxid() == zk.exists(old, false).getMzxid() && created.getCzxid() == zk.exists(base, false).getPzxid(), "one zxid");
        Plan.equal("the children", sorted(zk.getChildren(base, false)), List.of("new", "old", "seq-0000000002"));
        Plan.equal("an empty one", zk.multi(List.of()), List.of());
        return "";
    }

    private String undone() throws Exception {
        String base = below("undone");
        String old = plain(zk, base + "/old", "0");
        try {
            zk.multi(List.of(
                    Op.create(base + "/new", NONE, OPEN, CreateMode.PERSISTENT),
                    Op.setData(old, Plan.bytes("1"), 5),
                    Op.delete(old, -1)));
            throw new Plan.Failed("the multi succeeded");
        } catch (KeeperException.BadVersionException e) {
            List<Integer> codes = e.getResults().stream().map(result -> ((OpResult.ErrorResult) result).getErr()).toList();
            Plan.equal("the results", codes, List.of(0, -103, -2));
        }
        Plan.equal("the children", zk.getChildren(base, false), List.of("old"));
        Plan.equal("the data", text(zk, old), "0");
        return "";
    }

    private String multiread() throws Exception {
        String base = below("multiread");
        String node = plain(zk, base + "/node", "x");
        List<OpResult> done = zk.multi(List.of(Op.getData(node), Op.getChildren(base), Op.getData(base + "/missing"), Op.getChildren(node)));
        Plan.equal("data", new String(((OpResult.GetDataResult) done.get(0)).getData()), "x");
        Plan.equal("its stat", ((OpResult.GetDataResult) done.get(0)).getStat(), zk.exists(node, false));
        Plan.equal("children", ((OpResult.GetChildrenResult) done.get(1)).getChildren(), List.of("node"));
        Plan.equal("of a missing node", ((OpResult.ErrorResult) done.get(2)).getErr(), -101);
        Plan.equal("children after it", ((OpResult.GetChildrenResult) done.get(3)).getChildren(), List.of());
        return "";
    }

    private String acl() throws Exception {
        String base = below("acl");
        List<ACL> readOnly = Ids.READ_ACL_UNSAFE;
        String path = zk.create(base + "/node", Plan.bytes("x"), readOnly, CreateMode.PERSISTENT);
        Plan.equal("the ACL", zk.getACL(path, new Stat()), readOnly);
        Plan.equal("the data", text(zk, path), "x");
        Class<KeeperException.NoAuthException> noAuth = KeeperException.NoAuthException.class;
        Plan.raises(noAuth, "set", () -> zk.setData(path, NONE, -1));
        Plan.raises(noAuth, "create below", () -> plain(zk, path + "/child", ""));
        Plan.raises(noAuth, "setACL", () -> zk.setACL(path, OPEN, -1));
        String open = plain(zk, base + "/open", "");
        Plan.raises(KeeperException.BadVersionException.class, "setACL at a wrong version", () -> zk.setACL(open, readOnly, 3));
        Plan.equal("aversion", zk.setACL(open, readOnly, 0).getAversion(), 1);
        Plan.raises(noAuth, "set", () -> zk.setData(open, NONE, -1));
        String local = zk.create(base + "/local", NONE, only("ip", "127.0.0.0/8"), CreateMode.PERSISTENT);
        zk.setData(local, Plan.bytes("by address"), -1);
        String elsewhere = zk.create(base + "/elsewhere", NONE, only("ip", "192.0.2.7"), CreateMode.PERSISTENT);
        Plan.raises(noAuth, "get from another address", () -> zk.getData(elsewhere, false, null));
        // Deleting is the parent's permission.
        zk.delete(path, -1);
        return "";
    }

    private String auth() throws Exception {
        String base = below("auth");
        ZooKeeper mine = connect("");
        ZooKeeper other = connect("");
        mine.addAuthInfo("digest", Plan.bytes("alice:secret"));
        String path = mine.create(base + "/node", Plan.bytes("secret"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        Id alice = new Id("digest", DigestAuthenticationProvider.generateDigest("alice:secret"));
        Plan.equal("the ACL", mine.getACL(path, new Stat()), List.of(new ACL(Perms.ALL, alice)));
        Plan.equal("the data", text(mine, path), "secret");
        Plan.raises(KeeperException.NoAuthException.class, "get without it", () -> zk.getData(path, false, null));
        other.addAuthInfo("digest", Plan.bytes("alice:wrong"));
        Plan.raises(KeeperException.NoAuthException.class, "get with another password", () -> other.getData(path, false, null));
        other.addAuthInfo("digest", Plan.bytes("alice:secret"));
        Plan.equal("the data", text(other, path), "secret");
        ZooKeeper bad = connect("");
        bad.addAuthInfo("nosuch", Plan.bytes("x"));
        Plan.raises(KeeperException.AuthFailedException.class, "an unknown scheme", () -> Plan.until(() -> {
            try {
                return bad.exists("/", false) == null;
            } catch (KeeperException.AuthFailedException e) {
                return sneak(e);
            } catch (KeeperException | InterruptedException e) {
                return false;
            }
        }, "the session to fail"));
        for (ZooKeeper one : List.of(mine, other, bad)) {
            one.close();
        }
        return "";
    }

    /** Throws a checked exception out of a lambda that declares none. */
    @SuppressWarnings("unchecked")
    private static <E extends Throwable> boolean sneak(Throwable e) throws E {
        throw (E) e;
    }

    private String whoami() throws Exception {
        ZooKeeper other = connect("");
        other.addAuthInfo("digest", Plan.bytes("bob:secret"));
        Set<String> ids = other.whoAmI().stream()
                .map(info -> info.getAuthScheme() + " " + info.getUser())
                .collect(Collectors.toCollection(TreeSet::new));
        Plan.equal("the identities", ids, Set.of("digest bob", "ip 127.0.0.1"));
        other.close();
        return "";
    }

    private String large() throws Exception {
        byte[] data = Plan.large();
        String path = zk.create(below("large") + "/node", data, OPEN, CreateMode.PERSISTENT);
        Plan.expect(java.util.Arrays.equals(zk.getData(path, false, null), data), "the data that came back is another");
        Plan.equal("the length", zk.exists(path, false).getDataLength(), data.length);
        ZooKeeper other = connect("");
        long session = other.getSessionId();
        Plan.raises(KeeperException.class, "more than jute.maxbuffer", () -> other.setData(path, new byte[Plan.TOO_LARGE_BYTES], -1));
        Plan.equal("the version", again(() -> other.exists(path, false)).getVersion(), 0);
        Plan.equal("the session", other.getSessionId(), session);
        other.close();
        return "";
    }

    private String outstanding() throws Exception {
        String base = below("async");
        ConcurrentLinkedQueue<Integer> answered = new ConcurrentLinkedQueue<>();
        AtomicInteger failed = new AtomicInteger();
        CountDownLatch created = new CountDownLatch(Plan.OUTSTANDING);
        for (int n = 0; n < Plan.OUTSTANDING; n++) {
            zk.create("%s/%04d".formatted(base, n), Plan.bytes("%04d".formatted(n).repeat(25)), OPEN, CreateMode.PERSISTENT, (code, path, number, name) -> {
                failed.addAndGet(code == 0 && path.equals(name) ? 0 : 1);
                answered.add((Integer) number);
                created.countDown();
            }, n);
        }
        Plan.expect(created.await(Plan.WAIT_S, TimeUnit.SECONDS), created.getCount() + " creates are not answered");
        CountDownLatch read = new CountDownLatch(Plan.OUTSTANDING);
        List<Long> zxids = Collections.synchronizedList(new ArrayList<>());
        for (int n = 0; n < Plan.OUTSTANDING; n++) {
            zk.getData("%s/%04d".formatted(base, n), false, (code, path, number, data, stat) -> {
                boolean good = code == 0 && new String(data).equals("%04d".formatted((Integer) number).repeat(25));
                failed.addAndGet(good ? 0 : 1);
                answered.add((Integer) number);
                zxids.add(stat == null ? -1 : stat.getCzxid());
                read.countDown();
            }, n);
        }
        Plan.expect(read.await(Plan.WAIT_S, TimeUnit.SECONDS), read.getCount() + " gets are not answered");
        Plan.equal("the failed", failed.get(), 0);
        int next = 0;
        for (int n : answered) {
            Plan.equal("the next answer", n, next++ % Plan.OUTSTANDING);
        }
        Plan.equal("zxids in the order of asking", zxids, zxids.stream().sorted().distinct().toList());
        return next + " answers";
    }

    private static String sync(ZooKeeper zk, String path) throws Exception {
        CompletableFuture<String> done = new CompletableFuture<>();
        zk.sync(path, (code, asked, context) -> done.complete(code + " " + asked), null);
        Plan.equal("code and path", done.get(Plan.WAIT_S, TimeUnit.SECONDS), "0 " + path);
        return "";
    }

    private String chroot() throws Exception {
        String base = below("chroot");
        ZooKeeper other = connect(base);
        Plan.Events events = new Plan.Events();
        Plan.equal("the path", plain(other, "/a", ""), "/a");
        Plan.equal("a path below", plain(other, "/a/b", "x"), "/a/b");
        Plan.equal("seen from outside", text(zk, base + "/a/b"), "x");
        other.getData("/a/b", events, null);
        zk.setData(base + "/a/b", Plan.bytes("y"), -1);
        events.await("NodeDataChanged /a/b");
        Plan.equal("the children", other.getChildren("/", false), List.of("a"));
        other.close();
        return "";
    }

    private String move(Plan.Victim victim) throws Exception {
        String path = root + "/move/kept";
        CountDownLatch expired = new CountDownLatch(1);
        ZooKeeper stranger = new ZooKeeper(host, Plan.SESSION_MS, event -> {
            if (event.getState() == Watcher.Event.KeeperState.Expired) {
                expired.countDown();
            }
        }, victim.session, new byte[16]);
        Plan.expect(expired.await(Plan.WAIT_S, TimeUnit.SECONDS), "a wrong password is not told that the session is expired");
        stranger.close();
        Plan.Events gone = new Plan.Events();
        Plan.equal("the owner", zk.exists(path, gone).getEphemeralOwner(), victim.session);
        CountDownLatch up = new CountDownLatch(1);
        ZooKeeper moved = connected(up, new ZooKeeper(host, Plan.SESSION_MS, opens(up), victim.session, victim.password));
        Plan.equal("the session", moved.getSessionId(), victim.session);
        Plan.equal("its ephemeral", moved.getEphemerals(root + "/move"), List.of(path));
        moved.close();
        gone.await("NodeDeleted " + path);
        return "";
    }

    private String expiry(long killedAt) throws Exception {
        String path = root + "/expiry/doomed";
        Plan.Events events = new Plan.Events();
        if (zk.exists(path, events) != null) {
            events.await("NodeDeleted " + path);
        }
        double took = (System.nanoTime() - killedAt) / 1e9;
        Plan.expect(took > 1, "it was gone " + took + " s after the kill");
        return "at most %.1f s after the kill".formatted(took);
    }

    private String words() throws Exception {
        String[] at = host.split(":");
        String version = null;
        for (String word : List.of("srvr", "ruok", "stat", "mntr", "conf", "isro")) {
            String answer = FourLetterWordMain.send4LetterWord(at[0], Integer.parseInt(at[1]), word).strip();
            // Which words are allowed is the server's setting; srvr always is.
            boolean allowed = !answer.contains("not executed because it is not in the whitelist");
            Plan.expect(!answer.isEmpty(), word + " has no answer");
            switch (word) {
                case "srvr" -> {
                    Plan.expect(answer.startsWith("Zookeeper version: "), "srvr: " + answer);
                    version = answer.lines().findFirst().orElseThrow();
                }
                case "ruok" -> Plan.expect(!allowed || answer.equals("imok"), "ruok: " + answer);
                case "mntr" -> Plan.expect(!allowed || answer.contains("zk_znode_count\t"), "mntr: " + answer);
                default -> {}
            }
        }
        return version;
    }

    /** Again while the connection is being made anew. */
    private static <T> T again(Callable<T> call) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(Plan.WAIT_S);
        while (true) {
            try {
                return call.call();
            } catch (KeeperException.ConnectionLossException e) {
                if (System.nanoTime() > end) {
                    throw e;
                }
                Thread.sleep(20);
            }
        }
    }

    private String survive(boolean kill) throws Exception {
        String base = below(kill ? "kill" : "restart");
        long session = zk.getSessionId();
        String mine = zk.create(base + "/mine", NONE, OPEN, CreateMode.EPHEMERAL);
        String node = plain(zk, base + "/data", "before");
        String missing = base + "/missing";
        CountDownLatch created = new CountDownLatch(Plan.SURVIVORS);
        for (int n = 0; n < Plan.SURVIVORS; n++) {
            zk.create(node + "/" + n, Plan.bytes("" + n), OPEN, CreateMode.PERSISTENT, (code, path, context, name) -> {
                if (code == 0) {
                    created.countDown();
                }
            }, null);
        }
        Plan.expect(created.await(Plan.WAIT_S, TimeUnit.SECONDS), created.getCount() + " creates are not acknowledged");
        Plan.Events data = new Plan.Events();
        Plan.Events exists = new Plan.Events();
        Plan.Events child = new Plan.Events();
        Plan.Events one = new Plan.Events();
        Plan.Events all = new Plan.Events();
        zk.getData(node, data, null);
        zk.exists(missing, exists);
        zk.getChildren(base, child);
        // Of two modes in one session ZooKeeper 3.8 mixes up the events (ZOOKEEPER-4466).
        ZooKeeper other = connect("");
        ZooKeeper third = connect("");
        other.addWatch(node, one, AddWatchMode.PERSISTENT);
        third.addWatch(base, all, AddWatchMode.PERSISTENT_RECURSIVE);
        Plan.awaitRestart(kill);
        Stat stat = again(() -> zk.exists(mine, false));
        Plan.expect(stat != null && stat.getEphemeralOwner() == session, "the ephemeral node is " + stat);
        Plan.equal("the session", zk.getSessionId(), session);
        for (int n = 0; n < Plan.SURVIVORS; n++) {
            Plan.equal("node " + n, text(zk, node + "/" + n), "" + n);
        }
        List<Plan.Events> armed = List.of(data, exists, child, one, all);
        Plan.equal("what fired by itself", armed.stream().mapToInt(events -> events.seen.size()).sum(), 0);
        for (ZooKeeper watching : List.of(other, third)) {
            Plan.expect(again(() -> watching.exists(node, false)) != null, "another session does not see " + node);
        }
        other.setData(node, Plan.bytes("after"), -1);
        plain(other, missing, "");
        other.setData(node, Plan.bytes("again"), -1);
        data.await("NodeDataChanged " + node);
        exists.await("NodeCreated " + missing);
        child.await("NodeChildrenChanged " + base);
        one.await("NodeDataChanged " + node, "NodeDataChanged " + node);
        all.await("NodeDataChanged " + node, "NodeCreated " + missing, "NodeDataChanged " + node);
        other.close();
        third.close();
        return "session 0x" + Long.toHexString(session);
    }

    private void hold() throws Exception {
        ZooKeeper doomed = connect(host, Plan.SHORT_SESSION_MS);
        below("expiry");
        below("move");
        doomed.create(root + "/expiry/doomed", NONE, OPEN, CreateMode.EPHEMERAL);
        zk.create(root + "/move/kept", Plan.bytes("kept"), OPEN, CreateMode.EPHEMERAL);
        Plan.Victim.held(zk.getSessionId(), zk.getSessionPasswd());
    }

    private void program(String[] arguments) throws Exception {
        Plan.Victim victim = new Plan.Victim("WithZooKeeper", arguments);
        victim.kill();
        long killedAt = System.nanoTime();
        Plan.check("create", this::create);
        Plan.check("set", this::set);
        Plan.check("delete", this::delete);
        Plan.check("children", this::children);
        Plan.check("sequence", this::sequence);
        Plan.check("ephemeral", this::ephemeral);
        Plan.check("container", this::container);
        Plan.check("ttl", this::ttl);
        Plan.check("errors", this::errors);
        Plan.check("watches", this::watches);
        Plan.check("persistent", this::persistent);
        Plan.check("unwatch", this::unwatch);
        Plan.check("multi", this::multi);
        Plan.check("undone", this::undone);
        Plan.check("multiread", this::multiread);
        Plan.check("acl", this::acl);
        Plan.check("auth", this::auth);
        Plan.check("whoami", this::whoami);
        Plan.check("large", this::large);
        Plan.check("async", this::outstanding);
        Plan.check("sync", () -> sync(zk, below("sync")));
        Plan.check("chroot", this::chroot);
        Plan.check("words", this::words);
        Plan.skip("quota", "its calls are zkCli's");
        Plan.skip("lock election counter party cache", "recipes are Curator's");
        Plan.check("move", () -> move(victim));
        Plan.check("expiry", () -> expiry(killedAt));
        Plan.check("restart", () -> survive(false));
        Plan.check("kill", () -> survive(true));
        zk.close();
    }

    public static void main(String[] arguments) throws Exception {
        WithZooKeeper with = new WithZooKeeper(arguments);
        if (arguments.length > 3) {
            with.hold();
        }
        with.program(arguments);
        // A check that hangs must not keep the program.
        System.exit(0);
    }
}
