/** Gradients and five AdamW steps of the adapters in ../shared/golden_lora, as peft has them in float64; DoRA is scored and not trained. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { readHeader } from '../lib/checkpoint/safetensors.js'
import { openTrainer, type Trainer } from '../lib/native/handles.js'
import type { AdapterSpec, WeightSource } from '../lib/native/spec.js'
import { lowRankOf, readAdapter } from './support/adapters.js'
import { sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { pairBatch, type TokenPair, trainOptions } from './support/trainer.js'

interface Golden {
  base: string
  pairs: { ids: TokenPair; ref_logp?: { chosen: number; rejected: number } }[]
  train: Record<
    string,
    {
      lr: number
      losses: number[]
      rewards_after: [number, number][]
      grad: Record<string, { norm: number; head: number[] }>
    }
  >
}

const ROLES: Record<string, string> = {
  'self_attn.q_proj': 'q',
  'self_attn.k_proj': 'k',
  'self_attn.v_proj': 'v',
  'self_attn.o_proj': 'o',
  'mlp.gate_proj': 'gate',
  'mlp.up_proj': 'up',
  'mlp.down_proj': 'down',
}
const NAME = /^base_model\.model\.(model\.layers\.(\d+)\.(.+))\.lora_([AB])(\.default)?\.weight$/

/** The engine's role of a parameter of peft's. */
function roleOf(name: string): string {
  if (name.includes('.score.')) return 'head'
  const [, , layer, module, part] = NAME.exec(name)!
  return `layers.${layer}.${ROLES[module!]}.lora_${part!.toLowerCase()}`
}

/** A trainer that starts from the adapter. */
async function openGolden(path: string, base: string): Promise<Trainer> {
  const folder = join(path, 'adapter')
  const adapter = await readAdapter(folder)
  const { spec } = await openCheckpoint(join(sharedPath(`golden/${base}`)!, 'model'))
  const specs = new Map<string, AdapterSpec>()
  const weights: WeightSource[] = []
  for (const [name, { offset, bytes, shape, file }] of await readHeader(join(folder, 'adapter_model.safetensors'))) {
    if (name.endsWith('.score.weight')) continue
    const role = roleOf(name)
    const projection = role.replace(/\.lora_[ab]$/, '')
    weights.push({ role, tensor: name, file, offset, bytes, dtype: 'f32', shape })
    specs.set(projection, { role: projection, ...lowRankOf(adapter, NAME.exec(name)![1]!) })
  }
  const head = adapter.tensors.get('base_model.model.score.weight')?.data
  const unused = head === undefined ? 'head' : 'unembedding'
  const kept = spec.weights.filter(({ role }) => role !== unused && role !== 'head')
  const adapted = { ...spec, adapters: [...specs.values()], weights: [...kept, ...weights] }
  const objective = head === undefined ? 'implicit' : 'explicit'
  return openTrainer(adapted, { device: 'cpu', dtype: 'f32' }, trainOptions({ objective, beta: 0.1, head }))
}

const golden = suite('golden LoRA training')
const worst: Record<string, number> = {}

for (const name of ['causal', 'all', 'rslora', 'seqcls']) {
  golden(`${name}: gradients at the start, losses before each of five steps, rewards after them`, async () => {
    const path = sharedPath(`golden_lora/${name}`)
    if (path === undefined) return skip(`../shared/golden_lora/${name} is absent`)
    const { base, pairs, train } = JSON.parse(readFileSync(join(path, 'expected.json'), 'utf8')) as Golden
    using trainer = await openGolden(path, base)
    const [objective] = Object.keys(train) as ['ex' | 'im']
    const { lr, losses, rewards_after: after, grad } = train[objective]!
    const reference = pairs.flatMap(({ ref_logp: logp }) => (logp === undefined ? [] : [logp.chosen, logp.rejected]))
    const tokens = pairs.map(({ ids }) => ids)
    const batch = (gradients: boolean) =>
      pairBatch(tokens, objective === 'ex' ? 'explicit' : 'implicit', {
        gradients,
        scale: 1 / pairs.length,
        ...(objective === 'im' ? { reference: Float64Array.from(reference) } : {}),
      })
    const near = (what: string, value: number, expected: number, scale: number) => {
      const off = Math.abs(value - expected) / scale
      const key = what.split(' ')[0]!
      worst[key] = Math.max(worst[key] ?? 0, off)
      assert.ok(off < 1e-3, `${what}: ${value}, expected ${expected}`)
    }
    for (const [step, expected] of losses.entries()) {
      const { losses: found } = await trainer.accumulate(batch(true))
      near(
        `loss before step ${step + 1}`,
        found.reduce((sum, loss) => sum + loss, 0) / pairs.length,
        expected,
        expected,
      )
      if (step === 0) {
        assert.equal(trainer.parameters.map(({ role }) => role).sort(), Object.keys(grad).map(roleOf).sort())
        for (const [parameter, { norm, head }] of Object.entries(grad)) {
          const values = await trainer.gradient(roleOf(parameter))
          near(`gradient of ${parameter}`, Math.hypot(...values), norm, norm)
          for (const [i, one] of head.entries()) near(`gradient of ${parameter}, ${i}`, values[i]!, one, norm)
        }
      }
      await trainer.step({ learningRate: lr, maxNorm: 0 })
    }
    const { rewards } = await trainer.accumulate(batch(false))
    const scale = Math.max(...after.flat().map(Math.abs))
    for (const [i, expected] of after.flat().entries())
      near(`reward ${i} after the steps`, rewards[i]!, expected, scale)
    if (process.env.IMPLEX_VERBOSE !== undefined) console.log(name, worst)
  })
}

golden.run()
