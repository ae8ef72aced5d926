"""Docstrings on the API pages: read as text by griffe, without importing the package.

- A pydantic field's description stands in its `Field(…)`: it becomes the attribute's docstring.
- Of a module's docstring the first paragraph is shown; the page itself has the examples.
- `<name>` in a docstring is no HTML.
"""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import griffe

CODE = re.compile(r"(`[^`]*`)")


class Fields(griffe.Extension):
    """Loaded by mkdocs.yml: plugins.mkdocstrings.handlers.python.options.extensions."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take description, alias and default out of `Field(default, alias=…, description=…)`."""
        call = attr.value
        if not isinstance(call, griffe.ExprCall) or str(call.function) != "Field":
            return
        named = {a.name: a.value for a in call.arguments if isinstance(a, griffe.ExprKeyword)}
        if "description" in named and attr.docstring is None:
            text = _described(str(named["description"]), attr.filepath)
            if "alias" in named:
                text = f"`{ast.literal_eval(str(named['alias']))}` in params.yaml: {text}"
            attr.docstring = griffe.Docstring(_plain(text), parent=attr)
        positional = [a for a in call.arguments if not isinstance(a, griffe.ExprKeyword)]
        attr.value = positional[0] if positional else None

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Shorten and escape a docstring."""
        if obj.docstring is not None and not obj.is_attribute:
            text = obj.docstring.value
            obj.docstring.value = _plain(text.split("\n\n")[0] if obj.is_module else text)


def _described(source: str, module: Path | list[Path]) -> str:
    """A description written as a literal, or as an f-string over the rows of `params.axes`."""
    try:
        return str(ast.literal_eval(source))
    except ValueError:
        assert isinstance(module, Path)
        # the rows need the standard library alone
        spec = importlib.util.spec_from_file_location("axes", module.with_name("axes.py"))
        assert spec is not None and spec.loader is not None
        axes = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = axes  # where dataclasses look their own module up
        spec.loader.exec_module(axes)
        return str(eval(source, {"axes": axes}))


def _plain(text: str) -> str:
    """`text` with `<` escaped, but in code."""
    parts = CODE.split(text)
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)
