import test from 'ava'
import type { ApprovalRequest } from '../../kms/approvals.js'
import { formatApproval, formatApproved, formatRequest, parseApproval, parseApproved } from '../../kms/request-file.js'
import { parseFlowId } from '../../protocol/names.js'
import { ANNA, approve, BEN } from './approvers.js'
import { digestOf } from './attested-client.js'

const notAfterMs = Date.UTC(2026, 11, 31)
const MIGRATION: ApprovalRequest = {
  kind: 'migration',
  kms: digestOf(1),
  flows: ['credit-*', 'payroll'],
  from: digestOf(2),
  to: { measurement: digestOf(3) },
  notAfterMs,
}
const REQUESTS: readonly ApprovalRequest[] = [
  { kind: 'policy-change', kms: digestOf(1), from: digestOf(2), to: digestOf(3) },
  MIGRATION,
  { ...MIGRATION, to: { signer: digestOf(4), productId: 7, svn: 2 } },
  { kind: 'release', kms: digestOf(1), flow: parseFlowId('f'), incarnation: 4, measurement: digestOf(2), notAfterMs },
  { kind: 'break-glass', kms: digestOf(1), reason: 'a fire', notAfterMs },
]

test('requests and approvals survive their files', (t) => {
  for (const request of REQUESTS) {
    t.deepEqual(parseApproved(formatRequest(request)), { request, approvals: [] })
    const approved = approve(request, ANNA, BEN)
    t.deepEqual(parseApproved(formatApproved(approved)), approved)
    for (const approval of approved.approvals) t.deepEqual(parseApproval(formatApproval(approval)), approval)
  }
})

test('what is wrong in a request is named', (t) => {
  const fields = JSON.parse(formatRequest(MIGRATION)) as object
  const cases: readonly (readonly [changes: object, named: RegExp])[] = [
    [{ request: 'else' }, /request/],
    [{ kms: 'x' }, /kms: 64 lower-case/],
    [{ flows: [] }, /flows: at least one/],
    [{ flows: ['a b'] }, /flows: flows/],
    [{ flows: 'a' }, /flows: a list/],
    [{ to: {} }, /to: signer/],
    [{ to: { measurement: '03'.repeat(32), svn: 1 } }, /to: only measurement/],
    [{ to: { signer: '03'.repeat(32), productId: -1, svn: 1 } }, /to: productId/],
    [{ notAfter: '2026-12-31' }, /notAfter: a time like/],
    [{ notAfter: 'never' }, /notAfter: a time like/],
    [{ more: 1 }, /the request: only/],
    [{ approvals: [{ key: '03'.repeat(32) }] }, /approvals: signature/],
    [{ approvals: Array(65).fill({}) }, /approvals: a list of at most 64/],
  ]
  for (const [changes, named] of cases)
    t.throws(() => parseApproved(JSON.stringify({ ...fields, ...changes })), {
      code: 'ERR_CONFIG_INVALID',
      message: named,
    })
  const glass = { request: 'break-glass', kms: '03'.repeat(32), notAfter: '2026-12-31T00:00:00.000Z' }
  t.throws(() => parseApproved(JSON.stringify({ ...glass, reason: ' ' })), {
    code: 'ERR_CONFIG_INVALID',
    message: /a reason of/,
  })
  t.throws(() => parseApproved('{'), { code: 'ERR_CONFIG_INVALID', message: /not JSON/ })
  t.throws(() => parseApproved('[]'), { code: 'ERR_CONFIG_INVALID', message: /an object/ })
  t.throws(() => parseApproved(' '.repeat(70_000)), { code: 'ERR_CONFIG_INVALID', message: /at most 65536/ })
})
