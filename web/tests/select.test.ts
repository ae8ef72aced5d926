import { expect, test } from "vitest";

import type { Latents } from "../src/data";
import { START } from "../src/route";
import { matching, pattern, Searchable, select } from "../src/select";

const empty = [[], [], [], []];
const latents: Latents = {
  density: [0.1, 0, 0.3, 0.1],
  mean: [1, null, 1, 1],
  max: [1, null, 3, 2],
  selectivity: [null, null, 0.5, -0.5],
  m: [0.2, null, 0.9, 0.2],
  class: ["rare", "dead", "dense", "rare"],
  concept: ["token:Lily", null, null, "token:Sue"],
  label: ["a Name", null, "verbs", null],
  stability: [null, null, null, null],
  alive: [true, false, true, true],
  neighbours: empty,
  correlated: empty,
  partner: [{}, {}, {}, {}],
  lens_up: empty,
  lens_down: empty,
  top_tokens: [["Lily"], null, ["went", "said"], ["Sue"]],
};
const from = new Searchable(latents);

function listed(change: Partial<typeof START>, within: Set<number> | null = null): number[] {
  return [...select(from, { ...START, ...change }, within)];
}

test("text is found in labels, concepts, tokens and numbers, whatever its case", () => {
  expect(listed({ q: "NAME" })).toEqual([0]);
  expect(listed({ q: "token:" })).toEqual([0, 3]);
  expect(listed({ q: "said" })).toEqual([2]);
  expect(listed({ q: "#3" })).toEqual([3]);
  expect(listed({ q: "nowhere" })).toEqual([]);
});

test("missing values come last in either direction, and equal ones keep their order", () => {
  expect(listed({ sort: "m" })).toEqual([0, 3, 2, 1]);
  expect(listed({ sort: "-m" })).toEqual([2, 0, 3, 1]);
  expect(listed({ sort: "selectivity" })).toEqual([3, 2, 0, 1]);
  expect(listed({ sort: "label" })).toEqual([0, 2, 1, 3]);
  expect(listed({ sort: "-label" })).toEqual([2, 0, 1, 3]);
  expect(listed({ sort: "-id" })).toEqual([3, 2, 1, 0]);
});

test("a sort that no column has leaves the order of the numbers", () => {
  expect(listed({ sort: "__proto__" })).toEqual([0, 1, 2, 3]);
});

test("classes filter, and alive is all but dead", () => {
  expect(listed({ class: "rare" })).toEqual([0, 3]);
  expect(listed({ class: "alive" })).toEqual([2, 0, 3]);
  expect(listed({ class: "alive", sort: "id" })).toEqual([0, 2, 3]);
  expect(from.classes()).toEqual([["rare", 2], ["dead", 1], ["dense", 1]]);
});

test("a regex finds the latents that peak on its tokens; filters apply to them too", () => {
  const index: [string, number[]][] = [["Lily", [0, 2]], ["Sue", [3]], ["lily", [1]]];
  const { expression } = pattern("/^(Lily|Sue)$/")!;
  const found = matching(expression!, index);
  expect([...found.latents].sort()).toEqual([0, 2, 3]);
  expect(found.tokens).toEqual(["Lily", "Sue"]);
  expect(listed({ q: "/x/", class: "rare" }, found.latents)).toEqual([0, 3]);
});

test("the flags g and y, which keep a place between tokens, change nothing", () => {
  const { expression } = pattern("/a/gyi")!;
  expect(matching(expression!, [["xa", [1]], ["A", [2]], ["a", [3]]]).tokens).toEqual(["xa", "A", "a"]);
});

test("a pattern that is no regex says why; text without slashes is no pattern", () => {
  expect(pattern("/(/")!.error).toMatch(/unterminated group/i);
  expect(pattern("/a/k")!.error).toMatch(/flags/i);
  expect(pattern("and/or")).toBeNull();
  expect(pattern("//")).toBeNull();
});
