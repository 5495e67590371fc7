/**
 * Graphs written as a list of vertices and one of edges, and what can be read off them: the neighbors of a vertex, whether an edge is
 * there, and short walks along edges. No walk visits all vertices, so no Hamiltonian cycle or path is in the corpus, and nothing judges a walk.
 */
import { assistant, Draw, type Item, user } from './item.js'

interface Graph {
  text: string
  vertices: number
  /** [u][v] */
  joined: boolean[][]
}

export function graph(draw: Draw): Graph {
  const vertices = draw.between(5, 10)
  const density = 0.2 + 0.25 * (draw.below(100) / 100)
  const joined = Array.from({ length: vertices }, () => new Array<boolean>(vertices).fill(false))
  const edges: [number, number][] = []
  for (let u = 0; u < vertices; u++) {
    for (let v = u + 1; v < vertices; v++) {
      // Each vertex has a neighbor: the edge to the one before it is there more often.
      if (!draw.chance(v === u + 1 ? 0.5 : density)) continue
      edges.push([u, v])
      joined[u]![v] = joined[v]![u] = true
    }
  }
  const separator = draw.pick([', ', ' '])
  const listed = draw.some(edges, edges.length).map(([u, v]) => (draw.chance(0.5) ? `${u}-${v}` : `${v}-${u}`))
  const names = Array.from({ length: vertices }, (_, i) => i)
  return {
    text: `Vertices: ${names.join(separator)}\nEdges: ${listed.join(separator)}`,
    vertices,
    joined,
  }
}

const neighbors = ({ joined }: Graph, u: number) => [...joined[u]!.keys()].filter((v) => joined[u]![v])

/** Without repetition, over at most all but one of the vertices. */
function walk(draw: Draw, graph: Graph): number[] {
  const path = [draw.below(graph.vertices)]
  while (path.length < graph.vertices - 1) {
    const next = neighbors(graph, path.at(-1)!).filter((v) => !path.includes(v))
    if (next.length === 0) break
    path.push(draw.pick(next))
  }
  return path
}

export function* graphs(seed: number, count: number): Generator<Item> {
  const draw = new Draw(seed, 108)
  for (let i = 0; i < count; i++) {
    const one = graph(draw)
    const ask = (): [string, string] => {
      const u = draw.below(one.vertices)
      const near = neighbors(one, u)
      const v =
        near.length > 0 && draw.chance(0.5) ? draw.pick(near) : (u + 1 + draw.below(one.vertices - 1)) % one.vertices
      return draw.pick<[string, string]>([
        [`Neighbors of ${u}?`, near.length === 0 ? 'None.' : near.join(', ')],
        [`Is there an edge ${u}-${v}?`, one.joined[u]![v] ? 'There is.' : 'There is none.'],
        ['Walk along edges.', walk(draw, one).join(' ')],
      ])
    }
    const [first, ...rest] = [ask(), ask(), ask(), ask()]
    const turns = rest.flatMap(([asked, told]) => [user(asked), assistant(told)])
    yield { topic: 'graphs', prompt: `${one.text}\n${first![0]}`, response: [assistant(first![1]), ...turns] }
  }
}
