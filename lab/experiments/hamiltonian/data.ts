/**
 * Preference pairs of the Hamiltonian cycle task (section 3.2 of the paper): the graph's cycle against an order of its vertices that is
 * none. All graphs of a data set are different, so held-out graphs are in no training pair.
 */
import type { PairRow } from '../../../lib/data/rows.js'
import { checkInteger, checkNumber } from '../../../lib/core/arguments.js'
import { Random, STREAMS } from '../../../lib/core/random.js'
import {
  type Graph,
  identity,
  isCycle,
  randomGraph,
  renderOrder,
  renderPrompt,
  SEPARATORS,
  type Separators,
} from './graph.js'

export interface HamiltonianOptions {
  /** Defaults to 10. */
  vertices?: number
  /** Probability of an edge outside the cycle. Defaults to 0.2. */
  p?: number
  /** Pairs. Defaults to 1000 and 200. */
  train?: number
  test?: number
  /** Defaults to 982. */
  seed?: number
  separators?: Separators
}

export interface HamiltonianPair {
  graph: Graph
  row: PairRow & { prompt: string; chosen: string; rejected: string }
}

/** Draws of a graph before the sizes asked for are taken to be impossible. */
const ATTEMPTS = 1000

/** @throws RangeError where there are not so many different graphs of this kind, or all their orders are cycles */
export function hamiltonianData(options: HamiltonianOptions = {}): {
  train: HamiltonianPair[]
  test: HamiltonianPair[]
} {
  const { vertices = 10, p = 0.2, train = 1000, test = 200, seed = 982, separators = SEPARATORS } = options
  checkInteger('vertices', vertices, 4, 1000)
  checkNumber('p', p, 0, 1)
  checkInteger('train', train, 0, 2 ** 24)
  checkInteger('test', test, 0, 2 ** 24)
  checkInteger('seed', seed, 0)
  const random = Random.seeded(seed, STREAMS.graphs)
  const seen = new Set<string>()
  const pairs = Array.from({ length: train + test }, () => nextPair(random, vertices, p, separators, seen))
  return { train: pairs.slice(0, train), test: pairs.slice(train) }
}

function nextPair(
  random: Random,
  vertices: number,
  p: number,
  separators: Separators,
  seen: Set<string>,
): HamiltonianPair {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { graph, cycle } = randomGraph(random, vertices, p)
    const id = identity(graph)
    const other = seen.has(id) ? undefined : noCycle(random, graph)
    if (other === undefined) continue
    seen.add(id)
    const prompt = renderPrompt(graph, separators)
    const [chosen, rejected] = [renderOrder(cycle, separators), renderOrder(other, separators)]
    return { graph, row: { prompt, chosen, rejected } }
  }
  throw new RangeError(`there are too few different graphs with ${vertices} vertices and p = ${p}; use fewer pairs`)
}

function noCycle(random: Random, graph: Graph): number[] | undefined {
  if (graph.edges.length === (graph.vertices * (graph.vertices - 1)) / 2) return undefined // every order is a cycle
  for (;;) {
    const order = [...random.permutation(graph.vertices)]
    if (!isCycle(graph, order)) return order
  }
}
