"""Pages taken apart: tags in order, ids, attributes and words, and that nothing is loaded from anywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Ids, links, tags and text of a page; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, tag: str, name: str) -> list[str]:
        """The values of an attribute."""
        return [value for owner, key, value in self.attributes if (owner, key) == (tag, name)]

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]


def self_contained(text: str) -> Page:
    """The page, after it was found to load nothing, to have an end for every link and no number that is none."""
    assert "http:" not in text and "https:" not in text and "//" not in re.sub(r"data:[^\"]*|// [^\n]*", "", text)
    assert not re.search(r"@import|url\((?!#)", text)
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    for tag, name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith(("#", "data:")), (tag, value)
    links = {value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#")}
    labels = {each for _, name, value in page.attributes if name == "aria-labelledby" for each in value.split()}
    assert links | labels <= set(page.ids)
    (policy,) = [value for value in page.of("meta", "content") if value.startswith("default-src 'none'")]
    assert "script-src" in policy if "script" in page.tags else "script" not in policy
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"base64,[^\"]*", "", page.words), re.IGNORECASE)
    return page
