/**
 * Names of fields: camelCase in TypeScript, snake_case in the JSON files of runs and results. What crosses does so here.
 */

/** camelCase keys to snake_case, one level deep: names below may be the user's. NaN, which JSON has not, becomes null by itself. */
export function snakeKeys(value: object): Record<string, unknown> {
  return renamed(value, (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`))
}

/** snake_case keys to camelCase, one level deep. */
export function camelKeys(value: object): Record<string, unknown> {
  return renamed(value, (key) => key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()))
}

function renamed(value: object, name: (key: string) => string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [name(key), item]))
}
