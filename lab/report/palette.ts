/**
 * How things look: every colour in a light and a dark scheme, and for each kind of reward model also a shape and a dash, because colour
 * alone does not reach everybody.
 */
import { type SymbolType, symbolCircle, symbolDiamond, symbolSquare, symbolTriangle } from 'd3-shape'

/** CSS custom properties: [light, dark]. Text colours have a contrast of at least 4.5 on paper, panel and tint. */
export const COLOURS = {
  paper: ['#ffffff', '#15181c'],
  panel: ['#f5f6f8', '#1d2126'],
  tint: ['#eef3fa', '#1b2735'],
  ink: ['#1b1f24', '#e7eaee'],
  muted: ['#545c66', '#a9b1bb'],
  line: ['#d5d9de', '#3a4149'],
  grid: ['#e7eaed', '#2a3037'],
  link: ['#0b57a4', '#8dbcf3'],
  explicit: ['#1c5da8', '#79b3f0'],
  implicit: ['#b2450b', '#f2a36b'],
  generative: ['#10704d', '#69c79c'],
  sft: ['#5d4a9c', '#b4a3ee'],
  positive: ['#3fae72', '#2c8a58'],
  negative: ['#a873c9', '#8a55ad'],
} as const satisfies Record<string, readonly [string, string]>

export type Colour = keyof typeof COLOURS

export interface KindLook {
  label: string
  colour: Colour
  /** stroke-dasharray. */
  dash: string
  symbol: SymbolType
}

const LOOKS: Record<string, KindLook> = {
  explicit: { label: 'Explicit', colour: 'explicit', dash: 'none', symbol: symbolCircle },
  implicit: { label: 'Implicit', colour: 'implicit', dash: '7 3', symbol: symbolDiamond },
  generative: { label: 'Generative', colour: 'generative', dash: '2 3', symbol: symbolTriangle },
  sft: { label: 'Fine-tuning', colour: 'sft', dash: '9 3 2 3', symbol: symbolSquare },
}

export function lookOf(kind: string): KindLook {
  return LOOKS[kind] ?? LOOKS['sft']!
}

/** As declarations of custom properties. */
export function declarations(scheme: 0 | 1): string {
  return Object.entries(COLOURS)
    .map(([name, colours]) => `--${name}:${colours[scheme]}`)
    .join(';')
}

/** The kind that a text names first, if it names one. */
export function kindIn(text: string): string | undefined {
  return /\b(explicit|implicit|generative)\b/i.exec(text)?.[1]?.toLowerCase()
}
