/**
 * The parsed template.
 */
import type { Operator } from './numbers.js'
import type { Value } from './values.js'

export type Comparison = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in'

export interface Arguments {
  readonly args: readonly Expression[]
  readonly keywords: readonly (readonly [string, Expression])[]
  /** *args and **kwargs. */
  readonly moreArgs: Expression | undefined
  readonly moreKeywords: Expression | undefined
}

export type Expression =
  | { kind: 'constant'; value: Value }
  | { kind: 'name'; name: string }
  | { kind: 'list'; items: Expression[] }
  | { kind: 'tuple'; items: Expression[] }
  | { kind: 'dict'; entries: [Expression, Expression][] }
  | { kind: 'attribute'; object: Expression; name: string }
  | { kind: 'item'; object: Expression; key: Expression }
  | { kind: 'slice'; object: Expression; bounds: (Expression | undefined)[] }
  | { kind: 'call'; callee: Expression; arguments: Arguments }
  | { kind: 'filter'; operand: Expression; name: string; arguments: Arguments }
  | { kind: 'test'; operand: Expression; name: string; arguments: Arguments }
  | { kind: 'not'; operand: Expression }
  | { kind: 'sign'; negative: boolean; operand: Expression }
  | { kind: 'binary'; operator: Operator; left: Expression; right: Expression }
  | { kind: 'compare'; first: Expression; others: [Comparison, Expression][] }
  | { kind: 'concat'; parts: Expression[] }
  | { kind: 'logic'; or: boolean; left: Expression; right: Expression }
  | { kind: 'choice'; test: Expression; then: Expression; otherwise: Expression | undefined }
  /** The text that a filter block or a set block has collected. */
  | { kind: 'collected' }

export type Target =
  | { kind: 'name'; name: string }
  | { kind: 'member'; namespace: string; name: string }
  | { kind: 'tuple'; items: Target[] }

export interface Parameters {
  readonly names: readonly string[]
  /** Default values of the last parameters. */
  readonly defaults: readonly Expression[]
}

export type Statement =
  | { kind: 'text'; text: string }
  | { kind: 'print'; value: Expression }
  | { kind: 'set'; target: Target; value: Expression }
  | { kind: 'set-block'; target: Target; filter: Expression | undefined; body: Statement[] }
  | { kind: 'if'; branches: { test: Expression; body: Statement[] }[]; otherwise: Statement[] }
  | ForStatement
  | { kind: 'with'; assignments: [Target, Expression][]; body: Statement[] }
  | { kind: 'filter-block'; filter: Expression; body: Statement[] }
  | { kind: 'macro'; name: string; parameters: Parameters; body: Statement[] }
  | { kind: 'call-block'; call: Expression & { kind: 'call' }; parameters: Parameters; body: Statement[] }
  | { kind: 'generation'; body: Statement[] }
  | { kind: 'break' }
  | { kind: 'continue' }

export interface ForStatement {
  kind: 'for'
  target: Target
  iterable: Expression
  test: Expression | undefined
  recursive: boolean
  body: Statement[]
  otherwise: Statement[]
}
