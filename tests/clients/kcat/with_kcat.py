"""kcat (Debian's, librdkafka 2.0.2) through the plan, as far as a command line goes.

kcat gives one set of headers and the present time to all records of a process,
so here a record's headers are codec, dup, dup and empty, its number stands in
the value only, and its timestamp is read before it is looked up. Committing is
automatic: kcat commits what it has printed when it gives partitions away and
when it ends.
"""

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "python"), os.path.join(HERE, "..")]
sys.dont_write_bytecode = True

import plan as p
from matrix import wire

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class KcatPlan(p.Plan):
    def record(self, n, codec):
        headers = [("codec", codec.encode()), ("dup", b"a"), ("dup", b"b"), ("empty", b"")]
        return super().record(n, codec)._replace(headers=headers, timestamp=None)


class Kcat:
    """A running kcat; both of its outputs are read as lines while it runs."""

    def __init__(self, plan, *words, stdin=subprocess.DEVNULL):
        self.process = subprocess.Popen(
            ["kcat", "-b", plan.bootstrap, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.out, self.err = queue.Queue(), queue.Queue()
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            threading.Thread(target=self._pump, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _pump(stream, lines):
        for line in stream:
            lines.put(line)
        lines.put(None)

    @staticmethod
    def take(lines):
        taken = []
        try:
            while (line := lines.get_nowait()) is not None:
                taken.append(line)
        except queue.Empty:
            pass
        return taken

    def end(self):
        """SIGTERM, as for any command that should end; it commits and leaves."""
        self.process.terminate()
        try:
            return self.process.wait(p.WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise p.Failed("kcat did not end on SIGTERM") from None


def ask(plan, *words):
    """A kcat that ends by itself; its output."""
    done = subprocess.run(["kcat", "-b", plan.bootstrap, *words], capture_output=True, text=True, timeout=p.WAIT_S)
    if done.returncode:
        raise p.Failed(f"kcat {' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Member:
    def __init__(self, plan, ledger, times):
        self.ledger, self.times = ledger, times
        self.owned, self.read, self.first = [], 0, {}
        settings = ("auto.offset.reset=earliest", "heartbeat.interval.ms=500", "session.timeout.ms=10000", "check.crcs=true")
        words = [word for setting in settings for word in ("-X", setting)]
        self.kcat = Kcat(plan, *words, "-J", "-u", "-G", plan.group, plan.topic)

    def poll(self):
        for line in self.kcat.take(self.kcat.err):
            sys.stderr.write(line)
            if "rebalanced" in line:
                assigned = line.split("assigned:")[1] if " assigned:" in line else ""
                self.owned = [int(number) for number in re.findall(r"\[(\d+)\]", assigned)]
        lines = self.kcat.take(self.kcat.out)
        for line in lines:
            r = json.loads(line)
            self.first.setdefault(r["partition"], r["offset"])
            self.read += 1
            take(self.ledger, self.times, r)
        if not lines:
            time.sleep(0.02)


def take(ledger, times, r):
    h = r["headers"]
    headers = [(name, value.encode() if value is not None else None) for name, value in zip(h[::2], h[1::2])]
    times.setdefault(r["partition"], {})[r["offset"]] = r["ts"]
    ledger.add(r["partition"], r["offset"], r["key"].encode(), r["payload"].encode(), headers, None)


class Sender:
    """One kcat a codec and stage: it reads its standard input to the end before
    the last records go out, so it cannot stay open over the restart."""

    def __init__(self, plan):
        self.plan, self.acked = plan, 0

    def send(self, stage):
        for codec, records in self.plan.runs(stage):
            headers = [word for name, value in records[0].headers for word in ("-H", f"{name}={value.decode()}")]
            settings = ("-X", "enable.idempotence=true", "-X", "acks=all", "-X", "linger.ms=5")
            kcat = Kcat(
                self.plan, "-P", "-t", self.plan.topic, "-K", "\t", "-z", codec, "-vv", *settings, *headers, stdin=subprocess.PIPE
            )
            kcat.process.stdin.write("".join(f"{r.key.decode()}\t{r.value.decode()}\n" for r in records))
            kcat.process.stdin.close()
            status = kcat.process.wait(p.WAIT_S)
            said = list(iter(kcat.err.get, None))
            acked = sum("Message delivered" in line for line in said)
            if status or acked != len(records):
                p.must("produce", False, f"{codec}: {acked} of {len(records)} delivered, status {status}: {said[-1:]}")
            self.acked += acked


def check_timestamps(plan, ledger, times):
    wrong, asked = [], 0
    for n in p.LOOKUPS:
        partition, offset = ledger.place[n]
        for late in (0, 1):
            ms = times[partition][offset] + late
            words = [word for i in range(p.PARTITIONS) for word in ("-t", f"{plan.topic}:{i}:{ms}")]
            got = dict(re.findall(r"\[(\d+)\] offset (-?\d+)", ask(plan, "-Q", *words)))
            for i in range(p.PARTITIONS):
                want = min((at for at, time_ms in times[i].items() if time_ms >= ms), default=-1)
                asked += 1
                if int(got.get(str(i), -9)) != want:
                    wrong.append(f"{ms} in partition {i}: offset {got.get(str(i))}, not {want}")
    p.check("timestamp", not wrong, "; ".join(wrong[:3]) or f"{asked} lookups, each exact")


def program():
    plan = KcatPlan(CODECS)
    plan.print_codecs()
    with wire.Connection(int(plan.bootstrap.rsplit(":", 1)[1])) as connection:
        connection.create_topic(plan.topic, p.PARTITIONS)
    partitions = json.loads(ask(plan, "-L", "-J", "-t", plan.topic))["topics"][0]["partitions"]
    if len(partitions) != p.PARTITIONS:
        p.must("create", False, f"kcat -L shows {len(partitions)} partitions")
    p.skip("create", "kcat cannot create topics: the runner did it")

    sender, seen, times = Sender(plan), p.Ledger(plan), {}
    sender.send(0)
    a = Member(plan, seen, times)
    p.until(lambda: len(seen) == p.STAGES[0][1], a.poll, "A to read stage 0")

    b = Member(plan, seen, times)
    both = lambda: (a.poll(), b.poll())
    p.until(lambda: p.split_between(a.owned, b.owned), both, "A and B to share the partitions")
    p.check("join", True, f"A has {sorted(a.owned)}, B has {sorted(b.owned)}")
    sender.send(1)
    p.until(lambda: len(seen) == p.STAGES[1][1], both, "A and B to read stage 1")

    a.kcat.end()
    p.until(lambda: len(b.owned) == p.PARTITIONS, b.poll, "B to get A's partitions")
    sender.send(2)
    p.until(lambda: len(seen) == p.STAGES[2][1], b.poll, "B to read stage 2")
    p.check("leave", b.read > 0, f"A read {a.read}, B {b.read}")
    b.kcat.end()
    p.skip("commit", "kcat cannot show committed offsets: 'resume' depends on them")
    upto = dict(seen.next_offset)

    p.await_restart()
    sender.send(3)
    p.check("produce", sender.acked == p.ALL, f"{sender.acked} delivered")
    c = Member(plan, seen, times)
    p.until(lambda: len(seen) == p.ALL, c.poll, "C to read stage 3")
    p.check("resume", c.first == upto and c.read == p.ALL - p.BEFORE_RESTART, f"C read {c.read}, from {c.first}")
    c.kcat.end()

    again, times = p.Ledger(plan), {}
    for line in ask(plan, "-C", "-t", plan.topic, "-o", "beginning", "-e", "-q", "-J", "-X", "check.crcs=true").splitlines():
        take(again, times, json.loads(line))
    check_timestamps(plan, again, times)
    p.check_ledgers(seen, again)


p.main(program)
