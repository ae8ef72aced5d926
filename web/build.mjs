// Builds explorer.js, explorer.css and charts.js as classic scripts: Chromium refuses modules from
// file://. `node build.mjs [FOLDER]`; without a folder, what the package ships is written.
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const folder = resolve(process.argv[2] ?? join(here, "../src/sae_repro/report/web"));
const BUNDLED = ["preact", "echarts", "zrender", "tslib"];

async function bundle(name, entry, libraries) {
  await build({
    root: here,
    configFile: false,
    logLevel: "warn",
    define: { "process.env.NODE_ENV": '"production"' },
    oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
    build: {
      outDir: folder,
      emptyOutDir: false,
      target: "es2022",
      minify: true,
      lib: {
        entry: join(here, "src", entry),
        formats: ["iife"],
        name: `sae_${name}`,
        fileName: () => `${name}.js`,
        cssFileName: name,
      },
      rolldownOptions: {
        output: { postBanner: `/*! sae-repro; bundles ${libraries}: LICENSES.txt */` },
      },
    },
  });
}

async function version(library) {
  const text = await readFile(join(here, "node_modules", library, "package.json"), "utf8");
  return JSON.parse(text).version;
}

async function licences() {
  const parts = ["explorer.js bundles preact; charts.js bundles echarts, zrender and tslib.\n"];
  for (const library of BUNDLED) {
    const place = join(here, "node_modules", library);
    const names = (await readdir(place)).filter((name) => /^(LICENSE|NOTICE)/.test(name)).sort();
    parts.push(`\n${"=".repeat(80)}\n${library} ${await version(library)}\n`);
    const more = library === "echarts" ? ["licenses/LICENSE-d3"] : [];
    for (const name of [...names, ...more]) {
      const text = (await readFile(join(place, name), "utf8")).replace(/\r\n/g, "\n");
      parts.push(`\n--- ${name}\n\n${text.trimEnd()}\n`);
    }
  }
  return parts.join("");
}

await mkdir(folder, { recursive: true });
await bundle("explorer", "explorer.tsx", `preact ${await version("preact")} (MIT)`);
await bundle(
  "charts",
  "charts.ts",
  `Apache ECharts ${await version("echarts")} (Apache-2.0), zrender (BSD-3-Clause), ` +
    "parts of d3 (BSD-3-Clause), tslib (0BSD)",
);
await writeFile(join(folder, "LICENSES.txt"), await licences());
await copyFile(join(here, "explorer.html"), join(folder, "explorer.html"));
