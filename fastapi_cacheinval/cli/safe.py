"""Text of others for a terminal: tags, paths and messages may hold what a terminal would obey."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi_cacheinval.core import words

__all__ = ["as_json", "cut", "plain"]

# Controls of C0 and C1, what turns the direction of text, what has no width, line separators, and half characters.
_OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def plain(text: str) -> str:
    r"""Text with every such character written out, as `\x1b` or `\u202e`."""
    return _OBEYED.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def cut(text: str, most: int) -> str:
    """Plain text of at most so many characters; what is left out shows as an ellipsis."""
    return words.cut(plain(text), most)


def as_json(value: Any) -> str:
    """One line of JSON, in ASCII: nothing in it moves a cursor."""
    return json.dumps(value, ensure_ascii=True, separators=(", ", ": "), default=str, allow_nan=False)
