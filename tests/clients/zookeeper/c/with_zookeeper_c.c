/* ZooKeeper's C client (libzookeeper_mt) through the plan; ../python/plan.py
 * describes it.
 *
 * A check is a function that returns when all is well. `fail` leaves it from any
 * depth, back to `check`, which reports and goes on with the next one. Watches and
 * completions come on the library's own threads: they only write down what came,
 * under one lock, and the check waits for it.
 */

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

enum {
    WAIT_S = 20,
    CHECK_S = 40,
    SESSION_MS = 30000,
    SHORT_SESSION_MS = 4000,
    LARGE_BYTES = 1000000,
    TOO_LARGE_BYTES = 1100000,
    OUTSTANDING = 2000,
    SURVIVORS = 300,
    PATH_BYTES = 256,
    EVENTS_MAX = 16,
};

static const char *host, *root;
static int reaps_within_s;
static zhandle_t *zk;

static jmp_buf failed;
static char why[1024], detail[256], running_check[64];

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    longjmp(failed, 1);
}

#define EXPECT(holds, ...) \
    do { \
        if (!(holds)) \
            fail(__VA_ARGS__); \
    } while (0)

static void is(const char *what, int64_t got, int64_t want)
{
    EXPECT(got == want, "%s is %" PRId64 ", not %" PRId64, what, got, want);
}

static void returns(const char *what, int got, int want)
{
    EXPECT(got == want, "%s is %s, not %s", what, zerror(got), zerror(want));
}

static void ok(const char *what, int got)
{
    returns(what, got, ZOK);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
}

/* In turn, so that several can be named in one call. */
static const char *at(const char *base, const char *name)
{
    static char paths[8][PATH_BYTES];
    static int turn;
    char *path = paths[turn++ % 8];
    snprintf(path, PATH_BYTES, "%s/%s", base, name);
    return path;
}

/* --- what comes on the library's threads ---------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct events {
    int count;
    int types[EVENTS_MAX];
    char paths[EVENTS_MAX][PATH_BYTES];
};

static void on_event(zhandle_t *zh, int type, int state, const char *path, void *context)
{
    (void)zh, (void)state;
    struct events *events = context;
    if (type == ZOO_SESSION_EVENT || !events)
        return; /* a connection that comes and goes is told to every watch */
    pthread_mutex_lock(&lock);
    if (events->count < EVENTS_MAX) {
        events->types[events->count] = type;
        snprintf(events->paths[events->count], PATH_BYTES, "%s", path);
    }
    events->count++;
    pthread_mutex_unlock(&lock);
}

/* Never freed: a watch that a failed check left behind may still fire. */
static struct events *new_events(void)
{
    return calloc(1, sizeof(struct events));
}

static int counted(const int *count)
{
    pthread_mutex_lock(&lock);
    int n = *count;
    pthread_mutex_unlock(&lock);
    return n;
}

static void await_count(const int *count, int wanted, const char *what)
{
    for (double end = now_s() + WAIT_S; counted(count) < wanted; pause_briefly())
        EXPECT(now_s() < end, "waited %d s for %s: %d of %d came", WAIT_S, what, counted(count), wanted);
}

static void await_event(struct events *events, int type, const char *path)
{
    await_count(&events->count, 1, path);
    is("the count of events", events->count, 1);
    is("the event's type", events->types[0], type);
    EXPECT(!strcmp(events->paths[0], path), "the event is for %s, not %s", events->paths[0], path);
}

/* --- sessions ------------------------------------------------------------- */

static zhandle_t *await_state(zhandle_t *zh, int wanted)
{
    EXPECT(zh, "zookeeper_init: no handle");
    for (double end = now_s() + WAIT_S; zoo_state(zh) != wanted; pause_briefly())
        EXPECT(now_s() < end, "waited %d s for state %d; it is %d", WAIT_S, wanted, zoo_state(zh));
    return zh;
}

static zhandle_t *connect_as(const char *path, int timeout_ms, const clientid_t *id, int wanted)
{
    char where[2 * PATH_BYTES];
    snprintf(where, sizeof where, "%s%s", host, path);
    return await_state(zookeeper_init(where, on_event, timeout_ms, id, NULL, 0), wanted);
}

static zhandle_t *connect_to(const char *path)
{
    return connect_as(path, SESSION_MS, NULL, ZOO_CONNECTED_STATE);
}

static void make(zhandle_t *zh, const char *path, const char *data)
{
    int rc = zoo_create(zh, path, data, (int)strlen(data), &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
    EXPECT(rc == ZOK, "create %s is %s", path, zerror(rc));
}

static const char *below(const char *name)
{
    int rc = zoo_create(zk, root, "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
    EXPECT(rc == ZOK || rc == ZNODEEXISTS, "create %s is %s", root, zerror(rc));
    static char base[PATH_BYTES];
    snprintf(base, sizeof base, "%s/%s", root, name);
    make(zk, base, "");
    return base;
}

static void holds(zhandle_t *zh, const char *path, const char *want)
{
    char data[256];
    int length = sizeof data - 1;
    int rc = zoo_get(zh, path, 0, data, &length, NULL);
    EXPECT(rc == ZOK, "get %s is %s", path, zerror(rc));
    data[length < 0 ? 0 : length] = 0;
    EXPECT(!strcmp(data, want), "%s holds '%s', not '%s'", path, data, want);
}

static bool same(const struct Stat *a, const struct Stat *b)
{
    return a->czxid == b->czxid && a->mzxid == b->mzxid && a->ctime == b->ctime && a->mtime == b->mtime && a->version == b->version
        && a->cversion == b->cversion && a->aversion == b->aversion && a->ephemeralOwner == b->ephemeralOwner
        && a->dataLength == b->dataLength && a->numChildren == b->numChildren && a->pzxid == b->pzxid;
}

static struct Stat stat_of(zhandle_t *zh, const char *path)
{
    struct Stat stat;
    int rc = zoo_exists(zh, path, 0, &stat);
    EXPECT(rc == ZOK, "exists %s is %s", path, zerror(rc));
    return stat;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void children_are(const char *path, const char *want)
{
    struct String_vector names;
    ok("get_children", zoo_get_children(zk, path, 0, &names));
    qsort(names.data, (size_t)names.count, sizeof *names.data, by_name);
    char got[512] = "";
    for (int i = 0; i < names.count; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i ? " " : "", names.data[i]);
    deallocate_String_vector(&names);
    EXPECT(!strcmp(got, want), "the children of %s are '%s', not '%s'", path, got, want);
}

/* --- the checks ----------------------------------------------------------- */

static void check_create(void)
{
    const char *base = below("create"), *node = at(base, "node");
    char made[PATH_BYTES];
    struct Stat stat, got;
    ok("create2", zoo_create2(zk, node, "hello", 5, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made, &stat));
    EXPECT(!strcmp(made, node), "the path is %s", made);
    is("version", stat.version, 0), is("cversion", stat.cversion, 0), is("aversion", stat.aversion, 0);
    is("owner", stat.ephemeralOwner, 0), is("length", stat.dataLength, 5), is("children", stat.numChildren, 0);
    EXPECT(stat.czxid > 0 && stat.czxid == stat.mzxid && stat.czxid == stat.pzxid, "the zxids differ");
    EXPECT(stat.ctime == stat.mtime && llabs(stat.ctime / 1000 - time(NULL)) < 60, "the time is not now");
    char data[16];
    int length = sizeof data;
    ok("get", zoo_get(zk, node, 0, data, &length, &got));
    EXPECT(length == 5 && !memcmp(data, "hello", 5) && same(&got, &stat), "get shows something else");
    got = stat_of(zk, node);
    EXPECT(same(&got, &stat), "exists shows another stat");
    returns("exists of a missing node", zoo_exists(zk, at(base, "missing"), 0, &got), ZNONODE);
    make(zk, at(base, "grün-日本"), "");
    ok("create without data", zoo_create(zk, at(base, "null"), NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    length = sizeof data;
    ok("get", zoo_get(zk, at(base, "null"), 0, data, &length, NULL));
    is("length of data that is null", length, -1);
    children_are(base, "grün-日本 node null");
}

static void check_set(void)
{
    const char *node = at(below("set"), "node");
    make(zk, node, "0");
    struct Stat before = stat_of(zk, node), stat;
    ok("set2", zoo_set2(zk, node, "one", 3, 0, &stat));
    is("version", stat.version, 1), is("length", stat.dataLength, 3);
    EXPECT(stat.mzxid > before.mzxid && stat.mtime >= before.mtime, "mzxid and mtime did not move");
    EXPECT(stat.czxid == before.czxid && stat.ctime == before.ctime && stat.pzxid == before.pzxid, "czxid, ctime or pzxid moved");
    returns("set at an old version", zoo_set(zk, node, "no", 2, 0), ZBADVERSION);
    holds(zk, node, "one");
    ok("set2", zoo_set2(zk, node, "", 0, -1, &stat));
    is("version without asking for one", stat.version, 2);
    holds(zk, node, "");
}

static void check_delete(void)
{
    const char *base = below("delete"), *node = at(base, "node"), *child = at(node, "child");
    make(zk, node, ""), make(zk, child, "");
    returns("delete with a child", zoo_delete(zk, node, -1), ZNOTEMPTY);
    returns("delete at a wrong version", zoo_delete(zk, child, 7), ZBADVERSION);
    ok("delete", zoo_delete(zk, child, 0));
    returns("exists", zoo_exists(zk, child, 0, NULL), ZNONODE);
    returns("delete it again", zoo_delete(zk, child, -1), ZNONODE);
    ok("delete", zoo_delete(zk, node, -1));
    children_are(base, "");
}

static void check_children(void)
{
    const char *base = below("children");
    make(zk, at(base, "c"), ""), make(zk, at(base, "a"), ""), make(zk, at(base, "b"), "");
    children_are(base, "a b c");
    struct String_vector names;
    struct Stat stat, after;
    ok("get_children2", zoo_get_children2(zk, base, 0, &names, &stat));
    is("names", names.count, 3), is("children", stat.numChildren, 3), is("cversion", stat.cversion, 3);
    deallocate_String_vector(&names);
    is("pzxid", stat.pzxid, stat_of(zk, at(base, "b")).czxid);
    ok("set", zoo_set(zk, at(base, "a"), "x", 1, -1));
    after = stat_of(zk, base);
    EXPECT(same(&after, &stat), "a child's set moved the parent's stat");
    ok("delete", zoo_delete(zk, at(base, "a"), -1));
    after = stat_of(zk, base);
    is("children", after.numChildren, 2), is("cversion", after.cversion, 4), is("version", after.version, 0);
    EXPECT(after.pzxid > stat.pzxid && after.mzxid == stat.mzxid, "pzxid did not move, or mzxid did");
}

static void numbered(const char *prefix, int flags, const char *want)
{
    char made[PATH_BYTES];
    ok("create", zoo_create(zk, prefix, "", 0, &ZOO_OPEN_ACL_UNSAFE, flags, made, sizeof made));
    EXPECT(!strcmp(made, want), "%s made %s, not %s", prefix, made, want);
}

static void check_sequence(void)
{
    const char *base = below("sequence");
    numbered(at(base, "n-"), ZOO_SEQUENCE, at(base, "n-0000000000"));
    make(zk, at(base, "plain"), "");
    numbered(at(base, "m-"), ZOO_SEQUENCE, at(base, "m-0000000002"));
    ok("delete", zoo_delete(zk, at(base, "m-0000000002"), -1));
    numbered(at(base, "n-"), ZOO_SEQUENCE | ZOO_EPHEMERAL, at(base, "n-0000000003"));
    numbered(at(base, ""), ZOO_SEQUENCE, at(base, "0000000004"));
}

static void check_ephemeral(void)
{
    const char *base = below("ephemeral"), *node = at(base, "node");
    struct events *events = new_events();
    struct Stat stat;
    zhandle_t *other = connect_to("");
    int64_t session = zoo_client_id(other)->client_id;
    ok("create", zoo_create(other, node, "x", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    ok("exists", zoo_wexists(zk, node, on_event, events, &stat));
    is("the owner", stat.ephemeralOwner, session);
    returns("a child of it", zoo_create(zk, at(node, "child"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZNOCHILDRENFOREPHEMERALS);
    ok("close", zookeeper_close(other));
    await_event(events, ZOO_DELETED_EVENT, node);
    children_are(base, "");
}

static void await_reaped(const char *path)
{
    if (!reaps_within_s) {
        snprintf(detail, sizeof detail, "not waited for until it is reaped");
        return;
    }
    for (double end = now_s() + reaps_within_s; zoo_exists(zk, path, 0, NULL) != ZNONODE; pause_briefly())
        EXPECT(now_s() < end, "%s is not reaped within %d s", path, reaps_within_s);
    snprintf(detail, sizeof detail, "reaped");
}

static void check_container(void)
{
    const char *box = at(below("container"), "box");
    ok("create", zoo_create(zk, box, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER, NULL, 0));
    is("the owner", stat_of(zk, box).ephemeralOwner, 0);
    make(zk, at(box, "child"), "");
    ok("delete", zoo_delete(zk, at(box, "child"), -1));
    await_reaped(box);
}

static void check_ttl(void)
{
    const char *base = below("ttl"), *node = at(base, "node"), *lasting = at(base, "n-0000000001");
    char made[PATH_BYTES];
    ok("create_ttl", zoo_create_ttl(zk, node, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 500, NULL, 0));
    is("the owner", stat_of(zk, node).ephemeralOwner, 0);
    ok("create_ttl", zoo_create_ttl(zk, at(base, "n-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 60000, made, sizeof made));
    EXPECT(!strcmp(made, lasting), "it is %s, not %s", made, lasting);
    await_reaped(node);
    stat_of(zk, lasting);
}

static void check_errors(void)
{
    const char *base = below("errors"), *missing = at(base, "missing");
    char data[1];
    int length = sizeof data;
    struct String_vector names;
    struct ACL_vector acl;
    struct Stat stat;
    returns("get", zoo_get(zk, missing, 0, data, &length, NULL), ZNONODE);
    returns("set", zoo_set(zk, missing, "", 0, -1), ZNONODE);
    returns("get_children", zoo_get_children(zk, missing, 0, &names), ZNONODE);
    returns("get_acl", zoo_get_acl(zk, missing, &acl, &stat), ZNONODE);
    returns("create below", zoo_create(zk, at(missing, "child"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZNONODE);
    returns("create again", zoo_create(zk, base, "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZNODEEXISTS);
    returns("delete of the root", zoo_delete(zk, "/zookeeper", -1), ZBADARGUMENTS);
    struct ACL nobody[] = {{ZOO_PERM_ALL, {"nobody", "x"}}};
    struct ACL_vector nobodys = {1, nobody}, none = {0, NULL};
    returns("an ACL of an unknown scheme", zoo_create(zk, missing, "", 0, &nobodys, 0, NULL, 0), ZINVALIDACL);
    returns("an empty ACL", zoo_create(zk, missing, "", 0, &none, 0, NULL, 0), ZINVALIDACL);
    returns("an ACL of the scheme auth without any", zoo_create(zk, missing, "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZINVALIDACL);
}

struct done {
    int count, rc;
};

static void on_done(int rc, const void *context)
{
    struct done *done = (struct done *)(uintptr_t)context;
    pthread_mutex_lock(&lock);
    done->rc = rc;
    done->count++;
    pthread_mutex_unlock(&lock);
}

static void on_synced(int rc, const char *path, const void *context)
{
    (void)path;
    on_done(rc, context);
}

static void sync_path(const char *path)
{
    struct done *done = calloc(1, sizeof *done);
    ok("async", zoo_async(zk, path, on_synced, done));
    await_count(&done->count, 1, "sync");
    ok("sync", done->rc);
}

static void check_watches(void)
{
    const char *base = below("watches"), *node = at(base, "node"), *missing = at(base, "missing");
    struct events *data = new_events(), *exists = new_events(), *child = new_events(), *gone = new_events();
    struct String_vector names;
    char buffer[8];
    int length = sizeof buffer;
    zhandle_t *other = connect_to("");
    make(other, node, "0");
    ok("get", zoo_wget(zk, node, on_event, data, buffer, &length, NULL));
    returns("exists", zoo_wexists(zk, missing, on_event, exists, NULL), ZNONODE);
    ok("get_children", zoo_wget_children(zk, base, on_event, child, &names));
    deallocate_String_vector(&names);
    ok("set", zoo_set(other, node, "1", 1, -1)), ok("set", zoo_set(other, node, "2", 1, -1));
    make(other, missing, "");
    await_event(data, ZOO_CHANGED_EVENT, node);
    await_event(exists, ZOO_CREATED_EVENT, missing);
    await_event(child, ZOO_CHILD_EVENT, base);
    ok("exists", zoo_wexists(zk, missing, on_event, gone, NULL));
    ok("delete", zoo_delete(other, missing, -1));
    await_event(gone, ZOO_DELETED_EVENT, missing);
    sync_path(base); /* what fires twice would have come before this answer */
    is("the data watch's events", counted(&data->count), 1);
    is("the exists watch's events", counted(&exists->count), 1);
    is("the child watch's events", counted(&child->count), 1);
    ok("close", zookeeper_close(other));
}

static void check_unwatch(void)
{
    const char *node = at(below("unwatch"), "node");
    struct events *data = new_events(), *child = new_events();
    struct String_vector names;
    char buffer[8];
    int length = sizeof buffer;
    make(zk, node, "0");
    returns("to remove one that is not there", zoo_remove_all_watches(zk, node, ZWATCHTYPE_ANY, 0), ZNOWATCHER);
    ok("get", zoo_wget(zk, node, on_event, data, buffer, &length, NULL));
    ok("get_children", zoo_wget_children(zk, node, on_event, child, &names));
    deallocate_String_vector(&names);
    ok("remove_watches", zoo_remove_watches(zk, node, ZWATCHTYPE_DATA, on_event, data, 0));
    ok("set", zoo_set(zk, node, "1", 1, -1));
    make(zk, at(node, "child"), "");
    await_event(child, ZOO_CHILD_EVENT, node);
    is("the removed watch's events", counted(&data->count), 0);
}

static void check_multi(void)
{
    const char *base = below("multi"), *old = at(base, "old"), *new = at(base, "new"), *gone = at(base, "gone");
    make(zk, old, "0");
    char made[PATH_BYTES], seq[PATH_BYTES], dropped[PATH_BYTES];
    struct Stat stat;
    zoo_op_t ops[6];
    zoo_op_result_t results[6];
    zoo_check_op_init(&ops[0], old, 0);
    zoo_set_op_init(&ops[1], old, "1", 1, 0, &stat);
    zoo_create_op_init(&ops[2], new, "n", 1, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made);
    zoo_create_op_init(&ops[3], at(base, "seq-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, seq, sizeof seq);
    zoo_create_op_init(&ops[4], gone, "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, dropped, sizeof dropped);
    zoo_delete_op_init(&ops[5], gone, -1);
    ok("multi", zoo_multi(zk, 6, ops, results));
    for (int i = 0; i < 6; i++)
        ok("an operation", results[i].err);
    is("the version after set", stat.version, 1);
    EXPECT(!strcmp(seq, at(base, "seq-0000000002")), "the numbered one is %s", seq);
    int64_t zxid = stat_of(zk, new).czxid;
    is("the set's zxid", stat_of(zk, old).mzxid, zxid), is("the parent's zxid", stat_of(zk, base).pzxid, zxid);
    children_are(base, "new old seq-0000000002");
}

static void check_undone(void)
{
    const char *base = below("undone"), *old = at(base, "old");
    make(zk, old, "0");
    char made[PATH_BYTES];
    zoo_op_t ops[3];
    zoo_op_result_t results[3];
    zoo_create_op_init(&ops[0], at(base, "new"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made);
    zoo_set_op_init(&ops[1], old, "1", 1, 5, NULL);
    zoo_delete_op_init(&ops[2], old, -1);
    returns("multi", zoo_multi(zk, 3, ops, results), ZBADVERSION);
    returns("the first", results[0].err, ZOK);
    returns("the second", results[1].err, ZBADVERSION);
    returns("the third", results[2].err, ZRUNTIMEINCONSISTENCY);
    children_are(base, "old");
    holds(zk, old, "0");
}

static void check_acl(void)
{
    const char *base = below("acl"), *node = at(base, "node"), *open = at(base, "open");
    struct ACL_vector acl;
    struct Stat stat;
    ok("create", zoo_create(zk, node, "x", 1, &ZOO_READ_ACL_UNSAFE, 0, NULL, 0));
    ok("get_acl", zoo_get_acl(zk, node, &acl, &stat));
    EXPECT(acl.count == 1 && acl.data[0].perms == ZOO_PERM_READ, "the permissions are %d", acl.count ? acl.data[0].perms : -1);
    EXPECT(!strcmp(acl.data[0].id.scheme, "world") && !strcmp(acl.data[0].id.id, "anyone"), "they are for %s", acl.data[0].id.id);
    deallocate_ACL_vector(&acl);
    holds(zk, node, "x");
    returns("set", zoo_set(zk, node, "y", 1, -1), ZNOAUTH);
    returns("create below", zoo_create(zk, at(node, "child"), "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), ZNOAUTH);
    returns("set_acl", zoo_set_acl(zk, node, -1, &ZOO_OPEN_ACL_UNSAFE), ZNOAUTH);
    make(zk, open, "");
    returns("set_acl at a wrong version", zoo_set_acl(zk, open, 3, &ZOO_READ_ACL_UNSAFE), ZBADVERSION);
    ok("set_acl", zoo_set_acl(zk, open, 0, &ZOO_READ_ACL_UNSAFE));
    is("aversion", stat_of(zk, open).aversion, 1);
    returns("set", zoo_set(zk, open, "y", 1, -1), ZNOAUTH);
    ok("delete, which is the parent's permission", zoo_delete(zk, node, -1));
}

static int add_auth(zhandle_t *zh, const char *scheme, const char *credentials)
{
    struct done *done = calloc(1, sizeof *done);
    ok("add_auth", zoo_add_auth(zh, scheme, credentials, (int)strlen(credentials), on_done, done));
    await_count(&done->count, 1, "add_auth");
    return done->rc;
}

static void check_auth(void)
{
    const char *node = at(below("auth"), "node");
    char data[16];
    int length = sizeof data;
    zhandle_t *mine = connect_to(""), *other = connect_to("");
    ok("add_auth", add_auth(mine, "digest", "alice:secret"));
    ok("create", zoo_create(mine, node, "secret", 6, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    holds(mine, node, "secret");
    returns("get without it", zoo_get(zk, node, 0, data, &length, NULL), ZNOAUTH);
    ok("add_auth", add_auth(other, "digest", "alice:wrong"));
    returns("get with another password", zoo_get(other, node, 0, data, &length, NULL), ZNOAUTH);
    ok("add_auth", add_auth(other, "digest", "alice:secret"));
    holds(other, node, "secret");
    zhandle_t *bad = connect_to("");
    returns("an unknown scheme", add_auth(bad, "nosuch", "x"), ZAUTHFAILED);
    await_state(bad, ZOO_AUTH_FAILED_STATE);
    zookeeper_close(bad), zookeeper_close(other), zookeeper_close(mine);
}

static void check_large(void)
{
    const char *node = at(below("large"), "node");
    char *data = malloc(TOO_LARGE_BYTES), *got = malloc(TOO_LARGE_BYTES);
    for (int i = 0; i < TOO_LARGE_BYTES; i++)
        data[i] = (char)(i * 7 % 251);
    ok("create", zoo_create(zk, node, data, LARGE_BYTES, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    int length = TOO_LARGE_BYTES;
    ok("get", zoo_get(zk, node, 0, got, &length, NULL));
    EXPECT(length == LARGE_BYTES && !memcmp(got, data, LARGE_BYTES), "other data came back");
    zhandle_t *other = connect_to("");
    int64_t session = zoo_client_id(other)->client_id;
    EXPECT(zoo_set(other, node, data, TOO_LARGE_BYTES, -1) != ZOK, "more than jute.maxbuffer was taken");
    await_state(other, ZOO_CONNECTED_STATE);
    is("the version", stat_of(other, node).version, 0);
    is("the session", zoo_client_id(other)->client_id, session);
    ok("close", zookeeper_close(other));
    free(data), free(got);
}

static struct {
    int answered, wrong;
    int64_t last_zxid;
} flood;

static void text_of(int n, char text[101])
{
    for (int i = 0; i < 25; i++)
        snprintf(text + 4 * i, 5, "%04d", n);
}

static void on_created(int rc, const char *path, const void *context)
{
    int n = (int)(intptr_t)context;
    pthread_mutex_lock(&lock);
    flood.wrong += rc != ZOK || n != flood.answered || atoi(path + strlen(path) - 4) != n;
    flood.answered++;
    pthread_mutex_unlock(&lock);
}

static void on_got(int rc, const char *value, int length, const struct Stat *stat, const void *context)
{
    int n = (int)(intptr_t)context;
    char want[101];
    text_of(n, want);
    pthread_mutex_lock(&lock);
    flood.wrong += rc != ZOK || n != flood.answered || length != 100 || memcmp(value, want, 100) || stat->czxid <= flood.last_zxid;
    flood.last_zxid = rc == ZOK ? stat->czxid : 0;
    flood.answered++;
    pthread_mutex_unlock(&lock);
}

static void check_async(void)
{
    const char *base = below("async");
    char path[PATH_BYTES], text[101];
    for (int n = 0; n < OUTSTANDING; n++) {
        text_of(n, text);
        snprintf(path, sizeof path, "%s/%04d", base, n);
        ok("acreate", zoo_acreate(zk, path, text, 100, &ZOO_OPEN_ACL_UNSAFE, 0, on_created, (void *)(intptr_t)n));
    }
    await_count(&flood.answered, OUTSTANDING, "the creates");
    is("wrong or late creates", counted(&flood.wrong), 0);
    flood.answered = 0;
    for (int n = 0; n < OUTSTANDING; n++) {
        snprintf(path, sizeof path, "%s/%04d", base, n);
        ok("aget", zoo_aget(zk, path, 0, on_got, (void *)(intptr_t)n));
    }
    await_count(&flood.answered, OUTSTANDING, "the gets");
    is("wrong or late gets", counted(&flood.wrong), 0);
    snprintf(detail, sizeof detail, "%d answers", 2 * OUTSTANDING);
}

static void check_sync(void)
{
    sync_path(below("sync"));
}

static void check_chroot(void)
{
    const char *base = below("chroot");
    struct events *events = new_events();
    char data[8];
    int length = sizeof data;
    zhandle_t *other = connect_to(base);
    char made[PATH_BYTES];
    ok("create", zoo_create(other, "/a", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, made, sizeof made));
    EXPECT(!strcmp(made, "/a"), "the path is %s, not /a", made);
    make(other, "/a/b", "x");
    holds(zk, at(base, "a/b"), "x");
    ok("get", zoo_wget(other, "/a/b", on_event, events, data, &length, NULL));
    ok("set", zoo_set(zk, at(base, "a/b"), "y", 1, -1));
    await_event(events, ZOO_CHANGED_EVENT, "/a/b");
    ok("close", zookeeper_close(other));
}

/* --- the victim, which is killed ------------------------------------------ */

static clientid_t held;
static double killed_at;

static void hold(void)
{
    if (setjmp(failed)) {
        fprintf(stderr, "the victim: %s\n", why);
        exit(1);
    }
    zk = connect_to("");
    zhandle_t *doomed = connect_as("", SHORT_SESSION_MS, NULL, ZOO_CONNECTED_STATE);
    char doomed_path[PATH_BYTES], kept_path[PATH_BYTES];
    snprintf(doomed_path, sizeof doomed_path, "%s/doomed", below("expiry"));
    snprintf(kept_path, sizeof kept_path, "%s/kept", below("move"));
    ok("create", zoo_create(doomed, doomed_path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    ok("create", zoo_create(zk, kept_path, "kept", 4, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    fwrite(zoo_client_id(zk), sizeof(clientid_t), 1, stdout);
    fflush(stdout);
    sleep(600);
    exit(1);
}

static void start_and_kill_victim(char **argv)
{
    int ends[2];
    if (pipe(ends))
        exit(1);
    pid_t pid = fork();
    if (!pid) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", argv[0], argv[1], argv[2], argv[3], "hold", (char *)NULL);
        _exit(1);
    }
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    bool all = fread(&held, sizeof held, 1, said) == 1;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    killed_at = now_s();
    fclose(said);
    if (!all) {
        fprintf(stderr, "the victim could not open its sessions\n");
        exit(1);
    }
}

static void check_move(void)
{
    char kept[PATH_BYTES];
    snprintf(kept, sizeof kept, "%s/move/kept", root);
    struct events *gone = new_events();
    struct Stat stat;
    clientid_t wrong = {.client_id = held.client_id};
    zookeeper_close(connect_as("", SESSION_MS, &wrong, ZOO_EXPIRED_SESSION_STATE));
    ok("exists", zoo_wexists(zk, kept, on_event, gone, &stat));
    is("the owner", stat.ephemeralOwner, held.client_id);
    zhandle_t *moved = connect_as("", SESSION_MS, &held, ZOO_CONNECTED_STATE);
    is("the session", zoo_client_id(moved)->client_id, held.client_id);
    holds(moved, kept, "kept");
    ok("close", zookeeper_close(moved));
    await_event(gone, ZOO_DELETED_EVENT, kept);
}

static void check_expiry(void)
{
    char doomed[PATH_BYTES];
    snprintf(doomed, sizeof doomed, "%s/expiry/doomed", root);
    struct events *gone = new_events();
    int rc = zoo_wexists(zk, doomed, on_event, gone, NULL);
    if (rc == ZOK)
        await_event(gone, ZOO_DELETED_EVENT, doomed);
    else
        returns("exists", rc, ZNONODE);
    double took = now_s() - killed_at;
    EXPECT(took > 1, "it was gone %.1f s after the kill", took);
    snprintf(detail, sizeof detail, "at most %.1f s after the kill", took);
}

static void survive(bool by_kill)
{
    char base[PATH_BYTES], mine[PATH_BYTES], node[PATH_BYTES], missing[PATH_BYTES], path[PATH_BYTES + 16], text[16];
    snprintf(base, sizeof base, "%s", below(by_kill ? "kill" : "restart"));
    strcpy(mine, at(base, "mine")), strcpy(node, at(base, "data")), strcpy(missing, at(base, "missing"));
    struct events *data = new_events(), *exists = new_events(), *child = new_events();
    struct String_vector names;
    struct Stat stat;
    char buffer[16];
    int length = sizeof buffer;
    int64_t session = zoo_client_id(zk)->client_id;
    ok("create", zoo_create(zk, mine, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    make(zk, node, "before");
    for (int n = 0; n < SURVIVORS; n++) {
        snprintf(path, sizeof path, "%s/%d", node, n), snprintf(text, sizeof text, "%d", n);
        make(zk, path, text);
    }
    ok("get", zoo_wget(zk, node, on_event, data, buffer, &length, NULL));
    returns("exists", zoo_wexists(zk, missing, on_event, exists, NULL), ZNONODE);
    ok("get_children", zoo_wget_children(zk, base, on_event, child, &names));
    deallocate_String_vector(&names);
    puts(by_kill ? "RESTART KILL" : "RESTART");
    fflush(stdout);
    char line[16];
    EXPECT(fgets(line, sizeof line, stdin), "the runner is gone");
    int rc;
    for (double end = now_s() + WAIT_S; (rc = zoo_exists(zk, mine, 0, &stat)) == ZCONNECTIONLOSS || rc == ZOPERATIONTIMEOUT; pause_briefly())
        EXPECT(now_s() < end, "waited %d s for the connection", WAIT_S);
    ok("exists of the ephemeral node", rc);
    is("its owner", stat.ephemeralOwner, session);
    is("the session", zoo_client_id(zk)->client_id, session);
    for (int n = 0; n < SURVIVORS; n++) {
        snprintf(path, sizeof path, "%s/%d", node, n), snprintf(text, sizeof text, "%d", n);
        holds(zk, path, text);
    }
    is("events that came by themselves", counted(&data->count) + counted(&exists->count) + counted(&child->count), 0);
    zhandle_t *other = connect_to("");
    ok("set", zoo_set(other, node, "after", 5, -1));
    make(other, missing, "");
    await_event(data, ZOO_CHANGED_EVENT, node);
    await_event(exists, ZOO_CREATED_EVENT, missing);
    await_event(child, ZOO_CHILD_EVENT, base);
    ok("close", zookeeper_close(other));
    snprintf(detail, sizeof detail, "session 0x%" PRIx64, session);
}

static void check_restart(void)
{
    survive(false);
}

static void check_kill(void)
{
    survive(true);
}

/* --- the way through ------------------------------------------------------ */

static void too_long(int number)
{
    (void)number;
    /* A library call hangs: nothing after it can be checked either. */
    char line[128] = "CHECK ";
    strcat(strcat(line, running_check), " fail it took too long\n");
    ssize_t written = write(STDOUT_FILENO, line, strlen(line));
    _exit(written > 0 ? 1 : 2);
}

static void check(const char *name, void (*made)(void))
{
    snprintf(running_check, sizeof running_check, "%s", name);
    detail[0] = 0;
    alarm(CHECK_S);
    if (setjmp(failed))
        printf("CHECK %s fail %s\n", running_check, why);
    else {
        made();
        printf("CHECK %s ok %s\n", running_check, detail);
    }
    alarm(0);
    fflush(stdout);
}

static void skip(const char *name, const char *reason)
{
    printf("CHECK %s skip %s\n", name, reason);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    host = argv[1], root = argv[2], reaps_within_s = atoi(argv[3]);
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    signal(SIGALRM, too_long);
    if (argc > 4)
        hold();
    start_and_kill_victim(argv);
    if (setjmp(failed)) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    zk = connect_to("");
    check("create", check_create);
    check("set", check_set);
    check("delete", check_delete);
    check("children", check_children);
    check("sequence", check_sequence);
    check("ephemeral", check_ephemeral);
    check("container", check_container);
    check("ttl", check_ttl);
    check("errors", check_errors);
    check("watches", check_watches);
    check("unwatch", check_unwatch);
    check("multi", check_multi);
    check("undone", check_undone);
    check("acl", check_acl);
    check("auth", check_auth);
    check("large", check_large);
    check("async", check_async);
    check("sync", check_sync);
    check("chroot", check_chroot);
    static const char *const without[] = {"persistent", "multiread", "whoami", "quota", "words"};
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        skip(without[i], "the C client has no such call");
    static const char *const recipes[] = {"lock", "election", "counter", "party", "cache"};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        skip(recipes[i], "Debian packs the C client without its recipes");
    check("move", check_move);
    check("expiry", check_expiry);
    check("restart", check_restart);
    check("kill", check_kill);
    return zookeeper_close(zk) == ZOK ? 0 : 1;
}
