// Bounds on what a terminal's program may ask for at once. Sequences that repeat something are carried out step by step, as
// often as they say: two thousand million times is a page that answers nobody any more.

/** Steps at most: more lines than a screen or its scrollback has. */
export const MOST_STEPS = 10_000;

// Forward and back by tabs, lines in and out, up and down, the last character again.
const REPEATING = ['I', 'Z', 'L', 'M', 'S', 'T', 'b'];

/** Leaves out sequences that repeat something more often than makes sense. */
export function bound(parser) {
  const tooMany = (params) => params.flat().some((count) => count > MOST_STEPS);
  for (const final of REPEATING) parser.registerCsiHandler({ final }, tooMany);
}
