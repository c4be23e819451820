// kafkajs in consumer groups: its consumer, its admin client, and the protocol itself by its request layer.

const { fork } = require('child_process')
const { AssignerProtocol } = require('kafkajs')

const ILLEGAL_GENERATION = 22
const INCONSISTENT_GROUP_PROTOCOL = 23
const UNKNOWN_MEMBER_ID = 25
const INVALID_SESSION_TIMEOUT = 26
const REBALANCE_IN_PROGRESS = 27
const NON_EMPTY_GROUP = 68
const GROUP_ID_NOT_FOUND = 69

// Longer than a case, so that only a member that leaves is gone, and the shortest that Kafka's defaults allow.
const SESSION_MS = 120000
const SESSION_MS_MIN = 6000
const GROUP_MS_MAX = 60000

// A consumer of a group, with what it reads and was assigned.
class Member {
  constructor(kafka, groupId, settings = {}) {
    this.read = []
    this.parts = []
    this.consumer = kafka.consumer({
      groupId, sessionTimeout: SESSION_MS, rebalanceTimeout: SESSION_MS, heartbeatInterval: 500, maxWaitTimeInMs: 300,
      ...settings,
    })
    this.consumer.on(this.consumer.events.GROUP_JOIN, ({ payload }) => {
      this.id = payload.memberId
      this.parts = namesOf(payload.memberAssignment)
    })
  }

  async start(topics, { autoCommit = true, onMessage = async () => {} } = {}) {
    await this.consumer.connect()
    await this.consumer.subscribe({ topics, fromBeginning: true })
    await this.consumer.run({
      autoCommit,
      eachMessage: async ({ topic, partition, message }) => {
        const record = { topic, partition, offset: Number(message.offset), value: message.value.toString() }
        this.read.push(record)
        await onMessage(this, record)
      },
    })
    return this
  }

  // Leaves the group.
  stop() {
    return this.consumer.disconnect()
  }
}

const nameOf = ({ topic, partition }) => `${topic}/${partition}`
const placeOf = record => `${nameOf(record)}@${record.offset}`
const namesOf = assignment =>
  Object.entries(assignment).flatMap(([topic, partitions]) => partitions.map(p => nameOf({ topic, partition: p }))).sort()
const partitionsOf = (topic, count) => Array.from({ length: count }, (_, p) => nameOf({ topic, partition: p }))
const range = (from, to) => Array.from({ length: to - from }, (_, n) => from + n)
const placesOf = (topic, count, from, to) =>
  range(0, count).flatMap(partition => range(from, to).map(offset => placeOf({ topic, partition, offset }))).sort()

// What the suite runs in another process: a member that is killed sometime.
async function memberUntilKilled(kafka, groupId, topic) {
  setTimeout(() => process.exit(3), 3 * GROUP_MS_MAX)
  await new Member(kafka, groupId, { sessionTimeout: SESSION_MS_MIN }).start([topic], { autoCommit: false })
}

// Adds the cases; `tools` are what the suite has for all of its cases.
function addCases(cases, tools) {
  const { kafka, admin, coordinatorOf, check, checkEqual, expectError, eventually, fresh, produce, topicName } = tools
  const soon = (call, want, what) => eventually(async () => call(), want, what, GROUP_MS_MAX)

  const send = (topic, count, from, to) =>
    produce(topic, range(0, count).flatMap(partition => range(from, to).map(n => ({ value: `${partition}-${n}`, partition }))),
      { idempotent: true })

  const settled = (members, wanted) =>
    soon(() => members.every(m => m.parts.length > 0) && members.flatMap(m => m.parts).sort().join() === [...wanted].sort().join(),
      true, `the partitions are shared: ${members.map(m => m.parts)}`)

  const checkEachOnce = (members, wanted, what) => {
    const read = members.flatMap(m => m.read)
    checkEqual(read.map(placeOf).sort(), wanted, what)
    check(read.every(r => r.value === `${r.partition}-${r.offset}`), `${what}: the values are those that were sent`)
  }

  const committed = async (groupId, topic) => {
    const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
    return partitions.sort((a, b) => a.partition - b.partition).map(p => Number(p.offset))
  }

  const describe = async groupId => (await admin.describeGroups([groupId])).groups[0]
  const isListed = async groupId => (await admin.listGroups()).groups.some(g => g.groupId === groupId)

  // Members that a case that fails leaves running would hold up nobody, but go on in the log of the broker.
  const withMembers = run => async () => {
    const members = []
    const join = (groupId, topics, options, settings) => {
      members.push(new Member(kafka, groupId, settings))
      return members[members.length - 1].start(topics, options)
    }
    try {
      await run(join)
    } finally {
      await Promise.all(members.map(m => m.stop()))
    }
  }

  cases.group_resumes_after_commit = withMembers(async join => {
    const [topic, group] = [await fresh('resume', 2), topicName('group')]
    await send(topic, 2, 0, 20)
    const first = await join(group, [topic], { autoCommit: false })
    await soon(() => first.read.length, 40, 'records of the first')
    await first.consumer.commitOffsets([{ topic, partition: 0, offset: '5' }, { topic, partition: 1, offset: '12' }])
    await first.stop()
    checkEqual(await committed(group, topic), [5, 12], 'committed offsets')
    const second = await join(group, [topic])
    await soon(() => second.read.length >= 23, true, 'the second reads the rest')
    const rest = [...range(5, 20).map(offset => placeOf({ topic, partition: 0, offset })),
      ...range(12, 20).map(offset => placeOf({ topic, partition: 1, offset }))].sort()
    checkEachOnce([second], rest, 'records of the second')
    await soon(() => committed(group, topic), [20, 20], 'committed by itself')
  })

  cases.group_resumes_after_commit_close = withMembers(async join => {
    const [topic, group] = [await fresh('close', 1), topicName('group')]
    await send(topic, 1, 0, 30)
    let stopped
    const first = await join(group, [topic], {
      onMessage: async (member, { offset }) => {
        // It ends once this is done, so nobody waits for it here.
        if (offset === 10) stopped = member.stop()
      },
    })
    await soon(() => stopped !== undefined, true, 'the first reads')
    await stopped
    checkEqual(await committed(group, topic), [first.read.length], 'committed offset')
    check(first.read.length < 30, 'there is a rest for the second')
    const second = await join(group, [topic])
    await soon(() => first.read.length + second.read.length >= 30, true, 'the second reads the rest')
    checkEachOnce([first, second], placesOf(topic, 1, 0, 30), 'records of both')
  })

  cases.group_independent_groups_each_see_everything = withMembers(async join => {
    const topic = await fresh('independent', 2)
    await send(topic, 2, 0, 25)
    const groups = [topicName('group'), topicName('group'), topicName('group')]
    const members = await Promise.all(groups.map(group => join(group, [topic])))
    for (const member of members) {
      await soon(() => member.read.length >= 50, true, 'everything is read')
      checkEachOnce([member], placesOf(topic, 2, 0, 25), 'records')
    }
    for (const group of groups) await soon(() => committed(group, topic), [25, 25], 'committed offsets')
  })

  cases.group_members_share_the_partitions = withMembers(async join => {
    const [topic, group] = [await fresh('share', 6), topicName('group')]
    const everything = partitionsOf(topic, 6)
    const roundOf = async (members, from, to) => {
      await settled(members, everything)
      members.forEach(m => { m.read = [] })
      await send(topic, 6, from, to)
      await soon(() => members.flatMap(m => m.read).length >= 6 * (to - from), true, 'all is read')
      checkEachOnce(members, placesOf(topic, 6, from, to), 'records of all members')
      for (const m of members) checkEqual([...new Set(m.read.map(nameOf))].sort(), m.parts, 'a member reads its own partitions')
      await soon(() => committed(group, topic), Array(6).fill(to), 'committed offsets')
    }
    const [one, two] = await Promise.all([join(group, [topic]), join(group, [topic])])
    await roundOf([one, two], 0, 10)
    const three = await join(group, [topic])
    await roundOf([one, two, three], 10, 20)
    checkEqual([one, two, three].map(m => m.parts.length), [2, 2, 2], 'partitions of each')
    await one.stop()
    await roundOf([two, three], 20, 30)
    await two.stop()
    await roundOf([three], 30, 40)
  })

  cases.group_takes_over_from_a_member_that_was_killed = withMembers(async join => {
    const [topic, group] = [await fresh('killed', 4), topicName('group')]
    await send(topic, 4, 0, 10)
    const other = fork(require.main.filename, [...tools.arguments, '--member', group, topic], { stdio: 'ignore' })
    try {
      const left = await join(group, [topic])
      await soon(() => left.parts.length, 2, 'partitions while the other lives')
      const gone = new Promise(resolve => other.once('exit', resolve))
      other.kill('SIGKILL')
      await gone
      await send(topic, 4, 10, 20)
      await settled([left], partitionsOf(topic, 4))
      // The other has committed nothing, so what it read comes again.
      await soon(() => new Set(left.read.map(placeOf)).size, 80, 'records that are read')
    } finally {
      other.kill('SIGKILL')
    }
  })

  cases.group_rebalance_while_consuming_loses_nothing = withMembers(async join => {
    const [topic, group] = [await fresh('busy', 4), topicName('group')]
    const [seen, refused] = [[], new Set()]
    // Each record is committed by itself, so only those whose commit was refused may come again.
    const commit = async (member, record) => {
      seen.push(placeOf(record))
      const { partition, offset } = record
      try {
        await member.consumer.commitOffsets([{ topic, partition, offset: `${offset + 1}` }])
      } catch (error) {
        const movedOn = [ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS]
        check(movedOn.includes(tools.codeOf(error)), `a commit is refused for the rebalance: ${error}`)
        refused.add(placeOf(record))
      }
    }
    const options = { autoCommit: false, onMessage: commit }
    const members = [join(group, [topic], options)]
    let sent = 0
    const sendMore = async () => {
      await send(topic, 4, sent, sent + 20)
      sent += 20
      await soon(() => new Set(seen).size, 4 * sent, 'records that are read')
    }
    await sendMore()
    members.push(join(group, [topic], options))
    let [joined, failure] = [[], null]
    Promise.all(members).then(all => { joined = all }, error => { failure = error })
    // There is always more to read, until both have read.
    const deadline = Date.now() + GROUP_MS_MAX
    while (joined.length < 2 || !joined.every(m => m.read.length > 0)) {
      if (failure) throw failure
      check(Date.now() < deadline, `both read: ${joined.map(m => m.read.length)}`)
      await sendMore()
    }
    const again = seen.filter((place, n) => seen.indexOf(place) !== n && !refused.has(place))
    checkEqual(again, [], 'records that were read again although they were committed')
    const at = await committed(group, topic)
    range(0, 4).filter(partition => !refused.has(placeOf({ topic, partition, offset: sent - 1 })))
      .forEach(partition => checkEqual(at[partition], sent, `committed offset of ${partition}`))
  })

  cases.group_is_listed_and_described = withMembers(async join => {
    const [topic, group] = [await fresh('describe', 4), topicName('group')]
    checkEqual([await isListed(group), (await describe(group)).state], [false, 'Dead'], 'before it is there')
    const members = await Promise.all([join(group, [topic]), join(group, [topic])])
    await settled(members, partitionsOf(topic, 4))
    const found = async () => {
      const { state, protocol, protocolType, members: described } = await describe(group)
      const parts = described.map(m => [m.memberId, AssignerProtocol.MemberAssignment.decode(m.memberAssignment)])
      return [state, protocol, protocolType, parts.map(([id, parts_]) => [id, parts_ && namesOf(parts_.assignment)]).sort()]
    }
    const wanted = () => ['Stable', 'RoundRobinAssigner', 'consumer', members.map(m => [m.id, m.parts]).sort()]
    await soon(async () => JSON.stringify(await found()) === JSON.stringify(wanted()), true, 'it is described as it is')
    const [{ clientId, clientHost }] = (await describe(group)).members
    checkEqual([clientId, clientHost], ['suite', '/127.0.0.1'], 'client')
    check(await isListed(group), 'the group is listed')
    await members[0].consumer.commitOffsets([{ topic, partition: 0, offset: '0' }])
    await Promise.all(members.map(m => m.stop()))
    const { state, members: none } = await describe(group)
    checkEqual([state, none], ['Empty', []], 'after all have left')
    check(await isListed(group), 'the empty group is listed')
  })

  cases.group_offsets_are_set_and_reset = withMembers(async join => {
    const [topic, group] = [await fresh('reset', 2), topicName('group')]
    await send(topic, 2, 0, 10)
    checkEqual(await committed(group, topic), [-1, -1], 'of an unknown group')
    await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: '3' }, { partition: 1, offset: '10' }] })
    checkEqual(await committed(group, topic), [3, 10], 'offsets')
    const member = await join(group, [topic])
    await soon(() => member.read.length >= 7, true, 'the rest is read')
    checkEachOnce([member], range(3, 10).map(offset => placeOf({ topic, partition: 0, offset })), 'records')
    await soon(() => committed(group, topic), [10, 10], 'offsets after reading')
    await member.stop()
    // The client commits its own number for the earliest offset, which is negative, and resolves it when it reads.
    await admin.resetOffsets({ groupId: group, topic, earliest: true })
    checkEqual(await committed(group, topic), [-2, -2], 'offsets after the reset')
    const again = await join(group, [topic])
    await soon(() => again.read.length >= 20, true, 'everything is read')
    checkEachOnce([again], placesOf(topic, 2, 0, 10), 'records')
  })

  cases.group_is_deleted = withMembers(async join => {
    const [topic, group] = [await fresh('delete', 1), topicName('group')]
    await send(topic, 1, 0, 5)
    const member = await join(group, [topic])
    await soon(() => committed(group, topic), [5], 'committed offset')
    await expectError(NON_EMPTY_GROUP, () => admin.deleteGroups([group]))
    await member.stop()
    await admin.deleteGroups([group])
    checkEqual([await isListed(group), (await describe(group)).state], [false, 'Dead'], 'after it is deleted')
    checkEqual(await committed(group, topic), [-1], 'offset after it is deleted')
    await expectError(GROUP_ID_NOT_FOUND, () => admin.deleteGroups([group]))
  })

  // The requests themselves, by one who is the only member ...
  cases.group_requests_of_a_member = async () => {
    const [topic, groupId] = [await fresh('bare', 1), topicName('group')]
    const coordinator = await coordinatorOf(groupId)
    const metadata = Buffer.from('whatever it says')
    const joining = {
      groupId, sessionTimeout: SESSION_MS, rebalanceTimeout: SESSION_MS, protocolType: 'strange',
      groupProtocols: [{ name: 'first', metadata }, { name: 'second', metadata }],
    }
    const { generationId, memberId, leaderId, groupProtocol, members } = await coordinator.joinGroup(joining)
    checkEqual([generationId, leaderId, groupProtocol], [1, memberId, 'first'], 'what it joined')
    checkEqual(members.map(m => [m.memberId, m.memberMetadata.toString()]), [[memberId, 'whatever it says']], 'members')
    const assignment = Buffer.from('and what that means')
    const synced = await coordinator.syncGroup({ groupId, generationId, memberId,
      groupAssignment: [{ memberId, memberAssignment: assignment }] })
    checkEqual(synced.memberAssignment.toString(), 'and what that means', 'assignment')
    await coordinator.heartbeat({ groupId, groupGenerationId: generationId, memberId })
    const commit = (groupGenerationId, id, offset) => coordinator.offsetCommit({
      groupId, groupGenerationId, memberId: id, topics: [{ topic, partitions: [{ partition: 0, offset, metadata: null }] }],
    })
    await commit(1, memberId, '7')
    await expectError(ILLEGAL_GENERATION, () => commit(2, memberId, '8'))
    await expectError(UNKNOWN_MEMBER_ID, () => commit(1, 'nobody', '8'))
    await expectError(UNKNOWN_MEMBER_ID, () => commit(-1, '', '8'))
    checkEqual(await committed(groupId, topic), [7], 'committed offset')
    await expectError(ILLEGAL_GENERATION, () => coordinator.heartbeat({ groupId, groupGenerationId: 2, memberId }))
    await expectError(UNKNOWN_MEMBER_ID, () => coordinator.heartbeat({ groupId, groupGenerationId: 1, memberId: 'nobody' }))
    await expectError(ILLEGAL_GENERATION, () =>
      coordinator.syncGroup({ groupId, generationId: 0, memberId, groupAssignment: [] }))
    await expectError(INCONSISTENT_GROUP_PROTOCOL, () => coordinator.joinGroup({ ...joining, protocolType: 'consumer' }))
    await expectError(INCONSISTENT_GROUP_PROTOCOL, () =>
      coordinator.joinGroup({ ...joining, groupProtocols: [{ name: 'third', metadata }] }))
    await coordinator.leaveGroup({ groupId, memberId })
    await expectError(UNKNOWN_MEMBER_ID, () => coordinator.leaveGroup({ groupId, memberId }))
    await expectError(UNKNOWN_MEMBER_ID, () => coordinator.heartbeat({ groupId, groupGenerationId: 1, memberId }))
    await commit(-1, '', '9')
    checkEqual(await committed(groupId, topic), [9], 'offset committed as nobody, now that there is no member')
  }

  // ... and of one who is none.
  cases.group_requests_of_an_unknown_member = async () => {
    const [topic, groupId] = [await fresh('nobody', 1), topicName('group')]
    const coordinator = await coordinatorOf(groupId)
    const groupProtocols = [{ name: 'range', metadata: Buffer.from('x') }]
    const join = more => coordinator.joinGroup({ groupId, sessionTimeout: SESSION_MS, rebalanceTimeout: SESSION_MS,
      groupProtocols, ...more })
    await expectError(UNKNOWN_MEMBER_ID, () => join({ memberId: 'nobody' }))
    await expectError(INVALID_SESSION_TIMEOUT, () => join({ sessionTimeout: SESSION_MS_MIN - 1 }))
    await expectError(INVALID_SESSION_TIMEOUT, () => join({ sessionTimeout: 1800001 }))
    await expectError(UNKNOWN_MEMBER_ID, () => coordinator.heartbeat({ groupId, groupGenerationId: 1, memberId: 'nobody' }))
    await expectError(UNKNOWN_MEMBER_ID, () =>
      coordinator.syncGroup({ groupId, generationId: 1, memberId: 'nobody', groupAssignment: [] }))
    await expectError(UNKNOWN_MEMBER_ID, () => coordinator.leaveGroup({ groupId, memberId: 'nobody' }))
    const topics = [{ topic, partitions: [{ partition: 0, offset: '1', metadata: null }] }]
    await expectError(ILLEGAL_GENERATION, () =>
      coordinator.offsetCommit({ groupId, groupGenerationId: 1, memberId: 'nobody', topics }))
    checkEqual(await committed(groupId, topic), [-1], 'committed offset')
  }
}

module.exports = { addCases, memberUntilKilled }
