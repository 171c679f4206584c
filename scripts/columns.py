"""A hook of the site: each cell of a table knows its column's title, which a phone shows beside
it."""

from xml.etree.ElementTree import Element

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig

AFTER_INLINE = 15


class Columns(Treeprocessor):
    def run(self, root: Element) -> None:
        for table in root.iter("table"):
            titles = ["".join(title.itertext()) for title in table.iter("th")]
            for row in table.iter("tr"):
                for title, cell in zip(titles, row.findall("td"), strict=False):
                    cell.set("data-column", title)


class WithColumns(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(Columns(md), "columns", AFTER_INLINE)


def on_config(config: MkDocsConfig) -> None:
    config.markdown_extensions.append(WithColumns())  # type: ignore[arg-type]  # Markdown takes an extension itself as well
