/**
 * How things look: every color in a light and a dark scheme, and for each kind of reward model also a shape and a dash, because color
 * alone does not reach everybody.
 */
import { type SymbolType, symbolCircle, symbolDiamond, symbolSquare, symbolTriangle } from 'd3-shape'

/** CSS custom properties: [light, dark]. Text colors have a contrast of at least 4.5 on paper, panel and tint. */
export const COLORS = {
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

export type Color = keyof typeof COLORS

export interface KindLook {
  label: string
  color: Color
  /** stroke-dasharray. */
  dash: string
  symbol: SymbolType
}

const LOOKS: Record<string, KindLook> = {
  explicit: { label: 'Explicit', color: 'explicit', dash: 'none', symbol: symbolCircle },
  implicit: { label: 'Implicit', color: 'implicit', dash: '7 3', symbol: symbolDiamond },
  generative: { label: 'Generative', color: 'generative', dash: '2 3', symbol: symbolTriangle },
  sft: { label: 'Fine-tuning', color: 'sft', dash: '9 3 2 3', symbol: symbolSquare },
}

export function lookOf(kind: string): KindLook {
  return LOOKS[kind] ?? LOOKS['sft']!
}

/** As declarations of custom properties. */
export function declarations(scheme: 0 | 1): string {
  return Object.entries(COLORS)
    .map(([name, colors]) => `--${name}:${colors[scheme]}`)
    .join(';')
}

/** The kind that a text names first, if it names one. */
export function kindIn(text: string): string | undefined {
  return /\b(explicit|implicit|generative)\b/i.exec(text)?.[1]?.toLowerCase()
}
