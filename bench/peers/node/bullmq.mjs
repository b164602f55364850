// bullmq, with its Postgres backend. Its best settings are those of https://docs.bullmq.io/guide/postgresql:
// concurrency 32, a pool of as many connections, and finished jobs removed.

import { Queue, Worker, createPostgresBackend, runMigrations } from 'bullmq'

import { drained, handle, idle, main, payload, payloads, timed, withClient } from './protocol.mjs'

const QUEUE = 'noop'
const LEFT = `select from bullmq.job where queue = '${QUEUE}' and state in ('waiting', 'active') limit 1`
const CHUNK = 1000

async function withQueue(where, work) {
  const queue = new Queue(QUEUE, { connection: where }, createPostgresBackend)
  await queue.waitUntilReady()
  const answer = await work(queue)
  await queue.close()
  return answer
}

async function addAll(queue, jobs, seconds) {
  const all = payloads(jobs, seconds).map((data) => ({ name: QUEUE, data }))
  for (let start = 0; start < jobs; start += CHUNK) await queue.addBulk(all.slice(start, start + CHUNK))
}

function options(where, { config, concurrency }) {
  if (config !== 'best') return { connection: where }
  const most = concurrency ?? 32
  return { connection: { ...where, max: Math.min(most, 32) }, concurrency: most, removeOnComplete: { count: 0 } }
}

const work = (where, settings, seen) =>
  new Worker(QUEUE, (job) => handle(job.data).then(seen), options(where, settings), createPostgresBackend)

await main({
  setup: async (where) => void (await withClient(where, runMigrations)),

  fill: async (where, { jobs, sleep }) => {
    await withClient(where, (client) => client.query('truncate bullmq.job, bullmq.event, bullmq.metrics cascade'))
    await withQueue(where, (queue) => addAll(queue, jobs, sleep))
    await withClient(where, (client) => client.query('vacuum analyze bullmq.job'))
  },

  drain: (where, { jobs, config, concurrency }) =>
    drained(where, jobs, LEFT, (seen) => work(where, { config, concurrency }, seen).waitUntilReady()),

  enqueue: (where, { jobs, how }) =>
    withQueue(where, (queue) =>
      timed(async () => {
        if (how === 'bulk') return addAll(queue, jobs)
        for (let n = 1; n <= jobs; n += 1) await queue.add(QUEUE, payload(n))
      }),
    ),

  // By hand, since a worker does not exit: https://docs.bullmq.io/patterns/manually-fetching-jobs
  once: async (where) => {
    const worker = new Worker(QUEUE, null, { connection: where }, createPostgresBackend)
    const job = await worker.getNextJob('once')
    await handle(job.data)
    await job.moveToCompleted(undefined, 'once', false)
    await worker.close()
  },

  idle: (where, settings) => idle(() => work(where, {}).waitUntilReady(), settings),
})
