import { createHash } from 'node:crypto'
import type { EmbeddedKms } from '../../../kms/index.js'
import { leaks, stops, STOPPED, type Attack } from '../attack.js'
import { bareVault, linkOf, refusal, World } from '../world.js'

/** Between an enclave and its KMS stands the host: what it can pretend, swap and run twice. */

const impersonation: Attack = {
  name: 'kms-impersonation',
  attacker: 'H1',
  tries: 'a KMS of the host’s own, with keys that it knows, in a first launch, in a commit, and in a relaunch',
  expected: STOPPED,
  async run(stage) {
    if (stage.level === 'bare') {
      const known = new Uint8Array(32).fill(7)
      const victim = bareVault()
      await victim.recover(known)
      const expected = createHash('sha256').update(known).digest('hex')
      return (await victim.seal()) === expected ? leaks('it seals under the host’s own key') : stops('refused')
    }
    const world = await World.open(stage)
    const impostor = await World.kms(stage, world.image, 'impostor')
    let current: EmbeddedKms = impostor
    const link = linkOf(world.kms, (frame) => current.exchange(frame))
    const refused = await refusal(world.launch(link))
    if (refused !== 'ERR_KMS_UNTRUSTED') return leaks(`a first launch: ${refused}`)
    if ((await world.store.list('')).length > 0) return leaks('something was sealed to the impostor')
    current = world.kms
    const enclave = await world.launch(link)
    await enclave.ecalls.answer('1')
    current = impostor
    const committed = await refusal(enclave.ecalls.answer('2'))
    if (committed === 'none') return leaks('a commit to the impostor is believed')
    await enclave.close()
    const relaunched = await refusal(world.launch(link))
    return relaunched === 'ERR_KMS_UNTRUSTED'
      ? stops('ERR_KMS_UNTRUSTED each time')
      : leaks(`a relaunch: ${relaunched}`)
  },
}

const keySubstitution: Attack = {
  name: 'key-substitution',
  attacker: 'H1',
  tries:
    'the aggregator’s own key in the place of a peer’s: by an enclave of its own in another task, under another name and the peer’s; in what is relayed, and by bit flips here and there in the frame that has the roster',
  expected: STOPPED,
  async run(stage) {
    const own = new Uint8Array(32).fill(7)
    if (stage.level === 'bare') {
      const taken = await bareVault().peerKey(own)
      return Buffer.compare(taken, own) === 0 ? leaks('the host’s key is taken for the peer’s') : stops('refused')
    }
    const world = await World.open(stage)
    const peer = await world.launch(world.kms, 'peer')
    await peer.ecalls.publish(new Uint8Array(32).fill(1))
    let tamper: ((reply: Uint8Array) => Uint8Array) | undefined
    const enclave = await world.launch(
      linkOf(world.kms, async (frame) => {
        const reply = await world.kms.exchange(frame)
        return tamper?.(reply) ?? reply
      }),
    )
    const honest = await enclave.ecalls.peerKey('peer')
    if (honest?.[0] !== 1) throw new Error('The peer has no key')
    const impostor = await world.launch(world.kms, 'rival', 'other-task')
    await impostor.ecalls.publish(own)
    if ((await enclave.ecalls.peerKey('rival')) !== null) return leaks('whoever is in another task is a peer')
    const renamed = await refusal(world.launch(world.kms, 'peer', 'other-task'))
    if (renamed !== 'ERR_POLICY_DENIED') return leaks(`the peer’s flow in another task: ${renamed}`)
    for (const at of [0.2, 0.5, 0.7, 0.99]) {
      tamper = (reply) => reply.map((byte, index) => (index === Math.floor(reply.length * at) ? byte ^ 6 : byte))
      const seen = await enclave.ecalls.peerKey('peer').catch(() => null)
      if (seen !== null && Buffer.compare(seen, honest) !== 0) return leaks('another key is taken for the peer’s')
    }
    return stops('the peer’s key, or none')
  },
}

const cloneOracle: Attack = {
  name: 'clone-oracle',
  attacker: 'H1',
  tries: 'two clones of one flow, each asked for the one answer of a round',
  expected: STOPPED,
  async run(stage) {
    const ask: ((round: string) => Promise<Uint8Array>)[] = []
    if (stage.level === 'bare') for (const clone of [bareVault(), bareVault()]) ask.push((round) => clone.answer(round))
    else {
      const world = await World.open(stage)
      for (let count = 0; count < 2; count++) {
        const { ecalls } = await world.launch()
        ask.push((round) => ecalls.answer(round))
      }
    }
    for (const round of ['1', '2']) {
      const given = await Promise.allSettled(ask.map((one) => one(round)))
      const answers = given.flatMap((one) =>
        one.status === 'fulfilled' ? [Buffer.from(one.value).toString('hex')] : [],
      )
      if (new Set(answers).size > 1) return leaks('a second answer to the same round')
      if (answers.length === 0) throw new Error('Nobody answers')
    }
    return stops('one answer for each round; the older clone is fenced')
  },
}

export const KMS_ATTACKS: readonly Attack[] = [impersonation, keySubstitution, cloneOracle]
