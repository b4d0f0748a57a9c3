"""The first line of a comment or an issue of this program, which forges do not show.

It names what the text is about. Only texts by this program's own account count: a marker in a text
by another one is nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from ..model import Level

_LINE = re.compile(r"\A<!-- istio-vm-mesh (\{[^<>\n]*\}) -->\r?(?:\n|\Z)")
STACK = re.compile(r"[A-Za-z0-9_.-]{1,100}")
"""The name of a stack, as Pulumi has it."""
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ANY = "*"
"""In the place of a stack: what is about all stacks."""
PLAN, DRIFT = "plan", "drift"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What a text is about.

    kind: `PLAN` or `DRIFT`. stack: its name, or `ANY`.
    head: the commit that a plan is of; "" of an issue.
    level: what a plan was computed from. old: whether a newer commit came.
    digest: of the text behind the marker. Forges may change white space, so texts are not compared.
    """

    kind: str
    stack: str
    head: str = ""
    level: str = ""
    old: bool = False
    digest: str = ""

    def __post_init__(self) -> None:
        texts = (self.kind, self.stack, self.head, self.level, self.digest)
        if not (all(isinstance(text, str) for text in texts) and isinstance(self.old, bool)):
            raise ValueError("a marker has a text where a flag is to be, or the other way round")
        if self.stack != ANY and not STACK.fullmatch(self.stack):
            raise ValueError("a stack's name has letters, digits and _.- alone, at most 100")
        if self.head and not COMMIT.fullmatch(self.head):
            raise ValueError("a commit is 40 or 64 hexadecimal digits")
        if self.kind not in (PLAN, DRIFT) or self.level not in ("", *Level):
            raise ValueError("a marker is of a plan of a level, or of drift")

    @property
    def key(self) -> tuple[str, str]:
        """What there is one text for."""
        return self.kind, self.stack


def digest(text: str) -> str:
    """Return a digest of a text for `Marker.digest`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mark(marker: Marker, text: str) -> str:
    """Return a text with its marker before it."""
    return f"<!-- istio-vm-mesh {json.dumps(asdict(marker), sort_keys=True)} -->\n{text}"


def parse(body: str) -> Marker | None:
    """Return the marker that a text begins with; None where there is none, or none of ours."""
    match = _LINE.match(body)
    try:
        return Marker(**json.loads(match[1])) if match else None
    except (ValueError, TypeError):
        return None


def text_of(body: str) -> str:
    """Return a text without its marker."""
    return _LINE.sub("", body, count=1)
