"""confluent-kafka (librdkafka) through the plan."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

import plan as p

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
COORDINATOR_NOT_YET = (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR)


class Member:
    def __init__(self, plan, ledger):
        self.plan, self.ledger = plan, ledger
        self.owned, self.read, self.first = [], 0, {}
        self.consumer = Consumer(
            {
                "bootstrap.servers": plan.bootstrap,
                "group.id": plan.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "heartbeat.interval.ms": 500,
                "session.timeout.ms": 10_000,
                "check.crcs": True,
            }
        )
        self.consumer.subscribe([plan.topic], on_assign=self._assigned, on_revoke=self._revoked)

    def _assigned(self, _, partitions):
        self.owned = [tp.partition for tp in partitions]

    def _revoked(self, _, partitions):
        self.owned = []

    def poll(self):
        for message in self.consumer.consume(500, 0.1):
            if message.error():
                raise p.Failed(f"consume: {message.error()}")
            self.first.setdefault(message.partition(), message.offset())
            self.read += 1
            take(self.ledger, message)

    def commit(self):
        self.consumer.commit(asynchronous=False)


def take(ledger, m):
    ledger.add(m.partition(), m.offset(), m.key(), m.value(), m.headers() or [], m.timestamp()[1])


class Sender:
    """One idempotent producer a codec, open for the whole run: after the restart
    their sequences go on where they were."""

    def __init__(self, plan):
        self.plan, self.acked, self.refused = plan, 0, []
        self.producers = {
            codec: Producer(
                {
                    "bootstrap.servers": plan.bootstrap,
                    "enable.idempotence": True,
                    "acks": "all",
                    "compression.type": codec,
                    "linger.ms": 5,
                }
            )
            for codec in plan.codecs
        }

    def _delivered(self, error, _):
        if error:
            self.refused.append(str(error))
        else:
            self.acked += 1

    def send(self, stage):
        for codec, records in self.plan.runs(stage):
            producer = self.producers[codec]
            for r in records:
                producer.produce(
                    self.plan.topic, r.value, r.key, headers=r.headers, timestamp=r.timestamp, on_delivery=self._delivered
                )
            left = producer.flush(p.WAIT_S)
            if left or self.refused:
                p.must("produce", False, f"{codec}: {left} not acknowledged, {self.refused[:1]}")


def committed(plan):
    consumer = Consumer({"bootstrap.servers": plan.bootstrap, "group.id": plan.group})
    found = []

    def ask():
        try:
            found.extend(consumer.committed([TopicPartition(plan.topic, i) for i in range(p.PARTITIONS)], timeout=20))
        except KafkaException as refused:
            # A coordinator that has just started may not be one yet.
            if refused.args[0].code() not in COORDINATOR_NOT_YET:
                raise
            time.sleep(0.1)

    p.until(lambda: found, ask, "the committed offsets")
    consumer.close()
    return {tp.partition: tp.offset for tp in found}


def lookup(admin, plan, ms):
    asked = {TopicPartition(plan.topic, i): OffsetSpec.for_timestamp(ms) for i in range(p.PARTITIONS)}
    answers = {tp.partition: f.result().offset for tp, f in admin.list_offsets(asked, request_timeout=20).items()}
    return {i: offset if offset >= 0 else None for i, offset in answers.items()}


def program():
    plan = p.Plan(CODECS)
    plan.print_codecs()
    admin = AdminClient({"bootstrap.servers": plan.bootstrap})
    admin.create_topics([NewTopic(plan.topic, num_partitions=p.PARTITIONS, replication_factor=1)])[plan.topic].result(20)
    partitions = admin.list_topics(plan.topic, timeout=20).topics[plan.topic].partitions
    p.must("create", len(partitions) == p.PARTITIONS, f"{len(partitions)} partitions")

    sender, seen = Sender(plan), p.Ledger(plan)
    sender.send(0)
    a = Member(plan, seen)
    p.until(lambda: len(seen) == p.STAGES[0][1], a.poll, "A to read stage 0")
    a.commit()

    b = Member(plan, seen)
    both = lambda: (a.poll(), b.poll())
    p.until(lambda: p.split_between(a.owned, b.owned), both, "A and B to share the partitions")
    p.check("join", True, f"A has {sorted(a.owned)}, B has {sorted(b.owned)}")
    sender.send(1)
    p.until(lambda: len(seen) == p.STAGES[1][1], both, "A and B to read stage 1")
    a.commit(), b.commit()

    a.consumer.close()
    p.until(lambda: len(b.owned) == p.PARTITIONS, b.poll, "B to get A's partitions")
    sender.send(2)
    p.until(lambda: len(seen) == p.STAGES[2][1], b.poll, "B to read stage 2")
    p.check("leave", b.read > 0, f"A read {a.read}, B {b.read}")
    b.commit()
    before = committed(plan)
    b.consumer.close()

    p.await_restart()
    after = committed(plan)
    p.check("commit", before == after == seen.next_offset, f"before the restart {before}, after {after}, read up to {seen.next_offset}")
    sender.send(3)
    p.check("produce", sender.acked == p.ALL, f"{sender.acked} acknowledged")
    c = Member(plan, seen)
    p.until(lambda: len(seen) == p.ALL, c.poll, "C to read stage 3")
    p.check("resume", c.first == after and c.read == p.ALL - p.BEFORE_RESTART, f"C read {c.read}, from {c.first}")
    c.commit()
    c.consumer.close()

    again = p.Ledger(plan)
    reader = Consumer({"bootstrap.servers": plan.bootstrap, "group.id": plan.group + "-none", "check.crcs": True})
    reader.assign([TopicPartition(plan.topic, i, 0) for i in range(p.PARTITIONS)])
    p.until(lambda: len(again) == p.ALL, lambda: [take(again, m) for m in reader.consume(500, 0.1)], "the read from the beginning")
    reader.close()
    p.check_timestamps(plan, again, lambda ms: lookup(admin, plan, ms))
    p.check_ledgers(seen, again)


p.main(program)
