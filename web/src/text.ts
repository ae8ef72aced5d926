/** Token text as people can read it: what does not print is named, and nothing is endless. */

const BIDI_AND_INVISIBLE = /[\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
const HIDDEN = new RegExp(`${BIDI_AND_INVISIBLE.source}|${CONTROL.source}|${LONE.source}`, "g");

const SHORT: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Characters of a token that are shown; the rest is counted. */
export const LONGEST = 160;

function named(character: string): string {
  const code = character.charCodeAt(0);
  const short = SHORT[character];
  return short ?? `\\u${code.toString(16).padStart(4, "0")}`;
}

/** `text` with control characters, bidi marks and lone surrogates spelled out. */
export function visible(text: string): string {
  return text.replace(HIDDEN, named);
}

/** `text` of what an SAE reads one of at a time: tokens, or rows where activations were given. */
export function worded(text: string, unit: "tokens" | "rows"): string {
  return unit === "rows" ? text.replace(/\btoken(s?)\b/g, "row$1") : text;
}

/** The first `longest` characters of `visible(text)`, and how many there are if that is not all. */
export function clipped(text: string, longest: number = LONGEST): string {
  if (text.length <= longest) return visible(text);
  // no surrogate pair is cut in two
  const start = text.slice(0, longest).replace(/[\ud800-\udbff]$/, "");
  return `${visible(start)}… (${text.length.toLocaleString("en")} characters)`;
}

/** The end of a context's text, of which the start is left out where it is too long. */
export function clippedStart(text: string, longest: number = 4 * LONGEST): string {
  if (text.length <= longest) return visible(text);
  return `…${visible(text.slice(-longest).replace(/^[\udc00-\udfff]/, ""))}`;
}

/** A number in three significant digits; a dash where there is none. */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1).replace("-", "−");
  return Number(value.toPrecision(3)).toString().replace("-", "−");
}
