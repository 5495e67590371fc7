/** The library inside a host program: aborts at random moments, workers that are ended, and a host that must stay alive. */
import { expect, type Ended, type Ground, tail, type Scenario } from './ground.js'

/** The program prints `ok` when all it checks holds. */
function expectOk(end: Ended): void {
  expect(
    end.stdout.trim().endsWith('ok'),
    `${end.signal ?? `status ${end.status}`}: ${tail(end.stdout)} ${tail(end.stderr)}`,
  )
}

function scripted(name: string, program: (ground: Ground, scratch: string) => string): Scenario {
  return {
    name,
    async run(ground, scratch) {
      expectOk(await ground.script(program(ground, scratch)))
    },
  }
}

const wait = (ground: Ground, most: number) => Math.floor(ground.random.unit() * most)

export const apiScenarios: readonly Scenario[] = [
  scripted(
    'abort while opening',
    (ground) => `
    const start = performance.now()
    const signal = AbortSignal.timeout(${wait(ground, 400)})
    try {
      const opened = await implex.RewardModel.open(model, { kind: 'implicit', signal })
      opened.dispose()
    } catch (error) { if (error.code !== 'ERR_ABORTED') throw error }
    if (performance.now() - start > 20000) throw new Error('the abort was late')
    console.log('ok')
  `,
  ),
  scripted(
    'abort while scoring',
    (ground) => `
    const opened = await implex.RewardModel.open(model, { kind: 'implicit' })
    const rows = []
    for await (const { value, text } of implex.readJsonl(data)) rows.push(value ?? JSON.parse(text))
    const whole = await opened.score(rows.slice(0, 20))
    for (let i = 0; i < 5; i++) {
      const start = performance.now()
      let late = 0
      try { await opened.score(rows, { signal: AbortSignal.timeout(${wait(ground, 600)} + i * 10) }) } catch (error) {
        if (error.code !== 'ERR_ABORTED') throw error
      }
      if (performance.now() - start > 20000) throw new Error('the abort was late')
    }
    const again = await opened.score(rows.slice(0, 20))
    if (JSON.stringify(again.rewards) !== JSON.stringify(whole.rewards)) throw new Error('other rewards after aborts')
    opened.dispose()
    console.log('ok')
  `,
  ),
  scripted(
    'abort while training',
    (ground, scratch) => `
    const options = { kind: 'explicit', out: ${JSON.stringify(scratch)} + '/run', epochs: 2, batchPairs: 16, resume: true }
    for (let i = 0; i < 4; i++) {
      try { await implex.train(model, data, { ...options, signal: AbortSignal.timeout(${wait(ground, 1500)} + 200 * i) }) } catch (error) {
        if (error.code !== 'ERR_ABORTED') throw error
      }
    }
    const { interrupted } = await implex.train(model, data, options)
    if (interrupted) throw new Error('interrupted by nobody')
    console.log('ok')
  `,
  ),
  scripted(
    'workers that are ended',
    (ground) => `
    const { Worker } = await import('node:worker_threads')
    const library = new URL(${JSON.stringify(`file://${ground.root}/dist/lib/index.js`)})
    const program = \`import(\${JSON.stringify(library.href)}).then(async (implex) => {
      const opened = await implex.RewardModel.open(\${JSON.stringify(model)}, { kind: 'implicit' })
      for await (const row of opened.scoreStream(implex.readJsonl(\${JSON.stringify(data)}))) void row
    })\`
    await Promise.all(Array.from({ length: 4 }, async (_, i) => {
      const worker = new Worker(program, { eval: true })
      worker.on('error', () => {})
      await new Promise((resolve) => setTimeout(resolve, ${wait(ground, 1500)} + 100 * i))
      await worker.terminate()
    }))
    const opened = await implex.RewardModel.open(model, { kind: 'implicit' })
    await opened.score([{ prompt: 'a', chosen: 'b', rejected: 'c' }])
    opened.dispose()
    console.log('ok')
  `,
  ),
  scripted(
    'a row that does not end',
    (_, scratch) => `
    const { writeFileSync } = await import('node:fs')
    const template = ${JSON.stringify(scratch)} + '/t.jinja'
    writeFileSync(template, '{% for m in messages %}{% if m.content == "wait" %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ m.content }}{% endfor %}')
    const opened = await implex.RewardModel.open(model, { kind: 'implicit', template })
    let beats = 0
    const heart = setInterval(() => beats++, 10)
    try {
      await opened.score([{ prompt: 'wait', chosen: 'b', rejected: 'c' }])
      throw new Error('an endless row was scored')
    } catch (error) { if (!String(error.code).startsWith('ERR_')) throw error }
    if (beats < 10) throw new Error('the event loop stood still')
    await opened.score([{ prompt: 'a', chosen: 'b', rejected: 'c' }])
    clearInterval(heart)
    opened.dispose()
    console.log('ok')
  `,
  ),
  scripted(
    'many calls on one signal',
    () => `
    let warned = ''
    process.on('warning', ({ name }) => { warned = name })
    const opened = await implex.RewardModel.open(model, { kind: 'implicit' })
    const { signal } = new AbortController()
    await Promise.all(Array.from({ length: 30 }, () => opened.score([{ prompt: 'a', chosen: 'b', rejected: 'c' }], { signal })))
    await new Promise((resolve) => setTimeout(resolve, 50))
    if (warned) throw new Error(warned)
    opened.dispose()
    console.log('ok')
  `,
  ),
  scripted(
    'wrong arguments',
    (ground) => `
    const wrong = ${JSON.stringify(ground.random.pick(['null', '1', '[]', '{}', 'Symbol()', '"x"']))}
    const value = eval(wrong)
    const opened = await implex.LanguageModel.open(model)
    const scorer = await implex.RewardModel.open(model, { kind: 'implicit' })
    const calls = [
      () => opened.generate([null]), () => opened.generate(value, { maxNewTokens: 1 }), () => scorer.score([value]),
      () => scorer.score(value === '[]' ? 1 : value), () => implex.RewardModel.open(value, { kind: 'implicit' }),
      () => implex.RewardModel.open(model, value), () => implex.train(model, data, value),
    ]
    for (const call of calls) {
      try { await call() } catch (error) {
        if (typeof error.code !== 'string' || error.code === 'ERR_INTERNAL') throw new Error(call + ': ' + error.stack)
      }
    }
    opened.dispose(); scorer.dispose()
    console.log('ok')
  `,
  ),
]
