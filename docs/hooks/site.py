"""MkDocs's hook: pages made from the code, and pages and files of the project that lie outside docs/.

Links in Markdown lead to files of the project, so that they work where it is read as files. Here they become links
between pages.
"""

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import launchers
import notebook_pages

ROOT = Path(__file__).resolve().parents[2]
# Pages by the files that they are made of; those in docs/ are pages already.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "launch/README.md": "machines.md",
    "configs": "configurations.md",
    "dcgan_jax": "built.md",
    "launch": "commands.md",
    "notebooks/quickstart.ipynb": "notebooks/quickstart.md",
    "notebooks/paper_tour.ipynb": "notebooks/paper_tour.md",
}
DOCUMENTS = (".md", ".ipynb")
CODE = {
    ".py": "python",
    ".sh": "bash",
    ".sbatch": "bash",
    ".cff": "yaml",
}  # shown as pages; others are copied as they are
LINK = re.compile(r"(\]\(|(?:src|href)=\")([^)\"\s#]*)(#[^)\"\s]*)?(?=[)\"])")


def on_config(config: Any) -> Any:
    """Completes the navigation."""
    sections = {title: pages for section in config.nav for title, pages in section.items()}
    sections["Commands"] += [{launchers.title(file): launchers.page(file)} for file in launchers.files()]
    sections["Files"] += [{path: f"files/{path}.md"} for path in sorted(linked_files()) if Path(path).suffix in CODE]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages that are not in docs/."""
    for source, uri in PAGES.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, uri, content=_text(ROOT / source)))
    files.append(File.generated(config, "configurations.md", content=configurations()))
    files.append(File.generated(config, "commands.md", content=launchers.overview()))
    for file in launchers.files():
        files.append(File.generated(config, launchers.page(file), content=launchers.markdown(file)))
    for path in linked_files():
        language = CODE.get(Path(path).suffix)
        if language is None:
            files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
        else:
            text = (ROOT / path).read_text(encoding="utf-8")
            content = f"# {path}\n\n````{language}\n{text}````\n"
            files.append(File.generated(config, f"files/{path}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turns links to files of the project into links to pages."""
    sources = {uri: source for source, uri in PAGES.items() if source.endswith(DOCUMENTS)}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    if not (ROOT / source).is_file():  # made from code: its links are between pages already
        return markdown

    def replaced(match: re.Match) -> str:
        start, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        if not target or ":" in target:
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = posixpath.relpath(page_of(path), posixpath.dirname(page.file.src_uri) or ".")
        in_html = not start.startswith("]")  # which MkDocs leaves as it is
        return f"{start}{re.sub('.md$', '.html', uri) if in_html else uri}{anchor}"

    return LINK.sub(replaced, markdown)


def page_of(path: str) -> str:
    """The page or file of the site that shows a file of the project."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}.md" if Path(path).suffix in CODE else f"files/{path}"


def documents() -> Iterator[Path]:
    """The Markdown files and notebooks of the project that are pages."""
    yield from sorted((ROOT / "docs").glob("**/*.md"))
    yield from (ROOT / source for source in PAGES if source.endswith(DOCUMENTS))


def _text(file: Path) -> str:
    """A page as Markdown, from the file that it is made of."""
    return notebook_pages.markdown(file) if file.suffix == ".ipynb" else file.read_text(encoding="utf-8")


def linked_files() -> list[str]:
    """Files of the project, by their paths, that documents link to and that are no pages or pictures of docs/."""
    found = set()
    for document in documents():
        for _, target, _ in LINK.findall(_text(document)):
            path = posixpath.normpath(posixpath.join(document.parent.relative_to(ROOT).as_posix(), target))
            if target and ":" not in target and path not in PAGES and not path.startswith("docs/"):
                found |= {path} if (ROOT / path).is_file() else set()  # a dead link is left for MkDocs to find
    return sorted(found)


def configurations() -> str:
    """A page of all configurations: the note at the top of each file."""
    notes = ["# Configurations\n\nThe note at the top of each file in `configs/`.\n"]
    notes += [f"## {file.stem}\n\n{launchers.docstring(file)}\n" for file in sorted((ROOT / "configs").glob("*.py"))]
    return "\n".join(notes)
