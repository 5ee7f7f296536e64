// The npm package zookeeper (ZooKeeper's C client under Node) through the plan;
// ../python/plan.py describes it.
"use strict";

const { spawn } = require("node:child_process");
const readline = require("node:readline");
const assert = require("node:assert");
const ZooKeeper = require("zookeeper");

const { constants } = ZooKeeper;
const [HOST, ROOT, REAPS, HOLD] = process.argv.slice(2);
const REAPS_WITHIN_S = Number(REAPS);
const WAIT_S = 20;
const CHECK_S = 40;
// Not 30 s: after a lost connection the package tries again when a third of this has passed.
const SESSION_MS = 15_000;
const SHORT_SESSION_MS = 4_000;
const LARGE = Buffer.from(Uint8Array.from({ length: 1_000_000 }, (_, i) => (i * 7) % 251));
const TOO_LARGE = Buffer.alloc(1_100_000);
const OUTSTANDING = 2_000;
const SURVIVORS = 300;
const { ZOO_PERSISTENT: PLAIN, ZOO_EPHEMERAL: EPHEMERAL, ZOO_SEQUENCE: SEQUENCE } = constants;
const { ZOO_CREATED_EVENT: CREATED, ZOO_DELETED_EVENT: DELETED, ZOO_CHANGED_EVENT: CHANGED, ZOO_CHILD_EVENT: CHILD } = constants;

const say = (line) => process.stdout.write(`${line.replaceAll("\n", " ")}\n`);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const expect = (holds, what) => {
    if (!holds) throw new Error(what);
};
const equal = (what, got, want) => {
    try {
        assert.deepStrictEqual(got, want);
    } catch {
        throw new Error(`${what} is ${JSON.stringify(got)}, not ${JSON.stringify(want)}`);
    }
};

async function until(condition, what, withinS = WAIT_S) {
    const end = Date.now() + withinS * 1000;
    while (!(await condition())) {
        expect(Date.now() < end, `waited ${withinS} s for ${what}`);
        await sleep(10);
    }
}

// The library's errors are text, "-101 no node": the number is the name.
async function raises(code, what, promise) {
    let seen = "success";
    try {
        await promise;
    } catch (error) {
        seen = error.message;
    }
    expect(seen.split(" ")[0] === String(code), `${what}: ${seen}, not ${code}`);
}

function connect(path = "", more = {}) {
    // An answer that comes in more than ten pieces, as a large one does, is to the
    // package "no response too many times", and it closes the session: unless told.
    const response_counter_limit = 1_000_000;
    const zk = new ZooKeeper({ connect: HOST + path, timeout: SESSION_MS, debug_level: 1, response_counter_limit, ...more });
    return new Promise((done, failed) => {
        const late = setTimeout(() => failed(new Error(`no session within ${WAIT_S} s`)), WAIT_S * 1000);
        zk.once("connect", () => {
            clearTimeout(late);
            done(zk);
        });
        zk.once("close", (_zk, code) => {
            clearTimeout(late);
            failed(new Error(`${code} is how the session ended`));
        });
        zk.init({});
    });
}

class Events {
    seen = [];
    // A connection that comes and goes is told to every watch, as type -1.
    watch = (type, _state, path) => type > 0 && this.seen.push([type, path]);
    async wait(...wanted) {
        await until(() => this.seen.length >= wanted.length, `${JSON.stringify(wanted)}; there was ${JSON.stringify(this.seen)}`);
        equal("the events", this.seen, wanted);
    }
}

let zk;

async function below(name) {
    await zk.create(ROOT, "", PLAIN).catch((error) => expect(error.message.startsWith("-110 "), error.message));
    return zk.create(`${ROOT}/${name}`, "", PLAIN);
}

const data = async (client, path) => (await client.get(path, false))[1].toString();
const sorted = async (path) => (await zk.get_children(path, false)).sort();
// add_auth alone is not sent before the next ping: the read behind it takes it along.
const authed = async (client, scheme, credentials) => {
    const added = new Promise((done, failed) => {
        client.add_auth(scheme, credentials, (code, error) => (code ? failed(new Error(`${code} ${error}`)) : done()));
    });
    client.exists(ROOT, false).catch(() => {});
    await added;
};

async function create() {
    const base = await below("create");
    const node = `${base}/node`;
    equal("the path", await zk.create(node, "hello", PLAIN), node);
    const [stat, got] = await zk.get(node, false);
    equal("the data", got.toString(), "hello");
    const { version, cversion, aversion, ephemeralOwner, dataLength, numChildren } = stat;
    equal("version, cversion, aversion, owner, length, children", [version, cversion, aversion, ephemeralOwner, dataLength, numChildren], [0, 0, 0, "0", 5, 0]);
    expect(stat.czxid > 0 && stat.czxid === stat.mzxid && stat.czxid === stat.pzxid, `one zxid everywhere: ${JSON.stringify(stat)}`);
    expect(+stat.ctime === +stat.mtime && Math.abs(+stat.ctime - Date.now()) < 60_000, `the time is now: ${stat.ctime}`);
    equal("exists", await zk.exists(node, false), stat);
    await raises(-101, "of a missing node", zk.exists(`${base}/missing`, false));
    equal("a name beyond ASCII", await zk.create(`${base}/grün-日本`, "", PLAIN), `${base}/grün-日本`);
    equal("the children", await sorted(base), ["grün-日本", "node"]);
}

async function set() {
    const node = await zk.create(`${await below("set")}/node`, "0", PLAIN);
    const before = await zk.exists(node, false);
    const stat = await zk.set(node, "one", 0);
    equal("version, length", [stat.version, stat.dataLength], [1, 3]);
    expect(stat.mzxid > before.mzxid && stat.czxid === before.czxid && stat.pzxid === before.pzxid, "only mzxid moves");
    await raises(-103, "set at an old version", zk.set(node, "no", 0));
    equal("the data", await data(zk, node), "one");
    equal("version without asking for one", (await zk.set(node, "", -1)).version, 2);
    equal("the data", await data(zk, node), "");
}

async function remove() {
    const base = await below("delete");
    const node = await zk.create(`${base}/node`, "", PLAIN);
    const child = await zk.create(`${node}/child`, "", PLAIN);
    await raises(-111, "delete with a child", zk.delete_(node, -1));
    await raises(-103, "delete at a wrong version", zk.delete_(child, 7));
    await zk.delete_(child, 0);
    await raises(-101, "delete it again", zk.delete_(child, -1));
    await zk.delete_(node, -1);
    equal("the children", await sorted(base), []);
}

async function children() {
    const base = await below("children");
    for (const name of ["c", "a", "b"]) await zk.create(`${base}/${name}`, "", PLAIN);
    const [names, stat] = await zk.get_children2(base, false);
    equal("the names", names.sort(), ["a", "b", "c"]);
    equal("children, cversion, pzxid", [stat.numChildren, stat.cversion, stat.pzxid], [3, 3, (await zk.exists(`${base}/b`, false)).czxid]);
    await zk.set(`${base}/a`, "x", -1);
    equal("the parent", await zk.exists(base, false), stat);
    await zk.delete_(`${base}/a`, -1);
    const after = await zk.exists(base, false);
    equal("children, cversion, version", [after.numChildren, after.cversion, after.version], [2, 4, 0]);
    expect(after.pzxid > stat.pzxid && after.mzxid === stat.mzxid, "pzxid moves, mzxid does not");
}

async function sequence() {
    const base = await below("sequence");
    const made = [await zk.create(`${base}/n-`, "", SEQUENCE)];
    await zk.create(`${base}/plain`, "", PLAIN);
    made.push(await zk.create(`${base}/m-`, "", SEQUENCE));
    await zk.delete_(made[1], -1);
    made.push(await zk.create(`${base}/n-`, "", SEQUENCE | EPHEMERAL));
    equal("the names", made, [`${base}/n-0000000000`, `${base}/m-0000000002`, `${base}/n-0000000003`]);
}

async function ephemeral() {
    const base = await below("ephemeral");
    const other = await connect();
    const events = new Events();
    const node = await other.create(`${base}/node`, "x", EPHEMERAL);
    const stat = await zk.w_exists(node, events.watch);
    equal("the owner", [stat.ephemeralOwner, stat.createdInThisSession], [other.client_id, false]);
    await raises(-108, "a child of it", zk.create(`${node}/child`, "", PLAIN));
    other.close();
    await events.wait([DELETED, node]);
    equal("the children", await sorted(base), []);
}

async function reaped(path) {
    if (!REAPS_WITHIN_S) return "not waited for until it is reaped";
    const gone = () => zk.exists(path, false).then(() => false, (error) => error.message.startsWith("-101 "));
    await until(gone, `${path} to be reaped`, REAPS_WITHIN_S);
    return "reaped";
}

async function container() {
    const box = await zk.create(`${await below("container")}/box`, "", constants.ZOO_CONTAINER);
    equal("the owner", (await zk.exists(box, false)).ephemeralOwner, "0");
    await zk.delete_(await zk.create(`${box}/child`, "", PLAIN), -1);
    return reaped(box);
}

async function ttl() {
    const base = await below("ttl");
    const node = await zk.create(`${base}/node`, "", constants.ZOO_PERSISTENT_WITH_TTL, 500);
    equal("the owner", (await zk.exists(node, false)).ephemeralOwner, "0");
    const numbered = await zk.create(`${base}/n-`, "", constants.ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL, 60_000);
    equal("a numbered one", numbered, `${base}/n-0000000001`);
    const how = await reaped(node);
    await zk.exists(numbered, false);
    return how;
}

// Not get_acl of a missing node: the package frees what is not there, and crashes.
async function errors() {
    const base = await below("errors");
    const missing = `${base}/missing`;
    await raises(-101, "get", zk.get(missing, false));
    await raises(-101, "set", zk.set(missing, "", -1));
    await raises(-101, "children", zk.get_children(missing, false));
    await raises(-101, "create below", zk.create(`${missing}/child`, "", PLAIN));
    await raises(-110, "create again", zk.create(base, "", PLAIN));
    await raises(-8, "delete of the root", zk.delete_("/zookeeper", -1));
    await raises(-114, "an ACL of an unknown scheme", zk.set_acl(base, -1, [{ perm: 31, scheme: "nobody", auth: "x" }]));
}

async function watches() {
    const base = await below("watches");
    const other = await connect();
    const node = await other.create(`${base}/node`, "0", PLAIN);
    const missing = `${base}/missing`;
    const [get, exists, child, gone] = [new Events(), new Events(), new Events(), new Events()];
    await zk.w_get(node, get.watch);
    await raises(-101, "a missing node", zk.w_exists(missing, exists.watch));
    await zk.w_get_children(base, child.watch);
    await other.set(node, "1", -1);
    await other.set(node, "2", -1);
    await other.create(missing, "", PLAIN);
    await get.wait([CHANGED, node]);
    await exists.wait([CREATED, missing]);
    await child.wait([CHILD, base]);
    await zk.w_exists(missing, gone.watch);
    await other.delete_(missing, -1);
    await gone.wait([DELETED, missing]);
    // What fires twice would have come before this answer.
    await zk.sync(base);
    equal("all that fired", [get, exists, child].map((events) => events.seen.length), [1, 1, 1]);
    other.close();
}

async function acl() {
    const base = await below("acl");
    const node = await zk.create(`${base}/node`, "x", PLAIN);
    const readOnly = [{ perm: constants.ZOO_PERM_READ, scheme: "world", auth: "anyone" }];
    await raises(-103, "set_acl at a wrong version", zk.set_acl(node, 3, readOnly));
    await zk.set_acl(node, 0, readOnly);
    const [shown] = [await zk.get_acl(node)].flat(2).filter((one) => one.scheme);
    equal("the ACL", [shown.perms ?? shown.perm, shown.scheme, shown.auth], [1, "world", "anyone"]);
    equal("aversion", (await zk.exists(node, false)).aversion, 1);
    equal("the data", await data(zk, node), "x");
    await raises(-102, "set", zk.set(node, "y", -1));
    await raises(-102, "create below", zk.create(`${node}/child`, "", PLAIN));
    await raises(-102, "set_acl", zk.set_acl(node, -1, readOnly));
    await zk.delete_(node, -1);
}

async function auth() {
    const node = await zk.create(`${await below("auth")}/node`, "secret", PLAIN);
    const [mine, other] = [await connect(), await connect()];
    await authed(mine, "digest", "alice:secret");
    await mine.set_acl(node, -1, [{ perm: constants.ZOO_PERM_ALL, scheme: "auth", auth: "" }]);
    equal("the data", await data(mine, node), "secret");
    await raises(-102, "get without it", zk.get(node, false));
    await authed(other, "digest", "alice:wrong");
    await raises(-102, "get with another password", other.get(node, false));
    await authed(other, "digest", "alice:secret");
    equal("the data", await data(other, node), "secret");
    const bad = await connect();
    await raises(-115, "an unknown scheme", authed(bad, "nosuch", "x"));
    mine.close();
    other.close();
}

async function large() {
    const node = await zk.create(`${await below("large")}/node`, LARGE, PLAIN);
    const [stat, got] = await zk.get(node, false);
    expect(LARGE.equals(got), "the data that came back is another");
    equal("the length", stat.dataLength, LARGE.length);
    const other = await connect();
    const session = other.client_id;
    const connected = new Promise((done) => other.once("connect", done));
    await other.set(node, TOO_LARGE, -1).then(
        () => expect(false, "more than jute.maxbuffer was taken"),
        () => {},
    );
    // The connection may go with it, or live on: the session lives in either case.
    const again = () => other.exists(node, false).catch((error) => expect(error.message.startsWith("-4 "), error.message));
    let after;
    await Promise.race([connected, sleep(1000)]);
    await until(async () => (after = await again()), "the connection after it");
    equal("the version", after.version, 0);
    equal("the session", other.client_id, session);
    other.close();
}

async function outstanding() {
    const base = await below("async");
    const numbers = Array.from({ length: OUTSTANDING }, (_, n) => String(n).padStart(4, "0"));
    const answered = [];
    const note = (n) => (result) => {
        answered.push(n);
        return result;
    };
    const paths = await Promise.all(numbers.map((n) => zk.create(`${base}/${n}`, n.repeat(25), PLAIN).then(note(n))));
    equal("the paths", paths, numbers.map((n) => `${base}/${n}`));
    const got = await Promise.all(numbers.map((n) => zk.get(`${base}/${n}`, false).then(note(n))));
    equal("the order of the answers", answered, [...numbers, ...numbers]);
    equal("the data", got.map(([, value]) => value.toString()), numbers.map((n) => n.repeat(25)));
    expect(got.every(([stat], i) => !i || stat.czxid > got[i - 1][0].czxid), "zxids in the order of asking");
    return `${answered.length} answers`;
}

async function sync() {
    const base = await below("sync");
    equal("the path", await zk.sync(base), base);
}

async function chroot() {
    const base = await below("chroot");
    const other = await connect(base);
    const events = new Events();
    equal("the path", await other.create("/a", "", PLAIN), "/a");
    await other.create("/a/b", "x", PLAIN);
    equal("seen from outside", await data(zk, `${base}/a/b`), "x");
    await other.w_get("/a/b", events.watch);
    await zk.set(`${base}/a/b`, "y", -1);
    await events.wait([CHANGED, "/a/b"]);
    equal("the children", await other.get_children("/", false), ["a"]);
    other.close();
}

async function hold() {
    zk = await connect();
    const doomed = await connect("", { timeout: SHORT_SESSION_MS });
    await doomed.create(`${await below("expiry")}/doomed`, "", EPHEMERAL);
    await zk.create(`${await below("move")}/kept`, "kept", EPHEMERAL);
    say(`HELD ${zk.client_id} ${zk.client_password}`);
}

async function killedVictim() {
    const process_ = spawn(process.execPath, [__filename, HOST, ROOT, REAPS, "hold"], { stdio: ["ignore", "pipe", "inherit"] });
    const line = await new Promise((done) => {
        readline.createInterface({ input: process_.stdout }).once("line", done);
        process_.once("exit", () => done("nothing"));
    });
    expect(line.startsWith("HELD "), `the victim said ${line}`);
    const ended = new Promise((done) => process_.once("exit", done));
    process_.kill("SIGKILL");
    await ended;
    const [, client_id, client_password] = line.split(" ");
    return { client_id, client_password, killedAt: Date.now() };
}

async function move({ client_id, client_password }) {
    const kept = `${ROOT}/move/kept`;
    const gone = new Events();
    await raises(-112, "a wrong password", connect("", { client_id, client_password: "00".repeat(16) }));
    equal("the owner", (await zk.w_exists(kept, gone.watch)).ephemeralOwner, client_id);
    const moved = await connect("", { client_id, client_password });
    equal("the session", moved.client_id, client_id);
    equal("its ephemeral", await data(moved, kept), "kept");
    moved.close();
    await gone.wait([DELETED, kept]);
}

async function expiry({ killedAt }) {
    const doomed = `${ROOT}/expiry/doomed`;
    const gone = new Events();
    const there = await zk.w_exists(doomed, gone.watch).catch((error) => expect(error.message.startsWith("-101 "), error.message));
    if (there) await gone.wait([DELETED, doomed]);
    const took = (Date.now() - killedAt) / 1000;
    expect(took > 1, `it was gone ${took} s after the kill`);
    return `at most ${took.toFixed(1)} s after the kill`;
}

const stdin = readline.createInterface({ input: process.stdin });

async function survive(kill) {
    const base = await below(kill ? "kill" : "restart");
    const session = zk.client_id;
    const mine = await zk.create(`${base}/mine`, "", EPHEMERAL);
    const node = await zk.create(`${base}/data`, "before", PLAIN);
    const missing = `${base}/missing`;
    const survivors = Array.from({ length: SURVIVORS }, (_, n) => n);
    await Promise.all(survivors.map((n) => zk.create(`${node}/${n}`, String(n), PLAIN)));
    const [get, exists, child] = [new Events(), new Events(), new Events()];
    await zk.w_get(node, get.watch);
    await raises(-101, "a missing node", zk.w_exists(missing, exists.watch));
    await zk.w_get_children(base, child.watch);
    const goOn = new Promise((done) => stdin.once("line", done));
    const connected = new Promise((done) => zk.once("connect", done));
    say(kill ? "RESTART KILL" : "RESTART");
    await goOn;
    await Promise.race([connected, sleep(WAIT_S * 1000)]);
    equal("the session", zk.client_id, session);
    const stat = await zk.exists(mine, false);
    equal("the owner of the ephemeral", [stat.ephemeralOwner, stat.createdInThisSession], [session, true]);
    const found = await Promise.all(survivors.map((n) => data(zk, `${node}/${n}`)));
    equal("the nodes", found, survivors.map(String));
    equal("what fired by itself", [get, exists, child].flatMap((events) => events.seen), []);
    const other = await connect();
    await other.set(node, "after", -1);
    await other.create(missing, "", PLAIN);
    await get.wait([CHANGED, node]);
    await exists.wait([CREATED, missing]);
    await child.wait([CHILD, base]);
    other.close();
    return `session 0x${session}`;
}

async function check(name, made) {
    let late;
    const tooLong = new Promise((_, failed) => {
        late = setTimeout(() => failed(new Error(`it took longer than ${CHECK_S} s`)), CHECK_S * 1000);
    });
    try {
        say(`CHECK ${name} ok ${(await Promise.race([made(), tooLong])) ?? ""}`.trimEnd());
    } catch (error) {
        say(`CHECK ${name} fail ${error.message}`);
    }
    clearTimeout(late);
}

async function program() {
    const victim = await killedVictim();
    zk = await connect();
    const all = { create, set, delete: remove, children, sequence, ephemeral, container, ttl, errors, watches };
    Object.assign(all, { acl, auth, large, async: outstanding, sync, chroot });
    Object.assign(all, { move: () => move(victim), expiry: () => expiry(victim) });
    Object.assign(all, { restart: () => survive(false), kill: () => survive(true) });
    for (const [name, made] of Object.entries(all)) await check(name, made);
    for (const name of ["persistent", "unwatch", "multi", "undone", "multiread", "whoami", "quota", "words"]) {
        say(`CHECK ${name} skip the package has no such call`);
    }
    for (const name of ["lock", "election", "counter", "party", "cache"]) say(`CHECK ${name} skip the package has no recipes`);
    zk.close();
}

(HOLD ? hold() : program().then(() => process.exit(0))).catch((error) => {
    console.error(error);
    process.exit(1);
});
