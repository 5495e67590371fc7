// The C and C++ libraries that packed programs ask the system for: the largest version that any of them names.
import { readFileSync } from 'node:fs'

const LIBRARIES = { GLIBC: 'glibc', GLIBCXX: 'libstdc++ symbols' }

const compare = (a, b) => {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) - (b[i] ?? 0)
  }
  return 0
}

/** Version names lie in an ELF file's string table as plain text, `GLIBC_2.28`, each ended by a zero byte. */
export function abiFloor(files) {
  const floor = {}
  for (const file of files) {
    for (const [, library, text] of readFileSync(file, 'latin1').matchAll(/\0(GLIBC|GLIBCXX)_(\d+(?:\.\d+)+)(?=\0)/g)) {
      const version = text.split('.').map(Number)
      if (floor[library] === undefined || compare(version, floor[library]) > 0) floor[library] = version
    }
  }
  return floor
}

export function abiText(floor) {
  const parts = Object.entries(LIBRARIES).flatMap(([key, name]) =>
    floor[key] === undefined ? [] : [`${name} ${floor[key].join('.')} or later`],
  )
  return parts.length === 0 ? 'no particular C library' : parts.join(', ')
}
