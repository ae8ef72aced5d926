import { expect, test } from "vitest";

import { format, parse, START, type Route } from "../src/route";

const ROUTES: Partial<Route>[] = [
  {},
  { sae: "topk.seed-0" },
  { sae: "a/b ?#%", latent: 7 },
  { sae: "a", q: "/a?b#c&d=%20+/i", sort: "-density", class: "dead" },
  { sae: "a", latent: 0, with: "b.seed-1", q: "שלום 👧" },
];

test.each(ROUTES)("a link leads to the page it was made of: %j", (change) => {
  const route = { ...START, ...change };
  expect(parse(format(route))).toEqual(route);
});

test("what is no number is no latent, and a broken escape breaks nothing", () => {
  expect(parse("#/a/-1").latent).toBeNull();
  expect(parse("#/a/x").latent).toBeNull();
  expect(parse("#/%E0%A4%A/3")).toEqual({ ...START, sae: "%E0%A4%A", latent: 3 });
  expect(parse("")).toEqual(START);
});

test("a page at its defaults has a short link", () => {
  expect(format({ ...START, sae: "a" })).toBe("#/a");
});
