"""Hooks of the documentation build: files outside docs/, and diagrams.

A page may link to any file of the repository (`../params.yaml`, `../reports/tables/cells.md`). The
build puts such a file on the site under repository/: Markdown as a page, source text as a page with
highlighting, anything else as it is. A link to a file that does not exist stays as it is, and
`mkdocs build --strict` fails on it.

A `mermaid` fence becomes an inline SVG: the theme would load Mermaid from a public server.
"""

import posixpath
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

LINK = re.compile(r"(\]\()([^)\s#]+)([^)]*\))")
FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)
LANGUAGE = {".yaml": "yaml", ".py": "python", ".toml": "toml", ".lock": "text", "": "make"}
"""Source text by its suffix; Makefile has none."""


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to outside docs/, and what those files link to."""
    root = Path(config.config_file_path).parent
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for path in _linked(page, (root / page).read_text(encoding="utf-8")):
            uri = _site_uri(path)
            if path.startswith("docs/") or files.get_file_from_path(uri):
                continue
            if (root / path).is_file():
                files.append(_file(config, root, path))
                waiting += [path] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Point links to where the build has put their targets; draw diagrams."""
    here = page.file.src_uri
    source = here.removeprefix("repository/") if _is_copy(here) else f"docs/{here}"

    def moved(match: re.Match[str]) -> str:
        uri = _site_uri(_resolved(source, match[2]))
        if ":" in match[2] or not files.get_file_from_path(uri):
            return match[0]
        return match[1] + posixpath.relpath(uri, posixpath.dirname(here)) + match[3]

    drawn = FENCE.sub(lambda match: _diagram(match[1], here), markdown)
    return LINK.sub(moved, drawn)


def _linked(page: str, text: str) -> Iterator[str]:
    for match in LINK.finditer(text):
        if ":" not in match[2]:
            yield _resolved(page, match[2])


def _resolved(page: str, target: str) -> str:
    """The path from the repository's root of what `page` calls `target`."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _site_uri(path: str) -> str:
    """The place of the repository's file `path` among the site's sources."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" + (".md" if PurePosixPath(path).suffix in LANGUAGE else "")


def _is_copy(uri: str) -> bool:
    return uri.startswith("repository/")


def _file(config: Any, root: Path, path: str) -> File:
    """`path` of the repository as a file of the site; reachable by links, not in the navigation."""
    uri, language = _site_uri(path), LANGUAGE.get(PurePosixPath(path).suffix)
    outside = InclusionLevel.NOT_IN_NAV
    if language is None:
        return File.generated(config, uri, abs_src_path=str(root / path), inclusion=outside)
    text = (root / path).read_text(encoding="utf-8")
    page = f"# {path}\n\n````{language}\n{text}````\n"
    return File.generated(config, uri, content=page, inclusion=outside)


WIDTH, HEIGHT, GAP, ROW = 82, 32, 24, 60
ARROW = (
    '<marker id="arrow" viewBox="0 0 6 6" refX="3" refY="3" markerWidth="6" markerHeight="6"'
    ' orient="auto"><path d="M0 0L6 3L0 6z"/></marker>'
)


def _diagram(text: str, page: str) -> str:
    """Inline SVG of a `flowchart LR` whose lines are chains `a --> b --> c`.

    A node's column is the longest way to it, its row the first line that names it.
    """
    head, *lines = [line.strip() for line in text.strip().splitlines()]
    chains = [[node.strip() for node in line.split("-->")] for line in lines]
    if head != "flowchart LR" or not all(re.fullmatch(r"\w+", n) for c in chains for n in c):
        raise PluginError(f"{page}: a mermaid fence here is `flowchart LR` and chains a --> b")
    arrows = [arrow for chain in chains for arrow in pairwise(chain)]
    row: dict[str, int] = {}
    for number, chain in enumerate(chains):
        for node in chain:
            row.setdefault(node, number)
    column = dict.fromkeys(row, 0)
    for _ in row:  # as often as there are nodes: enough for the longest way
        for a, b in arrows:
            column[b] = max(column[b], column[a] + 1)
    x = {node: 1 + column[node] * (WIDTH + GAP) for node in row}
    y = {node: 1 + row[node] * ROW + HEIGHT // 2 for node in row}
    parts = []
    for a, b in arrows:
        bend, middle = x[b] - GAP, x[b] - GAP // 2
        curve = f"C{middle} {y[a]} {middle} {y[b]} {x[b] - 4} {y[b]}"
        parts.append(f'<path d="M{x[a] + WIDTH} {y[a]}H{bend}{curve}" marker-end="url(#arrow)"/>')
    for node in row:
        place = f'x="{x[node]}" y="{y[node] - HEIGHT // 2}"'
        parts.append(f'<rect {place} width="{WIDTH}" height="{HEIGHT}" rx="4"/>')
        parts.append(f'<text x="{x[node] + WIDTH // 2}" y="{y[node] + 5}">{node}</text>')
    width, height = max(x.values()) + WIDTH + 1, max(y.values()) + HEIGHT // 2 + 1
    told = "; ".join(" to ".join(chain) for chain in chains)
    return (
        f'<div class="diagram"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{told}">'
        f"<defs>{ARROW}</defs>{''.join(parts)}</svg></div>"
    )
