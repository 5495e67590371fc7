/**
 * A contest: its sides asked in turn, round after round, and what they answered as cases of a result.
 */
import { setTimeout } from 'node:timers/promises'
import type { BenchCase } from '../suites/result.js'
import { median } from '../suites/statistics.js'
import type { Answer, Peer } from './peer.js'
import type { Contest } from './rows.js'

/** Before each question: threads of the side that answered last may go on spinning for a while, on the same processors. */
const REST_MS = 300

export type Sides = Record<string, { samples: number[]; last: Answer }>

/** A side that fails takes no further part; `failures` says why. A side whose peer is absent is left out. */
export async function askInTurn(
  contest: Contest,
  peers: Record<'ours' | 'torch', Peer | undefined>,
  rounds: number,
): Promise<{ sides: Sides; failures: string[] }> {
  const sides: Sides = {}
  const failures = new Map<string, string>()
  for (let round = 0; round < rounds; round++) {
    for (const [label, { who, request }] of Object.entries(contest.sides)) {
      const peer = peers[who]
      if (peer === undefined || failures.has(label)) continue
      await setTimeout(REST_MS)
      const answer = await peer.ask({ ...request, warm: round === 0 })
      if (answer.error !== undefined) {
        failures.set(label, `${label}: ${answer.error}`)
        delete sides[label]
        continue
      }
      sides[label] = { samples: [...(sides[label]?.samples ?? []), answer.seconds!], last: answer }
    }
  }
  return { sides, failures: [...failures.values()] }
}

/** ‖a - b‖ / ‖b‖ of what both sides found: sums of log-probabilities where there are some, else rewards; for training the loss. */
function disagreement(a: Answer, b: Answer): number | undefined {
  const numbers = (answer: Answer) => {
    const logprobs = answer.logprobs as number[][] | undefined
    const rewards = answer.rewards as number[][] | undefined
    return (logprobs?.length ? logprobs : (rewards ?? [(answer.losses as number[] | undefined) ?? []])).flat()
  }
  const [x, y] = [numbers(a), numbers(b)]
  if (x.length === 0 || x.length !== y.length) return undefined
  const norm = (values: number[]) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0))
  return norm(x.map((value, i) => value - y[i]!)) / norm(y)
}

export function caseOf(contest: Contest, label: string, sides: Sides): BenchCase {
  const { samples, last } = sides[label]!
  const [first] = Object.keys(contest.sides) as [string]
  const ours = sides[first]
  const difference = label === first || ours === undefined ? undefined : disagreement(ours.last, last)
  const promise = contest.promises[label]
  return {
    name: `${contest.name}: ${label}`,
    samples,
    work: typeof last.tokens === 'number' ? { tokens: last.tokens } : {},
    values: {
      ...(typeof last.tokenize_seconds === 'number' ? { tokenizeSeconds: last.tokenize_seconds } : {}),
      ...(typeof last.extra_bytes === 'number' ? { extraBytes: last.extra_bytes } : {}),
      ...(label === first || ours === undefined ? {} : { ratio: median(samples) / median(ours.samples) }),
      ...(promise === undefined ? {} : { promised: promise }),
    },
    ...(difference === undefined || contest.tolerance === undefined
      ? {}
      : { check: { error: difference, limit: contest.tolerance, against: `${first} on the same checkpoint` } }),
  }
}
