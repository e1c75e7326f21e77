"""XML of strangers, parsed with nothing in it that could harm."""

from typing import Any
from xml.etree import ElementTree

from geosr.errors import InputError

LIMIT = 64 * 2**20
"""Bytes of the largest XML file that is parsed; the metadata and masks of a real product stay below a tenth of it."""


def parse_xml(content: bytes, path: str) -> ElementTree.Element:
    """The root element of an XML file.

    Args:
        content: The file.
        path: What messages call it.

    Raises:
        InputError: It is no XML, is larger than 64 MiB, or declares a document type, with which entities could be
            defined that grow without bound or name files of this machine.
    """
    if len(content) > LIMIT:
        raise InputError(f"{path} has more than {LIMIT >> 20} MiB, which no metadata needs; it is not read")

    class Builder(ElementTree.TreeBuilder):
        def doctype(self, *_: Any) -> None:
            raise InputError(f"{path} declares a document type (DOCTYPE), which no metadata needs; it is not read")

    try:
        return ElementTree.fromstring(content, ElementTree.XMLParser(target=Builder()))
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not valid XML ({error}); download it again") from error
