/**
 * Python's strftime in the C locale, for templates that ask for the date.
 */

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
// biome-ignore format: two rows of six
const MONTHS = [
  'January', 'February', 'March', 'April', 'May', 'June',
  'July', 'August', 'September', 'October', 'November', 'December',
]

/** Local time, as Python's `datetime.now()`. Throws a RangeError for a directive that it does not know. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)(.?)/gs, (directive, dash: string, letter: string) => {
    const text = field(date, letter)
    if (text === undefined) throw new RangeError(`strftime_now: unknown directive ${JSON.stringify(directive)}`)
    // glibc's dash: a number without its leading zeros.
    return dash === '' ? text : text.replace(/^0+(?=\d)/, '')
  })
}

function field(date: Date, letter: string): string | undefined {
  const of = (format: string): string => strftime(date, format)
  const hours = date.getHours()
  switch (letter) {
    case 'a':
      return DAYS[date.getDay()]?.slice(0, 3)
    case 'A':
      return DAYS[date.getDay()]
    case 'b':
    case 'h':
      return MONTHS[date.getMonth()]?.slice(0, 3)
    case 'B':
      return MONTHS[date.getMonth()]
    case 'd':
      return pad(date.getDate(), 2)
    case 'e':
      return String(date.getDate()).padStart(2, ' ')
    case 'j':
      return pad(dayOfYear(date), 3)
    case 'm':
      return pad(date.getMonth() + 1, 2)
    case 'y':
      return pad(date.getFullYear() % 100, 2)
    case 'Y':
      return String(date.getFullYear())
    case 'H':
      return pad(hours, 2)
    case 'I':
      return pad(hours % 12 === 0 ? 12 : hours % 12, 2)
    case 'p':
      return hours < 12 ? 'AM' : 'PM'
    case 'M':
      return pad(date.getMinutes(), 2)
    case 'S':
      return pad(date.getSeconds(), 2)
    case 'f':
      return pad(date.getMilliseconds() * 1000, 6)
    case 'u':
      return String(date.getDay() === 0 ? 7 : date.getDay())
    case 'w':
      return String(date.getDay())
    case 'z':
    case 'Z': // Python's datetime.now() knows no time zone: both are empty.
      return ''
    case 'c':
      return of('%a %b %e %H:%M:%S %Y')
    case 'D':
    case 'x':
      return of('%m/%d/%y')
    case 'F':
      return of('%Y-%m-%d')
    case 'R':
      return of('%H:%M')
    case 'T':
    case 'X':
      return of('%H:%M:%S')
    case '%':
      return '%'
    default:
      return undefined
  }
}

function dayOfYear(date: Date): number {
  const day = (d: Date) => Date.UTC(d.getFullYear(), d.getMonth(), d.getDate()) / 86_400_000
  return day(date) - day(new Date(date.getFullYear(), 0, 1)) + 1
}

function pad(value: number, digits: number): string {
  return String(value).padStart(digits, '0')
}
