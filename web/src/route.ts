/** The page in location.hash: `#/<sae>?q=…` is a list, `#/<sae>/<latent>?q=…&with=<sae>` a latent. */

export interface Route {
  sae: string | null;
  latent: number | null;
  /** Searched text, or `/regex/`. */
  q: string;
  /** A column; descending if it begins with "-". */
  sort: string;
  /** Only latents of this class; "alive" has all but dead ones. */
  class: string;
  /** The SAE whose partner stands beside the latent. */
  with: string | null;
}

export const START: Route = { sae: null, latent: null, q: "", sort: "-m", class: "", with: null };

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split(/\?(.*)/s);
  const [sae, latent] = path.split("/");
  const values = new URLSearchParams(query);
  return {
    sae: sae ? decoded(sae) : null,
    latent: latent !== undefined && /^\d+$/.test(latent) ? Number(latent) : null,
    q: values.get("q") ?? START.q,
    sort: values.get("sort") ?? START.sort,
    class: values.get("class") ?? START.class,
    with: values.get("with"),
  };
}

export function format(route: Route): string {
  const values = new URLSearchParams();
  for (const key of ["q", "sort", "class", "with"] as const) {
    const value = route[key];
    if (value && value !== START[key]) values.set(key, value);
  }
  const query = values.toString();
  const latent = route.latent === null ? "" : `/${route.latent}`;
  const sae = route.sae === null ? "" : encodeURIComponent(route.sae);
  return `#/${sae}${latent}${query ? `?${query}` : ""}`;
}
