"""What the site shows from elsewhere in the repository, without a copy of it, and that it fetches nothing."""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ELSEWHERE = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Page of the site → file in the root of the repository."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages; their links count from the root."""
    for page, source in ELSEWHERE.items():
        text = (Path(config.config_file_path).parent / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to those files lead to their pages."""
    for page, source in ELSEWHERE.items():
        # Pages of a shelf climb twice to the root of the repository, and once to that of the site.
        markdown = re.sub(rf"\]\(\.\./((?:\.\./)*){re.escape(source)}", rf"](\g<1>{page}", markdown)
    return markdown


def on_post_page(output: str, page: Any, **_: Any) -> None:
    """Stop where a page would fetch something from elsewhere; links that a reader may follow are no such thing."""
    if found := re.search(r"""(?:src=|<link[^>]+href=|url\()["']?(https?://[^"' >)]+)""", output):
        raise PluginError(f"{page.file.src_uri} would fetch {found[1]}")
