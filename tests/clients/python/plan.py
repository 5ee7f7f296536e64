"""What every client does and what it must see; the Python statement of it.

    PROGRAM BOOTSTRAP TOPIC GROUP FIRST_TIMESTAMP

Record n is a function of n alone, so any program can check any other's records:

    stage     0 [0, 4000)   1 [4000, 7000)   2 [7000, 10000)   3 [10000, 11000)
    read by   A alone       A and B          B, A has left     C, after the restart
    codecs    each stage is cut into one equal run for each codec of the client
    key       key-<n mod 101>
    value     value-<n>:abcdefghij...  (10 + n mod 20 times)
    headers   n=<n>, codec=<name>, dup=a, dup=b, bytes=00 ff <n mod 256>, empty=
    timestamp FIRST_TIMESTAMP + 10 n  (ms)

A program prints `CHECK name ok|fail|skip detail` lines, `INFO codecs a=1 b=2`
(records sent with each codec), and `RESTART`, after which it waits for a line
on its standard input while the runner restarts the broker.
"""

import sys
import time
from collections import namedtuple

PARTITIONS = 3
STAGES = ((0, 4000), (4000, 7000), (7000, 10_000), (10_000, 11_000))
ALL = STAGES[-1][1]
BEFORE_RESTART = STAGES[2][1]
# One wait for one thing (an assignment, a stage's records) takes no longer.
WAIT_S = 40

Record = namedtuple("Record", "n key value headers timestamp")


class Failed(Exception):
    """A check failed and nothing after it can be judged."""


class Plan:
    def __init__(self, codecs, argv=None):
        self.bootstrap, self.topic, self.group, first = (argv or sys.argv)[1:5]
        self.first_timestamp = int(first)
        self.codecs = tuple(codecs)

    def timestamp(self, n):
        return self.first_timestamp + 10 * n

    def record(self, n, codec):
        headers = [
            ("n", str(n).encode()),
            ("codec", codec.encode()),
            ("dup", b"a"),
            ("dup", b"b"),
            ("bytes", bytes((0x00, 0xFF, n % 256))),
            ("empty", b""),
        ]
        value = f"value-{n}:" + "abcdefghij" * (10 + n % 20)
        return Record(n, f"key-{n % 101}".encode(), value.encode(), headers, self.timestamp(n))

    def runs(self, stage):
        """(codec, its records) of a stage, in the order to send them."""
        for codec, numbers in self._ranges(stage):
            yield codec, [self.record(n, codec) for n in numbers]

    def codec_of(self, n):
        for stage, (low, high) in enumerate(STAGES):
            if low <= n < high:
                for codec, records in self._ranges(stage):
                    if n in records:
                        return codec
        return None

    def _ranges(self, stage):
        low, high = STAGES[stage]
        each = [low + (high - low) * i // len(self.codecs) for i in range(len(self.codecs) + 1)]
        return [(codec, range(a, b)) for codec, a, b in zip(self.codecs, each, each[1:])]

    def print_codecs(self):
        sent = {codec: 0 for codec in self.codecs}
        for stage in range(len(STAGES)):
            for codec, numbers in self._ranges(stage):
                sent[codec] += len(numbers)
        say("INFO codecs " + " ".join(f"{codec}={count}" for codec, count in sent.items()))


class Ledger:
    """Every record that was read, checked as it comes."""

    def __init__(self, plan):
        self.plan = plan
        self.place = {}  # n -> (partition, offset)
        self.next_offset = {}  # partition -> offset after the last one read
        self.wrong, self.disordered, self.repeated, self.gaps = [], [], [], []
        self._last_of_key = {}
        self._partition_of_key = {}

    def __len__(self):
        return len(self.place)

    def add(self, partition, offset, key, value, headers, timestamp):
        where = f"{self.plan.topic}-{partition} offset {offset}"
        headers = [(name, bytes(data) if data is not None else None) for name, data in headers]
        try:
            n = int(value[len(b"value-") : value.index(b":")])
        except (AttributeError, TypeError, ValueError):
            self.wrong.append(f"{where}: a value that nobody sent: {value!r}")
            return
        want = self.plan.record(n, self.plan.codec_of(n) or "?")
        got = Record(n, key, value, headers, timestamp)
        for field, a, b in zip(Record._fields, got, want):
            if a != b:
                self.wrong.append(f"{where}: {field} is {a!r}, not {b!r}")
        if n in self.place:
            self.repeated.append(f"record {n} at {where}, before at {self.place[n]}")
            return
        if offset != self.next_offset.get(partition, 0):
            self.gaps.append(f"{where} came where offset {self.next_offset.get(partition, 0)} was next")
        if self._last_of_key.get(key, -1) > n:
            self.disordered.append(f"{where}: {key!r} has {n} after {self._last_of_key[key]}")
        if self._partition_of_key.setdefault(key, partition) != partition:
            self.disordered.append(f"{where}: {key!r} was in partition {self._partition_of_key[key]} before")
        self._last_of_key[key] = n
        self.next_offset[partition] = offset + 1
        self.place[n] = (partition, offset)

    def offset_at(self, partition, n):
        """Offset of the first record at or after record n's time, or None."""
        later = [offset for m, (p, offset) in self.place.items() if p == partition and m >= n]
        return min(later, default=None)


def say(line):
    print(line, flush=True)


def check(name, ok, detail=""):
    say(f"CHECK {name} {'ok' if ok else 'fail'} {detail}".rstrip().replace("\n", " "))
    return ok


def skip(name, reason):
    say(f"CHECK {name} skip {reason}")


def must(name, ok, detail=""):
    if not check(name, ok, detail):
        raise Failed(name)


def await_restart():
    say("RESTART")
    if not sys.stdin.readline():
        raise Failed("the runner is gone")


def until(condition, step, what):
    """Calls `step` until `condition` holds; gives up after WAIT_S."""
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {WAIT_S} s for {what}")
        step()


def split_between(a, b):
    """A group of two that shares all partitions, each having some."""
    return bool(a) and bool(b) and not set(a) & set(b) and len(set(a) | set(b)) == PARTITIONS


# Looked up by timestamp: at a record, between two, in the last stage.
LOOKUPS = (0, 1, 1234, 3999, 6999, 9999, 10_500, 10_999)


def check_timestamps(plan, ledger, lookup):
    """`lookup(ms) -> {partition: offset or None}`; None where no record is that late."""
    wrong = []
    for n in LOOKUPS:
        for late in (0, 5):
            got = lookup(plan.timestamp(n) + late)
            for partition in range(PARTITIONS):
                want = ledger.offset_at(partition, n + (late > 0))
                if got.get(partition) != want:
                    wrong.append(f"record {n} + {late} ms in partition {partition}: offset {got.get(partition)}, not {want}")
    check("timestamp", not wrong, "; ".join(wrong[:3]) or f"{2 * len(LOOKUPS) * PARTITIONS} lookups, each exact")


def check_ledgers(group, reread):
    """The three verdicts on what the group saw and what is read again at the end."""
    for name, attribute in (("records", "wrong"), ("order", "disordered")):
        wrong = getattr(group, attribute) + getattr(reread, attribute)
        check(name, not wrong, "; ".join(wrong[:3]) or f"{len(group)} in the group, {len(reread)} from the beginning")
    wrong = []
    for who, ledger in (("group", group), ("from the beginning", reread)):
        missing = [n for n in range(ALL) if n not in ledger.place]
        if missing:
            wrong.append(f"{who}: {len(missing)} lost, the first is record {missing[0]}")
        if ledger.repeated:
            wrong.append(f"{who}: {len(ledger.repeated)} read twice: {ledger.repeated[0]}")
        if ledger.gaps:
            wrong.append(f"{who}: {len(ledger.gaps)} gaps: {ledger.gaps[0]}")
    if group.place != reread.place:
        wrong.append("the group saw records at other offsets than the read from the beginning")
    check("once", not wrong, "; ".join(wrong) or f"{ALL} records, none lost, none twice")


def main(program):
    try:
        program()
    except Failed as failure:
        print(f"given up: {failure}", file=sys.stderr)
        sys.exit(1)
