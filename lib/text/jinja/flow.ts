/**
 * How compiled statements go on, and their type.
 */
import type { Place } from './compile-expression.js'
import type { Statement } from './nodes.js'
import type { Scope } from './scope.js'

export enum Flow {
  Next = 0,
  Break = 1,
  Continue = 2,
}

export type Block = (scope: Scope) => Flow
export type Compile = (statements: readonly Statement[], place: Place) => Block
