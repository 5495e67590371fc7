/**
 * Rewards with an adapter: those of the merged checkpoint, those of peft for the golden adapters, the base's bits with the adapter off, and
 * the adapter's own head, tokenizer, template and padding token.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { writeCheckpoint } from '../lib/checkpoint/write.js'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { modelFingerprint } from '../lib/checkpoint/fingerprint.js'
import { withAdapter } from '../lib/checkpoint/adapter/adapter.js'
import type { Row } from '../lib/data/rows.js'
import { mergeAdapter } from '../lib/models/merge-adapter.js'
import { RewardModel } from '../lib/models/reward-model.js'
import type { RewardModelOptions } from '../lib/models/reward-options.js'
import { tinyAdapter, type TinyAdapterOptions, writeAdapter } from './fixtures/tiny-adapter.js'
import { tinyCheckpoint, type TinyCheckpointOptions } from './fixtures/tiny-checkpoint.js'
import { implex } from './support/cli.js'
import { failure } from './support/engine.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'
import { pairs } from './support/train.js'

const folder = temporaryFolder()
const rows: Row[] = pairs(5, 3)
const LINEAR = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
const IMPLICIT = { kind: 'implicit', beta: 1, device: 'cpu', cache: false } as const
const EXPLICIT = { kind: 'explicit', device: 'cpu', cache: false } as const
let number = 0

async function files(
  model: TinyCheckpointOptions,
  options: TinyAdapterOptions,
): Promise<{ base: string; adapter: string; merged: string }> {
  const base = join(folder, `base-${number}`)
  const adapter = join(folder, `adapter-${number}`)
  const merged = join(folder, `merged-${number++}`)
  const content = tinyCheckpoint(model)
  await writeCheckpoint(base, content)
  await writeAdapter(adapter, tinyAdapter(content, options))
  await mergeAdapter({ model: base, adapter, out: merged })
  return { base, adapter, merged }
}

async function rewards(path: string, options: RewardModelOptions, data: Row[] = rows): Promise<number[][]> {
  using model = await RewardModel.open(path, { ...options, onWarning: () => {} })
  return (await model.score(data)).rewards
}

function close(found: number[][], expected: number[][], bound: number): void {
  for (const [i, row] of expected.entries())
    for (const [k, value] of row.entries())
      assert.ok(
        Math.abs(found[i]![k]! - value) <= bound * Math.max(1, Math.abs(value)),
        `row ${i}, ${k}: ${found[i]![k]}, not ${value}`,
      )
}

const score = suite('rewards with an adapter')

for (const name of ['causal', 'all', 'rslora', 'dora', 'seqcls']) {
  score(`golden adapter ${name}, beside the base and merged`, async () => {
    const [base, own] = [sharedPath('golden/llama/model'), sharedPath(`golden_lora/${name}`)]
    if (base === undefined || own === undefined) return skip('../shared/golden_lora is absent')
    interface Golden extends Record<'prompt' | 'chosen' | 'rejected', string> {
      im?: Record<string, number[]>
      ex_last?: number[]
      logp?: Record<'chosen' | 'rejected', number>
      ref_logp?: Record<'chosen' | 'rejected', number>
    }
    const golden = JSON.parse(readFileSync(join(own, 'expected.json'), 'utf8')) as { pairs: Golden[] }
    const adapter = join(own, 'adapter')
    const merged = join(folder, `golden-${name}`)
    await mergeAdapter({ model: base, adapter, out: merged })
    const data = golden.pairs.map(({ prompt, chosen, rejected }) => ({ prompt, chosen, rejected }))
    for (const [path, options] of [
      [base, { adapter }],
      [merged, { reference: base }],
    ] as const) {
      if (name === 'seqcls') {
        const own = 'adapter' in options ? options : {}
        const found = await rewards(path, { ...EXPLICIT, ...own }, data)
        close(
          found,
          golden.pairs.map(({ ex_last: last }) => last!),
          1e-4,
        )
        continue
      }
      using model = await RewardModel.open(path, { ...IMPLICIT, beta: 0.1, ...options })
      const scored = await model.score(data)
      for (const [i, { im, logp, ref_logp: reference }] of golden.pairs.entries()) {
        const { logprobs, referenceLogprobs } = scored.rows[i]!
        for (const [k, side] of (['chosen', 'rejected'] as const).entries()) {
          const [p, q] = [logp![side], reference![side]]
          assert.ok(Math.abs(logprobs![k]! - p) <= 1e-4 * Math.abs(p))
          assert.ok(Math.abs(referenceLogprobs![k]! - q) <= 1e-4 * Math.abs(q))
          // The reward is a difference of the two.
          const bound = 1e-4 * 0.1 * (Math.abs(p) + Math.abs(q))
          assert.ok(Math.abs(scored.rewards[i]![k]! - im!['0.1']![k]!) <= bound)
        }
      }
    }
  })
}

/** Parts that are added beside the weights, and parts that have to be merged. */
const CASES: [string, TinyCheckpointOptions, TinyAdapterOptions][] = [
  ['all linear layers', {}, { targets: LINEAR }],
  ['biases and norms of q and k', { family: 'qwen3', attentionBias: true }, { targets: LINEAR }],
  ['fused projections', { family: 'phi3' }, { targets: ['qkv_proj', 'gate_up_proj', 'down_proj'] }],
  [
    'fused by head',
    { family: 'gpt_neox' },
    { targets: ['query_key_value', 'dense', 'dense_h_to_4h', 'dense_4h_to_h'] },
  ],
  ['experts', { family: 'qwen3_moe' }, { targets: LINEAR }],
  ['a router', { family: 'qwen3_moe' }, { targets: ['gate', 'q_proj'] }],
  ['DoRA', {}, { targets: LINEAR, dora: true }],
  ['biases of B', { family: 'qwen2' }, { targets: ['q_proj', 'v_proj'], bias: true }],
  ['embeddings', {}, { targets: ['embed_tokens', 'lm_head', 'q_proj'] }],
  ['a tied embedding', { tied: true }, { targets: ['embed_tokens', 'q_proj'] }],
  ['a tied unembedding', { tied: true }, { targets: ['lm_head', 'q_proj'], tiedTargets: true }],
  [
    'a tied embedding that is trained alone',
    { tied: true },
    { targets: ['q_proj'], whole: ['model.embed_tokens.weight'], config: { modules_to_save: ['embed_tokens'] } },
  ],
]

for (const [what, model, adapter] of CASES) {
  score(`${what}: the rewards of the merged checkpoint, against the base`, async () => {
    const { base, ...paths } = await files(model, adapter)
    const merged = await rewards(paths.merged, { ...IMPLICIT, reference: base })
    const beside = await rewards(base, { ...IMPLICIT, adapter: paths.adapter })
    close(beside, merged, 1e-3)
    const plain = await rewards(base, { ...IMPLICIT, reference: base })
    assert.ok(beside.flat().some((value, i) => Math.abs(value - plain.flat()[i]!) > 0.01))
  })
}

score("with the adapter off the bits are the base's, and its weights are in memory once", async () => {
  const { base, adapter } = await files({}, { targets: ['q_proj'] })
  using alone = await RewardModel.open(base, { ...IMPLICIT })
  const expected = (await alone.score(rows)).rows.map(({ logprobs }) => logprobs)
  using model = await RewardModel.open(base, { ...IMPLICIT, adapter })
  const { rows: scored } = await model.score(rows)
  assert.equal(
    scored.map(({ referenceLogprobs }) => referenceLogprobs),
    expected,
  )
  assert.ok(model.weightBytes < 1.5 * alone.weightBytes)
  assert.is(model.adapter, adapter)
  assert.is(model.referenceCheckpoint!.path, model.path)
})

score('a reference that is given takes the place of the base', async () => {
  const { base, adapter, merged } = await files({}, { targets: ['q_proj'] })
  const zero = await rewards(base, { ...IMPLICIT, adapter, reference: merged })
  close(
    zero,
    zero.map((row) => row.map(() => 0)),
    1e-3,
  )
})

score("the head is the adapter's, and without one an explicit reward is refused", async () => {
  const settings = { task_type: 'SEQ_CLS', modules_to_save: ['classifier', 'score'] }
  const { base, adapter, merged } = await files({ head: 'extra' }, { targets: LINEAR, head: 1, config: settings })
  const own = await rewards(base, { ...EXPLICIT, adapter })
  close(own, await rewards(merged, EXPLICIT), 1e-4)
  const other = await rewards(base, { ...EXPLICIT, adapter, head: base })
  assert.ok(Math.abs(own[0]![0]! - other[0]![0]!) > 1e-3)
  const headless = await files({ head: 'extra' }, { targets: LINEAR })
  const error = await failure(() => RewardModel.open(headless.base, { ...EXPLICIT, adapter: headless.adapter }))
  assert.is(error.code, 'ERR_TENSOR_MISSING')
  for (const text of [headless.adapter, 'head', '--head']) assert.ok(error.message.includes(text), error.message)
})

score("tokenizer, template and padding token are the adapter's where it has them", async () => {
  const { base, adapter } = await files({}, { targets: ['q_proj'], head: 1, config: { task_type: 'SEQ_CLS' } })
  const fingerprint = async (path: string, options: Partial<RewardModelOptions>) => {
    using model = await RewardModel.open(path, { ...EXPLICIT, ...options })
    return { text: model.textFingerprint, pad: model.checkpoint.padTokenId, template: model.templateSource }
  }
  const before = await fingerprint(base, { adapter })
  assert.is(before.pad, 4)
  writeFileSync(
    join(adapter, 'chat_template.jinja'),
    '{% for m in messages %}[{{ m.content }}]{{ eos_token }}{% endfor %}',
  )
  const templated = await fingerprint(base, { adapter })
  assert.is.not(templated.text, before.text)
  const config = JSON.parse(readFileSync(join(base, 'tokenizer_config.json'), 'utf8')) as Record<string, unknown>
  delete config.chat_template
  writeFileSync(join(adapter, 'tokenizer_config.json'), JSON.stringify({ ...config, pad_token: config.eos_token }))
  writeFileSync(join(adapter, 'tokenizer.json'), readFileSync(join(base, 'tokenizer.json')))
  const own = await fingerprint(base, { adapter })
  assert.is(own.pad, 1)
  const out = join(folder, 'merged-text')
  await mergeAdapter({ model: base, adapter, out })
  assert.equal(await fingerprint(out, {}), own)
})

score(
  'the fingerprint of a model is another one with an adapter, with another scale and with other numbers',
  async () => {
    const { base, adapter } = await files({}, { targets: ['q_proj'] })
    const checkpoint = await openCheckpoint(base)
    const of = async () => modelFingerprint(await withAdapter(checkpoint, adapter))
    const prints = [await modelFingerprint(checkpoint), await of()]
    const content = tinyCheckpoint()
    await writeAdapter(adapter, tinyAdapter(content, { targets: ['q_proj'], config: { lora_alpha: 9 } }))
    prints.push(await of())
    await writeAdapter(adapter, tinyAdapter(content, { targets: ['q_proj'], seed: 6 }))
    prints.push(await of())
    assert.is(new Set(prints).size, 4)
  },
)

score('the command: base by name, rewards, evaluation, merging', async () => {
  const { base, adapter } = await files({}, { targets: LINEAR })
  const data = join(folder, 'rows.jsonl')
  writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  const flags = ['--kind', 'implicit', '--beta', '1', '--device', 'cpu', '--no-cache', '--adapter', adapter]
  const missing = await implex(['score', ...flags, '--data', data])
  assert.is(missing.status, 1)
  assert.match(missing.stderr, /some\/base.*--model/)
  await writeAdapter(
    adapter,
    tinyAdapter(tinyCheckpoint(), { targets: LINEAR, config: { base_model_name_or_path: base } }),
  )
  const { status, stdout, stderr } = await implex(['score', ...flags, '--data', data])
  assert.is(status, 0, stderr)
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<'chosen_reward' | 'rejected_reward', number>)
  assert.equal(
    lines.map((line) => [line.chosen_reward, line.rejected_reward]),
    await rewards(base, { ...IMPLICIT, adapter }),
  )
  const out = join(folder, 'evaluation.json')
  const evaluated = await implex(['eval', ...flags, '--data', `set=${data}`, '--out', out, '--quiet'])
  assert.is(evaluated.status, 0, evaluated.stderr)
  const report = JSON.parse(readFileSync(out, 'utf8')) as Record<string, unknown>
  assert.equal([report.model, report.adapter, report.reference], [base, adapter, base])
  const merged = join(folder, 'merged-by-command')
  const first = await implex(['merge-adapter', '--adapter', adapter, '--out', merged])
  assert.is(first.status, 0, first.stderr)
  assert.match(first.stderr, /14 of them/)
  assert.is((await implex(['merge-adapter', '--adapter', adapter, '--out', merged])).status, 1)
})

score.run()
