/** Which modules an adapter's settings name, and with which rank and scale: the rules of peft. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { AdapterSettings } from '../lib/checkpoint/adapter/settings.js'
import { Targets } from '../lib/checkpoint/adapter/targets.js'

const NAMES = [0, 1, 11].flatMap((i) =>
  ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.down_proj'].map((name) => `model.layers.${i}.${name}`),
)
const SETTINGS: AdapterSettings = {
  ...{ file: 'adapter_config.json', rank: 8, alpha: 16, rankPattern: [], alphaPattern: [], rankStabilized: false },
  ...{
    dora: false,
    loraBias: false,
    excluded: [],
    layersPattern: [],
    modulesToSave: [],
    tiesWeights: false,
    notes: [],
  },
}

const targets = suite('targets of an adapter')

/** Those of NAMES that are named, without what they have in common. */
function named(settings: Partial<AdapterSettings>): string {
  const of = new Targets({ ...SETTINGS, ...settings })
  return NAMES.filter((name) => of.names({ name, linear: true }))
    .map((name) => name.replace(/model\.layers\.(\d+)\..*\.(.).*/, '$1$2'))
    .join(' ')
}

targets('a list names modules by their ends, after a dot', () => {
  assert.is(named({ targets: ['q_proj'] }), '0q 1q 11q')
  assert.is(named({ targets: ['self_attn.q_proj', 'down_proj'] }), '0q 0d 1q 1d 11q 11d')
  assert.is(named({ targets: ['proj', '_proj', 'model.layers'] }), '')
  assert.is(named({ targets: ['1.mlp.down_proj'] }), '1d')
})

targets('a regular expression names modules by their whole names', () => {
  assert.is(named({ targets: '.*q_proj' }), '0q 1q 11q')
  assert.is(named({ targets: 'q_proj' }), '')
  assert.is(named({ targets: '.*\\.1\\..*_proj|.*down_proj' }), '0d 1q 1v 1d 11d')
  assert.is(named({ targets: '(?P<start>.*)\\.(?:q|v)_proj' }), '0q 0v 1q 1v 11q 11v')
  for (const expression of ['.*q_proj\\Z', '(?i).*Q_PROJ', '(unclosed', '.{,9}q_proj'])
    assert.throws(
      () => named({ targets: expression }),
      (error: Error) => /adapter_config\.json.*target_modules/.test(error.message),
    )
})

targets('all-linear, in any case, names linear modules', () => {
  assert.is(named({ targets: 'All-Linear' }), '0q 0v 0d 1q 1v 1d 11q 11v 11d')
  const of = new Targets({ ...SETTINGS, targets: 'all-linear' })
  assert.is(of.names({ name: 'lm_head', linear: false }), false)
})

targets('excluded modules, and those that are saved whole, are not named', () => {
  assert.is(named({ targets: 'all-linear', excluded: ['q_proj', '1.mlp.down_proj'] }), '0v 0d 1v 11v 11d')
  assert.is(named({ targets: 'all-linear', excluded: '.*11.*|.*v_proj' }), '0q 0d 1q 1d')
  assert.is(named({ targets: ['q_proj', 'down_proj'], modulesToSave: ['self_attn'] }), '0d 1d 11d')
})

targets('layers_to_transform goes by the first number, or that of layers_pattern', () => {
  assert.is(named({ targets: ['q_proj'], layers: [1] }), '1q')
  assert.is(named({ targets: ['q_proj'], layers: [0, 11], layersPattern: ['layers'] }), '0q 11q')
  assert.is(named({ targets: ['q_proj'], layers: [0], layersPattern: ['blocks'] }), '')
  assert.is(named({ targets: ['model.layers.0.self_attn.q_proj'], layers: [1] }), '0q')
  const of = new Targets({ ...SETTINGS, targets: ['gate_proj'], layers: [2] })
  assert.is(of.names({ name: 'model.layers.2.mlp.experts.5.gate_proj', linear: true }), true)
  assert.is(of.names({ name: 'model.layers.5.mlp.experts.2.gate_proj', linear: true }), false)
})

targets('without targets the settings leave it open', () => {
  assert.is(new Targets(SETTINGS).names({ name: NAMES[0]!, linear: true }), undefined)
})

targets('the first pattern that fits the end of a name counts', () => {
  const of = new Targets({
    ...{ ...SETTINGS, rank: 8, alpha: 16 },
    rankPattern: [
      ['down_proj', 2],
      ['layers.1.self_attn.q_proj', 6],
      ['.*q_proj', 3],
      ['1.self_attn.v_proj', 5],
    ],
    alphaPattern: [
      ['q_proj', 9],
      ['layers.1.self_attn.q_proj', 100],
      ['proj', 50],
    ],
  })
  const ranks = NAMES.map((name) => of.rank(name))
  // "1.self_attn.v_proj" begins after a dot: not in layer 11.
  assert.equal(ranks, [3, 8, 2, 6, 5, 2, 3, 8, 2])
  assert.equal(
    NAMES.map((name) => of.scale(name)),
    ranks.map((rank, i) => (i % 3 === 0 ? 9 : 16) / rank),
  )
  const stabilized = new Targets({ ...SETTINGS, rankStabilized: true, rankPattern: [['q_proj', 4]] })
  assert.is(stabilized.scale(NAMES[0]!), 8)
  assert.is(stabilized.scale(NAMES[1]!), 16 / Math.sqrt(8))
})

targets.run()
