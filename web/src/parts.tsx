/** Small components of several views. */

import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";

import { load, type Sae } from "./data";
import { clipped, worded } from "./text";

export interface Loaded<T> {
  value: T | null;
  error: string | null;
}

/** What `read` promises, once it is there; nothing while `key` is null. */
export function useLoaded<T>(key: string | null, read: () => Promise<T> = () => load<T>(key!)): Loaded<T> {
  const [state, setState] = useState<Loaded<T> & { key: string | null }>({ key: null, value: null, error: null });
  useEffect(() => {
    if (key === null) return;
    let left = false;
    read().then(
      (value) => left || setState({ key, value, error: null }),
      (error: Error) => left || setState({ key, value: null, error: error.message }),
    );
    return () => {
      left = true;
    };
  }, [key]);
  return state.key === key ? state : { value: null, error: null };
}

/** What the SAE in view reads one of at a time. */
export const Unit = createContext<Sae["unit"]>("tokens");

/** Texts that speak of tokens, in the words of the SAE in view. */
export function useWords(): (text: string) => string {
  const unit = useContext(Unit);
  return (text) => worded(text, unit);
}

/** A token, isolated so that right-to-left marks turn nothing around it. */
export function Token({ text, shade, peak = false }: { text: string; shade?: number; peak?: boolean }) {
  const style = shade === undefined ? undefined : { "--shade": shade.toFixed(2) };
  return <bdi class={peak ? "token peak" : "token"} style={style}>{clipped(text)}</bdi>;
}

export function Stat({ name, value, wide = false }: { name: string; value: string; wide?: boolean }) {
  return <div class={wide ? "wide" : undefined}><dt>{name}</dt><dd>{value}</dd></div>;
}

export function Failure({ message }: { message: string }) {
  return <p class="notice error" role="alert">{message}</p>;
}
