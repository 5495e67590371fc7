/**
 * The template engines that are compared: this project's, and others that are installed elsewhere.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { JinjaTemplate } from '../../lib/text/jinja/template.js'
import { strftime } from '../../lib/text/strftime.js'

type Context = Record<string, unknown>
type Compile = (source: string) => (context: Context) => string

export interface Engine {
  /** Whether it can tell 2.0 from 2, and so is given rows that do. */
  lossless: boolean
  load(module: string | undefined, now: Date): Promise<{ compile: Compile; version: string }>
}

export const ENGINES: Readonly<Record<string, Engine>> = {
  implex: { lossless: true, load: async (_, now) => ({ compile: implex(now), version: 'this commit' }) },
  huggingface: { lossless: false, load: huggingface },
  minijinja: { lossless: false, load: minijinja },
}

function raise(message: unknown): never {
  throw new Error(String(message))
}

function implex(now: Date): Compile {
  return (source) => {
    const template = new JinjaTemplate(source, {
      functions: { raise_exception: raise, strftime_now: (format) => strftime(now, String(format)) },
    })
    return (context) => template.render(context)
  }
}

interface HuggingFace {
  Template: new (source: string) => { parsed: unknown }
  Environment: new () => { set(name: string, value: unknown): void }
  Interpreter: new (environment: unknown) => { run(parsed: unknown): { value: string } }
}

async function huggingface(module: string | undefined, now: Date): Promise<{ compile: Compile; version: string }> {
  const { Template, Environment, Interpreter } = (await import(fileUrl(module))) as HuggingFace
  const globals = {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    range,
    raise_exception: raise,
  }
  const compile: Compile = (source) => {
    const { parsed } = new Template(source)
    return (context) => {
      const environment = new Environment()
      const variables = { ...globals, strftime_now: (format: unknown) => strftime(now, String(format)), ...context }
      for (const [name, value] of Object.entries(variables)) environment.set(name, value)
      return new Interpreter(environment).run(parsed).value
    }
  }
  return { compile, version: versionOf(module) }
}

function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop]
  return Array.from({ length: Math.max(0, Math.ceil((to - from) / step)) }, (_, index) => from + index * step)
}

interface MiniJinja {
  Environment: new () => {
    trimBlocks: boolean
    lstripBlocks: boolean
    enablePyCompat(): void
    addGlobal(name: string, value: unknown): void
    addTemplate(name: string, source: string): void
    renderTemplate(name: string, context: Context): string
  }
}

async function minijinja(module: string | undefined, now: Date): Promise<{ compile: Compile; version: string }> {
  if (module === undefined) throw new Error('minijinja: name its entry file')
  const { Environment } = createRequire(import.meta.url)(path.resolve(module)) as MiniJinja
  const compile: Compile = (source) => {
    const environment = new Environment()
    environment.trimBlocks = true
    environment.lstripBlocks = true
    environment.enablePyCompat()
    environment.addGlobal('raise_exception', raise)
    environment.addGlobal('strftime_now', (format: unknown) => strftime(now, String(format)))
    environment.addTemplate('template.txt', source)
    return (context) => environment.renderTemplate('template.txt', context)
  }
  return { compile, version: versionOf(module) }
}

function fileUrl(module: string | undefined): string {
  if (module === undefined) throw new Error('huggingface: name its entry file')
  return pathToFileURL(path.resolve(module)).href
}

/** From the nearest package.json that has a version. */
function versionOf(module: string | undefined): string {
  for (
    let folder = path.dirname(path.resolve(module ?? ''));
    folder !== path.dirname(folder);
    folder = path.dirname(folder)
  ) {
    try {
      const { version } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as { version?: string }
      if (version !== undefined) return version
    } catch {
      // No package.json here: look further up.
    }
  }
  return 'unknown'
}
