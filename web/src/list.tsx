/** The list of a cell's latents: search, filter, sort, and a table of which only rows in view exist. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { Sae } from "./data";
import { useKeys, type Go } from "./navigation";
import { Token, useWords } from "./parts";
import { format, type Route } from "./route";
import type { Pattern, Searchable } from "./select";
import { clipped, figure } from "./text";

const ROW = 36;
const SPARE = 12;

interface Heading {
  key: string;
  name: string;
  hint: string;
  kind: string;
  /** Largest first at the first click. */
  down?: boolean;
}

const COLUMNS: Heading[] = [
  { key: "id", name: "Latent", hint: "number", kind: "" },
  { key: "label", name: "Label, top tokens", hint: "the judge's label, and tokens of the strongest contexts", kind: "" },
  { key: "concept", name: "Concept", hint: "the concept it detects best", kind: "wide" },
  { key: "class", name: "Class", hint: "dead, rare, dense, or by monosemanticity", kind: "middle" },
  { key: "density", name: "Density", hint: "fraction of tokens on which it is active", kind: "number", down: true },
  { key: "m", name: "M", hint: "monosemanticity", kind: "number", down: true },
  { key: "selectivity", name: "Selectivity", hint: "mean activation / ln(activations + 1)", kind: "number middle", down: true },
  { key: "max", name: "Max", hint: "largest activation", kind: "number wide", down: true },
  { key: "stability", name: "Stability", hint: "cosine with its partners in other seeds", kind: "number wide", down: true },
];

/** Where a list was left: the same list is shown again from there. */
const left = new Map<string, { list: string; top: number; latent: number }>();

function listOf({ q, sort, class: name }: Route): string {
  return JSON.stringify([q, sort, name]);
}

/** Remember the latent to which the list returns. */
export function leave(sae: string, route: Route, latent: number): void {
  const top = left.get(sae)?.list === listOf(route) ? left.get(sae)!.top : 0;
  left.set(sae, { list: listOf(route), top, latent });
}

interface ListProps {
  sae: Sae;
  from: Searchable;
  order: Int32Array;
  route: Route;
  regex: Pattern | null;
  /** Tokens that the regex matches; null while their index is read. */
  tokens: string[] | null;
  go: Go;
}

export function List({ sae, from, order, route, regex, tokens, go }: ListProps) {
  const words = useWords();
  const input = useRef<HTMLInputElement>(null);
  useKeys((key) => {
    if (key !== "/") return false;
    input.current?.focus();
    input.current?.select();
    return true;
  });
  const sorts = COLUMNS.flatMap(({ key, name }) => [[key, words(`${name} ↑`)], [`-${key}`, words(`${name} ↓`)]] as const);
  return (
    <main class="list">
      <div class="facts">
        <span>{sae.architecture}</span><span>{sae.hook}</span>
        <span><b>{from.K.toLocaleString("en")}</b> latents</span>
        <span>L0 <b>{figure(sae.l0)}</b></span><span>FVU <b>{figure(sae.fvu)}</b></span><span>monosemantic <b>{figure(sae.m)}</b></span>
      </div>
      <div class="tools" role="search">
        <input
          ref={input} type="search" value={route.q} spellcheck={false} autocomplete="off"
          placeholder={words("Search labels, concepts, tokens – or /Lily|Sue/")}
          aria-label={words("Search latents; a regex over tokens between slashes")}
          aria-describedby="found" aria-invalid={regex?.error ? "true" : undefined}
          onInput={(event) => go({ q: event.currentTarget.value }, true)}
          onKeyDown={(event) => {
            if (event.key === "Escape") event.currentTarget.blur();
            if (event.key === "ArrowDown" || event.key === "Enter") document.querySelector<HTMLElement>(".body .row a")?.focus();
          }}
        />
        <select aria-label="Class" value={route.class} onChange={(event) => go({ class: event.currentTarget.value }, true)}>
          <option value="">All classes</option>
          <option value="alive">alive</option>
          {from.classes().map(([name, count]) => <option value={name} key={name}>{`${name} (${count.toLocaleString("en")})`}</option>)}
        </select>
        <select class="sorting" aria-label="Sort by" value={route.sort} onChange={(event) => go({ sort: event.currentTarget.value }, true)}>
          {sorts.map(([value, name]) => <option value={value} key={value}>{name}</option>)}
        </select>
      </div>
      <Found count={order.length} regex={regex} tokens={tokens} />
      <Table sae={sae} from={from} order={order} route={route} go={go} />
    </main>
  );
}

function Found({ count, regex, tokens }: { count: number; regex: Pattern | null; tokens: string[] | null }) {
  const words = useWords();
  if (regex?.error) return <p class="found error" id="found" role="status">{clipped(regex.error)}</p>;
  if (regex && tokens === null) return <p class="found" id="found" role="status">{words("Reading the index of tokens …")}</p>;
  return (
    <p class="found" id="found" role="status">
      {count.toLocaleString("en")} {count === 1 ? "latent" : "latents"}
      {regex && tokens && <> peaking on {tokens.length.toLocaleString("en")} {words("matching tokens")} {tokens.slice(0, 12).map((t) => <><Token text={t} /> </>)}</>}
    </p>
  );
}

type TableProps = Pick<ListProps, "sae" | "from" | "order" | "route" | "go">;

function Table({ sae, from, order, route, go }: TableProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const list = listOf(route);
  const kept = left.get(sae.id);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(800);
  const [chosen, setChosen] = useState(kept?.list === list ? kept.latent : -1);

  useLayoutEffect(() => {
    const place = scroller.current!;
    place.scrollTop = left.get(sae.id)?.list === list ? left.get(sae.id)!.top : 0;
    setTop(place.scrollTop);
  }, [sae.id, list]);
  useEffect(() => {
    const place = scroller.current!;
    const sized = new ResizeObserver(() => setHeight(place.clientHeight));
    sized.observe(place);
    return () => sized.disconnect();
  }, []);
  // benchmarks/explorer.py reads it: the rows are on the screen in the frame after
  useEffect(() => {
    if (order.length && !performance.getEntriesByName("first-rows").length) requestAnimationFrame(() => performance.mark("first-rows"));
  }, [order]);
  // the keyboard's row is in view before it takes the focus
  useEffect(() => {
    const row = document.getElementById(`latent-${chosen}`);
    if (row && document.activeElement?.tagName !== "INPUT") row.focus({ preventScroll: true });
  }, [chosen]);

  const step = (by: number): boolean => {
    if (!order.length) return true;
    const at = order.indexOf(chosen);
    const next = at < 0 ? 0 : Math.min(order.length - 1, Math.max(0, at + by));
    const place = scroller.current!;
    const [above, below] = [next * ROW, (next + 2) * ROW - place.clientHeight];
    if (place.scrollTop > above) place.scrollTop = above;
    if (place.scrollTop < below) place.scrollTop = below;
    setTop(place.scrollTop);
    setChosen(order[next]!);
    return true;
  };
  useKeys((key) => {
    if (key === "j" || key === "ArrowDown") return step(1);
    if (key === "k" || key === "ArrowUp") return step(-1);
    if (key === "Enter" && chosen >= 0 && document.activeElement === document.body) {
      go({ sae: sae.id, latent: chosen });
      return true;
    }
    return false;
  });

  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(order.length, Math.ceil((top + height) / ROW) + SPARE);
  return (
    <div
      class="table" ref={scroller} role="table" aria-label="Latents" aria-rowcount={order.length + 1}
      onScroll={(event) => {
        const at = event.currentTarget.scrollTop;
        left.set(sae.id, { list, top: at, latent: chosen });
        setTop(at);
      }}
    >
      <div role="rowgroup">
        <div class="row head" role="row" aria-rowindex={1}>
          {COLUMNS.map((column) => <Head key={column.key} column={column} sort={route.sort} go={go} />)}
        </div>
      </div>
      <div class="body" role="rowgroup" style={{ height: `${order.length * ROW}px` }}>
        {Array.from(order.subarray(first, last), (k, i) => (
          <Row key={k} sae={sae} from={from} k={k} at={first + i} chosen={k === chosen} route={route} />
        ))}
      </div>
    </div>
  );
}

function Head({ column, sort, go }: { column: Heading; sort: string; go: Go }) {
  const words = useWords();
  const down = sort === `-${column.key}`;
  const on = down || sort === column.key;
  const next = on ? (down ? column.key : `-${column.key}`) : column.down ? `-${column.key}` : column.key;
  return (
    <div role="columnheader" class={`${column.kind}${on ? " on" : ""}`} aria-sort={on ? (down ? "descending" : "ascending") : "none"}>
      <button title={words(column.hint)} onClick={() => go({ sort: next }, true)}>{words(column.name)}{on ? (down ? " ↓" : " ↑") : ""}</button>
    </div>
  );
}

interface RowProps {
  sae: Sae;
  from: Searchable;
  k: number;
  at: number;
  chosen: boolean;
  route: Route;
}

function Row({ sae, from, k, at, chosen, route }: RowProps) {
  const { latents } = from;
  const label = latents.label[k];
  const target = format({ ...route, sae: sae.id, latent: k });
  const m = latents.m[k] ?? 0;
  return (
    <div class={chosen ? "row chosen" : "row"} role="row" aria-rowindex={at + 2} style={{ top: `${at * ROW}px` }}>
      <div role="cell"><a class="id" id={`latent-${k}`} href={target} onClick={() => leave(sae.id, route, k)}>{k}</a></div>
      <div role="cell">{label && <>{clipped(label, 80)} </>}{(latents.top_tokens[k] ?? []).slice(0, 6).map((t) => <Token text={clipped(t, 24)} />)}</div>
      <div role="cell" class="wide">{clipped(latents.concept[k] ?? "–", 60)}</div>
      <div role="cell" class="middle soft">{latents.class[k] ?? "–"}</div>
      <div role="cell" class="number">{figure(latents.density[k])}</div>
      <div role="cell" class="number meter" style={{ "--share": `${Math.max(0, Math.min(1, m)) * 100}%` }}>{figure(latents.m[k])}</div>
      <div role="cell" class="number middle">{figure(latents.selectivity[k])}</div>
      <div role="cell" class="number wide">{figure(latents.max[k])}</div>
      <div role="cell" class="number wide">{figure(latents.stability[k])}</div>
    </div>
  );
}

