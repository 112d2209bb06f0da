import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { withAge, withAgeAndSshKeygen } from '../machine.js'
import { age, envelope, Place } from './envelopes.js'

withAge('what age seals opens here, and what is sealed here age opens: files, pipes, armor', async (t) => {
  const place = await Place.make(t)
  spawnSync('age-keygen', ['-o', place.path('age.txt')])
  const [theirs, ours] = [(await place.read('age.txt')).toString(), await place.key('ours.txt')]
  const keys = [
    { file: place.path('age.txt'), recipient: /age1\w+/.exec(theirs)?.[0] ?? '' },
    { file: ours.file, recipient: ours.recipient },
  ]
  const plain = await place.random('plain', 300_000)
  const plaintext = await place.read('plain')
  for (const { file: key, recipient } of keys) {
    for (const armor of [[], ['--armor']]) {
      const sealed = await envelope(['seal', '-r', recipient, ...armor, plain])
      t.true((await age(['-d', '-i', key], sealed.out)).out.equals(plaintext))
      const byAge = await age(['-r', recipient, ...armor, plain])
      t.true((await envelope(['open', '-i', key], { input: byAge.out })).out.equals(plaintext))
    }
  }
})

withAge('a large file of age’s opens by several threads; a rewrapped and a resealed one age opens', async (t) => {
  const place = await Place.make(t)
  const [first, second] = [await place.key('1.txt'), await place.key('2.txt')]
  const plaintext = randomBytes(40 * 1024 * 1024 + 1)
  await age(['-r', first.recipient, '-o', place.path('a.age')], plaintext)
  await envelope(['open', '-i', first.file, '-o', place.path('out'), place.path('a.age')])
  t.true((await place.read('out')).equals(plaintext))
  await envelope(['rewrap', '-i', first.file, '-r', second.recipient, place.path('a.age')])
  t.true((await age(['-d', '-i', second.file, place.path('a.age')])).out.equals(plaintext))
  await envelope(['rewrap', '-i', second.file, '-r', first.recipient, '--new-file-key', place.path('a.age')])
  t.true((await age(['-d', '-i', first.file, place.path('a.age')])).out.equals(plaintext))
})

withAgeAndSshKeygen('RSA keys of ssh-keygen: their public half is a recipient, their PEM file opens', async (t) => {
  const place = await Place.make(t)
  const key = place.path('id_rsa')
  spawnSync('ssh-keygen', ['-q', '-t', 'rsa', '-b', '3072', '-m', 'PEM', '-N', '', '-f', key])
  const sealed = await envelope(['seal', '-R', `${key}.pub`], { input: 'for a person' })
  t.is((await age(['-d', '-i', key], sealed.out)).out.toString(), 'for a person')
  const byAge = await age(['-R', `${key}.pub`], 'by age')
  t.is((await envelope(['open', '-i', key], { input: byAge.out })).out.toString(), 'by age')
})
