"""Selectors of Calico's policies: expressions over labels, such as `app == 'shop' && has(tier)`.

Source: Calico, documentation of NetworkPolicy ("Selectors").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_TOKEN = re.compile(r"""\s*('[^']*'|"[^"]*"|&&|\|\||==|!=|[!(){},]|[\w./-]+)""")
_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "contains": lambda value, text: text in value,
    "starts": lambda value, text: value.startswith(text),
    "ends": lambda value, text: value.endswith(text),
}


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Return whether a selector matches. An empty one matches everything.

    Raises ValueError for a selector that is none.
    """
    return not selector.strip() or _Expression(selector, labels).value()


class _Expression:
    """A selector that is evaluated while it is read."""

    def __init__(self, selector: str, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._tokens = _TOKEN.findall(selector)
        if _TOKEN.sub("", selector).strip():
            raise ValueError(selector)

    def value(self) -> bool:
        """Return the value of all of it."""
        value = self._either()
        if self._tokens:
            raise ValueError(self._tokens[0])
        return value

    def _either(self) -> bool:
        value = self._both()
        while self._is_next("||"):
            value = self._both() or value
        return value

    def _both(self) -> bool:
        value = self._one()
        while self._is_next("&&"):
            value = self._one() and value
        return value

    def _one(self) -> bool:
        if self._is_next("!"):
            return not self._one()
        if self._is_next("("):
            value = self._either()
            self._expect(")")
            return value
        word = self._take()
        if word in ("all", "global", "has") and self._is_next("("):
            value = word == "all" or (word == "has" and self._take() in self._labels)
            self._expect(")")
            return value
        return self._compared(self._labels.get(word))

    def _compared(self, value: str | None) -> bool:
        test = self._take()
        if test == "==":
            return value == self._text()
        if test == "!=":
            return value != self._text()
        if test == "in":
            return value in self._texts()
        if test == "not":
            self._expect("in")
            return value not in self._texts()
        if test not in _TESTS:
            raise ValueError(test)
        if test != "contains":
            self._expect("with")
        return _TESTS[test](value or "", self._text()) and value is not None

    def _texts(self) -> list[str]:
        self._expect("{")
        texts = [self._text()]
        while self._is_next(","):
            texts.append(self._text())
        self._expect("}")
        return texts

    def _text(self) -> str:
        token = self._take()
        if token[0] not in "'\"":
            raise ValueError(token)
        return token[1:-1]

    def _is_next(self, token: str) -> bool:
        if self._tokens[:1] != [token]:
            return False
        self._take()
        return True

    def _expect(self, token: str) -> None:
        if not self._is_next(token):
            raise ValueError(token)

    def _take(self) -> str:
        if not self._tokens:
            raise ValueError("it ends too early")
        return str(self._tokens.pop(0))
