// What the adapters of the Node peers share: PROGRAM ACTION URL OPTIONS, and JSON as the last line of what they print.
// They run from a copy beside their packages, where Node looks for those.

import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'

const POLL_MS = 3

/** Run the action that the command line names; one that is not there is said to be unsupported. */
export async function main(actions) {
  const [action, url, options = '{}'] = process.argv.slice(2)
  const run = actions[action] ?? (() => ({ unsupported: `it has no ${action}` }))
  const answer = await run(connection(url), JSON.parse(options))
  process.stdout.write(`\n${JSON.stringify(answer ?? {})}\n`, () => process.exit(0))
}

/** What node-postgres wants to know: a folder is a Unix socket's. */
function connection(url) {
  // A URL with a user and no host is libpq's alone.
  const parsed = new URL(url.replace('@/', '@localhost/'))
  return {
    host: parsed.searchParams.get('host') ?? parsed.hostname,
    port: Number(parsed.port || 5432),
    user: decodeURIComponent(parsed.username),
    password: decodeURIComponent(parsed.password) || undefined,
    database: parsed.pathname.slice(1),
  }
}

/** The payload of the n-th job; `sleep` is in seconds, and there only when the handler should sleep. */
export function payload(n, seconds = 0) {
  const usual = { user_id: n, template: 'weekly-report', audience: 'team' }
  return seconds ? { ...usual, sleep: seconds } : usual
}

export const payloads = (jobs, seconds) => Array.from({ length: jobs }, (_, n) => payload(n + 1, seconds))

/** What every job does. */
export async function handle({ sleep: seconds }) {
  if (seconds) await sleep(seconds * 1000)
}

/** Run `work` with one connection of its own. */
export async function withClient(where, work) {
  const client = new pg.Client(where)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

/** Jobs that handlers have seen to: `seen()` counts one, `all` resolves when there were so many. */
export function counter(jobs) {
  let count = 0
  let done
  const all = new Promise((resolve) => (done = resolve))
  const seen = () => {
    count += 1
    if (count === jobs) done()
  }
  return { seen, all }
}

/** Seconds from just before `start` until all jobs are handled, and `left` finds none that is not settled. */
export async function drained(where, jobs, left, start) {
  return withClient(where, async (client) => {
    const { seen, all } = counter(jobs)
    const started = performance.now()
    await start(seen)
    await all
    while ((await client.query(left)).rowCount) await sleep(POLL_MS)
    return { seconds: (performance.now() - started) / 1000, jobs }
  })
}

/** Seconds that `work` takes. */
export async function timed(work) {
  const started = performance.now()
  await work()
  return { seconds: (performance.now() - started) / 1000 }
}

/** Have a worker wait for so many seconds. */
export async function idle(start, { seconds }) {
  await start()
  await sleep(seconds * 1000)
  return { seconds }
}
