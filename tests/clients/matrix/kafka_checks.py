"""What a Kafka client's program is judged by; ../python/plan.py is what it does.

After the program has ended the stored batches are read raw (wire.py): a codec
that was silently not used, or an idempotent producer that was none, is seen there.
"""

import time

from . import wire
from .runner import Run, Verdict

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


class KafkaRun(Run):
    CHECKS = CHECKS
    sent_by_codec = None

    def arguments(self, running):
        # An hour ago: not in the future for any broker, and inside of retention.
        first_timestamp = int(time.time() * 1000) - 3_600_000
        return [f"127.0.0.1:{running.port}", self._topic(), f"group-{self.client.name}", str(first_timestamp)]

    def _topic(self):
        return f"matrix-{self.client.name}"

    def info(self, words):
        if words[:1] == ["codecs"]:
            pairs = " ".join(words[1:]).split()
            self.sent_by_codec = {codec: int(count) for codec, count in (pair.split("=") for pair in pairs)}

    def after(self, running):
        """The checks that need the batches themselves."""
        if self.sent_by_codec is None:
            raise wire.WireError("the program did not say which codecs it used")
        stored = wire.read_stored(running.port, self._topic(), 3)
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
