/** ECharts with the parts that the reports use: `saeCharts(element, option)`. */

import { BarChart, CustomChart, HeatmapChart, LineChart, ScatterChart, TreeChart } from "echarts/charts";
import {
  AriaComponent, DatasetComponent, DataZoomComponent, GridComponent, LegendComponent, MarkAreaComponent, MarkLineComponent,
  TitleComponent, ToolboxComponent, TooltipComponent, VisualMapComponent,
} from "echarts/components";
import { init, use, type EChartsType } from "echarts/core";
import { LabelLayout } from "echarts/features";
import { CanvasRenderer, SVGRenderer } from "echarts/renderers";

use([
  BarChart, CustomChart, HeatmapChart, LineChart, ScatterChart, TreeChart,
  AriaComponent, DatasetComponent, DataZoomComponent, GridComponent, LegendComponent, MarkAreaComponent, MarkLineComponent,
  TitleComponent, ToolboxComponent, TooltipComponent, VisualMapComponent,
  LabelLayout, CanvasRenderer, SVGRenderer,
]);

/** The palette of sae_repro.params.appearance: safe for colour-blind readers. */
const COLOURS = ["#0072B2", "#CC6677", "#33BBEE", "#CC3311", "#D4B000", "#117733", "#AA4499", "#EE7733"];

function theme(dark: boolean): object {
  const ink = dark ? "#b9c0c9" : "#4a5361";
  const line = dark ? "#3a424d" : "#d5dae1";
  const paper = dark ? "#1e242c" : "#ffffff";
  const axis = {
    axisLine: { lineStyle: { color: line } },
    axisTick: { lineStyle: { color: line } },
    axisLabel: { color: ink },
    nameTextStyle: { color: ink },
    splitLine: { lineStyle: { color: dark ? "#2a313a" : "#eceff3" } },
  };
  return {
    color: COLOURS,
    backgroundColor: "transparent",
    textStyle: { color: ink, fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif' },
    title: { textStyle: { color: ink, fontWeight: 600, fontSize: 14 }, subtextStyle: { color: ink } },
    visualMap: { textStyle: { color: ink } },
    legend: { textStyle: { color: ink } },
    tooltip: { backgroundColor: paper, borderColor: line, textStyle: { color: dark ? "#e6e9ed" : "#1c232d" }, confine: true },
    categoryAxis: axis,
    valueAxis: axis,
    logAxis: axis,
    timeAxis: axis,
  };
}

function isDark(): boolean {
  const chosen = document.documentElement.dataset["theme"];
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

type Option = Parameters<EChartsType["setOption"]>[0];

/** What options of the page have beside ECharts' own: see sae_repro.report.charts. */
interface Series {
  name?: string;
  color?: string;
  /** [x, low, high] of each point, by rising x. */
  band?: [x: number, low: number, high: number][];
}
interface Axis {
  /** The values that are labelled. */
  ticks?: number[];
}

interface Coordinates {
  coord(value: number[]): number[];
}

/** An architecture's colour as a dark page shows it: dark ones lighter. */
function readable(colour: string): string {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const brightness = (0.3 * r + 0.59 * g + 0.11 * b) / 255;
  const share = Math.max(0, 0.55 - brightness);
  const lighter = [r, g, b].map((part) => Math.round(part + share * (255 - part)).toString(16).padStart(2, "0"));
  return `#${lighter.join("")}`;
}

/** A band as a series of its own, of one polygon. */
function band({ name, color, band: bounds = [] }: Series): object {
  const low = bounds.map(([x, y]) => [x, y]);
  const high = bounds.map(([x, , y]) => [x, y]).reverse();
  return {
    type: "custom", name, color, silent: true, z: 1, tooltip: { show: false }, clip: true, data: [...low, ...high],
    renderItem: ({ dataIndex }: { dataIndex: number }, { coord }: Coordinates) =>
      dataIndex === 0 && {
        type: "polygon", silent: true, style: { fill: color, opacity: 0.16 },
        shape: { points: [...low, ...high].map((point) => coord(point)) },
      },
  };
}

function labelled(axis: Axis): object {
  const { ticks, ...rest } = axis;
  return ticks ? { ...rest, axisTick: { customValues: ticks }, axisLabel: { customValues: ticks } } : rest;
}

/** `option` with its bands drawn and its axes labelled. */
function extended(option: Option): Option {
  const { series, xAxis, yAxis, ...rest } = option as { series?: Series[]; xAxis?: Axis; yAxis?: Axis };
  const seen = Array.isArray(series) ? series.map((one) => (one.color && isDark() ? { ...one, color: readable(one.color) } : one)) : series;
  const all = Array.isArray(seen) ? [...seen, ...seen.filter((one) => one.band).map(band)] : seen;
  return { ...rest, series: all, ...(xAxis && { xAxis: labelled(xAxis) }), ...(yAxis && { yAxis: labelled(yAxis) }) } as Option;
}

/** Draw `option` in `element`, in the page's colours and as wide as it becomes.
 *
 * `renderer`: "canvas" for many thousands of points. The chart that is returned takes listeners
 * (`on`), other options (`setOption`) and is given back with `dispose`. Tooltips whose text is of
 * a corpus must be elements or plain strings that ECharts escapes: never HTML.
 */
function saeCharts(element: HTMLElement, option: Option, renderer: "svg" | "canvas" = "svg"): EChartsType {
  const chart = init(element, theme(isDark()), { renderer });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  chart.setOption({ aria: { enabled: true }, animation: !still, animationDuration: 250, ...(extended(option) as object) });
  const resized = new ResizeObserver(() => chart.resize());
  const recoloured = () => chart.setTheme(theme(isDark()));
  const preference = matchMedia("(prefers-color-scheme: dark)");
  const chosen = new MutationObserver(recoloured);
  resized.observe(element);
  preference.addEventListener("change", recoloured);
  chosen.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  const dispose = chart.dispose.bind(chart);
  chart.dispose = () => {
    resized.disconnect();
    chosen.disconnect();
    preference.removeEventListener("change", recoloured);
    dispose();
  };
  return chart;
}

declare global {
  interface Window {
    saeCharts: typeof saeCharts;
  }
}

window.saeCharts = saeCharts;

export type { saeCharts };
