"""Scripts of data: the same value back, and nothing that ends a script or a string."""

import json
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from sae_repro.report.page import bare
from sae_repro.report.scripts import encoded, rounded

# surrogates without their other half are texts, too
TEXTS = st.text(st.characters(exclude_categories=()))


@given(TEXTS)
def test_any_text_comes_back_and_is_plain_ascii(text: str) -> None:
    written = encoded([text, {text: None}])
    assert re.fullmatch(r"[ -~]*", written)
    assert not re.search(r"[<>&]", written)
    value, keyed = json.loads(written)
    # a pair of halves that happen to stand together is the letter they spell
    same = text.encode("utf-16-le", "surrogatepass")
    assert value.encode("utf-16-le", "surrogatepass") == same
    assert [key.encode("utf-16-le", "surrogatepass") for key in keyed] == [same]


@given(st.floats())
def test_numbers_keep_four_digits(x: float) -> None:
    value = json.loads(encoded(x))
    assert value == rounded(x)
    if not math.isfinite(x):
        assert value is None
    else:
        assert math.isclose(value, x, rel_tol=5.0001e-4, abs_tol=5e-324)


@given(TEXTS)
def test_what_no_file_of_utf8_holds_becomes_one_mark(text: str) -> None:
    kept = bare(text)
    assert len(kept) == len(text)
    kept.encode("utf-8")
    assert all(a in (b, "\ufffd") for a, b in zip(kept, text, strict=True))
