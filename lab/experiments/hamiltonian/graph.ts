/**
 * Undirected graphs with a Hamiltonian cycle, as text and back. Vertices are 0 … n - 1.
 */
import type { Random } from '../../../lib/core/random.js'

export interface Graph {
  vertices: number
  /** Each with its smaller vertex first, in random order. */
  edges: [number, number][]
}

/** What stands between vertices and inside an edge: tokens of their own, see withAddedTokens. */
export interface Separators {
  vertex: string
  edge: string
}

export const SEPARATORS: Readonly<Separators> = { vertex: '<sep>', edge: '<edge_sep>' }

/** A graph whose cycle is a random order of the vertices; each other edge is there with probability `p`. */
export function randomGraph(random: Random, vertices: number, p: number): { graph: Graph; cycle: number[] } {
  const cycle = [...random.permutation(vertices)]
  const chosen = new Set(closed(cycle).map(([a, b]) => key(a, b)))
  const all: [number, number][] = []
  for (let a = 0; a < vertices; a++) {
    for (let b = a + 1; b < vertices; b++) if (chosen.has(key(a, b)) || random.unit() < p) all.push([a, b])
  }
  const order = random.permutation(all.length)
  return { graph: { vertices, edges: Array.from(order, (i) => all[i]!) }, cycle }
}

/** Two graphs have the same identity when they have the same edges. */
export function identity({ vertices, edges }: Graph): string {
  return [vertices, ...edges.map(([a, b]) => key(a, b)).sort()].join()
}

export function renderPrompt({ vertices, edges }: Graph, { vertex, edge }: Separators = SEPARATORS): string {
  const numbers = Array.from({ length: vertices }, (_, i) => vertex + i).join('')
  return `Vertices: ${numbers}\nEdges: ${edges.map(([a, b]) => `${vertex}${a}${edge}${b}`).join('')}`
}

export function renderOrder(order: readonly number[], { vertex }: Separators = SEPARATORS): string {
  return order.map((one) => vertex + one).join('')
}

/** Whether the numbers in `text`, whatever stands between them, name every vertex once and each next to an edge, the last to the first. */
export function verifyCycle(graph: Graph, text: string): boolean {
  return isCycle(graph, (text.match(/\d+/g) ?? []).map(Number))
}

export function isCycle({ vertices, edges }: Graph, order: readonly number[]): boolean {
  if (order.length !== vertices || new Set(order).size !== vertices) return false
  const known = new Set(edges.map(([a, b]) => key(a, b)))
  return closed(order).every(([a, b]) => known.has(key(a, b)))
}

function closed(order: readonly number[]): [number, number][] {
  return order.map((vertex, i) => [vertex, order[(i + 1) % order.length]!])
}

function key(a: number, b: number): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`
}
