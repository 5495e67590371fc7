/**
 * Heads that a user describes: --head-spec and the option `headSpec`, for heads that no table knows or that are another one's tensors.
 */
import { checkObject, checkOneOf, invalidArgument, outOfRange } from '../core/arguments.js'
import { ImplexError } from '../core/errors.js'
import { quoted, readJsonFile } from '../core/files.js'
import type { Config } from './config.js'
import {
  HEAD_ACTIVATIONS,
  HEAD_FORMS,
  HEAD_OUTPUTS,
  type HeadActivation,
  type HeadForm,
  type HeadOutput,
  type HeadSource,
  readForm,
} from './heads.js'
import type { TensorEntry } from './safetensors.js'

/** A head of named layers, or a logit of the unembedding. */
export interface HeadSpec {
  /** Layers, first to last: `NAME.weight` and, where there is one, `NAME.bias`. What a published head has of these is known. */
  layers?: string[]
  /** The reward is the logit of this token after the last one: its id, or its text. It comes without the others, but for `at`. */
  logit?: number | string
  /** Between two layers. Defaults to ReLU. */
  activation?: HeadActivation
  /** What becomes of the last layer's outputs. Defaults to 'none'; see `steps` for heads of two labels. */
  output?: HeadOutput
  /** As `headAt`, which comes first. Defaults to what the form says, and for layers that no table has to 'last'. */
  at?: string
}

const KEYS = ['layers', 'logit', 'activation', 'output', 'at']

/**
 * A text as --head-spec takes it: `logit:TOKEN`, or layers joined by `+`, and after commas `activation=`, `output=` and `at=`.
 * @throws RangeError
 */
export function parseHeadSpec(text: string): HeadSpec {
  const grammar =
    'logit:TOKEN, or LAYER[+LAYER...], then any of ,activation=NAME ,output=NAME ,at=PLACE; or an object of the same in a .json file'
  if (text.startsWith('logit:')) {
    if (text.length === 6) throw outOfRange('headSpec', grammar, text)
    return { logit: tokenOf(text.slice(6)) }
  }
  const [layers = '', ...settings] = text.split(',')
  const spec: Record<string, unknown> = { layers: layers.split('+') }
  for (const setting of settings) {
    const at = setting.indexOf('=')
    const key = setting.slice(0, Math.max(0, at))
    if (!['activation', 'output', 'at'].includes(key) || key in spec) throw outOfRange('headSpec', grammar, text)
    spec[key] = setting.slice(at + 1)
  }
  if (layers.split('+').includes('')) throw outOfRange('headSpec', grammar, text)
  return checkHeadSpec(spec)
}

/** The head that an option describes: itself, a text, or the path of a .json file. @throws as parseHeadSpec, ImplexError for the file */
export async function readHeadSpec(given: string | HeadSpec): Promise<HeadSpec> {
  if (typeof given !== 'string') return checkHeadSpec(given)
  return given.endsWith('.json') ? checkHeadSpec(await readJsonFile(given, 'ERR_CONFIG_INVALID')) : parseHeadSpec(given)
}

/** A token as a flag names it: digits are its id, and a text in double quotes is that text. */
export function tokenOf(text: string): number | string {
  if (/^\d+$/.test(text)) return Number(text)
  return /^".+"$/s.test(text) ? text.slice(1, -1) : text
}

/** @throws TypeError, RangeError */
export function checkHeadSpec(value: unknown): HeadSpec {
  checkObject('headSpec', value)
  const unknown = Object.keys(value).find((key) => !KEYS.includes(key))
  if (unknown !== undefined) throw outOfRange('headSpec', `an object of ${KEYS.join(', ')}`, unknown)
  const { layers, logit, activation, output, at } = value as HeadSpec
  if ((layers === undefined) === (logit === undefined))
    throw outOfRange('headSpec', 'either layers or a logit', Object.keys(value).join(', '))
  if (
    layers !== undefined &&
    !(Array.isArray(layers) && layers.length > 0 && layers.every((one) => typeof one === 'string'))
  )
    throw invalidArgument('headSpec.layers', 'a list of names', layers)
  if (logit !== undefined && typeof logit !== 'string' && !(Number.isSafeInteger(logit) && (logit as number) >= 0))
    throw invalidArgument('headSpec.logit', "a token's id or its text", logit)
  if (logit !== undefined && (activation !== undefined || output !== undefined))
    throw outOfRange(
      'headSpec',
      'without activation and output: a logit is the reward as it is',
      Object.keys(value).join(', '),
    )
  if (activation !== undefined) checkOneOf('headSpec.activation', activation, HEAD_ACTIVATIONS)
  if (output !== undefined) checkOneOf('headSpec.output', output, HEAD_OUTPUTS)
  if (at !== undefined && typeof at !== 'string') throw invalidArgument('headSpec.at', 'a place such as "last"', at)
  return value as HeadSpec
}

/**
 * The head of the layers that a spec names.
 * @param path of the file or folder, for messages
 * @throws ImplexError ERR_TENSOR_MISSING, ERR_TENSOR_SHAPE
 */
export function specifiedHead(
  { layers = [], activation, output }: HeadSpec,
  tensors: ReadonlyMap<string, TensorEntry>,
  config: Config | undefined,
  hiddenSize: number,
  path: string,
): HeadSource {
  const missing = layers.find((name) => !tensors.has(`${name}.weight`))
  if (missing !== undefined) {
    const message = `${path}: no tensor ${quoted(`${missing}.weight`)}, which the head spec names`
    throw new ImplexError('ERR_TENSOR_MISSING', message, { path })
  }
  const names = config?.strings('architectures') ?? []
  const same = (form: HeadForm) =>
    form.layers.join('+') === layers.join('+') &&
    (form.named !== true || names.some((name) => form.architectures?.test(name)))
  const known = HEAD_FORMS.find(same) ?? { layers, readAt: 'last' as const, savedBy: 'the head spec' }
  const form = { ...known, ...(activation && { activation }), ...(output && { output }) }
  return readForm(form, tensors, config, hiddenSize)
}
