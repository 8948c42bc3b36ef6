"""The Markdown pages as data: their examples, their links.

An example is a fenced block with a comment on the line before it, which no reader sees:

    <!-- run NAME [needs WHAT] prints "TEXT" -->   a program; NAME's ending says how it is run, a line of its output has TEXT
    <!-- file NAME -->                             what the programs after it read
    <!-- check NAME -->                            a configuration that `pointsman check` accepts

The pages use one vocabulary throughout: host db.example.com, ports 5432 and 6432, role alice with the password "secret", branch and
database orders, ca.crt in the working folder. Of these only host and ports are replaced, by `substituted`.
"""

import glob
import json
import os
import re
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

_MARK = re.compile(r'<!-- (?P<kind>run|file|check) (?P<name>[\w.-]+)(?: needs (?P<needs>\w+))?(?: prints "(?P<prints>[^"]*)")? -->')
_FENCE = re.compile(r"^( {0,3})(```+|~~~+)(.*)$")
_HEADING = re.compile(r"^(#{1,6}) +(.*?)(?: +#+)?$")
_CODE = re.compile(r"(`+)(?:(?!\1).)+?\1")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^()\s>]*(?:\([^()\s]*\)[^()\s>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+<?([^\s>]+)>?")
_COMMENT = re.compile(r"(?:^|(?<=\s))//.*$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    page: str
    line: int
    kind: str
    name: str
    needs: str
    prints: str
    text: str


def pages():
    """Every page of the repository, as a path from its root. Build folders and what npm brought are not ours."""
    found = glob.glob("**/*.md", root_dir=ROOT, recursive=True)
    return sorted(path for path in found if path.split(os.sep)[0] != "build" and "node_modules" not in path.split(os.sep))


def read(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as text:
        return text.read()


def examples(page):
    """The marked blocks in their order. A mark that leads nowhere, or that nobody understands, is a mistake."""
    lines = read(page).splitlines()
    found = []
    for number, line in enumerate(lines):
        if not re.match(r"<!--\s*(run|file|check)\b", line):
            continue
        mark = _MARK.fullmatch(line.strip())
        assert mark, f"{page}:{number + 1}: this mark is not understood: {line}"
        fence = _FENCE.match(lines[number + 1]) if number + 1 < len(lines) else None
        assert fence, f"{page}:{number + 2}: a fenced block belongs behind the mark"
        assert (mark["prints"] is not None) == (mark["kind"] == "run"), f"{page}:{number + 1}: run, and nothing else, says what it prints"
        end = next(at for at in range(number + 2, len(lines)) if lines[at].strip() == fence[2])
        text = "\n".join(lines[number + 2:end]) + "\n"
        found.append(Example(page, number + 1, mark["kind"], mark["name"], mark["needs"] or "", mark["prints"] or "", text))
    return found


def unmarked_blocks(page):
    """The lines where a fenced block begins that no mark stands before: nobody runs it."""
    lines = read(page).splitlines()
    fences = [number for number, line in enumerate(lines, start=1) if _FENCE.match(line)]
    return [number for number in fences[::2] if not _MARK.fullmatch(lines[number - 2].strip())]


def substituted(text, direct, pooled):
    """The page's host and ports become the test's, as whole words."""
    text = text.replace("db.example.com", "localhost")
    return re.sub(r"\b5432\b", str(direct), re.sub(r"\b6432\b", str(pooled), text))


def without_comments(text):
    """JSON with // comments, read. In no string of an example does // follow a space."""
    return json.loads(_COMMENT.sub("", text))


# --- links ---

def _prose(page):
    """(line number, line without code) of what is not in a fenced or indented block."""
    fence = None
    before_is_text = False
    for number, line in enumerate(read(page).splitlines(), start=1):
        found = _FENCE.match(line)
        if fence:
            if found and found[2].startswith(fence) and not found[3].strip():
                fence = None
        elif found:
            fence = found[2]
        elif line.startswith("    ") and not before_is_text:
            continue
        else:
            before_is_text = bool(line.strip())
            yield number, _CODE.sub(lambda code: "`" * len(code[0]), line)


def links(page):
    """(line number, target) of every link and image."""
    for number, line in _prose(page):
        for target in (*_LINK.findall(line), *_REFERENCE.findall(line)):
            yield number, target


def anchors(page):
    """What GitHub and most renderers make of the headings: small letters, no punctuation, hyphens for spaces, numbered when repeated."""
    seen, found = {}, set()
    inside = False
    for line in read(page).splitlines():
        if _FENCE.match(line):
            inside = not inside
        heading = None if inside else _HEADING.match(line)
        if heading:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[2]).replace("`", "")
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
            seen[slug] = seen.get(slug, 0) + 1
    return found


def broken_links(page):
    """What is wrong with the page's links, as lines to read. Addresses in the network are not visited."""
    wrong = []
    for number, target in links(page):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        full = os.path.normpath(os.path.join(ROOT, os.path.dirname(page), path)) if path else os.path.join(ROOT, page)
        if not os.path.exists(full):
            wrong.append(f"{page}:{number}: {target}: there is no such file")
        elif anchor and full.endswith(".md") and anchor not in anchors(os.path.relpath(full, ROOT)):
            wrong.append(f"{page}:{number}: {target}: there is no such heading")
        elif anchor and not full.endswith(".md"):
            wrong.append(f"{page}:{number}: {target}: an anchor needs a page")
    return wrong
