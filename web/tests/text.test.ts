import { expect, test } from "vitest";

import { address } from "../src/data";
import { clipped, clippedStart, figure, visible, worded } from "../src/text";

test("control characters, bidi marks and lone surrogates are spelled out", () => {
  expect(visible("a\n\t\u0000\u007f\u0085")).toBe("a\\n\\t\\u0000\\u007f\\u0085");
  expect(visible("\u202eabc\u200f\u2066\ufeff\u2028")).toBe("\\u202eabc\\u200f\\u2066\\ufeff\\u2028");
  expect(visible("\ud800 \udc00x")).toBe("\\ud800 \\udc00x");
});

test("letters, joined emoji and right-to-left text stay", () => {
  for (const text of ["Ġthe é 漢", "👩‍👩‍👧", "שלום", " a  b "]) expect(visible(text)).toBe(text);
});

test("a long token is cut between characters, and its length is told", () => {
  expect(clipped("x".repeat(10_000), 5)).toBe("xxxxx… (10,000 characters)");
  expect(clipped("abc👧d", 4)).toBe("abc… (6 characters)");
  expect(clipped("abc", 3)).toBe("abc");
  expect(clippedStart("abc👧", 1)).toBe("…");
});

test("numbers have three digits, and what is missing a dash", () => {
  expect([0, 0.12345, -2, 1234.5, 0.00001234].map(figure)).toEqual(["0", "0.123", "−2", "1230", "1.2e−5"]);
  expect([null, undefined, NaN].map(figure)).toEqual(["–", "–", "–"]);
});

test("chunks of contexts lie beside the columns; no key leads out of the folder", () => {
  expect(address("index")).toBe("data/index.js");
  expect(address("a.seed-0/contexts/12")).toBe("data/a.seed-0/contexts-12.js");
  expect(address("a b#?/latents")).toBe("data/a%20b%23%3F/latents.js");
});

test("given activations are rows, not tokens", () => {
  expect(worded("the fraction of the child's tokens; a token", "rows")).toBe("the fraction of the child's rows; a row");
  expect(worded("tokenizers of tokens", "tokens")).toBe("tokenizers of tokens");
});
