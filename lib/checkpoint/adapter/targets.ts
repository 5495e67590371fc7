/**
 * Which modules an adapter's settings name, and with which rank and scale, by the rules of peft: a name of a list fits a module of that name
 * or one that ends with it after a dot; a regular expression must fit the whole name; a key of a pattern must fit its end.
 */
import { ImplexError } from '../../core/errors.js'
import { quoted } from '../../core/files.js'
import type { AdapterSettings, AdapterPattern } from './settings.js'

/** What a module is, for the word "all-linear". */
export interface TargetModule {
  /** As peft knows it: `model.layers.0.self_attn.q_proj`. */
  name: string
  /** Whether "all-linear" means it: not the embedding, the unembedding and what is no linear layer in every version of transformers. */
  linear: boolean
}

export class Targets {
  readonly #settings: AdapterSettings
  readonly #expressions = new Map<string, RegExp>()

  constructor(settings: AdapterSettings) {
    this.#settings = settings
  }

  /** Whether the settings name the module; undefined where they name none at all. @throws ImplexError ERR_CONFIG_INVALID */
  names({ name, linear }: TargetModule): boolean | undefined {
    const { targets, excluded, modulesToSave } = this.#settings
    if (typeof excluded === 'string') {
      if (excluded !== '' && this.#fits(`^(?:${excluded})$`, name, 'exclude_modules')) return false
    } else if (excluded.some((one) => isOrEndsWith(name, one))) return false
    if (modulesToSave.some((one) => this.#fits(`^(?:|.*\\.)(?:${one})(?:$|\\.)`, name, 'modules_to_save'))) return false
    if (targets === undefined) return undefined
    if (typeof targets !== 'string') {
      // A whole name counts in every layer.
      return targets.includes(name) || (targets.some((one) => isOrEndsWith(name, one)) && this.#inLayers(name))
    }
    return targets.toLowerCase() === 'all-linear' ? linear : this.#fits(`^(?:${targets})$`, name, 'target_modules')
  }

  /** Whether modules_to_save names the module. */
  savesWhole(name: string): boolean {
    return this.#settings.modulesToSave.some((one) => isOrEndsWith(name, one))
  }

  rank(name: string): number {
    const { rankPattern, rank } = this.#settings
    return this.#first(rankPattern, name, 'rank_pattern') ?? rank
  }

  scale(name: string): number {
    const { alphaPattern, alpha, rankStabilized } = this.#settings
    const rank = this.rank(name)
    return (this.#first(alphaPattern, name, 'alpha_pattern') ?? alpha) / (rankStabilized ? Math.sqrt(rank) : rank)
  }

  #first(patterns: readonly AdapterPattern[], name: string, key: string): number | undefined {
    return patterns.find(([pattern]) => this.#fits(`^(?:.*\\.)?(?:${pattern})$`, name, key))?.[1]
  }

  #inLayers(name: string): boolean {
    const { layers, layersPattern } = this.#settings
    if (layers === undefined) return true
    // The first number counts: a later one is an expert's.
    const expressions =
      layersPattern.length === 0
        ? ['^.*?\\.[^.]*\\.(\\d+)\\.']
        : layersPattern.map((pattern) => `^(?:.*?\\.)?(?:${pattern})\\.(\\d+)\\.`)
    for (const expression of expressions) {
      const found = this.#expression(expression, 'layers_pattern').exec(name)
      if (found !== null) return layers.includes(Number(found.at(-1)))
    }
    return false
  }

  #fits(expression: string, name: string, key: string): boolean {
    return this.#expression(expression, key).test(name)
  }

  /** Python writes named groups and the ends of a text in other ways; what else differs is not understood and an error. */
  #expression(source: string, key: string): RegExp {
    const known = this.#expressions.get(source)
    if (known !== undefined) return known
    const { file } = this.#settings
    try {
      const translated = source.replaceAll('(?P<', '(?<').replaceAll(/\(\?P=(\w+)\)/g, '\\k<$1>')
      const other = /\\[AZ]|\{,/.exec(translated)?.[0]
      if (other !== undefined) throw new SyntaxError(`${other} is not supported`)
      const expression = new RegExp(translated)
      this.#expressions.set(source, expression)
      return expression
    } catch (cause) {
      const message = `${file}: "${key}" has the regular expression ${quoted(source)}, which is not understood: ${(cause as Error).message}`
      throw new ImplexError('ERR_CONFIG_INVALID', message, { cause, path: file })
    }
  }
}

function isOrEndsWith(name: string, end: string): boolean {
  return name === end || name.endsWith(`.${end}`)
}
