"""Follow every link of the built site that stays on it, and list those that leave it.

    sphinx-build -n -W --keep-going scripts/site OUT
    python scripts/check_site.py OUT

Exits with 1 if a page or an anchor is missing, or if a page would fetch something from elsewhere.
Links to other sites are printed, one a line, and not followed: that needs a network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script", "img", "iframe", "source"}  # each by its `src`


class Page(HTMLParser):
    """What a page has (anchors), points to (links) and loads by itself (parts)."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if "href" in found:
            loaded = tag == "link" and {"stylesheet", "icon"} & {*found.get("rel", "").split()}
            (self.parts if loaded else self.links).append(found["href"])
        if tag in LOADED and "src" in found:
            self.parts.append(found["src"])


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or not (Path(arguments[0]) / "index.html").is_file():
        print("expected: the folder of a built site, with index.html", file=sys.stderr)
        return 2
    root = Path(arguments[0]).resolve()
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(root.rglob("*.html"))}
    wrong = list(mistakes(pages, root))
    outside = {link for page in pages.values() for link in page.links if leaves(link)}
    for link in sorted(outside):
        print(link)
    for line in wrong:
        print(line, file=sys.stderr)
    links = sum(len(page.links) for page in pages.values())
    print(
        f"{len(pages)} pages, {links} links, {len(outside)} of other sites (not followed), "
        f"{len(wrong)} wrong",
        file=sys.stderr,
    )
    return 1 if wrong else 0


def leaves(link: str) -> bool:
    """Whether it points to another site."""
    parts = urlsplit(link)
    return bool(parts.scheme or parts.netloc) and parts.scheme != "data"


def mistakes(pages: dict[Path, Page], root: Path) -> Iterator[str]:
    """A line for each link that leads nowhere, and each part that is not here."""
    for path, page in pages.items():
        here = path.relative_to(root)
        for link in page.links:
            if leaves(link):
                continue
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                yield f"{here}: {link}: no such page"
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{here}: {link}: no such anchor"
        for part in page.parts:
            file = path.parent / unquote(urlsplit(part).path)
            if leaves(part):
                yield f"{here}: {part}: fetched from elsewhere"
            elif not part.startswith("data:") and not file.is_file():
                yield f"{here}: {part}: no such file"


if __name__ == "__main__":
    sys.exit(main())
