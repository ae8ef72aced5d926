/** A latent's page, alone or beside its partner in another seed or cell. */

import { useMemo, useState } from "preact/hooks";

import { pieces, seam } from "./context";
import { detail, type Context, type Detail, type Index, type Latents, type Linked, type Sae } from "./data";
import { useKeys, type Go } from "./navigation";
import { Failure, Stat, Token, useLoaded, useWords } from "./parts";
import { Chart, histogram, legend, neighbourhood, weights } from "./plots";
import { format, type Route } from "./route";
import { clipped, clippedStart, figure } from "./text";

interface PageProps {
  index: Index;
  sae: Sae;
  latents: Latents;
  latent: number;
  order: Int32Array;
  route: Route;
  go: Go;
}

export function LatentPage({ index, sae, latents, latent, order, route, go }: PageProps) {
  const at = order.indexOf(latent);
  const step = (by: number): boolean => {
    const next = at < 0 ? order[0] : order[at + by];
    if (next !== undefined) go({ latent: next }, true);
    return true;
  };
  const list = () => {
    go({ latent: null, with: null });
    return true;
  };
  useKeys((key) => {
    if (key === "j" || key === "ArrowRight") return step(1);
    if (key === "k" || key === "ArrowLeft") return step(-1);
    if (key === "u" || key === "Escape") return list();
    return false;
  });
  if (latent >= latents.density.length) return <Failure message={`${sae.id} has no latent ${latent}: its last is ${latents.density.length - 1}`} />;

  // those of the same cell, which differ by their seed alone, first; then the nearest
  const sameCell = (id: string) => index.saes.find((one) => one.id === id)?.cell === sae.cell;
  const partners = Object.entries(latents.partner[latent] ?? {}).sort(
    ([a, [, x]], [b, [, y]]) => Number(sameCell(b)) - Number(sameCell(a)) || y - x,
  );
  const beside = partners.find(([id]) => id === route.with);
  const other = beside && index.saes.find(({ id }) => id === beside[0]);
  const label = latents.label[latent];
  return (
    <main class="page" key={sae.id}>
      <div>
        <div class="title">
          <h1>Latent {latent}</h1>
          {latents.class[latent] && <span class="chip">{latents.class[latent]}</span>}
          {label && <bdi class="label">{clipped(label, 400)}</bdi>}
          <span class="steps">
            <button onClick={list} title="u">List</button>
            <button onClick={() => step(-1)} disabled={at === 0} aria-label="Previous latent of the list" title="k">←</button>
            <button onClick={() => step(1)} disabled={at === order.length - 1} aria-label="Next latent of the list" title="j">→</button>
          </span>
        </div>
        <Partners index={index} partners={partners} route={route} go={go} />
        {other && beside ? (
          <div class="panels two">
            <Panel index={index} sae={sae} latent={latent} latents={latents} route={route} go={go} headed />
            <Other index={index} sae={other} latent={beside[1][0]} route={route} go={go} />
          </div>
        ) : (
          <div class="panels"><Panel index={index} sae={sae} latent={latent} latents={latents} route={route} go={go} /></div>
        )}
      </div>
    </main>
  );
}

type PartnersProps = Pick<PageProps, "index" | "route" | "go"> & { partners: [string, Linked][] };

function Partners({ index, partners, route, go }: PartnersProps) {
  if (!partners.length) return null;
  return (
    <nav class="partners" aria-label="Partners in other seeds and cells">
      <span class="soft">Side by side with its partner in</span>
      {partners.map(([id, [, cosine]]) => {
        const sae = index.saes.find((one) => one.id === id);
        return (
          <button key={id} disabled={!sae} aria-pressed={route.with === id} onClick={() => go({ with: route.with === id ? null : id })}>
            {sae ? named(sae) : id} <span class="number">· cosine {figure(cosine)}</span>
          </button>
        );
      })}
    </nav>
  );
}

export function named(sae: Sae): string {
  return sae.seed === null ? sae.cell : `${sae.cell}, seed ${sae.seed}`;
}

interface PanelProps {
  index: Index;
  sae: Sae;
  latent: number;
  latents: Latents;
  route: Route;
  go: Go;
  headed?: boolean;
}

function Other(props: Omit<PanelProps, "latents" | "headed">) {
  const { value, error } = useLoaded<Latents>(`${props.sae.id}/latents`);
  if (error) return <Failure message={error} />;
  return value ? <Panel {...props} latents={value} headed /> : <p class="notice">Reading {props.sae.id} …</p>;
}

function Panel({ index, sae, latent, latents, route, go, headed = false }: PanelProps) {
  const { value, error } = useLoaded<Detail>(`${sae.id} ${latent}`, () => detail(sae, latent));
  const to = (id: number) => format({ ...route, sae: sae.id, latent: id, with: null });
  return (
    <article class="panel" aria-label={`Latent ${latent} of ${named(sae)}`}>
      {headed && (
        <div class="heading">
          <a href={to(latent)}>{named(sae)} · {latent}</a>
          {latents.label[latent] && <bdi>{clipped(latents.label[latent]!, 200)}</bdi>}
        </div>
      )}
      <div class="columns">
        <div class="main">
          <section class="card">
            <dl class="stats">
              <Stat name="Density" value={figure(latents.density[latent])} />
              <Stat name="Mean" value={figure(latents.mean[latent])} />
              <Stat name="Max" value={figure(latents.max[latent])} />
              <Stat name="M" value={figure(latents.m[latent])} />
              <Stat name="Selectivity" value={figure(latents.selectivity[latent])} />
              <Stat name="Stability" value={figure(latents.stability[latent])} />
              {latents.concept[latent] && <Stat name="Concept" value={clipped(latents.concept[latent]!, 80)} wide />}
            </dl>
          </section>
          {error && <Failure message={error} />}
          {value && <Contexts detail={value} />}
          <div class="below">
            {value?.decoder && <Decoder decoder={value.decoder} />}
            {value?.map && <Neighbourhood map={value.map} latent={latent} latents={latents} open={(id) => go({ sae: sae.id, latent: id, with: null })} />}
          </div>
        </div>
        <div class="side">
          {value?.histogram && <Activations bins={value.histogram} />}
          <Lens latents={latents} latent={latent} />
          <Links title="Nearest decoder neighbours" measure="cosine" links={latents.neighbours[latent]} latents={latents} to={to} />
          <Links title="Correlated latents" measure="r" links={latents.correlated[latent]} latents={latents} to={to} />
          {value && <Concepts detail={value} />}
          {value && <Family index={index} detail={value} to={(id, one) => format({ ...route, sae: id, latent: one, with: null })} />}
        </div>
      </div>
    </article>
  );
}

function Contexts({ detail: { quantiles } }: { detail: Detail }) {
  const shown = (quantiles ?? []).filter(({ contexts }) => contexts.length > 0);
  if (!shown.length) return <section class="card"><h2>Contexts</h2><p class="soft">It is active in none of the contexts that were kept.</p></section>;
  const between = seam(shown.flatMap(({ contexts }) => contexts));
  const largest = Math.max(...shown.flatMap(({ contexts }) => contexts.map(({ activation }) => activation)));
  return (
    <section class="card">
      <h2>Contexts</h2>
      {shown.map(({ name, contexts }) => (
        <div class="quantile" key={name}>
          <h3>{name}</h3>
          {contexts.map((context) => <ContextLine context={context} largest={largest} between={between} />)}
        </div>
      ))}
    </section>
  );
}

/** Activations as shades of the cell's ink: 0.08 is still seen, 0.75 still read. */
function shade(activation: number, largest: number): number {
  return activation > 0 && largest > 0 ? 0.08 + 0.67 * Math.min(1, activation / largest) : 0;
}

function ContextLine({ context, largest, between }: { context: Context; largest: number; between: string }) {
  const words = useWords();
  return (
    <div class="context" title={words(`document ${context.document}, token ${context.position}`)}>
      <span class="number">{figure(context.activation)}</span>
      <p>
        {pieces(context, between).map(({ text, activation, peak }, i) =>
          activation || peak ? (
            <Shaded text={text} shade={shade(activation, largest)} peak={peak} />
          ) : (
            <bdi>{i ? clipped(text, 640) : clippedStart(text)}</bdi>
          ),
        )}
      </p>
    </div>
  );
}

/** A token whose space stands before its shade: a line that ends there has no shaded end. */
function Shaded({ text, shade, peak }: { text: string; shade: number; peak: boolean }) {
  const word = text.replace(/^ +/, "") || text;
  return <>{text.slice(0, text.length - word.length)}<Token text={word} shade={shade} peak={peak} /></>;
}

function Activations({ bins }: { bins: NonNullable<Detail["histogram"]> }) {
  const option = useMemo(() => histogram(bins, "activation"), [bins]);
  return <section class="card"><h2>Activations</h2><Chart option={option} label="Histogram of activations" /></section>;
}

function Lens({ latents, latent }: { latents: Latents; latent: number }) {
  const [up, down] = [latents.lens_up[latent], latents.lens_down[latent]];
  if (!up?.length && !down?.length) return null;
  return (
    <section class="card">
      <h2>Logit lens: promoted tokens</h2>
      <ul class="tokens up">{(up ?? []).map((text) => <li><Token text={text} /></li>)}</ul>
      <h2>Suppressed tokens</h2>
      <ul class="tokens down">{(down ?? []).map((text) => <li><Token text={text} /></li>)}</ul>
    </section>
  );
}

interface LinksProps {
  title: string;
  measure: string;
  links: Linked[] | null | undefined;
  latents: Latents;
  to: (latent: number) => string;
}

function Links({ title, measure, links, latents, to }: LinksProps) {
  const words = useWords();
  if (!links?.length) return null;
  return (
    <section class="card">
      <h2>{title}</h2>
      <table class="small">
        <thead><tr><th>Latent</th><th>{words("Label, top tokens")}</th><th class="number">{measure}</th></tr></thead>
        <tbody>
          {links.map(([id, value]) => (
            <tr key={id}>
              <td><a href={to(id)}>{id}</a></td>
              <td>{latents.label[id] ? clipped(latents.label[id]!, 60) : (latents.top_tokens[id] ?? []).slice(0, 3).map((text) => <><Token text={clipped(text, 24)} /> </>)}</td>
              <td class="number">{figure(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Concepts({ detail: { concepts, judge } }: { detail: Detail }) {
  const words = useWords();
  return (
    <>
      {judge && judge.length > 0 && (
        <section class="card"><h2>Judge</h2><dl class="stats">{judge.map(([name, value]) => <Stat name={name} value={figure(value)} />)}</dl></section>
      )}
      {concepts && concepts.length > 0 && (
        <section class="card">
          <h2>Concepts</h2>
          <table class="small">
            <thead><tr><th>Concept</th><th class="number">M</th><th class="number">φ</th><th class="number" title={words("of the atom with the mean activation of the tokens that carry the concept, less that of the others")}>cos Δμ</th></tr></thead>
            <tbody>{concepts.map(([name, m, phi, cosine]) => <tr key={name}><td>{clipped(name, 80)}</td><td class="number">{figure(m)}</td><td class="number">{figure(phi)}</td><td class="number">{figure(cosine)}</td></tr>)}</tbody>
          </table>
        </section>
      )}
    </>
  );
}

function Decoder({ decoder }: { decoder: NonNullable<Detail["decoder"]> }) {
  const largest = useMemo(() => weights(decoder), [decoder]);
  const bins = useMemo(() => decoder.histogram && histogram(decoder.histogram, "weight"), [decoder]);
  const rows = decoder.top.length + decoder.bottom.length;
  return (
    <section class="card">
      <h2>Decoder weights, by dimension</h2>
      <Chart option={largest} label="Largest decoder weights of either sign" height={30 + 17 * rows} />
      {bins && <Chart option={bins} label="Histogram of decoder weights" height={120} />}
    </section>
  );
}

interface NeighbourhoodProps {
  map: NonNullable<Detail["map"]>;
  latent: number;
  latents: Latents;
  open: (latent: number) => void;
}

function Neighbourhood({ map, latent, latents, open }: NeighbourhoodProps) {
  const concepts = useMemo(() => legend(map, latents), [map, latents]);
  const [chosen, setChosen] = useState<"concept" | "density">("concept");
  const by = concepts.length ? chosen : "density";
  const option = useMemo(() => neighbourhood(map, latent, latents, by), [map, latent, latents, by]);
  return (
    <section class="card">
      <div class="split">
        <h2>Map of its nearest atoms: click a point to open it</h2>
        {concepts.length > 0 && (
          <select aria-label="Colour of the map" value={by} onChange={(event) => setChosen(event.currentTarget.value as typeof by)}>
            <option value="concept">concept</option>
            <option value="density">density</option>
          </select>
        )}
      </div>
      <Chart option={option} label="Map of its neighbourhood" height={320} onPick={(datum) => open(map[datum]![0])} />
      {by === "concept" && (
        <ul class="legend">
          {concepts.map(([name, colour]) => <li key={name}><span class="dot" style={{ background: colour }} /> <bdi>{clipped(name, 40)}</bdi></li>)}
          <li><span class="dot" style={{ background: "#999999" }} /> others</li>
        </ul>
      )}
    </section>
  );
}

interface FamilyProps {
  index: Index;
  detail: Detail;
  to: (sae: string, latent: number) => string;
}

/** How the latent splits when the dictionary grows, and what it is split from. */
function Family({ index, detail: { parents, children }, to }: FamilyProps) {
  const words = useWords();
  const groups = [["Parent in", parents], ["Children in", children]] as const;
  if (!parents && !children) return null;
  return (
    <section class="card">
      <h2>Across widths</h2>
      {groups.map(([title, kin]) => kin && (
        <table class="small" key={title}>
          <thead>
            <tr>
              <th>{title} {kin.sae.replace(".", ", ").replace("seed-", "seed ")}</th>
              <th class="number" title="of the atoms">cosine</th>
              <th class="number" title={words("the fraction of the child's tokens on which the parent fires")}>together</th>
            </tr>
          </thead>
          <tbody>
            {kin.latents.map(([id, cosine, together, tokens]) => (
              <tr key={id}>
                <td>
                  {index.saes.some((one) => one.id === kin.sae) ? <a href={to(kin.sae, id)}>{id}</a> : id}{" "}
                  {tokens.map((text) => <><Token text={clipped(text, 24)} /> </>)}
                </td>
                <td class="number">{figure(cosine)}</td>
                <td class="number">{figure(together)}</td>
              </tr>
            ))}
            {kin.more ? <tr><td class="soft" colSpan={3}>and {kin.more} more</td></tr> : null}
          </tbody>
        </table>
      ))}
    </section>
  );
}
