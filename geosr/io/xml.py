"""XML of strangers, parsed with nothing in it that could harm."""

from typing import Any
from xml.etree import ElementTree

from geosr.errors import InputError

LIMIT = 64 * 2**20
"""Bytes of the largest XML file that is parsed; the metadata and masks of a real product stay below a tenth of it."""
DEPTH = 100
"""Levels of elements in elements; the metadata of real products have about ten."""
ELEMENTS = 1_000_000
"""Elements of the largest XML file; the cloud masks of a real product have some 100 000."""


def parse_xml(content: bytes, path: str) -> ElementTree.Element:
    """The root element of an XML file.

    Args:
        content: The file.
        path: What messages call it.

    Raises:
        InputError: It is no XML, or is larger or deeper than any metadata; or it declares a document type, with which
            entities could be defined that grow without bound or name files of this machine.
    """
    if len(content) > LIMIT:
        raise _refused(path, f"has more than {LIMIT >> 20} MiB")

    class Builder(ElementTree.TreeBuilder):
        """Stops while it parses: a document of many levels takes longer, the deeper it is."""

        depth = elements = 0

        def doctype(self, *_: Any) -> None:
            raise _refused(path, "declares a document type (DOCTYPE)")

        def start(self, tag: Any, attrs: Any, /) -> ElementTree.Element:
            self.depth += 1
            self.elements += 1
            if self.depth > DEPTH:
                raise _refused(path, f"has elements in more than {DEPTH} levels")
            if self.elements > ELEMENTS:
                raise _refused(path, f"has more than {ELEMENTS} elements")
            return super().start(tag, attrs)

        def end(self, tag: Any, /) -> ElementTree.Element:
            self.depth -= 1
            return super().end(tag)

    try:
        return ElementTree.fromstring(content, ElementTree.XMLParser(target=Builder()))
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two for encodings
        raise InputError(f"{path} is not valid XML ({error}); download it again") from error


def _refused(path: str, why: str) -> InputError:
    return InputError(f"{path} {why}, which no metadata needs; it is not read")
