"""Runs clients against brokers, and says what came of it.

    for each client (two at a time):
        fresh broker -> program -> "RESTART" -> broker down and up -> "go on"
                     -> program ends -> the stored batches are read raw
    table client x check, reasons, "N passed, N failed, N skipped"

A check that was neither passed nor skipped has failed: a program that dies, or
that the watchdog ends, loses every check that it had not reached.
"""

import os
import queue
import struct
import subprocess
import threading
import time
from collections import namedtuple

from . import broker, cache, wire

# name, what it means; in the order of the way through the plan.
CHECKS = (
    ("create", "a topic with 3 partitions is created"),
    ("produce", "all records are acknowledged, acks=all, before and after the restart"),
    ("join", "a second member joins: the two share the partitions"),
    ("leave", "a member leaves: the other gets its partitions"),
    ("commit", "committed offsets are what was read, and still are after the restart"),
    ("resume", "after the restart a new member goes on exactly at the committed offsets"),
    ("timestamp", "offsets by timestamp are exact to the record"),
    ("records", "key, value, headers and timestamp of every record"),
    ("order", "order and partition of every key"),
    ("once", "no record lost, none twice, offsets without gaps"),
    ("idempotent", "every stored batch carries a producer id"),
    *((codec, f"as many records are stored with codec {codec} as were sent with it") for codec in wire.CODECS),
)
FROM_BATCHES = ("idempotent", *wire.CODECS)

Verdict = namedtuple("Verdict", "state detail")  # state: ok, fail or skip


class Run:
    """One client against one broker."""

    def __init__(self, client, command, adapter, limit_s):
        self.client, self.command, self.adapter, self.limit_s = client, command, adapter, limit_s
        self.verdicts = {}
        self.sent_by_codec = None
        self.why_not_reached = None
        self.seconds = 0.0
        self.directory = cache.fresh_folder("run", client.name)

    def go(self):
        began = time.monotonic()
        try:
            with broker.Broker(self.adapter, os.path.join(self.directory, "broker")) as running:
                topic, group = f"matrix-{self.client.name}", f"group-{self.client.name}"
                if self._program(running, topic, group):
                    self._stored(running.port, topic)
        except (broker.BrokerError, wire.WireError, OSError, struct.error) as error:
            self.why_not_reached = str(error)
        self.seconds = time.monotonic() - began
        for name, _ in CHECKS:
            self.verdicts.setdefault(name, Verdict("fail", f"not reached: {self.why_not_reached or 'never reported'}"))
        return self

    def fail_all(self, why):
        self.verdicts = {name: Verdict("fail", why) for name, _ in CHECKS}
        return self

    def _program(self, running, topic, group):
        """True if the program ended well."""
        # An hour ago: not in the future for any broker, and inside of retention.
        first_timestamp = int(time.time() * 1000) - 3_600_000
        log = os.path.join(self.directory, "client.log")
        command = [*self.command, f"127.0.0.1:{running.port}", topic, group, str(first_timestamp)]
        until = time.monotonic() + self.limit_s
        with open(log, "ab") as file:
            process = cache.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True)
        lines = queue.Queue()
        threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
        try:
            with open(log, "a") as file:
                while True:
                    line = lines.get(timeout=max(0.001, until - time.monotonic()))
                    if line is None:
                        break
                    file.write(line)
                    file.flush()
                    if line.strip() == "RESTART":
                        running.restart()
                        _answer(process, "go on\n")
                    else:
                        self._take(line.split(" ", 3))
            status = process.wait(max(0.001, until - time.monotonic()))
            if status:
                self.why_not_reached = f"the program ended with status {status}: {_last_line(log)} (see {log})"
            return status == 0
        except (queue.Empty, subprocess.TimeoutExpired):
            self.why_not_reached = f"time limit of {self.limit_s} s (see {log})"
            return False
        finally:
            cache.end_group(process)

    def _take(self, words):
        if len(words) >= 3 and words[0] == "CHECK":
            state, name = words[2].strip(), words[1]
            known = state in ("ok", "fail", "skip") and name in dict(CHECKS)
            # A second verdict never makes a failed check good.
            if known and self.verdicts.get(name, Verdict("ok", "")).state != "fail":
                self.verdicts[name] = Verdict(state, words[3].strip() if len(words) > 3 else "")
        elif words[:2] == ["INFO", "codecs"]:
            pairs = " ".join(words[2:]).split()
            self.sent_by_codec = {codec: int(count) for codec, count in (pair.split("=") for pair in pairs)}

    def _stored(self, port, topic):
        """The checks that need the batches themselves."""
        if self.sent_by_codec is None:
            raise wire.WireError("the program did not say which codecs it used")
        stored = wire.read_stored(port, topic, 3)
        faults = "; ".join(stored.faults[:2])
        for codec in wire.CODECS:
            sent, found = self.sent_by_codec.get(codec), stored.records_by_codec[codec]
            if sent is None and not found:
                self.verdicts[codec] = Verdict("skip", "the client has no such codec")
            else:
                good = found == sent and not faults
                self.verdicts[codec] = Verdict("ok" if good else "fail", f"{sent} sent, {found} stored {faults}".strip())
        if self.verdicts.get("idempotent", Verdict("", "")).state != "skip":
            good = stored.batches_idempotent == stored.batches > 0
            detail = f"{stored.batches_idempotent} of {stored.batches} batches have a producer id"
            self.verdicts["idempotent"] = Verdict("ok" if good else "fail", detail)


def _pump(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)


def _answer(process, text):
    try:
        process.stdin.write(text)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # the end of its output, which comes next, tells the story


def _last_line(path):
    with open(path, errors="replace") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith(("CHECK", "INFO", "RESTART"))]
    return lines[-1][:300] if lines else "it printed nothing"


def run_all(clients, adapter, jobs, limit_s, say):
    """Runs every client, `jobs` at a time; the runs in the order of `clients`."""
    runs, waiting = {}, queue.Queue()
    for client in clients:
        say(f"preparing {client.name} {client.version}")
        try:
            command = client.prepare()
            waiting.put((client, command))
        except cache.PrepareError as error:
            say(f"{client.name}: {error}")
            runs[client.name] = Run(client, [], adapter, limit_s).fail_all(f"could not be prepared: {str(error).splitlines()[0]}")

    def work():
        while True:
            try:
                client, command = waiting.get_nowait()
            except queue.Empty:
                return
            run = Run(client, command, adapter, limit_s)
            try:
                run.go()
            except Exception as error:  # the matrix's own fault: reported, never lost
                run.fail_all(f"the runner failed: {error!r}")
            runs[client.name] = run
            failed = sum(v.state == "fail" for v in run.verdicts.values())
            say(f"{client.name}: {'ok' if not failed else f'{failed} failed'} in {run.seconds:.1f} s")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [runs[client.name] for client in clients]


def report(runs, say):
    """The table, the reasons, the closing line; the number of failed checks."""
    names = [name for name, _ in CHECKS]
    signs = {"ok": "ok", "fail": "FAIL", "skip": "-"}
    labels = [f"{run.client.name} {run.client.version}" for run in runs]
    width = max(len(label) for label in [*labels, "client"])
    say("")
    say("  ".join(["client".ljust(width), *names]))
    for run, label in zip(runs, labels):
        say("  ".join([label.ljust(width), *(signs[run.verdicts[n].state].ljust(len(n)) for n in names)]).rstrip())
    for state, title in (("skip", "skipped"), ("fail", "failed")):
        for run in runs:
            for reason, checks in _by_reason(run, names, state).items():
                say(f"{title}: {run.client.name}: {', '.join(checks)}: {reason}")
    counts = {state: sum(v.state == state for run in runs for v in run.verdicts.values()) for state in signs}
    say("")
    say(f"{counts['ok']} passed, {counts['fail']} failed, {counts['skip']} skipped")
    return counts["fail"]


def _by_reason(run, names, state):
    reasons = {}
    for name in names:
        if run.verdicts[name].state == state:
            reasons.setdefault(run.verdicts[name].detail or "no reason given", []).append(name)
    return reasons
