/** Charts of a latent's page: options for ECharts, which is loaded when the first is drawn. */

import { useEffect, useRef } from "preact/hooks";

import { script, type Detail, type Latents } from "./data";
import type { saeCharts } from "./charts";
import { clipped, figure } from "./text";

let library: Promise<void> | null = null;

type Option = Parameters<typeof saeCharts>[1];

interface ChartProps {
  option: Option;
  label: string;
  height?: number;
  /** Called with the number of the datum that was clicked. */
  onPick?: (datum: number) => void;
}

/** One chart. `option` is drawn again when it is another object. */
export function Chart({ option, label, height = 150, onPick }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let chart: ReturnType<typeof saeCharts> | null = null;
    let gone = false;
    library ??= script("charts.js");
    void library.then(() => {
      if (gone || !place.current) return;
      chart = window.saeCharts(place.current, option);
      if (onPick) chart.on("click", (event) => onPick(event.dataIndex));
    });
    return () => {
      gone = true;
      chart?.dispose();
    };
  }, [option]);
  return <div class="chart" ref={place} role="img" aria-label={label} style={{ height: `${height}px` }} />;
}

const MARGINS = { left: 8, right: 12, top: 10, bottom: 4, outerBoundsMode: "same" as const };

/** Bars over bins; `shades` (0 to 1) colour them where they are given. */
export function histogram(
  bins: { edges: number[]; counts: number[]; specificity?: (number | null)[] }, unit: string,
): Option {
  const { edges, counts, specificity } = bins;
  const scored = specificity?.some((value) => value !== null) ?? false;
  return {
    grid: { ...MARGINS, top: scored ? 34 : 10 },
    tooltip: {
      formatter: (bar: { dataIndex: number }) => {
        const i = bar.dataIndex;
        const told = `${unit} ${figure(edges[i])} to ${figure(edges[i + 1])}: ${counts[i]?.toLocaleString("en")}`;
        return scored ? `${told}; specificity ${figure(specificity?.[i])}` : told;
      },
    },
    ...(scored && {
      visualMap: {
        min: 0, max: 1, dimension: 2, seriesIndex: 0, orient: "horizontal", left: "center", top: 0,
        itemWidth: 10, itemHeight: 90, text: ["specific", "not"], inRange: { color: ["#CC6677", "#D4B000", "#117733"] },
        outOfRange: { color: "#999999" },
      },
    }),
    xAxis: {
      type: "category", data: counts.map((_, i) => figure(edges[i])),
      axisTick: { show: false }, axisLabel: { hideOverlap: true },
    },
    yAxis: { type: "value", splitNumber: 2, axisLabel: { formatter: (n: number) => short(n) } },
    series: [{
      type: "bar", barCategoryGap: "8%", encode: { x: 0, y: 1 },
      ...(scored
        ? { data: counts.map((n, i) => [i, n, specificity?.[i] ?? -1]), dimensions: ["bin", "tokens", "specificity"] }
        : { data: counts.map((n, i) => [i, n]) }),
    }],
  } as Option;
}

function short(n: number): string {
  return n >= 1000 ? `${figure(n / 1000)}k` : figure(n);
}

/** The largest decoder weights of either sign. */
export function weights(decoder: NonNullable<Detail["decoder"]>): Option {
  const largest = [...decoder.top, ...[...decoder.bottom].reverse()].reverse();
  return {
    grid: MARGINS,
    tooltip: {
      formatter: (bar: { dataIndex: number }) => {
        const [dimension, value] = largest[bar.dataIndex]!;
        return `dimension ${dimension}: ${figure(value)}`;
      },
    },
    xAxis: { type: "value", splitNumber: 3 },
    yAxis: {
      type: "category", data: largest.map(([dimension]) => String(dimension)),
      axisTick: { show: false }, axisLine: { show: false },
    },
    series: [{
      type: "bar", barCategoryGap: "25%",
      data: largest.map(([, value]) => ({ value, itemStyle: { color: value < 0 ? "#CC6677" : "#0072B2" } })),
    }],
  } as Option;
}

const CONCEPT_COLOURS = ["#0072B2", "#CC6677", "#117733", "#EE7733", "#AA4499", "#33BBEE", "#D4B000"];
const OTHER = "#999999";

/** The concepts of most points, each with its colour. */
export function legend(map: NonNullable<Detail["map"]>, latents: Latents): [concept: string, colour: string][] {
  const counts = new Map<string, number>();
  for (const [id] of map) {
    const concept = latents.concept[id];
    if (concept) counts.set(concept, (counts.get(concept) ?? 0) + 1);
  }
  const most = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  return CONCEPT_COLOURS.flatMap((colour, i) => (most[i] ? [[most[i][0], colour]] : []));
}

/** The neighbourhood, coloured by the concept that latents fit best or by log10 of density. */
export function neighbourhood(map: NonNullable<Detail["map"]>, latent: number, latents: Latents, by: "concept" | "density"): Option {
  const density = (id: number) => Math.log10(Math.max(latents.density[id] ?? 0, 1e-6));
  const values = map.map(([id]) => density(id));
  const colours = new Map(legend(map, latents));
  return {
    grid: { left: 12, right: 12, top: by === "density" ? 34 : 12, bottom: 12 },
    tooltip: {
      formatter: (point: { dataIndex: number }) => {
        const id = map[point.dataIndex]![0];
        const element = document.createElement("span");
        const [label, concept] = [latents.label[id], latents.concept[id]];
        const tokens = latents.top_tokens[id] ?? [];
        const told = [`#${id}`, clipped(label ?? concept ?? tokens.slice(0, 3).join(" "), 60), `density ${figure(latents.density[id])}`];
        element.textContent = told.filter(Boolean).join(", ");
        return element;
      },
    },
    ...(by === "density" && {
      visualMap: {
        min: Math.floor(Math.min(...values)), max: Math.ceil(Math.max(...values)), dimension: 2, orient: "horizontal",
        left: "center", top: 0, itemWidth: 10, itemHeight: 90, text: ["dense", "rare"],
        inRange: { color: ["#33BBEE", "#0072B2", "#AA4499", "#CC3311"] },
      },
    }),
    xAxis: { type: "value", show: false, scale: true },
    yAxis: { type: "value", show: false, scale: true },
    series: [{
      type: "scatter",
      data: map.map(([id, x, y]) => ({
        value: [x, y, density(id)],
        symbolSize: id === latent ? 18 : 10,
        itemStyle: {
          ...(by === "concept" && { color: colours.get(latents.concept[id] ?? "") ?? OTHER }),
          ...(id === latent && { borderColor: "#EE7733", borderWidth: 3 }),
        },
      })),
    }],
  } as Option;
}
