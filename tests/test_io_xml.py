import pytest

from geosr.errors import InputError
from geosr.io import xml
from geosr.io.xml import parse_xml

LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<lolz>&b;</lolz>"""
READS = b"""<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]><x>&secret;</x>"""


def test_plain_xml_is_parsed():
    assert parse_xml(b"<a><b>1</b></a>", "a.xml").findtext("b") == "1"


@pytest.mark.parametrize("content", [LAUGHS, READS, LAUGHS.decode().encode("utf-16")])
def test_a_document_type_is_refused_before_its_entities_mean_anything(content):
    with pytest.raises(InputError, match=r"a\.xml declares a document type"):
        parse_xml(content, "a.xml")


def test_what_is_no_xml_or_too_large_is_refused(monkeypatch):
    with pytest.raises(InputError, match=r"a\.xml is not valid XML"):
        parse_xml(b"<a>", "a.xml")
    monkeypatch.setattr(xml, "LIMIT", 7)
    assert parse_xml(b"<abc />", "a.xml").tag == "abc"
    with pytest.raises(InputError, match="more than"):
        parse_xml(b"<abcd />", "a.xml")


@pytest.mark.parametrize("encoding", ["klingon", "utf-7", "rot13", "cp037", "big5"])
def test_an_encoding_that_cannot_be_read_is_no_valid_xml(encoding):
    with pytest.raises(InputError, match=r"a\.xml is not valid XML \(.*\); download it again"):
        parse_xml(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode(), "a.xml")


def test_levels_beyond_any_metadata_are_refused_at_once():
    assert parse_xml(b"<a>" * 100 + b"</a>" * 100, "a.xml").tag == "a"
    with pytest.raises(InputError, match=r"a\.xml has elements in more than 100 levels"):
        parse_xml(b"<a>" * 200_000 + b"</a>" * 200_000, "a.xml")


def test_elements_beyond_any_metadata_are_refused(monkeypatch):
    monkeypatch.setattr(xml, "ELEMENTS", 5)
    assert len(parse_xml(b"<a>" + b"<b/>" * 4 + b"</a>", "a.xml")) == 4
    with pytest.raises(InputError, match="has more than 5 elements"):
        parse_xml(b"<a>" + b"<b/>" * 5 + b"</a>", "a.xml")
