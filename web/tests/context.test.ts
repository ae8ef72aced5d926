import { expect, test } from "vitest";

import { pieces, seam } from "../src/context";
import type { Context } from "../src/data";

const context: Context = { before: "so the ", token: "boy", after: " ran", activation: 3, document: 0, position: 2 };

function texts(change: Partial<Context>, between = ""): string[] {
  return pieces({ ...context, ...change }, between).map(({ text, activation, peak }) => `${text}|${peak ? "peak" : activation}`);
}

test("the pieces of a context are its text, the peak among them", () => {
  expect(texts({})).toEqual(["so the |0", "boy|peak", " ran|0"]);
  expect(texts({ before: "", after: "" })).toEqual(["boy|peak"]);
});

test("other active tokens are pieces of their own, before and after the peak", () => {
  const shade: [number, number, number][] = [[10, 14, 1.5], [3, 6, 0.5]];
  expect(texts({ shade })).toEqual(["so |0", "the|0.5", " |0", "boy|peak", " ran|1.5"]);
});

test("a shade over the peak, over another, or beyond the text is left out, and no text with it", () => {
  const shade: [number, number, number][] = [[6, 8, 9], [0, 4, 1], [2, 5, 8], [12, 99, 7], [11, 11, 6]];
  const found = texts({ shade });
  expect(found).toEqual(["so t|1", "he |0", "boy|peak", " ran|0"]);
});

test("places are UTF-16 units, as in the data", () => {
  expect(texts({ before: "👧 a ", shade: [[3, 4, 2]] })).toEqual(["👧 |0", "a|2", " |0", "boy|peak", " ran|0"]);
});

test("words without spaces are set apart; subwords, which have them, are not", () => {
  const words = { ...context, before: "so the", after: "ran" };
  expect(seam([words])).toBe(" ");
  expect(seam([words, context])).toBe("");
  expect(texts(words, " ")).toEqual(["so the|0", " |0", "boy|peak", " |0", "ran|0"]);
});
