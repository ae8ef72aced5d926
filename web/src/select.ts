/** Which latents are listed, and in which order: search, filter and sort over columns. */

import type { Latents, TokenIndex } from "./data";
import type { Route } from "./route";

export const NUMBERS = ["density", "mean", "max", "selectivity", "m", "stability"] as const;
export const TEXTS = ["class", "concept", "label"] as const;

export class Searchable {
  private texts: string[] | null = null;
  readonly K: number;

  constructor(readonly latents: Latents) {
    this.K = latents.density.length;
  }

  /** Lower-case text of each latent: number, label, concept and top tokens. */
  haystacks(): string[] {
    const { label, concept, top_tokens } = this.latents;
    this.texts ??= Array.from({ length: this.K }, (_, k) =>
      [`#${k}`, label[k] ?? "", concept[k] ?? "", ...(top_tokens[k] ?? [])].join("\n").toLowerCase(),
    );
    return this.texts;
  }

  /** How many latents each class has, those of most first. */
  classes(): [name: string, count: number][] {
    const counts = new Map<string, number>();
    for (const name of this.latents.class) {
      if (name !== null) counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }
}

export interface Pattern {
  expression: RegExp | null;
  error: string | null;
}

/** `/…/flags` as an expression; null where `q` is plain text. The flag g would keep a state. */
export function pattern(q: string): Pattern | null {
  const parts = /^\/(.+)\/([a-z]*)$/s.exec(q.trim());
  if (!parts) return null;
  try {
    return { expression: new RegExp(parts[1]!, parts[2]!.replace(/[gy]/g, "")), error: null };
  } catch (error) {
    return { expression: null, error: (error as Error).message };
  }
}

/** Latents whose strongest contexts peak on a token that matches, and those tokens. */
export function matching(expression: RegExp, index: TokenIndex): { latents: Set<number>; tokens: string[] } {
  const latents = new Set<number>();
  const tokens: string[] = [];
  for (const [token, ids] of index) {
    if (!expression.test(token)) continue;
    tokens.push(token);
    for (const id of ids) latents.add(id);
  }
  return { latents, tokens };
}

/** Latents in the order of the list. `within`: of a regex; null where there is none. */
export function select(from: Searchable, route: Route, within: Set<number> | null): Int32Array {
  const { latents, K } = from;
  const chosen = new Int32Array(K);
  let count = 0;
  const text = within ? "" : route.q.trim().toLowerCase();
  const haystacks = text ? from.haystacks() : null;
  for (let k = 0; k < K; k++) {
    if (within && !within.has(k)) continue;
    if (haystacks && !haystacks[k]!.includes(text)) continue;
    if (route.class === "alive" ? !latents.alive[k] : route.class && latents.class[k] !== route.class) continue;
    chosen[count++] = k;
  }
  return sorted(latents, chosen.subarray(0, count), route.sort);
}

function sorted(latents: Latents, ids: Int32Array, sort: string): Int32Array {
  const descending = sort.startsWith("-");
  const name = descending ? sort.slice(1) : sort;
  if (name === "id") return descending ? ids.reverse() : ids;
  if ((NUMBERS as readonly string[]).includes(name)) {
    const column = latents[name as (typeof NUMBERS)[number]];
    const sign = descending ? -1 : 1;
    // a missing value comes last either way; equal ones keep the order of their numbers
    const keys = Float64Array.from(column, (value) => (value === null ? Infinity : sign * value));
    return ids.sort((a, b) => (keys[a]! < keys[b]! ? -1 : keys[a]! > keys[b]! ? 1 : a - b));
  }
  if ((TEXTS as readonly string[]).includes(name)) {
    const column = latents[name as (typeof TEXTS)[number]];
    const sign = descending ? -1 : 1;
    return ids.sort((a, b) => {
      const [x, y] = [column[a] ?? null, column[b] ?? null];
      if (x === y) return a - b;
      if (x === null || y === null) return x === null ? 1 : -1;
      return x < y ? -sign : sign;
    });
  }
  return ids;
}
