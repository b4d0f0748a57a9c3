"""Selectors of Calico's policies are read as Calico reads them."""

from __future__ import annotations

import pytest

from components.verification.calico_selectors import selects

LABELS = {"app": "product", "projectcalico.org/namespace": "shop", "tier": "web-front"}


@pytest.mark.parametrize(
    ("selector", "is_chosen"),
    [
        ("", True),
        (" ", True),
        ("all()", True),
        ("global()", False),
        ("has(app)", True),
        ("has(x)", False),
        ("!has(x)", True),
        ("! has(app)", False),
        ("app == 'product'", True),
        ('app=="product"', True),
        ("app == 'x'", False),
        ("x == 'product'", False),
        ("app != 'x'", True),
        ("app != 'product'", False),
        ("x != 'product'", True),
        ("app in {'x', 'product'}", True),
        ("app in { 'x' }", False),
        ("x in {'x'}", False),
        ("app not in {'x'}", True),
        ("app not in {'x', 'product'}", False),
        ("x not in {'x'}", True),
        ("tier contains 'b-f'", True),
        ("tier contains 'x'", False),
        ("tier starts with 'web'", True),
        ("tier starts with 'front'", False),
        ("tier ends with 'front'", True),
        ("tier ends with 'web'", False),
        ("x contains ''", False),
        ("has(app) && has(x)", False),
        ("has(x) && has(app)", False),
        ("has(app) && has(tier)", True),
        ("has(x) || has(app)", True),
        ("has(x) || has(y)", False),
        ("has(app) || has(x) && has(y)", True),
        ("(has(app) || has(x)) && has(y)", False),
        ("!(has(app) && has(x))", True),
        ("projectcalico.org/namespace == 'shop'", True),
        ("app == 'a && b'", False),
    ],
)
def test_a_selector_chooses_by_labels(selector: str, is_chosen: bool) -> None:
    assert selects(selector, LABELS) is is_chosen


@pytest.mark.parametrize(
    "selector",
    ["app", "app ==", "app == product", "app = 'product'", "app in 'x'", "app in {'x'", "has(app", "(has(app)", "has(app) has(x)", "app not x",
     "tier starts 'web'", "app == 'x", "app ~ 'x'", "some()", "&& has(app)", "!"],
)  # fmt: skip
def test_what_is_no_selector_is_an_error(selector: str) -> None:
    with pytest.raises(ValueError):
        selects(selector, LABELS)
