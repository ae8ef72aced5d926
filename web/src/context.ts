/** A context cut into pieces of text with the latent's activation on each. */

import type { Context } from "./data";

export interface Piece {
  text: string;
  /** 0 where the latent is not active. */
  activation: number;
  peak: boolean;
}

/** What stands between a token and its context: tokenizers of words keep no space in either. */
export function seam(contexts: Context[]): "" | " " {
  const spaced = contexts.some(({ before, token, after }) => /\s$/.test(before) || /^\s|\s$/.test(token) || /^\s/.test(after));
  return spaced ? "" : " ";
}

/** The pieces of `context` in their order; empty ones are left out. */
export function pieces(context: Context, between: string): Piece[] {
  const { before, token, after, activation, shade = [] } = context;
  const [start, end] = [before.length, before.length + token.length];
  const text = before + token + after;
  const found: Piece[] = [];
  let at = 0;
  const upto = (place: number) => {
    if (place > at) found.push({ text: text.slice(at, place), activation: 0, peak: false });
    at = Math.max(at, place);
  };
  const active = shade.filter(([a, b]) => b <= start || a >= end).map(([a, b, z]) => ({ a, b, z, peak: false }));
  active.push({ a: start, b: end, z: activation, peak: true });
  active.sort((one, other) => one.a - other.a || one.b - other.b);
  for (const { a, b, z, peak } of active) {
    if (a < at || b <= a || b > text.length) continue;
    upto(a);
    if (peak && before && between) found.push({ text: between, activation: 0, peak: false });
    found.push({ text: text.slice(a, b), activation: z, peak });
    if (peak && after && between) found.push({ text: between, activation: 0, peak: false });
    at = b;
  }
  upto(text.length);
  return found;
}
