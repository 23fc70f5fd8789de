"""A self-contained HTML page: inline style, embedded pictures, no script, nothing fetched."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --soft: #5d6673; --paper: #ffffff; --line: #d9dee5; --tint: #f3f5f8;
  --good: #0b6b3a; --bad: #a4262c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #a0a9b6; --paper: #16191e; --line: #343b45; --tint: #1e232a;
  --good: #6fd39b; --bad: #ff9a94; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.4rem 0; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 0.6rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; }
p, dl, ul { max-width: 46rem; } .soft { color: var(--soft); font-size: 0.9rem; }
nav a { margin-right: 1rem; white-space: nowrap; } a { color: inherit; }
dt { font-weight: 600; margin-top: 0.5rem; } dd { margin: 0 0 0 1rem; }
.wide { overflow-x: auto; margin: 0.6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.3rem 0.5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); font-size: 0.92rem; }
th { font-weight: 600; } td small { display: block; font-size: 0.78rem; color: var(--soft); max-width: 8.5rem; }
small span { white-space: nowrap; }
td small.better { color: var(--good); font-weight: 600; } td small.worse { color: var(--bad); font-weight: 600; }
tr.group th { background: var(--tint); border-bottom: 0; } th[scope=row] { position: sticky; left: 0; background: var(--paper); }
tr.group th[scope] { background: var(--tint); }
figure { margin: 0.8rem 0; } figcaption { color: var(--soft); font-size: 0.9rem; max-width: 46rem; }
img { max-width: 100%; height: auto; vertical-align: middle; } img.plot { background: #fff; border-radius: 4px; }
.tiles td, .tiles th { padding: 2px 4px; border: 0; vertical-align: middle; }
.tiles thead th { color: var(--soft); font-weight: 400; font-size: 0.82rem; }
.tiles img { display: block; width: 8rem; min-width: 6rem; max-width: none; image-rendering: pixelated; border-radius: 3px; }
@media (max-width: 40rem) { .tiles img { width: 5.5rem; min-width: 5.5rem; } body { padding: 0.8rem 0.7rem 3rem; } }
pre { background: var(--tint); padding: 0.7rem; overflow-x: auto; font-size: 0.85rem; }
"""


@dataclass(frozen=True)
class Section:
    """One part of a page: ``name`` is its anchor, ``body`` finished HTML."""

    name: str
    heading: str
    body: str


@dataclass(frozen=True)
class Cell:
    """One cell of a table: ``text`` large, ``note`` small below it; ``verdict`` 'better', 'worse' or '' colours the note."""

    text: str
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table: a name and its cells; with no cells it is the heading of a group of rows."""

    name: str
    cells: Sequence[Cell] = ()
    title: str = ""


def page(title: str, sections: Sequence[Section]) -> str:
    """Return the whole page; ``title`` is plain text, section bodies are HTML.

    >>> page("a < b", [Section("s", "S", "<p>x</p>")]).count("a &lt; b")
    2
    """
    links = " ".join(f'<a href="#{escape(s.name)}">{escape(s.heading)}</a>' for s in sections if s.heading)
    bodies = "\n".join(
        f'<section id="{escape(s.name)}">' + (f"<h2>{escape(s.heading)}</h2>" if s.heading else "") + f"\n{s.body}\n</section>"
        for s in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<nav class="soft">{links}</nav>\n{bodies}\n</body>\n</html>\n'
    )


def paragraph(text: str, *, soft: bool = False) -> str:
    """Return plain text as a paragraph.

    >>> paragraph("1 < 2")
    '<p>1 &lt; 2</p>'
    """
    return f'<p class="soft">{escape(text)}</p>' if soft else f"<p>{escape(text)}</p>"


def definitions(items: Sequence[tuple[str, str]]) -> str:
    """Return a list of terms and their meanings, both plain text."""
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in items) + "</dl>"


def bullets(items: Sequence[str]) -> str:
    """Return a list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def preformatted(text: str) -> str:
    """Return plain text with its line breaks."""
    return f"<pre>{escape(text)}</pre>"


def image(png: bytes, description: str, *, kind: str = "") -> str:
    """Return an embedded PNG; ``description`` is what a reader without pictures gets."""
    style = f' class="{escape(kind)}"' if kind else ""
    return f'<img{style} alt="{escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def figure(png: bytes, description: str, caption: str) -> str:
    """Return an embedded plot with a caption below it."""
    return f"<figure>{image(png, description, kind='plot')}<figcaption>{escape(caption)}</figcaption></figure>"


def table(headings: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a table that scrolls sideways by itself; the first heading is that of the row names."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(_row(row, len(headings)) for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def picture_table(headings: Sequence[str], rows: Sequence[tuple[str, Sequence[bytes]]]) -> str:
    """Return rows of pictures (PNG files), each row named, under column headings; the first heading is that of the names."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = ""
    for name, pictures in rows:
        cells = "".join(f"<td>{image(png, f'{name}: {heading}')}</td>" for png, heading in zip(pictures, headings[1:], strict=False))
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    return f'<div class="wide"><table class="tiles"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(row: Row, columns: int) -> str:
    title = f' title="{escape(row.title)}"' if row.title else ""
    if not row.cells:
        return f'<tr class="group"><th scope="rowgroup" colspan="{columns}"{title}>{escape(row.name)}</th></tr>'
    cells = ""
    for cell in row.cells:
        verdict = f' class="{escape(cell.verdict)}"' if cell.verdict else ""
        # An interval in brackets stays on one line.
        unbroken = re.sub(r"\[[^\]]*\]", r"<span>\g<0></span>", escape(cell.note))
        note = f"<small{verdict}>{unbroken}</small>" if cell.note else ""
        cells += f"<td>{escape(cell.text)}{note}</td>"
    return f'<tr><th scope="row"{title}>{escape(row.name)}</th>{cells}</tr>'
