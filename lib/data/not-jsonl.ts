/**
 * Files that are something else than JSON Lines, told by their first bytes, and what to do with them.
 */

const MAGIC: readonly [bytes: readonly number[], what: string, advice: string][] = [
  [[0x28, 0xb5, 0x2f, 0xfd], 'compressed with zstd', 'unpack it first: zstd -dc FILE | … --data -'],
  [[0x42, 0x5a, 0x68], 'compressed with bzip2', 'unpack it first: bzip2 -dc FILE | … --data -'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'compressed with xz', 'unpack it first: xz -dc FILE | … --data -'],
  [[0x50, 0x4b, 0x03, 0x04], 'a zip archive', 'unpack it first'],
  [[0x50, 0x41, 0x52, 0x31], 'Parquet', 'write it as JSON Lines: Dataset.to_json of the library datasets does'],
  [
    [0x41, 0x52, 0x52, 0x4f, 0x57, 0x31],
    'Arrow',
    'write it as JSON Lines: Dataset.to_json of the library datasets does',
  ],
]

/** What a file that begins with these bytes is; undefined when it may be JSON Lines. */
export function notJsonl(start: Buffer): string | undefined {
  for (const [bytes, what, advice] of MAGIC) {
    if (bytes.every((byte, i) => start[i] === byte)) return `it is ${what}; ${advice}`
  }
  return undefined
}
