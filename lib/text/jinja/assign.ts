/**
 * Assignment to names, to tuples of them and to members of namespaces.
 */
import { items } from './compare.js'
import { RenderFault } from './errors.js'
import type { Target } from './nodes.js'
import type { Scope } from './scope.js'
import { Namespace, type Value } from './values.js'

export type Assign = (scope: Scope, value: Value) => void

export function compileTarget(target: Target): Assign {
  if (target.kind === 'name') {
    const { name } = target
    return (scope, value) => scope.set(name, value)
  }
  if (target.kind === 'member') {
    const { namespace, name } = target
    return (scope, value) => {
      const object = scope.get(namespace)
      if (!(object instanceof Namespace)) throw new RenderFault('cannot assign attribute on non-namespace object')
      object.attributes.set(name, value)
    }
  }
  const targets = target.items.map(compileTarget)
  return (scope, value) => {
    const parts = items(value)
    if (parts.length !== targets.length) {
      const problem = parts.length > targets.length ? 'too many' : 'not enough'
      throw new RenderFault(`${problem} values to unpack (expected ${targets.length}, got ${parts.length})`)
    }
    for (const [index, assign] of targets.entries()) assign(scope, parts[index] as Value)
  }
}
