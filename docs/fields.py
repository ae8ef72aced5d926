"""How docstrings reach the API pages: read as text by griffe, the package is never imported.

- A pydantic field's description stands in its `Field(…)`: it becomes the attribute's docstring.
- Of a module's docstring the first paragraph is shown; the page itself has the examples.
- `<name>` in a docstring is no HTML.
"""

import ast
import re
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
            text = str(ast.literal_eval(str(named["description"])))
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


def _plain(text: str) -> str:
    """`text` with `<` escaped, but in code."""
    parts = CODE.split(text)
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)
