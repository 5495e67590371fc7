/**
 * Whole numbers that are floats. JSON tells 30.0 from 30 and JavaScript does not, but transformers 5 refuses a config whose
 * `final_logit_softcapping` is 30: what was written as a float is written as one again.
 */

const NUMBER = /"((?:[^"\\]|\\.)*)"\s*:\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?=\s*[,}])/g

/** The keys of a JSON text that have a float in it. */
export function floatKeys(json: string): Set<string> {
  const keys = new Set<string>()
  for (const [, key, number] of json.matchAll(NUMBER)) if (/[.eE]/.test(number!)) keys.add(key!)
  return keys
}

/** A JSON text in which the whole numbers of these keys have a decimal point. */
export function withFloats(json: string, keys: ReadonlySet<string>): string {
  return json.replaceAll(NUMBER, (all, key: string, number: string) =>
    keys.has(key) && /^-?\d+$/.test(number) ? `${all}.0` : all,
  )
}
