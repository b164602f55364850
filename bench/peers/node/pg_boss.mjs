// pg-boss. Its best settings are those of https://timgit.github.io/pg-boss/api/workers: many jobs in a batch, and no
// pause while batches come back full. A handler has a whole batch, and a batch of sleepers sleeps together.

import { PgBoss } from 'pg-boss'

import { drained, handle, idle, main, payload, payloads, timed, withClient } from './protocol.mjs'

const QUEUE = 'noop'
const LEFT = `select from pgboss.job where name = '${QUEUE}' and state < 'completed' limit 1`

async function started(where, settings = {}) {
  const boss = new PgBoss({ ...where, ...settings })
  boss.on('error', (error) => console.error(error))
  await boss.start()
  return boss
}

async function withBoss(where, work) {
  const boss = await started(where, { supervise: false, schedule: false })
  const answer = await work(boss)
  await boss.stop({ graceful: false })
  return answer
}

const insertAll = (boss, jobs, seconds) => boss.insert(QUEUE, payloads(jobs, seconds).map((data) => ({ data })))

function settings({ config, concurrency }) {
  if (config !== 'best') return {}
  return { batchSize: concurrency ?? 500, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }
}

const handleAll = (seen) => (jobs) => Promise.all(jobs.map((job) => handle(job.data).then(seen)))

await main({
  setup: (where) => withBoss(where, (boss) => boss.createQueue(QUEUE)),

  fill: async (where, { jobs, sleep }) => {
    await withBoss(where, async (boss) => {
      await boss.deleteAllJobs(QUEUE)
      await insertAll(boss, jobs, sleep)
    })
    await withClient(where, (client) => client.query('vacuum analyze pgboss.job_common'))
  },

  drain: (where, { jobs, config, concurrency }) =>
    drained(where, jobs, LEFT, async (seen) => {
      const boss = await started(where)
      await boss.work(QUEUE, settings({ config, concurrency }), handleAll(seen))
    }),

  enqueue: (where, { jobs, how }) =>
    withBoss(where, (boss) =>
      timed(async () => {
        if (how === 'bulk') return insertAll(boss, jobs)
        for (let n = 1; n <= jobs; n += 1) await boss.send(QUEUE, payload(n))
      }),
    ),

  once: (where) =>
    withBoss(where, async (boss) => {
      const [job] = await boss.fetch(QUEUE)
      await handle(job.data)
      await boss.complete(QUEUE, job.id)
    }),

  idle: (where, options) =>
    idle(async () => {
      const boss = await started(where)
      await boss.work(QUEUE, handleAll(() => {}))
    }, options),
})
