// kafkajs: producing and administration, and reading through its own request layer; its consumer, which needs a group, is in
// `groups.js`. Prints a line for each case, as the other suites do. Arguments: HOST:PORT [PART OF A CASE'S NAME], or
// HOST:PORT --member GROUP TOPIC to be a member of that group.

const { randomBytes } = require('crypto')
const {
  Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, Partitioners, logLevel,
} = require('kafkajs')
const Cluster = require('kafkajs/src/cluster')
const Long = require('kafkajs/src/utils/long')
const createSocketFactory = require('kafkajs/src/network/socketFactory')
const { LEVELS, createLogger } = require('kafkajs/src/loggers')
const LoggerConsole = require('kafkajs/src/loggers/console')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const { ZstdCodec } = require('zstd-codec')
const groups = require('./groups')

const bootstrap = process.argv[2]
const only = process.argv[3]
const kafka = new Kafka({ clientId: 'suite', brokers: [bootstrap], logLevel: logLevel.NOTHING })
const admin = kafka.admin()
let reader // a low-level cluster connection for Fetch

const NEAR_LIMIT = 1000000
const OVER_LIMIT = 1100000
const UNKNOWN_TOPIC_OR_PARTITION = 3
const MESSAGE_TOO_LARGE = 10
const INVALID_TOPIC = 17
const TOPIC_ALREADY_EXISTS = 36
const INVALID_PARTITIONS = 37
const INVALID_REPLICATION_FACTOR = 38
const INVALID_CONFIG = 40
const CASE_MS_MAX = 90000

function check(condition, what) {
  if (!condition) throw new Error(`not so: ${what}`)
}

function checkEqual(got, want, what) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)]
  if (a !== b) throw new Error(`${what}: got ${a.slice(0, 300)}, want ${b.slice(0, 300)}`)
}

// kafkajs wraps what the broker said several times over; the code is on one of the layers.
function codeOf(error) {
  for (let e = error; e; e = e.cause || e.originalError || (e.errors && e.errors[0]) || (e.groups && e.groups[0].error)) {
    if (typeof e.code === 'number' && e.code > 0) return e.code
  }
  return undefined
}

async function expectError(code, call) {
  let result
  try {
    result = await call()
  } catch (error) {
    if (codeOf(error) === undefined) throw error
    checkEqual(codeOf(error), code, `error code (${error.message})`)
    return
  }
  throw new Error(`no error, but ${JSON.stringify(result)}; want error ${code}`)
}

async function eventually(call, want, what, limit = 15000) {
  const deadline = Date.now() + limit
  let got = await call()
  while (JSON.stringify(got) !== JSON.stringify(want) && Date.now() < deadline) {
    await new Promise(resolve => setTimeout(resolve, 100))
    got = await call()
  }
  checkEqual(got, want, what)
}

// For calls that kafkajs does not repeat itself while a new partition's leader is still being made known.
async function retried(call) {
  const deadline = Date.now() + 15000
  for (;;) {
    try {
      return await call()
    } catch (error) {
      if (error.type !== 'NOT_LEADER_FOR_PARTITION' || Date.now() > deadline) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}

let names = 0
function topicName(prefix) {
  names += 1
  return `${prefix}-${process.pid}-${randomBytes(3).toString('hex')}-${names}`
}

async function fresh(prefix, numPartitions = 1, config = {}) {
  const topic = topicName(prefix)
  await create(topic, { numPartitions, config })
  return topic
}

async function create(topic, { numPartitions = 1, replicationFactor = 1, config = {} } = {}) {
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
  await admin.createTopics({
    topics: [{ topic, numPartitions, replicationFactor, configEntries }],
    waitForLeaders: true,
  })
}

function numbered(count, partition = 0, size = 0) {
  return Array.from({ length: count }, (_, n) => ({
    key: `key-${n}`, value: `value-${n}-`.padEnd(size, 'x'), partition,
  }))
}

async function produce(topic, messages, { acks = -1, codec = CompressionTypes.None, idempotent = false } = {}) {
  const producer = kafka.producer({
    idempotent, allowAutoTopicCreation: true, createPartitioner: Partitioners.DefaultPartitioner,
    retry: { retries: 8 }, maxInFlightRequests: idempotent ? 1 : undefined,
  })
  await producer.connect()
  try {
    return await producer.send({ topic, messages, acks, compression: codec })
  } finally {
    await producer.disconnect()
  }
}

// Fetches `count` records from `start` on, as kafkajs decodes them.
async function read(topic, partition, start, count) {
  await reader.addTargetTopic(topic)
  await reader.refreshMetadata()
  const found = []
  let next = Long.fromValue(start)
  const deadline = Date.now() + 60000
  while (found.length < count) {
    check(Date.now() < deadline, `read ${found.length} of ${count} records in time`)
    const leader = await reader.findBroker({ nodeId: String(await leaderOf(topic, partition)) })
    const { responses } = await leader.fetch({
      maxWaitTime: 500, minBytes: 1, maxBytes: 20000000, isolationLevel: 1,
      topics: [{ topic, partitions: [{ partition, fetchOffset: next.toString(), maxBytes: 10000000 }] }],
    })
    for (const message of responses[0].partitions[0].messages) {
      if (Long.fromValue(message.offset).gte(next)) {
        found.push(message)
        next = Long.fromValue(message.offset).add(1)
      }
    }
  }
  return found
}

async function leaderOf(topic, partition) {
  const metadata = reader.findTopicPartitionMetadata(topic)
  return metadata.find(p => p.partitionId === partition).leader
}

const text = buffer => (buffer === null || buffer === undefined ? null : buffer.toString())
const content = messages => messages.map(m => [text(m.key), text(m.value)])

async function describe(topic) {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
  })
  return Object.fromEntries(resources[0].configEntries.map(e => [e.configName, e.configValue]))
}

async function offsetsOf(topic) {
  const found = await retried(() => admin.fetchTopicOffsets(topic))
  return found.sort((a, b) => a.partition - b.partition).map(({ low, high }) => [low, high])
}

const cases = {}

const codecs = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}
for (const [codecName, codec] of Object.entries(codecs)) {
  for (const [acksName, acks] of [['0', 0], ['1', 1], ['all', -1]]) {
    cases[`round_trip_${codecName}_acks_${acksName}`] = async () => {
      const topic = await fresh('codec')
      const sent = numbered(25, 0, 200)
      const reply = await produce(topic, sent, { acks, codec })
      if (acks !== 0) checkEqual(reply[0].baseOffset, '0', 'base offset')
      const found = await read(topic, 0, 0, 25)
      checkEqual(content(found), content(sent), 'records')
      checkEqual(found.map(m => Number(m.offset)), sent.map((_, n) => n), 'offsets')
    }
  }
}

cases.headers = async () => {
  const topic = await fresh('headers')
  await produce(topic, [{ key: 'k', value: 'v', headers: { a: '1', b: ['2', '3'], c: '' } }])
  const [found] = await read(topic, 0, 0, 1)
  const headers = Object.entries(found.headers).map(([k, v]) => [k, Array.isArray(v) ? v.map(text) : text(v)])
  checkEqual(headers, [['a', '1'], ['b', ['2', '3']], ['c', '']], 'headers')
}

cases.nulls_and_empties = async () => {
  const topic = await fresh('nulls')
  const sent = [
    { key: null, value: 'v', partition: 0 }, { key: 'k', value: null, partition: 0 },
    { key: '', value: '', partition: 0 },
  ]
  await produce(topic, sent)
  checkEqual(content(await read(topic, 0, 0, 3)), content(sent), 'records')
}

cases.idempotent_producer = async () => {
  const topic = await fresh('idempotent', 3)
  const producer = kafka.producer({
    idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner,
  })
  await producer.connect()
  for (let n = 0; n < 40; n += 1) {
    await producer.send({ topic, messages: [0, 1, 2].map(partition => ({ value: `${n}`, partition })) })
  }
  await producer.disconnect()
  checkEqual(await offsetsOf(topic), [['0', '40'], ['0', '40'], ['0', '40']], 'offsets')
  for (const p of [0, 1, 2]) {
    const found = await read(topic, p, 0, 40)
    checkEqual(found.map(m => text(m.value)), found.map((_, n) => `${n}`), `partition ${p}`)
  }
}

cases.many_partitions = async () => {
  const topic = await fresh('many', 48)
  await produce(topic, Array.from({ length: 48 }, (_, p) => numbered(3, p)).flat(), { idempotent: true })
  checkEqual(await offsetsOf(topic), Array.from({ length: 48 }, () => ['0', '3']), 'offsets')
  for (const p of [0, 17, 47]) {
    checkEqual(content(await read(topic, p, 0, 3)), content(numbered(3)), `partition ${p}`)
  }
}

cases.one_key_one_partition = async () => {
  const topic = await fresh('keyed', 6)
  const messages = Array.from({ length: 60 }, (_, n) => ({ key: `key-${n % 5}`, value: `${n}` }))
  await produce(topic, messages)
  const homes = {}
  for (let p = 0; p < 6; p += 1) {
    const count = Number((await offsetsOf(topic))[p][1])
    for (const m of await read(topic, p, 0, count)) (homes[text(m.key)] = homes[text(m.key)] || new Set()).add(p)
  }
  checkEqual(Object.keys(homes).length, 5, 'keys')
  check(Object.values(homes).every(home => home.size === 1), 'each key lies in one partition')
}

cases.created_on_first_use = async () => {
  const topic = topicName('auto')
  await produce(topic, numbered(5))
  checkEqual(content(await read(topic, 0, 0, 5)), content(numbered(5)), 'records')
}

cases.read_from_an_offset = async () => {
  const topic = await fresh('seek')
  await produce(topic, numbered(100))
  for (const at of [0, 1, 37, 99]) {
    checkEqual(content(await read(topic, 0, at, 100 - at)), content(numbered(100).slice(at)), `from ${at}`)
  }
}

cases.beginning_and_end_offsets = async () => {
  const topic = await fresh('offsets', 2)
  checkEqual(await offsetsOf(topic), [['0', '0'], ['0', '0']], 'of an empty topic')
  await produce(topic, numbered(7, 1))
  checkEqual(await offsetsOf(topic), [['0', '0'], ['0', '7']], 'after 7')
}

cases.offsets_for_times = async () => {
  const topic = await fresh('times')
  const base = Date.now() - 600000
  for (const stamp of [base, base + 1000, base + 500, base + 3000]) {
    await produce(topic, [{ value: 'v', timestamp: `${stamp}` }])
  }
  const wants = [[base - 1, 0], [base, 0], [base + 1, 1], [base + 1000, 1], [base + 1001, 3], [base + 3001, 4]]
  for (const [at, want] of wants) {
    const [found] = await admin.fetchTopicOffsetsByTimestamp(topic, at)
    checkEqual(found, { partition: 0, offset: `${want}` }, `offset for ${at - base}`)
  }
}

cases.timestamps = async () => {
  const topic = await fresh('stamps')
  const stamp = Date.now() - 123456
  await produce(topic, [{ value: 'v', timestamp: `${stamp}` }])
  checkEqual((await read(topic, 0, 0, 1))[0].timestamp, `${stamp}`, 'CreateTime')
  const append = await fresh('append', 1, { 'message.timestamp.type': 'LogAppendTime' })
  const before = Date.now()
  await produce(append, [{ value: 'v', timestamp: `${stamp}` }])
  // kafkajs shows the timestamp of the batch's first record plus a delta; the broker's time is the batch's largest.
  const found = (await read(append, 0, 0, 1))[0]
  check(found.batchContext.maxTimestamp >= before - 5000, `LogAppendTime ${found.batchContext.maxTimestamp}`)
}

cases.near_the_size_limit = async () => {
  const topic = await fresh('near')
  await produce(topic, [{ key: 'k', value: Buffer.alloc(NEAR_LIMIT, 7) }])
  const [found] = await read(topic, 0, 0, 1)
  check(found.value.equals(Buffer.alloc(NEAR_LIMIT, 7)), 'the value came back whole')
}

cases.over_the_size_limit = async () => {
  const topic = await fresh('over')
  await expectError(MESSAGE_TOO_LARGE, () => produce(topic, [{ value: Buffer.alloc(OVER_LIMIT, 7) }]))
  await produce(topic, numbered(1))
  checkEqual(content(await read(topic, 0, 0, 1)), content(numbered(1)), 'after it')
}

cases.create_and_list = async () => {
  const topic = await fresh('create', 3)
  await eventually(async () => (await admin.listTopics()).includes(topic), true, 'the topic is listed')
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  checkEqual(topics[0].partitions.map(p => p.partitionId).sort(), [0, 1, 2], 'partitions')
  checkEqual(await admin.createTopics({ topics: [{ topic }] }), false, 'creating it again')
}

cases.create_partitions = async () => {
  const topic = await fresh('grow', 2)
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  await eventually(async () => (await offsetsOf(topic)).length, 5, 'partitions')
  await produce(topic, numbered(2, 4))
  checkEqual(content(await read(topic, 4, 0, 2)), content(numbered(2)), 'records')
}

cases.describe_configs = async () => {
  const topic = await fresh('describe', 1, { 'retention.ms': '3600000' })
  const config = await describe(topic)
  checkEqual(config['retention.ms'], '3600000', 'retention.ms')
  checkEqual(config['cleanup.policy'], 'delete', 'cleanup.policy')
  checkEqual(config['max.message.bytes'], '1048588', 'max.message.bytes')
}

cases.alter_configs = async () => {
  const topic = await fresh('alter', 1, { 'retention.ms': '3600000' })
  const configEntries = [{ name: 'max.message.bytes', value: '2000000' }]
  await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }] })
  const both = async () => (({ 'max.message.bytes': a, 'retention.ms': b }) => [a, b])(await describe(topic))
  await eventually(both, ['2000000', '604800000'], 'max.message.bytes and retention.ms')
}

cases.delete_records = async () => {
  const topic = await fresh('records')
  await produce(topic, numbered(10))
  // kafkajs deletes only where it has asked for the topic's leaders before.
  checkEqual(await offsetsOf(topic), [['0', '10']], 'offsets before')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
  checkEqual(await offsetsOf(topic), [['4', '10']], 'offsets')
  checkEqual((await read(topic, 0, 4, 6)).map(m => Number(m.offset)), [4, 5, 6, 7, 8, 9], 'offsets read')
}

cases.describe_cluster = async () => {
  const { brokers, controller, clusterId } = await admin.describeCluster()
  check(clusterId, 'has an id')
  checkEqual(brokers.length, 1, 'brokers')
  checkEqual(brokers[0].nodeId, controller, 'the controller is a broker')
}

cases.delete_topic = async () => {
  const topic = await fresh('delete')
  await admin.deleteTopics({ topics: [topic] })
  await eventually(async () => (await admin.listTopics()).includes(topic), false, 'the topic is listed')
}

cases.invalid_topic_name = () => expectError(INVALID_TOPIC, () => create('no spaces'))
cases.invalid_partitions = () => expectError(INVALID_PARTITIONS, () => create(topicName('zero'), { numPartitions: 0 }))
cases.invalid_replication = () =>
  expectError(INVALID_REPLICATION_FACTOR, () => create(topicName('rf'), { replicationFactor: 3 }))
cases.unknown_config = () => expectError(INVALID_CONFIG, () => create(topicName('cfg'), { config: { 'no.such': '1' } }))
cases.invalid_config = () =>
  expectError(INVALID_CONFIG, () => create(topicName('cfg'), { config: { 'retention.ms': 'soon' } }))
cases.delete_unknown_topic = () =>
  expectError(UNKNOWN_TOPIC_OR_PARTITION, () => admin.deleteTopics({ topics: [topicName('none')] }))
cases.fewer_partitions = async () => {
  const topic = await fresh('fewer', 3)
  await expectError(INVALID_PARTITIONS, () => admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] }))
}
cases.duplicate_among_new_topics = async () => {
  const [old, other] = [await fresh('old'), topicName('new')]
  // kafkajs answers `false` when a topic is there already, and the others of the call are made.
  checkEqual(await admin.createTopics({ topics: [{ topic: old }, { topic: other }] }), false, 'the answer')
  await eventually(async () => (await admin.listTopics()).includes(other), true, 'the other topic is listed')
}

groups.addCases(cases, {
  kafka, admin, check, checkEqual, codeOf, expectError, eventually, fresh, produce, topicName, arguments: [bootstrap],
  coordinatorOf: groupId => reader.findGroupCoordinator({ groupId }),
})

function registerCodecs(zstd) {
  const codec = (compress, decompress) => () => ({
    compress: async encoder => Buffer.from(compress(encoder.buffer)),
    decompress: async buffer => Buffer.from(decompress(buffer)),
  })
  CompressionCodecs[CompressionTypes.Snappy] = snappy
  CompressionCodecs[CompressionTypes.LZ4] = codec(b => lz4.compressFrameSync(b), b => lz4.decompressFrameSync(b))
  CompressionCodecs[CompressionTypes.ZSTD] = codec(b => zstd.compress(b), b => zstd.decompress(b))
}

function openReader() {
  const logger = createLogger({ level: LEVELS.NOTHING, logCreator: LoggerConsole })
  return new Cluster({
    logger, socketFactory: createSocketFactory(), brokers: [bootstrap], clientId: 'suite-reader',
    connectionTimeout: 5000, requestTimeout: 30000, metadataMaxAge: 300000, instrumentationEmitter: null,
    retry: { retries: 5 }, allowAutoTopicCreation: false, offsets: new Map(),
  })
}

function withLimit(promise) {
  let timer
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${CASE_MS_MAX} ms`)), CASE_MS_MAX)
  })
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer))
}

async function main() {
  if (only === '--member') return groups.memberUntilKilled(kafka, ...process.argv.slice(4))
  registerCodecs(await new Promise(resolve => ZstdCodec.run(z => resolve(new z.Simple()))))
  reader = openReader()
  await reader.connect()
  await admin.connect()
  let failed = 0
  const chosen = Object.entries(cases).filter(([name]) => !only || name.includes(only))
  for (const [name, run] of chosen) {
    const started = Date.now()
    try {
      await withLimit(run())
      console.log(`ok ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed += 1
      console.log(`FAIL ${name}: ${String(error.message || error).replaceAll('\n', ' ')}`)
      console.error(error)
    }
  }
  console.log(`ran ${chosen.length}`)
  return process.exit(failed ? 1 : 0)
}

main().catch(error => {
  console.error(error)
  process.exit(2)
})
