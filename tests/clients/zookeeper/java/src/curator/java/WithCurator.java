import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.data.Stat;

/** Apache Curator through the plan: its recipes above all, and what its own calls
 *  add to the client below them. */
public final class WithCurator {
    private final String host;
    private final String root;
    private final int reapsWithinS;
    private final CuratorFramework zk;

    private WithCurator(String[] arguments) throws Exception {
        host = arguments[0];
        root = arguments[1];
        reapsWithinS = Integer.parseInt(arguments[2]);
        zk = connect("");
        zk.create().forPath(root, new byte[0]);
    }

    private CuratorFramework connect(String namespace) throws Exception {
        return connect(CuratorFrameworkFactory.builder().namespace(namespace));
    }

    private CuratorFramework connect(CuratorFrameworkFactory.Builder builder) throws Exception {
        CuratorFramework client = builder.connectString(host)
                .sessionTimeoutMs(Plan.SESSION_MS)
                .connectionTimeoutMs(Plan.WAIT_S * 1000)
                .retryPolicy(new RetryNTimes(500, 20))
                .build();
        client.start();
        Plan.expect(client.blockUntilConnected(Plan.WAIT_S, TimeUnit.SECONDS), "no session within " + Plan.WAIT_S + " s");
        return client;
    }

    private static long session(CuratorFramework client) throws Exception {
        return client.getZookeeperClient().getZooKeeper().getSessionId();
    }

    private String below(String name) throws Exception {
        return zk.create().forPath(root + "/" + name, new byte[0]);
    }

    private static String text(CuratorFramework client, String path) throws Exception {
        return new String(client.getData().forPath(path));
    }

    private String create() throws Exception {
        String base = below("create");
        Stat stat = new Stat();
        String path = zk.create().creatingParentsIfNeeded().storingStatIn(stat).forPath(base + "/a/b/node", Plan.bytes("hello"));
        Plan.equal("the path", path, base + "/a/b/node");
        Plan.equal("the data", text(zk, path), "hello");
        Plan.equal("exists", zk.checkExists().forPath(path), stat);
        zk.create().orSetData().forPath(path, Plan.bytes("again"));
        Plan.equal("the data after create or set", text(zk, path), "again");
        String guarded = zk.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(base + "/n-");
        Plan.expect(guarded.matches(".*/_c_[0-9a-f-]{36}-n-0000000001"), "the protected name is " + guarded);
        zk.create().compressed().forPath(base + "/packed", Plan.bytes("x".repeat(5_000)));
        Plan.equal("unpacked", new String(zk.getData().decompressed().forPath(base + "/packed")).length(), 5_000);
        return "";
    }

    private String set() throws Exception {
        String path = zk.create().forPath(below("set") + "/node", Plan.bytes("0"));
        Plan.equal("the version", zk.setData().withVersion(0).forPath(path, Plan.bytes("1")).getVersion(), 1);
        Plan.raises(KeeperException.BadVersionException.class, "set at an old version", () -> zk.setData().withVersion(0).forPath(path, Plan.bytes("no")));
        Plan.equal("the data", text(zk, path), "1");
        return "";
    }

    private String delete() throws Exception {
        String base = below("delete");
        zk.create().creatingParentsIfNeeded().forPath(base + "/node/a/b");
        Plan.raises(KeeperException.NotEmptyException.class, "delete with a child", () -> zk.delete().forPath(base + "/node"));
        zk.delete().guaranteed().deletingChildrenIfNeeded().forPath(base + "/node");
        Plan.raises(KeeperException.NoNodeException.class, "delete it again", () -> zk.delete().forPath(base + "/node"));
        zk.delete().quietly().forPath(base + "/node");
        Plan.equal("the children", zk.getChildren().forPath(base), List.of());
        return "";
    }

    private String ephemeral() throws Exception {
        String path = below("ephemeral") + "/node";
        CuratorFramework other = connect("");
        Plan.Events events = new Plan.Events();
        other.create().withMode(CreateMode.EPHEMERAL).forPath(path);
        Plan.equal("the owner", zk.checkExists().usingWatcher(events).forPath(path).getEphemeralOwner(), session(other));
        other.close();
        events.await("NodeDeleted " + path);
        return "";
    }

    private void awaitReaped(String path) throws Exception {
        Plan.until(() -> {
            try {
                return zk.checkExists().forPath(path) == null;
            } catch (Exception e) {
                throw new Plan.Failed(e.toString());
            }
        }, path + " to be reaped", reapsWithinS);
    }

    private String container() throws Exception {
        String path = below("container") + "/box";
        zk.create().creatingParentContainersIfNeeded().forPath(path + "/child");
        Plan.equal("the owner", zk.checkExists().forPath(path).getEphemeralOwner(), 0L);
        zk.delete().forPath(path + "/child");
        if (reapsWithinS == 0) {
            return "not waited for until it is reaped";
        }
        awaitReaped(path);
        return "reaped";
    }

    /** The recipe touches its node again and again, so that it outlives its TTL. */
    private String ttl() throws Exception {
        String path = below("ttl") + "/node";
        PersistentTtlNode node = new PersistentTtlNode(zk, path, 1_500, Plan.bytes("x"));
        node.start();
        Plan.expect(node.waitForInitialCreate(Plan.WAIT_S, TimeUnit.SECONDS), "the node is not created");
        String touched = path + "/touch";
        Plan.until(() -> {
            try {
                return zk.checkExists().forPath(touched) != null;
            } catch (Exception e) {
                throw new Plan.Failed(e.toString());
            }
        }, "the recipe's own node");
        int version = zk.checkExists().forPath(touched).getVersion();
        Plan.until(() -> {
            try {
                Stat stat = zk.checkExists().forPath(touched);
                return stat != null && stat.getVersion() > version;
            } catch (Exception e) {
                throw new Plan.Failed(e.toString());
            }
        }, "its being touched");
        Plan.expect(zk.checkExists().forPath(path) != null, "it is gone although it is touched");
        node.close();
        if (reapsWithinS == 0) {
            return "not waited for until it is reaped";
        }
        awaitReaped(path);
        return "reaped when no longer touched";
    }

    private String watches() throws Exception {
        String base = below("watches");
        Plan.Events events = new Plan.Events();
        Plan.equal("a missing node", zk.checkExists().usingWatcher(events).forPath(base + "/node"), null);
        zk.create().forPath(base + "/node");
        events.await("NodeCreated " + base + "/node");
        return "";
    }

    private String persistent() throws Exception {
        String base = below("persistent");
        Plan.Events events = new Plan.Events();
        zk.watchers().add().withMode(AddWatchMode.PERSISTENT_RECURSIVE).usingWatcher(events).forPath(base);
        zk.create().forPath(base + "/a");
        zk.setData().forPath(base + "/a", Plan.bytes("1"));
        zk.delete().forPath(base + "/a");
        events.await("NodeCreated " + base + "/a", "NodeDataChanged " + base + "/a", "NodeDeleted " + base + "/a");
        return "";
    }

    private String unwatch() throws Exception {
        String base = below("unwatch");
        Plan.Events events = new Plan.Events();
        zk.getData().usingWatcher(events).forPath(base);
        zk.watchers().remove(events).forPath(base);
        zk.setData().forPath(base, Plan.bytes("1"));
        zk.sync().forPath(base);
        events.await("DataWatchRemoved " + base);
        return "";
    }

    private String multi() throws Exception {
        String base = below("multi");
        List<CuratorTransactionResult> done = zk.transaction().forOperations(
                zk.transactionOp().create().forPath(base + "/a", Plan.bytes("0")),
                zk.transactionOp().setData().withVersion(0).forPath(base + "/a", Plan.bytes("1")),
                zk.transactionOp().check().withVersion(1).forPath(base + "/a"),
                zk.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath(base + "/n-"));
        Plan.equal("the path", done.get(3).getResultPath(), base + "/n-0000000001");
        Plan.equal("the data", text(zk, base + "/a"), "1");
        return "";
    }

    private String undone() throws Exception {
        String base = below("undone");
        Plan.raises(KeeperException.NoNodeException.class, "the transaction", () -> zk.transaction().forOperations(
                zk.transactionOp().create().forPath(base + "/a"),
                zk.transactionOp().delete().forPath(base + "/missing")));
        Plan.equal("the children", zk.getChildren().forPath(base), List.of());
        return "";
    }

    private String auth() throws Exception {
        String path = below("auth") + "/node";
        CuratorFramework mine = connect(CuratorFrameworkFactory.builder().authorization("digest", Plan.bytes("alice:secret")));
        mine.create().withACL(Ids.CREATOR_ALL_ACL).forPath(path, Plan.bytes("secret"));
        Plan.equal("the data", text(mine, path), "secret");
        Plan.raises(KeeperException.NoAuthException.class, "get without it", () -> zk.getData().forPath(path));
        mine.close();
        return "";
    }

    private String chroot() throws Exception {
        String base = below("chroot");
        CuratorFramework other = connect(base.substring(1));
        other.create().creatingParentsIfNeeded().forPath("/a/b", Plan.bytes("x"));
        Plan.equal("seen from outside", text(zk, base + "/a/b"), "x");
        Plan.equal("the children", other.getChildren().forPath("/"), List.of("a"));
        other.close();
        return "as a namespace";
    }

    private static void join(List<Thread> threads) throws InterruptedException {
        for (Thread thread : threads) {
            thread.join(Plan.WAIT_S * 1000L);
            Plan.expect(!thread.isAlive(), "a thread does not end");
        }
    }

    private String lock() throws Exception {
        String path = below("lock");
        CuratorFramework other = connect("");
        InterProcessMutex first = new InterProcessMutex(zk, path);
        first.acquire();
        Plan.expect(!new InterProcessMutex(other, path).acquire(100, TimeUnit.MILLISECONDS), "two hold the lock");
        AtomicInteger holders = new AtomicInteger();
        ConcurrentLinkedQueue<Integer> order = new ConcurrentLinkedQueue<>();
        List<Thread> threads = new ArrayList<>();
        for (int n = 0; n < 4; n++) {
            int number = n;
            threads.add(new Thread(() -> {
                InterProcessMutex mutex = new InterProcessMutex(number % 2 == 0 ? other : zk, path);
                try {
                    mutex.acquire();
                    order.add(holders.incrementAndGet() == 1 ? number : -1);
                    Thread.sleep(20);
                    holders.decrementAndGet();
                    mutex.release();
                } catch (Exception e) {
                    order.add(-2);
                }
            }));
            threads.get(n).start();
            Plan.until(() -> {
                try {
                    return first.getParticipantNodes().size() == number + 2;
                } catch (Exception e) {
                    return false;
                }
            }, "the next to stand in line");
        }
        first.release();
        join(threads);
        Plan.equal("who held it, alone", List.copyOf(order), List.of(0, 1, 2, 3));
        other.close();
        return "";
    }

    private String election() throws Exception {
        String path = below("election");
        CuratorFramework other = connect("");
        LeaderLatch first = new LeaderLatch(other, path, "first");
        LeaderLatch second = new LeaderLatch(zk, path, "second");
        first.start();
        Plan.expect(first.await(Plan.WAIT_S, TimeUnit.SECONDS), "the first does not lead");
        second.start();
        Plan.until(() -> {
            try {
                return second.getParticipants().size() == 2;
            } catch (Exception e) {
                return false;
            }
        }, "the second to stand in line");
        Plan.equal("the leader", second.getLeader().getId(), "first");
        Plan.expect(!second.hasLeadership(), "two lead");
        other.close();
        Plan.expect(second.await(Plan.WAIT_S, TimeUnit.SECONDS), "the second does not lead when the first is gone");
        second.close();
        return "leader latch";
    }

    private String counter() throws Exception {
        String path = below("counter") + "/n";
        List<Thread> threads = new ArrayList<>();
        AtomicInteger done = new AtomicInteger();
        for (int n = 0; n < 3; n++) {
            threads.add(new Thread(() -> {
                try {
                    DistributedAtomicLong counter = new DistributedAtomicLong(zk, path, new RetryNTimes(1_000, 1));
                    for (int i = 0; i < 30; i++) {
                        done.addAndGet(counter.increment().succeeded() ? 1 : 0);
                    }
                } catch (Exception e) {
                    done.addAndGet(-1_000);
                }
            }));
        }
        threads.forEach(Thread::start);
        join(threads);
        Plan.equal("the increments", done.get(), 90);
        Plan.equal("the sum", new DistributedAtomicLong(zk, path, new RetryNTimes(10, 1)).get().postValue(), 90L);
        return "";
    }

    private String party() throws Exception {
        String path = below("party");
        CuratorFramework other = connect("");
        GroupMember mine = new GroupMember(zk, path, "me");
        GroupMember theirs = new GroupMember(other, path, "them");
        mine.start();
        theirs.start();
        Plan.until(() -> mine.getCurrentMembers().size() == 2, "both members");
        other.close();
        Plan.until(() -> mine.getCurrentMembers().keySet().equals(Collections.singleton("me")), "the other to be gone");
        mine.close();
        return "group member";
    }

    private static String seen(CuratorCache cache, String path) {
        return cache.get(path).map(ChildData::getData).map(String::new).orElse(null);
    }

    private String cache() throws Exception {
        String path = below("cache");
        CuratorFramework other = connect("");
        Collection<String> told = new ConcurrentLinkedQueue<>();
        CuratorCache cache = CuratorCache.build(zk, path);
        cache.listenable().addListener((type, before, after) -> told.add(type + " " + (after == null ? before : after).getPath()));
        cache.start();
        other.create().creatingParentsIfNeeded().forPath(path + "/a/b", Plan.bytes("1"));
        Plan.until(() -> "1".equals(seen(cache, path + "/a/b")), "the new node in the copy");
        other.setData().forPath(path + "/a/b", Plan.bytes("2"));
        Plan.until(() -> "2".equals(seen(cache, path + "/a/b")), "the new data in the copy");
        other.delete().deletingChildrenIfNeeded().forPath(path + "/a");
        Plan.until(() -> cache.size() == 1, "the deletion in the copy");
        // The copy changes first, then its listeners are told.
        Plan.until(() -> told.contains("NODE_DELETED " + path + "/a"), "the listener to be told of the deletion");
        cache.close();
        other.close();
        return "CuratorCache";
    }

    /** A latch that leads and a cache that copies go on as they were. */
    private String survive(boolean kill) throws Exception {
        String base = below(kill ? "kill" : "restart");
        long session = session(zk);
        ConcurrentLinkedQueue<ConnectionState> states = new ConcurrentLinkedQueue<>();
        zk.getConnectionStateListenable().addListener((client, state) -> states.add(state));
        zk.create().withMode(CreateMode.EPHEMERAL).forPath(base + "/mine");
        zk.create().forPath(base + "/data", Plan.bytes("before"));
        Plan.Events data = new Plan.Events();
        zk.getData().usingWatcher(data).forPath(base + "/data");
        CuratorCache cache = CuratorCache.build(zk, base);
        cache.start();
        LeaderLatch latch = new LeaderLatch(zk, base + "/latch");
        latch.start();
        Plan.expect(latch.await(Plan.WAIT_S, TimeUnit.SECONDS), "the latch does not lead");
        Plan.until(() -> "before".equals(seen(cache, base + "/data")), "the copy");
        Plan.awaitRestart(kill);
        Plan.equal("the owner of the ephemeral", zk.checkExists().forPath(base + "/mine").getEphemeralOwner(), session);
        Plan.equal("the session", session(zk), session);
        Plan.expect(!states.contains(ConnectionState.LOST), "the states were " + states);
        CuratorFramework other = connect("");
        other.setData().forPath(base + "/data", Plan.bytes("after"));
        data.await("NodeDataChanged " + base + "/data");
        Plan.until(() -> "after".equals(seen(cache, base + "/data")), "the change in the copy; it has " + seen(cache, base + "/data"));
        other.create().forPath(base + "/made");
        Plan.until(() -> cache.get(base + "/made").isPresent(), "the new node in the copy");
        Plan.until(latch::hasLeadership, "the latch to lead again");
        latch.close();
        cache.close();
        other.close();
        return "session 0x" + Long.toHexString(session);
    }

    private void program() throws Exception {
        Plan.check("create", this::create);
        Plan.check("set", this::set);
        Plan.check("delete", this::delete);
        Plan.check("ephemeral", this::ephemeral);
        Plan.check("container", this::container);
        Plan.check("ttl", this::ttl);
        Plan.check("watches", this::watches);
        Plan.check("persistent", this::persistent);
        Plan.check("unwatch", this::unwatch);
        Plan.check("multi", this::multi);
        Plan.check("undone", this::undone);
        Plan.check("auth", this::auth);
        Plan.check("chroot", this::chroot);
        Plan.check("lock", this::lock);
        Plan.check("election", this::election);
        Plan.check("counter", this::counter);
        Plan.check("party", this::party);
        Plan.check("cache", this::cache);
        Plan.skip("children sequence expiry errors multiread acl whoami quota large async sync move words", "as in the Java client, which Curator uses");
        Plan.check("restart", () -> survive(false));
        Plan.check("kill", () -> survive(true));
        zk.close();
    }

    public static void main(String[] arguments) throws Exception {
        new WithCurator(arguments).program();
        // A check that hangs must not keep the program.
        System.exit(0);
    }
}
