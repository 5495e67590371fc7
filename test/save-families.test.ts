/** Models of the families are saved as they were read: experts in one tensor stay so, and a text part becomes a model of its own. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Config } from '../lib/checkpoint/config.js'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { readTensors } from '../lib/checkpoint/tensors.js'
import { type CheckpointContent, writeCheckpoint } from '../lib/checkpoint/write.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { train } from '../lib/train/train.js'
import { type TinyCheckpointOptions, tinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { fuseExperts, wrap } from './fixtures/tiny-variants.js'
import { temporaryFolder } from './support/tmp.js'
import { pairs } from './support/train.js'

const root = temporaryFolder()
const rows = pairs(4)
let made = 0

/** Trains the same checkpoint stored in two ways. @returns the saved folders, after checking that they give the same rewards */
async function bothSaved(
  kind: 'explicit' | 'implicit',
  usual: CheckpointContent,
  other: CheckpointContent,
): Promise<string[]> {
  const saved: string[] = []
  const rewards: number[][][] = []
  for (const content of [usual, other]) {
    const path = join(root, `model-${made}`)
    await writeCheckpoint(path, content)
    const { model } = await train(path, rows, {
      ...{
        kind,
        out: join(root, `run-${made++}`),
        learningRate: 1e-3,
        epochs: 1,
        batchPairs: 2,
        device: 'cpu',
        cache: false,
      },
      ...(kind === 'implicit' ? { reference: 'none' as const } : {}),
    })
    saved.push(model!)
    using opened = await RewardModel.open(model!, { kind, device: 'cpu', cache: false, onWarning: () => {} })
    rewards.push((await opened.score(rows)).rewards)
  }
  assert.equal(rewards[1], rewards[0], 'the same bits')
  return saved
}

const names = async (folder: string) => [...(await readTensors(folder)).keys()].sort()
const tiny = (options: TinyCheckpointOptions) => tinyCheckpoint({ maxPositions: 1024, ...options })

const saving = suite('saved')

for (const kind of ['explicit', 'implicit'] as const) {
  saving(`${kind}: experts in one tensor`, async () => {
    const content = tiny({ family: 'qwen3_moe' })
    const fused = fuseExperts(content, ['gate_proj', 'up_proj', 'down_proj'], 'mlp')
    const [, together] = await bothSaved(kind, content, fused)
    const head = kind === 'explicit'
    const expected = fused.tensors.map(({ name }) => name).filter((name) => !head || name !== 'lm_head.weight')
    assert.equal(await names(together!), [...expected, ...(head ? ['score.weight'] : [])].sort())
    const { shape } = (await readTensors(together!)).get('model.layers.0.mlp.experts.gate_up_proj')!
    assert.equal(shape, [5, 48, 32])
  })

  for (const [outer, family] of [
    ['gemma3', 'gemma3_text'],
    ['llava', 'llama'],
  ] as const) {
    for (const version of [4, 5] as const) {
      saving(`${kind}: the text part of ${outer}, transformers ${version}`, async () => {
        const content = tiny({ family, style: version, tied: outer === 'gemma3' })
        const [alone, inside] = await bothSaved(kind, content, wrap(content, outer, version))
        assert.equal(await names(inside!), await names(alone!))
        const [one, other] = await Promise.all([alone, inside].map((folder) => openCheckpoint(folder!)))
        assert.is(other!.family, family)
        assert.equal(other!.notes, [])
        assert.equal(other!.spec.layers, one!.spec.layers)
        const config = await Config.read(join(inside!, 'config.json'))
        assert.is(config.has('vision_config') || config.has('text_config'), false)
        const classes = { gemma3: ['Gemma3Text', 'Gemma3'], llava: ['Llama', 'Llama'] }[outer]
        const task = kind === 'explicit' ? `${classes[0]}ForSequenceClassification` : `${classes[1]}ForCausalLM`
        assert.equal(config.strings('architectures'), [task])
      })
    }
  }
}

saving('whole numbers that were floats stay floats', async () => {
  const content = tiny({ family: 'gemma2' })
  const [saved] = await bothSaved('implicit', content, content)

  const text = await readFile(join(saved!, 'config.json'), 'utf8')
  assert.match(text, /"final_logit_softcapping": 3\.0,/)
  assert.match(text, /"sliding_window": 7,/)
})

saving.run()
