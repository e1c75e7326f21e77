"""A STAC API on this machine, for tests: ``python stac_api.py FOLDER REQUESTS`` prints its address and serves.

FOLDER holds the files of its items, named after their bands; REQUESTS gets one line of JSON for each request. Beside
the two items of its search it knows some like those of Earth Search and of the Planetary Computer, faults included:
`LIKE`. It gives out signatures as the Planetary Computer does, and tells whether a file was asked for with one.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

EARTH, PLANETARY = "https://earth-search.aws.element84.com/v1", "https://planetarycomputer.microsoft.com/api/stac/v1"
SCALED, SHIFTED = {"scale": 1e-4, "offset": 0, "nodata": 0}, {"scale": 1e-4, "offset": -0.1, "nodata": 0}


def applied(value, baseline):
    """What Earth Search says of an offset."""
    return {"earthsearch:boa_offset_applied": value, "s2:processing_baseline": baseline}


LIKE = {
    # collection/id: catalogue, what raster:bands say, properties
    "sentinel-2-c1-l2a/plain": (EARTH, SHIFTED, {"processing:version": "05.00"}),
    "sentinel-2-l2a/both": (
        EARTH,
        SHIFTED,
        applied(True, "05.09"),
    ),
    "sentinel-2-l2a/denied": (
        EARTH,
        SHIFTED,
        applied(False, "05.11"),
    ),
    "sentinel-2-l2a/applied": (
        EARTH,
        SCALED,
        applied(True, "04.00"),
    ),
    "sentinel-2-l2a/old": (EARTH, SCALED, applied(False, "02.12")),
    "sentinel-2-l2a/new": (PLANETARY, None, {"s2:processing_baseline": "05.11"}),
    "sentinel-2-l2a/first": (PLANETARY, None, {"s2:processing_baseline": "02.12"}),
}
"""Items that are no part of a search."""


class Api(BaseHTTPRequestHandler):
    """A STAC API with one collection, and a web server of files that knows byte ranges."""

    folder: Path
    requests: Path

    def log_message(self, *_):
        pass

    @property
    def root(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/":
            self.answer(self.landing())
        elif path == "/collections":
            self.answer({"collections": [self.collection()], "links": []})
        elif path.startswith("/collections/") and (found := self.item(*path.split("/")[2::2])):
            self.answer(found)
        elif path.startswith("/token/"):
            self.record("TOKEN", path)
            self.answer({"msft:expiry": "2999-01-01T00:00:00Z", "token": "sig=abc"})
        elif path.startswith("/files/") and (self.folder / path[7:]).is_file():
            self.file(self.folder / path[7:])
        else:
            self.send_error(404)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.record("POST", self.path, asked)
        clear = asked.get("query", {}).get("eo:cloud_cover", {}).get("lte", 100)
        found = [one for one in self.items() if one["properties"]["eo:cloud_cover"] <= clear]
        self.answer({"type": "FeatureCollection", "features": found, "links": []})

    def record(self, *request):
        with self.requests.open("a") as file:
            file.write(json.dumps(request) + "\n")

    def items(self):
        """Two items, one clear and one cloudy, of the same files."""
        for name, cloud in (("clear", 3.0), ("cloudy", 80.0)):
            yield self.feature("sentinel-2", name, {"eo:cloud_cover": cloud}, told=SHIFTED)

    def item(self, collection, name=None):
        """One item by its id, or None."""
        if f"{collection}/{name}" in LIKE:
            catalogue, told, properties = LIKE[f"{collection}/{name}"]
            return self.feature(collection, name, properties, told=told, catalogue=catalogue)
        return next((one for one in self.items() if (one["collection"], one["id"]) == (collection, name)), None)

    def feature(self, collection, name, properties, *, told, catalogue=None):
        """An item of all files."""
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": collection,
            "geometry": {"type": "Point", "coordinates": [13.73, 45.14]},
            "bbox": [13.72, 44.96, 13.99, 45.15],
            "properties": {"datetime": "2023-06-01T10:00:00Z", **properties},
            "links": [
                {"rel": "self", "href": f"{self.root}/collections/{collection}/items/{name}"},
                *([{"rel": "root", "href": catalogue}] if catalogue else []),
            ],
            "assets": {
                "scl" if path.stem == "SCL" else path.stem: {
                    "href": f"{self.root}/files/{path.name}",
                    "eo:bands": [{"name": path.stem}],
                    **({"raster:bands": [told]} if told else {}),
                }
                for path in sorted(self.folder.glob("*.tif"))
            },
        }

    def landing(self):
        links = [("self", "/"), ("root", "/"), ("data", "/collections"), ("search", "/search")]
        classes = ["core", "collections", "item-search", "item-search#query"]
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "local",
            "description": "a STAC API",
            "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in classes],
            "links": [{"rel": rel, "href": self.root + href, "method": "POST"} for rel, href in links],
        }

    def collection(self):
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": "sentinel-2",
            "description": "one collection",
            "license": "CC-BY-4.0",
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
            "links": [],
        }

    def file(self, path):
        content = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(match[1]), min(int(match[2] or len(content)), len(content) - 1)) if match else (0, 0)
        part = content[first : last + 1] if match else content
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            signed = ["signed"] if "sig=abc" in self.path else []
            self.record(206 if match else 200, path.name, len(part), *signed)
            self.wfile.write(part)

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Api.folder, Api.requests = Path(sys.argv[1]), Path(sys.argv[2])
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
