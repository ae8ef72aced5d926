/** What the report stage writes for the explorer, and how it is read from file://.
 *
 * Chromium refuses fetch() and modules there, so that each file is a classic script which calls
 * `saeData(key, value)`.
 */

export type Linked = [latent: number, similarity: number];

export interface Sae {
  id: string;
  cell: string;
  /** Null in a cell of one SAE. */
  seed: number | null;
  architecture: string;
  hook: string;
  /** What it reads: tokens of a language model, or rows that were given. */
  unit: "tokens" | "rows";
  D: number;
  K: number;
  l0: number | null;
  fvu: number | null;
  m: number | null;
  chunk_size: number;
  chunks: number;
  partner_ids: string[];
}

export interface Index {
  study: string;
  saes: Sae[];
}

type Column<T> = (T | null)[];

/** Columns of length K. */
export interface Latents {
  density: Column<number>;
  mean: Column<number>;
  max: Column<number>;
  selectivity: Column<number>;
  m: Column<number>;
  class: Column<string>;
  concept: Column<string>;
  label: Column<string>;
  stability: Column<number>;
  alive: Column<boolean>;
  neighbours: Column<Linked[]>;
  correlated: Column<Linked[]>;
  partner: Column<Record<string, Linked>>;
  lens_up: Column<string[]>;
  lens_down: Column<string[]>;
  top_tokens: Column<string[]>;
}

export interface Context {
  before: string;
  token: string;
  after: string;
  activation: number;
  document: number;
  position: number;
  /** Other active tokens, in UTF-16 units of before + token + after. */
  shade?: [start: number, end: number, activation: number][];
}

/** Latents of another width. */
export interface Kin {
  sae: string;
  /** `together`: the fraction of the child's tokens on which the parent fires. */
  latents: [latent: number, cosine: number, together: number, tokens: string[]][];
  /** How many are not listed. */
  more?: number;
}

export interface Detail {
  histogram?: { edges: number[]; counts: number[]; specificity?: (number | null)[] } | null;
  quantiles?: { name: string; contexts: Context[] }[];
  /** `cosine`: of the atom with the concept's difference of means. */
  concepts?: [name: string, m: number | null, phi: number | null, cosine?: number | null][];
  /** In the next narrower SAE, and the next wider one, of the same choices. */
  parents?: Kin;
  children?: Kin;
  decoder?: {
    top: [dimension: number, value: number][];
    bottom: [dimension: number, value: number][];
    histogram?: { edges: number[]; counts: number[] } | null;
  } | null;
  /** Scores of the judge, by name. */
  judge?: [name: string, value: number | null][];
  /** The neighbourhood in two dimensions; the latent itself is one of the points. */
  map?: [latent: number, x: number, y: number][];
}

/** Tokens, each with the latents whose strongest contexts peak on it. */
export type TokenIndex = [token: string, latents: number[]][];

type Receive = (value: unknown) => void;

const awaited = new Map<string, Receive>();
const known = new Map<string, Promise<unknown>>();

declare global {
  interface Window {
    saeData: (key: string, value: unknown) => void;
  }
}

export function receive(): void {
  window.saeData = (key, value) => awaited.get(key)?.(value);
}

/** The address of the file that has `key`: `a/contexts/3` lies in data/a/contexts-3.js. */
export function address(key: string): string {
  const path = key.replace(/\/contexts\/(\d+)$/, "/contexts-$1");
  return `data/${path.split("/").map(encodeURIComponent).join("/")}.js`;
}

/** Run a classic script; an Error names the file where it is missing. */
export function script(source: string): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    const element = document.createElement("script");
    element.src = source;
    element.onload = () => resolve();
    element.onerror = () => reject(new Error(`${source}: not there, or not readable`));
    document.head.append(element);
  });
}

/** The value of `key`, read once. */
export function load<T>(key: string): Promise<T> {
  const before = known.get(key);
  if (before) return before as Promise<T>;
  const source = address(key);
  const value = new Promise<T>((resolve, reject) => {
    awaited.set(key, resolve as Receive);
    script(source).then(
      () => reject(new Error(`${source}: has no ${key}; write the report again`)),
      reject,
    );
  });
  known.set(key, value);
  return value;
}

/** What is known of latent `latent` beyond the columns. */
export async function detail(sae: Sae, latent: number): Promise<Detail> {
  const chunk = Math.floor(latent / sae.chunk_size);
  const details = await load<Detail[]>(`${sae.id}/contexts/${chunk}`);
  return details[latent - chunk * sae.chunk_size] ?? {};
}
