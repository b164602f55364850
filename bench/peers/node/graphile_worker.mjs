// graphile-worker. Its best settings are those of https://worker.graphile.org/docs/performance: concurrency 24, a local
// queue of 500, completions gathered without a delay.

import { Logger, makeWorkerUtils, run, runMigrations, runOnce } from 'graphile-worker'
import pg from 'pg'

import { drained, handle, idle, main, payload, payloads, timed, withClient } from './protocol.mjs'

const JOBS = 'graphile_worker._private_jobs'
const LEFT = `select from ${JOBS} limit 1`

// A line for each job on the terminal is no part of the question.
const logger = new Logger(() => () => {})

function pool(where) {
  const made = new pg.Pool(where)
  // It asks for handlers of errors outside of queries.
  made.on('error', console.error)
  made.on('connect', (client) => client.on('error', console.error))
  return made
}

function options(where, { config, concurrency } = {}) {
  const shared = { logger, noHandleSignals: true }
  if (config !== 'best') return { ...shared, pgPool: pool(where), preset: {} }
  const batches = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
  const preset = { worker: { concurrentJobs: concurrency ?? 24, ...batches } }
  return { ...shared, pgPool: pool({ ...where, max: 25 }), preset }
}

async function withUtils(where, work) {
  const utils = await makeWorkerUtils({ pgPool: pool(where), logger })
  const answer = await work(utils)
  await utils.release()
  return answer
}

const addAll = (utils, jobs, seconds) =>
  utils.addJobs(payloads(jobs, seconds).map((each) => ({ identifier: 'noop', payload: each })))

await main({
  setup: (where) => runMigrations({ pgPool: pool(where), logger }),

  fill: async (where, { jobs, sleep }) => {
    await withClient(where, (client) => client.query(`truncate ${JOBS}`))
    await withUtils(where, (utils) => addAll(utils, jobs, sleep))
    await withClient(where, (client) => client.query(`vacuum analyze ${JOBS}`))
  },

  drain: (where, { jobs, config, concurrency }) =>
    drained(where, jobs, LEFT, (seen) =>
      run({ ...options(where, { config, concurrency }), taskList: { noop: (job) => handle(job).then(seen) } }),
    ),

  enqueue: (where, { jobs, how }) =>
    withUtils(where, async (utils) => {
      await utils.withPgClient((client) => client.query('select 1'))
      return timed(async () => {
        if (how === 'bulk') return addAll(utils, jobs)
        for (let n = 1; n <= jobs; n += 1) await utils.addJob('noop', payload(n))
      })
    }),

  once: (where) => runOnce({ ...options(where), taskList: { noop: handle } }),

  idle: (where, settings) => idle(() => run({ ...options(where), taskList: { noop: handle } }), settings),
})
