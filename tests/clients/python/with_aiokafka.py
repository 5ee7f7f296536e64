"""aiokafka (asyncio) through the plan."""

import asyncio
import logging
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import plan as p

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Member:
    def __init__(self, plan, ledger):
        self.ledger, self.read, self.first = ledger, 0, {}
        self.consumer = AIOKafkaConsumer(
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

    async def poll(self):
        for tp, records in (await self.consumer.getmany(timeout_ms=100)).items():
            self.first.setdefault(tp.partition, records[0].offset)
            self.read += len(records)
            take(self.ledger, records)


def take(ledger, records):
    for r in records:
        ledger.add(r.partition, r.offset, r.key, r.value, r.headers, r.timestamp)


async def until(condition, step, what):
    end = time.monotonic() + p.WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise p.Failed(f"waited {p.WAIT_S} s for {what}")
        await step()


class Sender:
    """One idempotent producer a codec, open over the restart."""

    def __init__(self, plan):
        self.plan, self.acked, self.producers = plan, 0, {}

    async def start(self):
        for codec in self.plan.codecs:
            self.producers[codec] = AIOKafkaProducer(
                bootstrap_servers=self.plan.bootstrap,
                enable_idempotence=True,
                acks="all",
                compression_type=None if codec == "none" else codec,
                linger_ms=5,
            )
            await self.producers[codec].start()

    async def send(self, stage):
        for codec, records in self.plan.runs(stage):
            producer = self.producers[codec]
            futures = [
                await producer.send(self.plan.topic, r.value, r.key, headers=r.headers, timestamp_ms=r.timestamp)
                for r in records
            ]
            try:
                await asyncio.wait_for(asyncio.gather(*futures), p.WAIT_S)
            except Exception as error:
                p.must("produce", False, f"{codec}: {error!r}")
            self.acked += len(futures)


async def committed(plan):
    consumer = AIOKafkaConsumer(bootstrap_servers=plan.bootstrap, group_id=plan.group, enable_auto_commit=False)
    await consumer.start()
    found = {i: await consumer.committed(TopicPartition(plan.topic, i)) for i in range(p.PARTITIONS)}
    await consumer.stop()
    return found


async def lookups(consumer, plan):
    """Every lookup of the plan, done ahead: the plan's check is not async."""
    found = {}
    for ms in {plan.timestamp(n) + late for n in p.LOOKUPS for late in (0, 5)}:
        answer = await consumer.offsets_for_times({TopicPartition(plan.topic, i): ms for i in range(p.PARTITIONS)})
        found[ms] = {tp.partition: at.offset if at else None for tp, at in answer.items()}
    return found


async def program():
    plan = p.Plan(CODECS)
    plan.print_codecs()
    admin = AIOKafkaAdminClient(bootstrap_servers=plan.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(plan.topic, p.PARTITIONS, 1)])
    partitions = (await admin.describe_topics([plan.topic]))[0]["partitions"]
    p.must("create", len(partitions) == p.PARTITIONS, f"{len(partitions)} partitions")
    await admin.close()

    sender, seen = Sender(plan), p.Ledger(plan)
    await sender.start()
    await sender.send(0)
    a = Member(plan, seen)
    await a.consumer.start()
    await until(lambda: len(seen) == p.STAGES[0][1], a.poll, "A to read stage 0")
    await a.consumer.commit()

    b = Member(plan, seen)
    await b.consumer.start()

    async def both():
        await a.poll()
        await b.poll()

    await until(lambda: p.split_between(a.owned(), b.owned()), both, "A and B to share the partitions")
    p.check("join", True, f"A has {sorted(a.owned())}, B has {sorted(b.owned())}")
    await sender.send(1)
    await until(lambda: len(seen) == p.STAGES[1][1], both, "A and B to read stage 1")
    await a.consumer.commit()
    await b.consumer.commit()

    await a.consumer.stop()
    await until(lambda: len(b.owned()) == p.PARTITIONS, b.poll, "B to get A's partitions")
    await sender.send(2)
    await until(lambda: len(seen) == p.STAGES[2][1], b.poll, "B to read stage 2")
    p.check("leave", b.read > 0, f"A read {a.read}, B {b.read}")
    await b.consumer.commit()
    before = await committed(plan)
    await b.consumer.stop()

    # In a thread: the producers' own tasks go on, and meet the broker's absence.
    await asyncio.get_running_loop().run_in_executor(None, p.await_restart)
    after = {}

    async def ask():
        after.update(await committed(plan))

    # aiokafka does not read OffsetFetch's error for the whole group: while the
    # coordinator still loads it takes "not yet" for "nothing committed".
    await until(lambda: after and None not in after.values(), ask, "the committed offsets")
    p.check("commit", before == after == seen.next_offset, f"before the restart {before}, after {after}, read up to {seen.next_offset}")
    await sender.send(3)
    p.check("produce", sender.acked == p.ALL, f"{sender.acked} acknowledged")
    c = Member(plan, seen)
    await c.consumer.start()
    await until(lambda: len(seen) == p.ALL, c.poll, "C to read stage 3")
    p.check("resume", c.first == after and c.read == p.ALL - p.BEFORE_RESTART, f"C read {c.read}, from {c.first}")
    await c.consumer.commit()
    await c.consumer.stop()

    again = p.Ledger(plan)
    reader = AIOKafkaConsumer(bootstrap_servers=plan.bootstrap, group_id=None)
    await reader.start()
    everywhere = [TopicPartition(plan.topic, i) for i in range(p.PARTITIONS)]
    reader.assign(everywhere)
    await reader.seek_to_beginning(*everywhere)

    async def read():
        for records in (await reader.getmany(timeout_ms=100)).values():
            take(again, records)

    await until(lambda: len(again) == p.ALL, read, "the read from the beginning")
    found = await lookups(reader, plan)
    await reader.stop()
    p.check_timestamps(plan, again, found.__getitem__)
    for producer in sender.producers.values():
        await producer.stop()
    p.check_ledgers(seen, again)


logging.basicConfig(level=logging.WARNING)
p.main(lambda: asyncio.run(program()))
