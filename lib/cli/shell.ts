/**
 * Words of a command that is shown to be repeated.
 */

/** As a shell reads it back. */
export function shellWord(text: string): string {
  return /^[\w./+@%:=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
