"""Runs clients against brokers, and says what came of it.

    for each client (two at a time):
        fresh broker -> program -> "RESTART" -> broker down and up -> "go on"
                     -> program ends -> whatever else the protocol's checks need
    table client x check, reasons; "N passed, N failed, N skipped" is the caller's

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

Verdict = namedtuple("Verdict", "state detail")  # state: ok, fail or skip
Counts = namedtuple("Counts", "passed failed skipped")


class Run:
    """One client against one broker. What the checks are, and what the program is
    called with, is the protocol's: KafkaRun and ZooKeeperRun."""

    CHECKS = ()

    def arguments(self, running):
        raise NotImplementedError

    def info(self, words):
        """An INFO line of the program."""

    def after(self, running):
        """Checks to make when the program has ended well."""

    def __init__(self, client, command, adapter, limit_s):
        self.client, self.command, self.adapter, self.limit_s = client, command, adapter, limit_s
        self.verdicts = {}
        self.why_not_reached = None
        self.seconds = 0.0
        self.directory = cache.fresh_folder("run", client.name)

    def go(self):
        began = time.monotonic()
        try:
            with broker.Broker(self.adapter, os.path.join(self.directory, "broker")) as running:
                if self._program(running):
                    self.after(running)
        except (broker.BrokerError, wire.WireError, OSError, struct.error) as error:
            self.why_not_reached = str(error)
        self.seconds = time.monotonic() - began
        for name, _ in self.CHECKS:
            self.verdicts.setdefault(name, Verdict("fail", f"not reached: {self.why_not_reached or 'never reported'}"))
        return self

    def fail_all(self, why):
        self.verdicts = {name: Verdict("fail", why) for name, _ in self.CHECKS}
        return self

    def _program(self, running):
        """True if the program ended well."""
        log = os.path.join(self.directory, "client.log")
        command = [*self.command, *self.arguments(running)]
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
                    if line.strip() in ("RESTART", "RESTART KILL"):
                        running.restart(process, kill=line.strip() == "RESTART KILL")
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
            known = state in ("ok", "fail", "skip") and name in dict(self.CHECKS)
            # A second verdict never makes a failed check good.
            if known and self.verdicts.get(name, Verdict("ok", "")).state != "fail":
                self.verdicts[name] = Verdict(state, words[3].strip() if len(words) > 3 else "")
        elif words[:1] == ["INFO"]:
            self.info([word.strip() for word in words[1:]])


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


def run_all(kind, clients, adapter, jobs, limit_s, say):
    """Runs every client as a `kind` of Run, `jobs` at a time; the runs in the
    order of `clients`."""
    runs, waiting = {}, queue.Queue()
    for client in clients:
        say(f"preparing {client.name} {client.version}")
        try:
            command = client.prepare()
            waiting.put((client, command))
        except cache.PrepareError as error:
            say(f"{client.name}: {error}")
            runs[client.name] = kind(client, [], adapter, limit_s).fail_all(f"could not be prepared: {str(error).splitlines()[0]}")

    def work():
        while True:
            try:
                client, command = waiting.get_nowait()
            except queue.Empty:
                return
            run = kind(client, command, adapter, limit_s)
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


# A table with more columns than this has its checks going down instead.
_COLUMNS_MAX = 20
_SIGNS = {"ok": "ok", "fail": "FAIL", "skip": "-"}


def report(runs, say):
    """The table and the reasons; how many checks passed, failed, were skipped."""
    names = [name for name, _ in runs[0].CHECKS]
    labels = [f"{run.client.name} {run.client.version}" for run in runs]
    rows = [["client", *names]]
    rows += [[label, *(_SIGNS[run.verdicts[name].state] for name in names)] for run, label in zip(runs, labels)]
    if len(names) > _COLUMNS_MAX:
        rows[0][0] = "check"
        rows = list(zip(*rows))
    widths = [max(map(len, column)) for column in zip(*rows)]
    say("")
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for state, title in (("skip", "skipped"), ("fail", "failed")):
        for run in runs:
            for reason, checks in _by_reason(run, names, state).items():
                say(f"{title}: {run.client.name}: {', '.join(checks)}: {reason}")
    return Counts(*(sum(v.state == state for run in runs for v in run.verdicts.values()) for state in _SIGNS))


def _by_reason(run, names, state):
    reasons = {}
    for name in names:
        if run.verdicts[name].state == state:
            reasons.setdefault(run.verdicts[name].detail or "no reason given", []).append(name)
    return reasons
