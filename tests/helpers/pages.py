"""The content of a page as its scripts get it."""

import base64
import gzip
import html
import json
import re

_CHART = r'<figure><figcaption>(.*?)</figcaption><div class="[^"]*"><script type="application/json">(.*?)</script>'


def chart_rows(page):
    """Return the rows of each chart by its title."""
    return {
        html.unescape(title): json.loads(spec)["data"]["values"] for title, spec in re.findall(_CHART, page, re.DOTALL)
    }


def embedded(page, name):
    """Return the content of a compressed block of the page."""
    block = re.search(rf'<script type="application/gzip" id="{name}">(.*?)</script>', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(block)))
