/**
 * The model card of a trained adapter, README.md as the Hugging Face Hub shows it: base, data, recipe, evaluation, and how to load it.
 */
import { type AdaptedModule, lastName, parameterCount } from './adapter-modules.js'
import type { TrainSettings } from './options.js'
import { applicableSettings } from './resolve-options.js'
import type { TrainSummary } from './runs/summary.js'

export interface CardFacts {
  /** The base model's folder, and the fingerprint of its weights. */
  base: string
  baseFingerprint: string
  /** Fingerprint of the training data. */
  data: string
  settings: TrainSettings
  modules: readonly AdaptedModule[]
  summary: Pick<TrainSummary, 'pairs' | 'steps' | 'evaluation' | 'headAt' | 'version'>
  /** Tokens that the template brought and the base has no rows for. */
  addedTokens: number
}

const KINDS = {
  explicit: 'An explicit reward model: a head on the last hidden state',
  implicit: 'An implicit reward model: the reward is β (ln π(response | prompt) - ln π_ref(response | prompt))',
  generative: 'A generative reward model: the reward is the probability of Yes',
  sft: 'A language model, trained on the responses alone',
} as const

/** @param padTokenId what a classifier must be told to pad with */
export function modelCard(facts: CardFacts, padTokenId: number): string {
  const { base, settings, summary, modules } = facts
  const explicit = settings.kind === 'explicit'
  const { kind, loraRank, ...recipe } = applicableSettings(settings)
  const names = [...new Set(modules.map(lastName))].join(', ')
  const parts = [
    [
      '---',
      `base_model: ${JSON.stringify(base)}`,
      'library_name: peft',
      `pipeline_tag: ${explicit ? 'text-classification' : 'text-generation'}`,
      'tags: [lora, reward-model, implex]',
      '---',
    ].join('\n'),
    `# LoRA adapter, ${kind}`,
    `${KINDS[kind!]}. A LoRA adapter of rank ${loraRank} for ${names}, ${parameterCount(modules, loraRank!)} numbers, trained by ` +
      `implex ${summary.version}.`,
    '## What it was trained on',
    table([
      ['base model', base],
      ['fingerprint of its weights', facts.baseFingerprint],
      ['fingerprint of the data', facts.data],
      [kind === 'sft' ? 'responses' : 'pairs', String(summary.pairs)],
      ['steps', String(summary.steps)],
    ]),
    '## Recipe',
    table(
      Object.entries(recipe).map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)]),
    ),
    '## Evaluation',
    evaluation(summary.evaluation),
    '## How to use it',
    ...usage(facts, padTokenId),
  ]
  return `${parts.join('\n\n')}\n`
}

function table(rows: string[][], header: string[] = ['', '']): string {
  const line = (cells: string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n')
}

function evaluation(sets: TrainSummary['evaluation']): string {
  const entries = Object.entries(sets)
  if (entries.length === 0) return 'None: the run had no data to evaluate on.'
  const shown = (value: unknown) => (typeof value === 'number' ? String(Number(value.toPrecision(4))) : '')
  const columns = ['pairs', 'loss', 'accuracy', 'meanMargin'] as const
  return table(
    entries.map(([name, set]) => [name, ...columns.map((column) => shown(set[column]))]),
    ['data', 'pairs', 'loss', 'accuracy', 'mean margin'],
  )
}

function usage({ base, settings, addedTokens, summary }: CardFacts, padTokenId: number): string[] {
  const explicit = settings.kind === 'explicit'
  const auto = explicit ? 'AutoModelForSequenceClassification' : 'AutoModelForCausalLM'
  const options = explicit ? `, num_labels=1, pad_token_id=${padTokenId}` : ''
  const code = [
    'from peft import PeftModel',
    `from transformers import ${auto}, AutoTokenizer`,
    '',
    'adapter = "."  # this folder',
    'tokenizer = AutoTokenizer.from_pretrained(adapter)',
    `base = ${auto}.from_pretrained(${JSON.stringify(base)}${options})`,
    ...(addedTokens > 0 ? ['base.resize_token_embeddings(len(tokenizer), mean_resizing=False)'] : []),
    'model = PeftModel.from_pretrained(base, adapter).eval()',
  ]
  const mean =
    explicit && settings.pool === 'mean'
      ? ['The reward is the mean of the head over the tokens of the response, not the logit that the class gives.']
      : []
  const at =
    explicit && settings.pool === 'last'
      ? [
          `The head is read at the ${summary.headAt === 'last-non-pad' ? 'last token that is not padding' : 'last token'}.`,
        ]
      : []
  const reference =
    settings.kind === 'implicit' && settings.reference === 'initial'
      ? [`The reference is the base model with the adapter off (\`model.disable_adapter()\`); β is ${settings.beta}.`]
      : []
  return [['```python', ...code, '```'].join('\n'), ...mean, ...at, ...reference]
}
