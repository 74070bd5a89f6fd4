"""Inputs that are not JSON: a form with files, and plain bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Final

from oplata.rpc.errors import RpcError

MAX_PARTS: Final = 1_000
_TOO_MANY: Final = "The form has too many parts."


class Octets(bytes):
    """The input of a procedure that takes ``application/octet-stream``."""


@dataclass(frozen=True, slots=True)
class File:
    name: str
    content_type: str
    content: bytes


class FormData:
    """The input of a procedure that takes ``multipart/form-data``: names with texts and files, a name possibly
    twice.
    """

    def __init__(self, entries: list[tuple[str, str | File]]) -> None:
        self.entries: Final = tuple(entries)

    def get(self, name: str) -> str | File | None:
        """The first value of that name."""
        return next((value for key, value in self.entries if key == name), None)

    def all(self, name: str) -> list[str | File]:
        return [value for key, value in self.entries if key == name]

    def __getitem__(self, name: str) -> str | File:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self.entries)

    def __iter__(self) -> Iterator[tuple[str, str | File]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def parse_form(content_type: str, body: bytes) -> FormData:
    """Raises RpcError (BAD_REQUEST) for a body that is not the form which its content type promises."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise RpcError("BAD_REQUEST", "The form's content type names no boundary.")
    delimiter = b"\r\n--" + boundary.encode()
    pieces = (b"\r\n" + body).split(delimiter, MAX_PARTS + 2)
    if len(pieces) > MAX_PARTS + 2:
        raise RpcError("PAYLOAD_TOO_LARGE", _TOO_MANY)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise RpcError("BAD_REQUEST", "The form does not end with its boundary.")
    return FormData([_part(piece) for piece in pieces[1:-1]])


def _part(piece: bytes) -> tuple[str, str | File]:
    head, separator, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not separator:
        raise RpcError("BAD_REQUEST", "A part of the form has no headers.")
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        headers[key.strip().lower()] = value.strip()
    disposition = headers.get("content-disposition", "")
    name = _parameter(disposition, "name")
    if name is None:
        raise RpcError("BAD_REQUEST", "A part of the form has no name.")
    file_name = _parameter(disposition, "filename")
    if file_name is None:
        return name, content.decode("utf-8", "replace")
    return name, File(file_name, headers.get("content-type", "application/octet-stream"), content)


def _parameter(disposition: str, key: str) -> str | None:
    """Browsers quote the value and write a quote inside it as %22."""
    match = re.search(rf';\s*{key}="([^"]*)"', disposition)
    return None if match is None else match.group(1).replace("%22", '"').replace("%0D%0A", "\n")
