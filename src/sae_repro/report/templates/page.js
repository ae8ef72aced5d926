// Charts are drawn when they come near the screen.
const drawn = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    drawn.unobserve(target);
    for (const option of options[target.dataset.charts]) {
      const element = target.appendChild(document.createElement("div"));
      element.className = option.square ? "chart square" : "chart";
      saeCharts(element, option, option.square ? "canvas" : "svg");
    }
  }
}, { rootMargin: "600px" });
for (const place of document.querySelectorAll("[data-charts]")) {
  if (options[place.dataset.charts] && window.saeCharts) drawn.observe(place);
  else place.remove();
}

// Where a number comes from: in short where a pointer rests, in full at a click.
const panel = document.getElementById("origin");
const part = (name, text, ...inside) => {
  const element = document.createElement(name);
  element.append(text, ...inside);
  return element;
};
const code = (text) => part("code", text);

function cellsOf(number) {
  return (number.dataset.cells ?? "").split(" ").map((name) => origins[name]).filter(Boolean);
}

document.addEventListener("pointerover", ({ target }) => {
  const number = target.closest?.("[data-full]");
  if (!number || number.title) return;
  const cells = cellsOf(number).map(({ cell, keys, artifact }) =>
    `cell ${cell}, key ${keys.join(" ")}, artifacts/evaluate/${cell} ${artifact}`);
  number.title = [number.dataset.full, number.dataset.source, ...cells, "click: commit and MLflow run"].join("\n");
});

document.addEventListener("click", ({ target }) => {
  const number = target.closest("[data-full]");
  if (!number || target.closest("a")) return;
  const facts = [["Value", number.dataset.full], ["File", code(number.dataset.source)]];
  const cells = cellsOf(number);
  for (const { cell, keys, trained, artifact } of cells) {
    facts.push(
      ["Cell", code(cell)],
      [keys.length > 1 ? "Keys, one per seed" : "Key", code(keys.join(" "))],
      ["Artifact", part("span", "", code(`artifacts/evaluate/${cell}`), " ", code(artifact))],
      ["Commit", code(`git log -1 -S ${keys[0]} -- reports/index.html`)],
      [trained.length > 1 ? "MLflow runs: search" : "MLflow run: search",
        part("span", "", ...trained.map((key) => part("div", "", code(`tags.\`sae_repro.key\` LIKE '${key}%'`))))],
    );
  }
  if (!cells.length) facts.push(["Commit", code(`git log -1 -- ${number.dataset.source}`)]);
  const list = document.createElement("dl");
  for (const [name, value] of facts) list.append(part("dt", name), part("dd", value));
  panel.querySelector("dl").replaceWith(list);
  panel.showPopover();
});
