"""kafka-python (pure Python) through the plan."""

import logging

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

import plan as p

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Member:
    def __init__(self, plan, ledger):
        self.ledger, self.read, self.first = ledger, 0, {}
        self.consumer = KafkaConsumer(
            plan.topic,
            bootstrap_servers=plan.bootstrap,
            group_id=plan.group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            heartbeat_interval_ms=500,
            session_timeout_ms=10_000,
        )

    def owned(self):
        return [tp.partition for tp in self.consumer.assignment()]

    def poll(self):
        for tp, records in self.consumer.poll(timeout_ms=100).items():
            self.first.setdefault(tp.partition, records[0].offset)
            self.read += len(records)
            take(self.ledger, records)


def take(ledger, records):
    for r in records:
        ledger.add(r.partition, r.offset, r.key, r.value, r.headers, r.timestamp)


class Sender:
    """One idempotent producer a codec, open over the restart."""

    def __init__(self, plan):
        self.plan, self.acked = plan, 0
        self.producers = {
            codec: KafkaProducer(
                bootstrap_servers=plan.bootstrap,
                enable_idempotence=True,
                acks="all",
                compression_type=None if codec == "none" else codec,
                linger_ms=5,
            )
            for codec in plan.codecs
        }

    def send(self, stage):
        for codec, records in self.plan.runs(stage):
            producer = self.producers[codec]
            futures = [
                producer.send(self.plan.topic, r.value, r.key, headers=r.headers, timestamp_ms=r.timestamp) for r in records
            ]
            producer.flush(p.WAIT_S)
            for future in futures:
                try:
                    future.get(timeout=p.WAIT_S)
                    self.acked += 1
                except Exception as error:
                    p.must("produce", False, f"{codec}: {error!r}")


def committed(plan):
    consumer = KafkaConsumer(bootstrap_servers=plan.bootstrap, group_id=plan.group, enable_auto_commit=False)
    found = {i: consumer.committed(TopicPartition(plan.topic, i)) for i in range(p.PARTITIONS)}
    consumer.close()
    return found


def lookup(consumer, plan, ms):
    found = consumer.offsets_for_times({TopicPartition(plan.topic, i): ms for i in range(p.PARTITIONS)})
    return {tp.partition: at.offset if at else None for tp, at in found.items()}


def program():
    plan = p.Plan(CODECS)
    plan.print_codecs()
    admin = KafkaAdminClient(bootstrap_servers=plan.bootstrap)
    admin.create_topics([NewTopic(plan.topic, p.PARTITIONS, 1)], wait_for_metadata=True)
    partitions = admin.describe_topics([plan.topic])[0]["partitions"]
    p.must("create", len(partitions) == p.PARTITIONS, f"{len(partitions)} partitions")
    admin.close()

    sender, seen = Sender(plan), p.Ledger(plan)
    sender.send(0)
    a = Member(plan, seen)
    p.until(lambda: len(seen) == p.STAGES[0][1], a.poll, "A to read stage 0")
    a.consumer.commit()

    b = Member(plan, seen)
    both = lambda: (a.poll(), b.poll())
    p.until(lambda: p.split_between(a.owned(), b.owned()), both, "A and B to share the partitions")
    p.check("join", True, f"A has {sorted(a.owned())}, B has {sorted(b.owned())}")
    sender.send(1)
    p.until(lambda: len(seen) == p.STAGES[1][1], both, "A and B to read stage 1")
    a.consumer.commit(), b.consumer.commit()

    a.consumer.close()
    p.until(lambda: len(b.owned()) == p.PARTITIONS, b.poll, "B to get A's partitions")
    sender.send(2)
    p.until(lambda: len(seen) == p.STAGES[2][1], b.poll, "B to read stage 2")
    p.check("leave", b.read > 0, f"A read {a.read}, B {b.read}")
    b.consumer.commit()
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
    c.consumer.commit()
    c.consumer.close()

    again = p.Ledger(plan)
    reader = KafkaConsumer(bootstrap_servers=plan.bootstrap, group_id=None)
    everywhere = [TopicPartition(plan.topic, i) for i in range(p.PARTITIONS)]
    reader.assign(everywhere)
    reader.seek_to_beginning(*everywhere)
    read = lambda: [take(again, records) for records in reader.poll(timeout_ms=100).values()]
    p.until(lambda: len(again) == p.ALL, read, "the read from the beginning")
    p.check_timestamps(plan, again, lambda ms: lookup(reader, plan, ms))
    reader.close()
    for producer in sender.producers.values():
        producer.close()
    p.check_ledgers(seen, again)


logging.basicConfig(level=logging.WARNING)
p.main(program)
