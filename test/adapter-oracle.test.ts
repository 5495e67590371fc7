/**
 * Merged checkpoints have the bits of peft's merge_and_unload: test/oracle/check_adapter.py, run with the Python that IMPLEX_ORACLE_PYTHON
 * names (one that has torch, transformers and peft).
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { writeCheckpoint } from '../lib/checkpoint/write.js'
import { mergeAdapter } from '../lib/models/merge-adapter.js'
import { tinyAdapter, type TinyAdapterOptions, writeAdapter } from './fixtures/tiny-adapter.js'
import { tinyCheckpoint, type TinyCheckpointOptions } from './fixtures/tiny-checkpoint.js'
import { repositoryRoot, sharedPath } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const python = process.env.IMPLEX_ORACLE_PYTHON
const folder = temporaryFolder()
const LINEAR = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
const rank = (module: string) => (/down_proj$/.test(module) ? 11 : 3)
const patterns = { r: 3, rank_pattern: { down_proj: 11 }, alpha_pattern: { 'layers.1.*up_proj': 5 } }

/** `exact`: bits, but for sums of squares; null: outputs alone. */
const CASES: { model: TinyCheckpointOptions; adapter: TinyAdapterOptions; exact: boolean | null }[] = [
  { model: {}, adapter: { targets: LINEAR, rank, config: patterns }, exact: true },
  {
    model: {},
    adapter: { targets: LINEAR, rank: 64, config: { r: 64, use_rslora: true, lora_alpha: 7 } },
    exact: true,
  },
  { model: { dtype: 'bf16' }, adapter: { targets: LINEAR, rank, config: patterns }, exact: true },
  { model: { dtype: 'bf16' }, adapter: { targets: LINEAR, dtype: 'bf16' }, exact: true },
  { model: { family: 'qwen2' }, adapter: { targets: ['q_proj', 'v_proj'], bias: true }, exact: true },
  {
    model: { family: 'gpt_neox' },
    adapter: { targets: ['query_key_value', 'dense'], rank: 8, config: { r: 8 } },
    exact: true,
  },
  { model: { family: 'phi3' }, adapter: { targets: ['qkv_proj', 'gate_up_proj', 'down_proj'] }, exact: true },
  { model: {}, adapter: { targets: ['embed_tokens', 'lm_head', 'q_proj'] }, exact: true },
  {
    model: { tied: true },
    adapter: {
      targets: ['o_proj'],
      whole: ['model.embed_tokens.weight'],
      config: { modules_to_save: ['embed_tokens'] },
    },
    exact: true,
  },
  { model: { tied: true }, adapter: { targets: ['embed_tokens', 'q_proj'] }, exact: null },
  { model: { tied: true }, adapter: { targets: ['lm_head', 'q_proj'], tiedTargets: true }, exact: null },
  { model: {}, adapter: { targets: LINEAR, dora: true }, exact: false },
  { model: { dtype: 'bf16' }, adapter: { targets: LINEAR, dora: true }, exact: false },
  {
    model: {},
    adapter: { targets: LINEAR, head: 1, config: { task_type: 'SEQ_CLS', modules_to_save: ['classifier', 'score'] } },
    exact: true,
  },
]

const oracle = suite('adapters as peft merges them')

oracle('bits', async () => {
  const find = 'from importlib.util import find_spec; exit(None in map(find_spec, ["torch", "transformers", "peft"]))'
  if (python === undefined || spawnSync(python, ['-c', find]).status !== 0)
    return skip('IMPLEX_ORACLE_PYTHON names no Python with torch, transformers and peft')
  const request: object[] = []
  const ask = async (base: string, adapter: string, head: number, exact: boolean | null) => {
    const merged = join(folder, `merged-${request.length}`)
    await mergeAdapter({ model: base, adapter, out: merged })
    request.push({ base, adapter, merged, head, exact })
  }
  for (const [i, { model, adapter, exact }] of CASES.entries()) {
    const base = tinyCheckpoint(model)
    await writeCheckpoint(join(folder, `base-${i}`), base)
    await writeAdapter(join(folder, `adapter-${i}`), tinyAdapter(base, adapter))
    await ask(join(folder, `base-${i}`), join(folder, `adapter-${i}`), adapter.head ?? 0, exact)
  }
  const [golden, base] = [sharedPath('golden_lora'), sharedPath('golden/llama/model')]
  if (golden !== undefined && base !== undefined)
    for (const name of ['causal', 'all', 'rslora', 'dora', 'seqcls'])
      await ask(base, join(golden, name, 'adapter'), name === 'seqcls' ? 1 : 0, name !== 'dora')
  writeFileSync(join(folder, 'request.json'), JSON.stringify(request))
  const script = join(repositoryRoot, 'test', 'oracle', 'check_adapter.py')
  const { status, stdout, stderr } = spawnSync(python, [script, join(folder, 'request.json')], { encoding: 'utf8' })
  if (process.env.IMPLEX_VERBOSE !== undefined) console.log(stdout)
  assert.is(status, 0, `${stdout}${stderr.slice(-3000)}`)
})

oracle.run()
