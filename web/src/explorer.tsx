/** The feature explorer: SAEs of a study, lists of their latents, and a page for each. */

import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { receive, type Index, type Latents, type Sae, type TokenIndex } from "./data";
import "./explorer.css";
import { LatentPage, named } from "./latent";
import { List } from "./list";
import { useKeys, useRoute, type Go } from "./navigation";
import { Failure, Unit, useLoaded } from "./parts";
import type { Route } from "./route";
import { matching, pattern, Searchable, select } from "./select";
import { worded } from "./text";

const KEYS: [keys: string[], what: string][] = [
  [["/"], "search; a pattern between slashes is a regex over tokens"],
  [["j", "k"], "next, previous latent; arrows do the same"],
  [["Enter"], "open the latent"],
  [["u", "Esc"], "back to the list"],
  [["?"], "this help"],
];

function App() {
  const [route, go] = useRoute();
  const help = useRef<HTMLDialogElement>(null);
  const { value: index, error } = useLoaded<Index>("index");
  useKeys((key) => {
    if (key !== "?") return false;
    help.current?.showModal();
    return true;
  });
  const sae = index?.saes.find(({ id }) => id === route.sae) ?? (route.sae === null ? index?.saes[0] : undefined);
  useEffect(() => {
    if (!index) return;
    const page = route.latent === null ? "Features" : `Latent ${route.latent}`;
    document.title = sae ? `${page} · ${named(sae)} · ${index.study}` : index.study;
  }, [index, sae, route.latent]);

  if (error) return <Failure message={error} />;
  if (!index) return <p class="notice">Loading the index …</p>;
  return (
    <>
      <header class="bar">
        <span class="name">{index.study}</span>
        <select
          aria-label="SAE" value={sae?.id ?? ""}
          onChange={(event) => go({ sae: event.currentTarget.value, latent: null, with: null })}
        >
          {!sae && <option value="">choose an SAE</option>}
          {index.saes.map((one) => <option value={one.id} key={one.id}>{named(one)}</option>)}
        </select>
        <span class="space" />
        <a href="../index.html">Report</a>
        <Theme />
        <button aria-label="Help: keys" title="?" onClick={() => help.current?.showModal()}>?</button>
      </header>
      {sae ? <Unit.Provider value={sae.unit}><Cell key={sae.id} index={index} sae={sae} route={route} go={go} /></Unit.Provider> : <Failure message={`No SAE ${route.sae} in this explorer: choose one above`} />}
      <dialog ref={help} aria-labelledby="keys">
        <h1 id="keys">Keys</h1>
        <dl>{KEYS.map(([keys, what]) => <><dt>{keys.map((key) => <><kbd>{key}</kbd> </>)}</dt><dd>{worded(what, sae?.unit ?? "tokens")}</dd></>)}</dl>
        <form method="dialog"><button>Close</button></form>
      </dialog>
    </>
  );
}

function Theme() {
  const root = document.documentElement;
  const [dark, setDark] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  return (
    <button
      aria-label={dark ? "Light colours" : "Dark colours"} title="Light or dark"
      onClick={() => {
        root.dataset["theme"] = dark ? "light" : "dark";
        setDark(!dark);
      }}
    >◐</button>
  );
}

interface CellProps {
  index: Index;
  sae: Sae;
  route: Route;
  go: Go;
}

const NONE = new Set<number>();

function Cell({ index, sae, route, go }: CellProps) {
  const { value: latents, error } = useLoaded<Latents>(`${sae.id}/latents`);
  const from = useMemo(() => latents && new Searchable(latents), [latents]);
  const regex = useMemo(() => pattern(route.q), [route.q]);
  const tokens = useLoaded<TokenIndex>(regex?.expression ? `${sae.id}/tokens` : null);
  const matches = useMemo(
    () => (regex?.expression && tokens.value ? matching(regex.expression, tokens.value) : null),
    [regex, tokens.value],
  );
  const within = regex ? (matches?.latents ?? NONE) : null;
  const order = useMemo(
    () => (from ? select(from, route, within) : new Int32Array(0)),
    [from, within, route.q, route.sort, route.class],
  );
  if (error || tokens.error) return <Failure message={(error ?? tokens.error)!} />;
  if (!from) return <p class="notice">Reading the latents …</p>;
  if (route.latent !== null) {
    return <LatentPage index={index} sae={sae} latents={from.latents} latent={route.latent} order={order} route={route} go={go} />;
  }
  return <List sae={sae} from={from} order={order} route={route} regex={regex} tokens={matches?.tokens ?? null} go={go} />;
}

receive();
render(<App />, document.getElementById("app")!);
