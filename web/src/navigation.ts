/** The route as state, kept equal to location.hash. */

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import { format, parse, type Route } from "./route";

/** Chromium drops navigations beyond some 200 in ten seconds: held keys and typing are gathered. */
const GATHERED_MS = 120;

export type Go = (change: Partial<Route>, replace?: boolean) => void;

/** The route and how it is left; with `replace` the page takes the place of the last in history. */
export function useRoute(): [Route, Go] {
  const [route, setRoute] = useState(() => parse(location.hash));
  const current = useRef(route);
  const written = useRef(location.hash);
  const pending = useRef(0);

  const flush = useCallback(() => {
    if (!pending.current) return;
    clearTimeout(pending.current);
    pending.current = 0;
    location.replace(format(current.current));
    written.current = location.hash;
  }, []);

  useEffect(() => {
    const changed = () => {
      if (location.hash === written.current) return;
      clearTimeout(pending.current);
      pending.current = 0;
      written.current = location.hash;
      current.current = parse(location.hash);
      setRoute(current.current);
    };
    addEventListener("hashchange", changed);
    // a link that is followed leaves the page as it was last seen
    addEventListener("click", flush, true);
    return () => {
      removeEventListener("hashchange", changed);
      removeEventListener("click", flush, true);
    };
  }, []);

  const go = useCallback<Go>((change, replace = false) => {
    if (!replace) flush();
    current.current = { ...current.current, ...change };
    setRoute(current.current);
    if (replace) {
      clearTimeout(pending.current);
      pending.current = window.setTimeout(flush, GATHERED_MS);
    } else {
      location.hash = format(current.current);
      written.current = location.hash;
    }
  }, []);
  return [route, go];
}

/** Keys that are pressed outside of fields, by name; a listener returns whether it used the key. */
export function useKeys(listener: (key: string) => boolean): void {
  const latest = useRef(listener);
  latest.current = listener;
  // a layout effect: it ends when its view is taken away, while an effect would hear keys until the next frame
  useLayoutEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (event.target instanceof Element && event.target.closest("input, select, textarea")) return;
      if (latest.current(event.key)) event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
