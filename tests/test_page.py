"""Pages: whole files that need nothing else, whatever their title and captions hold."""

from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

from matplotlib.figure import Figure

from geosr.page import drawing, picture, write_page

PNG = b"\x89PNG & more"


def chart() -> Figure:
    figure = Figure()
    figure.add_subplot().set_title("Power & glory")
    return figure


def test_a_page_is_one_document_that_asks_for_no_other_file(tmp_path: Path):
    path = write_page(tmp_path / "page.html", "A < B", ["", "<p>one</p>", "", drawing("c", chart()), picture("p", PNG)])
    text = path.read_text("utf-8")
    assert "<title>A &lt; B</title>" in text
    assert "<h1>A &lt; B</h1>" in text
    assert "<p>one</p>" in text
    assert text.count("src=") == text.count('src="data:image/') == 2
    assert "href=" not in text
    assert "@import" not in text
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_page_replaces_the_one_before(tmp_path: Path):
    write_page(tmp_path / "page.html", "first", ["<p>old</p>"])
    assert "<p>old" not in write_page(tmp_path / "page.html", "second", []).read_text("utf-8")


def test_images_hold_their_bytes_and_say_what_they_show():
    image = ElementTree.fromstring(picture('a "b" & c', PNG).replace(">", "/>"))
    assert image.attrib["alt"] == 'a "b" & c'
    assert b64decode(image.attrib["src"].removeprefix("data:image/png;base64,")) == PNG
    source = ElementTree.fromstring(drawing("chart", chart()).replace(">", "/>")).attrib["src"]
    svg = b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode()
    assert "Power & glory" in "".join(ElementTree.fromstring(svg).itertext())
    assert drawing("chart", chart()) == drawing("chart", chart())
