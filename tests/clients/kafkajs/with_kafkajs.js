// kafkajs through the plan (../python/plan.py describes it).
//
// It leaves codecs to other packages. Taken are those that bring their code with
// them: kafkajs-snappy (a raw block, without xerial framing), lz4-napi and the
// WebAssembly of zstd-codec; nothing is compiled or fetched when they install.
'use strict'

const readline = require('node:readline')
const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs')
const lz4 = require('lz4-napi')
const snappy = require('kafkajs-snappy')
const { ZstdCodec } = require('zstd-codec')

const PARTITIONS = 3
const STAGES = [[0, 4000], [4000, 7000], [7000, 10000], [10000, 11000]]
const BEFORE_RESTART = 10000
const ALL = 11000
// One wait for one thing (an assignment, a stage's records) takes no longer.
const WAIT_MS = 40000

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}
const CODEC_NAMES = Object.keys(CODECS)

async function registerCodecs() {
  const zstd = await new Promise(resolve => ZstdCodec.run(module => resolve(new module.Simple())))
  CompressionCodecs[CompressionTypes.Snappy] = snappy
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: encoder => lz4.compressFrame(encoder.buffer),
    decompress: buffer => lz4.decompressFrame(buffer),
  })
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
    decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
  })
}

class GivenUp extends Error {}

const say = line => process.stdout.write(line.replace(/\n/g, ' ') + '\n')

function check(name, ok, detail) {
  say(`CHECK ${name} ${ok ? 'ok' : 'fail'} ${detail}`)
  return ok
}

function must(name, ok, detail) {
  if (!check(name, ok, detail)) throw new GivenUp(name)
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

async function until(condition, what) {
  for (const end = Date.now() + WAIT_MS; !condition(); await pause(10)) {
    if (Date.now() > end) throw new GivenUp(`waited ${WAIT_MS} ms for ${what}`)
  }
}

class Plan {
  constructor([bootstrap, topic, group, first]) {
    Object.assign(this, { bootstrap, topic, group, first: Number(first) })
    this.codecOf = []
    STAGES.forEach((_, stage) =>
      CODEC_NAMES.forEach((codec, i) => {
        for (let n = this.begin(stage, i); n < this.begin(stage, i + 1); n++) this.codecOf[n] = codec
      })
    )
    const sent = CODEC_NAMES.map(codec => `${codec}=${this.codecOf.filter(c => c === codec).length}`)
    say(`INFO codecs ${sent.join(' ')}`)
  }

  begin(stage, codec) {
    const [low, high] = STAGES[stage]
    return low + Math.floor(((high - low) * codec) / CODEC_NAMES.length)
  }

  timestamp(n) {
    return this.first + 10 * n
  }

  record(n) {
    return {
      key: `key-${n % 101}`,
      value: `value-${n}:${'abcdefghij'.repeat(10 + (n % 20))}`,
      headers: {
        n: String(n),
        codec: this.codecOf[n],
        dup: ['a', 'b'],
        bytes: Buffer.from([0x00, 0xff, n % 256]),
        empty: Buffer.alloc(0),
      },
      timestamp: String(this.timestamp(n)),
    }
  }
}

// What is compared: all of it as text that shows each byte, duplicates in order.
const asText = ({ key, value, headers, timestamp }) =>
  JSON.stringify([
    String(key),
    String(value),
    Object.entries(headers).map(([name, data]) => [name, [data].flat().map(d => Buffer.from(d).toString('latin1'))]),
    timestamp,
  ])

// Every record that was read, checked as it comes.
class Ledger {
  constructor(plan) {
    this.plan = plan
    this.places = new Map() // n -> "partition:offset"
    this.offsets = Array.from({ length: PARTITIONS }, () => new Map()) // n -> offset, by partition
    this.next = Array(PARTITIONS).fill(0)
    this.wrong = []
    this.disordered = []
    this.notOnce = []
    this.lastOfKey = new Map()
    this.partitionOfKey = new Map()
  }

  get size() {
    return this.places.size
  }

  add(partition, message) {
    const offset = Number(message.offset)
    const where = `${this.plan.topic}-${partition} offset ${offset}`
    const n = Number(/^value-(\d+):/.exec(String(message.value))?.[1])
    if (!(n < ALL)) {
      this.wrong.push(`${where}: a value that nobody sent: ${message.value}`)
      return
    }
    const [got, want] = [asText(message), asText(this.plan.record(n))]
    if (got !== want) this.wrong.push(`${where}: ${got}, not ${want}`)
    if (this.places.has(n)) {
      this.notOnce.push(`record ${n} twice: at ${where}, before at ${this.places.get(n)}`)
      return
    }
    const key = String(message.key)
    if (offset !== this.next[partition]) this.notOnce.push(`${where} came where offset ${this.next[partition]} was next`)
    if ((this.lastOfKey.get(key) ?? -1) > n) this.disordered.push(`${where}: ${key} has ${n} after ${this.lastOfKey.get(key)}`)
    if ((this.partitionOfKey.get(key) ?? partition) !== partition)
      this.disordered.push(`${where}: ${key} was in partition ${this.partitionOfKey.get(key)} before`)
    this.lastOfKey.set(key, n)
    this.partitionOfKey.set(key, partition)
    this.next[partition] = offset + 1
    this.places.set(n, `${partition}:${offset}`)
    this.offsets[partition].set(n, offset)
  }

  // Offset of the first record at or after record n's time. kafkajs puts in the
  // end offset where no record is so late.
  offsetAt(partition, n) {
    for (; n < ALL; n++) if (this.offsets[partition].has(n)) return this.offsets[partition].get(n)
    return this.next[partition]
  }
}

class Member {
  constructor(kafka, plan, ledger, group) {
    Object.assign(this, { plan, ledger, owned: [], read: 0, first: {}, next: {} })
    this.consumer = kafka.consumer({
      groupId: group,
      heartbeatInterval: 500,
      sessionTimeout: 10000,
      maxWaitTimeInMs: 100,
    })
    this.consumer.on('consumer.group_join', event => {
      this.owned = event.payload.memberAssignment[plan.topic] ?? []
    })
    this.consumer.on('consumer.rebalancing', () => {
      this.owned = []
    })
  }

  async start() {
    await this.consumer.connect()
    await this.consumer.subscribe({ topic: this.plan.topic, fromBeginning: true })
    await this.consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
        for (const message of batch.messages) {
          this.first[batch.partition] ??= Number(message.offset)
          this.next[batch.partition] = Number(message.offset) + 1
          this.read++
          this.ledger.add(batch.partition, message)
          resolveOffset(message.offset)
        }
        await heartbeat()
      },
    })
    return this
  }

  commit() {
    const { topic } = this.plan
    const offsets = this.owned.filter(p => p in this.next).map(p => ({ topic, partition: p, offset: String(this.next[p]) }))
    return this.consumer.commitOffsets(offsets)
  }
}

// One idempotent producer a codec, open over the restart.
class Sender {
  constructor(kafka, plan) {
    this.plan = plan
    this.acked = 0
    this.producers = CODEC_NAMES.map(() =>
      kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner })
    )
  }

  async send(stage) {
    for (const [i, codec] of CODEC_NAMES.entries()) {
      const messages = []
      for (let n = this.plan.begin(stage, i); n < this.plan.begin(stage, i + 1); n++) messages.push(this.plan.record(n))
      try {
        await this.producers[i].send({ topic: this.plan.topic, acks: -1, compression: CODECS[codec], messages })
      } catch (error) {
        must('produce', false, `${codec}: ${error}`)
      }
      this.acked += messages.length
    }
  }
}

const split = (a, b) => a.length > 0 && b.length > 0 && a.length + b.length === PARTITIONS && new Set([...a, ...b]).size === PARTITIONS

async function checkTimestamps(admin, plan, ledger) {
  const wrong = []
  let asked = 0
  for (const n of [0, 1, 1234, 3999, 6999, 9999, 10500, 10999]) {
    for (const late of [0, 1]) {
      const answer = await admin.fetchTopicOffsetsByTimestamp(plan.topic, plan.timestamp(n) + 5 * late)
      for (let partition = 0; partition < PARTITIONS; partition++) {
        asked++
        const got = answer.find(a => a.partition === partition)?.offset
        const want = String(ledger.offsetAt(partition, n + late))
        if (got !== want) wrong.push(`record ${n} + ${5 * late} ms in partition ${partition}: offset ${got}, not ${want}`)
      }
    }
  }
  verdict('timestamp', wrong, `${asked} lookups, each exact`)
}

function checkLedgers(group, again) {
  const read = `${group.size} in the group, ${again.size} from the beginning`
  verdict('records', [...group.wrong, ...again.wrong], read)
  verdict('order', [...group.disordered, ...again.disordered], read)
  const wrong = [...group.notOnce, ...again.notOnce]
  for (const ledger of [group, again]) if (ledger.size !== ALL) wrong.push(`${ALL - ledger.size} records lost`)
  for (const [n, place] of group.places)
    if (again.places.get(n) !== place) wrong.push(`record ${n} was at ${place} for the group, then at ${again.places.get(n)}`)
  verdict('once', wrong, `${ALL} records, none lost, none twice`)
}

function verdict(name, wrong, good) {
  check(name, !wrong.length, wrong.length ? `${wrong.length} faults: ${wrong.slice(0, 3).join('; ')}` : good)
}

function awaitRestart() {
  const lines = readline.createInterface({ input: process.stdin })
  return new Promise((resolve, reject) => {
    lines.once('line', () => {
      resolve()
      lines.close()
    })
    lines.once('close', () => reject(new GivenUp('the runner is gone')))
    say('RESTART')
  })
}

async function program() {
  await registerCodecs()
  const plan = new Plan(process.argv.slice(2))
  const kafka = new Kafka({
    clientId: 'klamm-matrix',
    brokers: [plan.bootstrap],
    logLevel: logLevel.WARN,
    logCreator: () => entry => process.stderr.write(JSON.stringify(entry) + '\n'),
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 30 },
  })
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: plan.topic, numPartitions: PARTITIONS, replicationFactor: 1 }], waitForLeaders: true })
  const { topics } = await admin.fetchTopicMetadata({ topics: [plan.topic] })
  must('create', topics[0].partitions.length === PARTITIONS, `${topics[0].partitions.length} partitions`)
  const committed = async () => {
    for (const end = Date.now() + WAIT_MS; ; await pause(50)) {
      try {
        const [{ partitions }] = await admin.fetchOffsets({ groupId: plan.group, topics: [plan.topic] })
        return partitions.sort((a, b) => a.partition - b.partition).map(p => Number(p.offset))
      } catch (error) {
        // After the restart: the old connection is gone, and the coordinator may
        // still load; kafkajs leaves it to its caller to ask again.
        if (Date.now() > end) throw error
      }
    }
  }

  const sender = new Sender(kafka, plan)
  for (const producer of sender.producers) await producer.connect()
  const seen = new Ledger(plan)
  const read = stage => () => seen.size >= STAGES[stage][1]
  await sender.send(0)
  const a = await new Member(kafka, plan, seen, plan.group).start()
  await until(read(0), 'A to read stage 0')
  await a.commit()

  const b = await new Member(kafka, plan, seen, plan.group).start()
  await until(() => split(a.owned, b.owned), 'A and B to share the partitions')
  check('join', true, `A has ${a.owned}, B has ${b.owned}`)
  await sender.send(1)
  await until(read(1), 'A and B to read stage 1')
  await a.commit()
  await b.commit()

  await a.consumer.disconnect()
  await until(() => b.owned.length === PARTITIONS, "B to get A's partitions")
  await sender.send(2)
  await until(read(2), 'B to read stage 2')
  check('leave', b.read > 0, `A read ${a.read}, B ${b.read}`)
  await b.commit()
  const before = await committed()
  await b.consumer.disconnect()

  await awaitRestart()
  const after = await committed()
  const same = String(before) === String(after) && String(after) === String(seen.next)
  check('commit', same, `before the restart ${before}, after ${after}, read up to ${seen.next}`)
  await sender.send(3)
  check('produce', sender.acked === ALL, `${sender.acked} acknowledged`)
  const c = await new Member(kafka, plan, seen, plan.group).start()
  await until(read(3), 'C to read stage 3')
  const first = after.map((_, p) => c.first[p])
  check('resume', String(first) === String(after) && c.read === ALL - BEFORE_RESTART, `C read ${c.read}, from ${first}`)
  await c.commit()
  await c.consumer.disconnect()

  // kafkajs reads in groups only: a new one has everything before it.
  const again = new Ledger(plan)
  const reader = await new Member(kafka, plan, again, `${plan.group}-again`).start()
  await until(() => again.size >= ALL, 'the read from the beginning')
  await reader.consumer.disconnect()
  await checkTimestamps(admin, plan, again)
  for (const producer of sender.producers) await producer.disconnect()
  await admin.disconnect()
  checkLedgers(seen, again)
}

program().then(
  () => process.exit(0),
  error => {
    process.stderr.write(`given up: ${error instanceof GivenUp ? error.message : error.stack}\n`)
    process.exit(1)
  }
)
