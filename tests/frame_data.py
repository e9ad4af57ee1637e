"""What a drawing of the explorer gets, read as a browser does."""

import html
import json
import re


def document_of(markup):
    """The document of the first frame in some markup."""
    return html.unescape(re.search(r'srcdoc="([^"]*)"', markup)[1])


def data_of(markup):
    """The data of the first frame in some markup."""
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', document_of(markup))[1]
    )
