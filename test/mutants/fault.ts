/** A fault planted in a copy of the product, and the test that must fail for it. */
export interface PlantedFault {
  /** What is missing or wrong, in a few words. */
  readonly name: string
  /** The source it is planted in, from the root of the repository. */
  readonly file: string
  /** Stands there exactly once. White space is as wide as one likes, so that a formatter changes nothing. */
  readonly find: string
  /** What takes its place. */
  readonly put: string
  /** The quickest file of tests that must notice, below test/, without its ending. */
  readonly test: string
  /** Only the tests with this in their title, where the whole file would take long. */
  readonly title?: string
}

const ESCAPED = /[.*+?^${}()|[\]\\]/g
const pattern = (find: string): RegExp =>
  new RegExp(
    find
      .trim()
      .split(/\s+/)
      .map((word) => word.replace(ESCAPED, '\\$&'))
      .join('\\s+'),
    'g',
  )

/**
 * `source` with the fault in it.
 * @throws {Error} naming the fault, where its place isn't there, or there twice: the source has moved on, and the list must follow.
 */
export const plant = (fault: PlantedFault, source: string): string => {
  const places = [...source.matchAll(pattern(fault.find))]
  const [place] = places
  if (place === undefined || places.length > 1)
    throw new Error(`"${fault.name}": its place is in ${fault.file} ${places.length} times instead of once`)
  return source.slice(0, place.index) + fault.put + source.slice(place.index + place[0].length)
}
