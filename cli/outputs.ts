/**
 * Where a command may write, checked before anything is opened: an output must not be one of the inputs or another output, whatever name
 * it goes by, and its folder must be there. Nothing finished is overwritten unless --force says so.
 */
import type { Stats } from 'node:fs'
import { readdir, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { ImplexError } from '../lib/core/errors.js'
import { fileError, systemCode } from '../lib/core/files.js'
import { UsageError } from './exit.js'

export interface Place {
  /** How the user named it: "--out". */
  flag: string
  /** `-` is a standard stream, undefined was not given: neither is checked. */
  path: string | undefined
  /** A folder that is made, with those above it, where it is not there. */
  made?: boolean
}

/** Files of a folder that is an input: what a checkpoint, an adapter or a run is read from. */
const READ_IN_FOLDERS =
  /\.safetensors(\.index\.json)?$|^(adapter_|generation_)?config\.json$|^(tokenizer|special_tokens|added_tokens|vocab|merges|chat_template|metrics|summary|results|attributions|member|evaluation)/

/**
 * @param outputs files to be written, and folders to be filled
 * @param inputs files and folders to be read
 * @throws UsageError when an output is an input or another output, by device and inode, so links and other spellings count
 * @throws ImplexError ERR_IO when the folder of an output does not exist
 */
export async function checkOutputs(outputs: readonly Place[], inputs: readonly Place[]): Promise<void> {
  const taken = new Map<string, string>()
  for (const { flag, path } of named(inputs)) {
    for (const [identity, what] of await readFrom(path)) taken.set(identity, `${what}, which ${flag} reads`)
  }
  for (const { flag, path, made } of named(outputs)) {
    const identity = await identityOf(path, flag, made === true)
    const other = identity === undefined ? undefined : taken.get(identity)
    if (other !== undefined) throw new UsageError(`${flag} ${path} is ${other}; name another file`)
    if (identity !== undefined) taken.set(identity, `also what ${flag} writes`)
  }
}

/** @throws ImplexError ERR_OUTPUT_EXISTS when `path` holds something and `force` is not set */
export async function refuseOverwriting(path: string, force: boolean | undefined, how: string): Promise<void> {
  const stats = await statOf(path)
  if (force || stats === undefined || !stats.isFile() || stats.size === 0) return
  throw new ImplexError('ERR_OUTPUT_EXISTS', `${path} exists: ${how}, or overwrite it with --force`, { path })
}

function named(places: readonly Place[]): (Place & { path: string })[] {
  return places.filter((place): place is Place & { path: string } => place.path !== undefined && place.path !== '-')
}

/** What reading `path` touches: the file, or those files of the folder that are read; identity -> in words. */
async function readFrom(path: string): Promise<[string, string][]> {
  const stats = await statOf(path)
  if (stats === undefined) return [] // told better where it is opened
  if (!stats.isDirectory()) return [[inode(stats), `the same file as ${path}`]]
  const found: [string, string][] = []
  for (const name of await readdir(path).catch(() => [])) {
    if (!READ_IN_FOLDERS.test(name)) continue
    const file = await statOf(join(path, name))
    if (file !== undefined) found.push([inode(file), `the same file as ${join(path, name)}`])
  }
  return found
}

/** For a file that is not there yet: its folder and name, so that two spellings of it are one. Undefined for what can lose nothing. */
async function identityOf(path: string, flag: string, made: boolean): Promise<string | undefined> {
  const stats = await statOf(path)
  // A folder gets further files, a pipe or device keeps nothing.
  if (stats !== undefined) return stats.isFile() ? inode(stats) : undefined
  const place = resolve(path)
  try {
    return join(await realpath(dirname(place)), basename(place))
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw fileError(path, 'write', error)
    if (made) return place
    const message = `${flag} ${path}: the folder ${dirname(place)} does not exist; make it first`
    throw new ImplexError('ERR_IO', message, { path })
  }
}

async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path)
  } catch {
    return undefined
  }
}

function inode({ dev, ino }: Stats): string {
  return `${dev}:${ino}`
}
