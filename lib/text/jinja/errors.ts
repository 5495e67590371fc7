/**
 * What can go wrong with a template. The chat template turns these into errors with a code.
 */

/** The text is not Jinja: the template cannot be used at all. */
export class SyntaxFault extends Error {}

/** Jinja2 itself fails here, in Python's or Jinja's words where they help. */
export class RenderFault extends Error {}

/** raise_exception: the template's own verdict on a conversation. */
export class Refusal extends Error {}

/** Jinja2 can do it and this implementation cannot: refused by name, never rendered otherwise. */
export class UnsupportedError extends Error {
  constructor(readonly feature: string) {
    super(`uses ${feature}, which is not supported`)
  }
}

/** A bound of limits.ts is reached. */
export class LimitError extends Error {}
