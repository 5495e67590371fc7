/**
 * A word for a POSIX shell, quoted where that is needed: commands that are shown can be pasted.
 */
export function shellWord(text: string): string {
  return /^[\w./+@%:=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
