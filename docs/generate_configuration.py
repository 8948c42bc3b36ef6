#!/usr/bin/env python3
"""Writes configuration-reference.md from deploy/schema/pointsman.schema.json, which `pointsman schema` prints. Standard library only.

    generate_configuration.py            writes it
    generate_configuration.py --check    writes nothing; exit status 1 when the file is not what would be written
"""

import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = os.path.join(HERE, "..", "deploy", "schema", "pointsman.schema.json")
PAGE = os.path.join(HERE, "configuration-reference.md")
HEAD = """\
# Configuration reference

Every key, made by `docs/generate_configuration.py` from what `pointsman schema` prints, which is what `pointsman check` judges by. What keys mean together, and why: [configuration](configuration.md).

- The file is JSON with `//` comments. A key twice is an error, and so is an unknown key, except keys that begin with `x-`, which are yours.
- A duration is a text such as `"500ms"`, `"10s"`, `"1m"`, `"2h"`. Relative paths start at the folder of the file they stand in.
- `null` is as if the key were not there; in a branch it takes away what `defaults` has there.
- A default that the table does not give depends on the machine or on other keys, or there is none.
"""
BRANCH = "A branch"
BRANCH_TEXT = "What stands under a name in `branches`, in a file of `branches_dir`, and in `defaults`. `${branch}` in a text stands for the branch's name.\n"


class Section:
    def __init__(self, heading, path, node, text=""):
        self.heading, self.path, self.node, self.text = heading, path, node, text

    def anchor(self):
        """As GitHub makes it of the heading."""
        return re.sub(r"[^\w\- ]", "", self.heading.lower()).replace(" ", "-")


class Reference:
    def __init__(self, schema):
        self.schema = schema
        self.sections = []
        self.add(Section("Top level", "", schema))
        self.add(Section(BRANCH, "", schema["definitions"]["branch"], BRANCH_TEXT))

    def add(self, section):
        self.sections.append(section)
        for key, node in section.node["properties"].items():
            for suffix, kind, inner in self.objects(node):
                path = f"{section.path}.{key}{suffix}".lstrip(".")
                self.add(Section(f"`{path}`{kind}", path, inner))

    def objects(self, node):
        """The objects with keys of their own below a node: (suffix of the path, words for the heading, the object)."""
        for choice in node.get("anyOf", []):
            if "properties" in choice:
                yield "", "", choice
            elif choice.get("$ref") == "#/definitions/backend_tls" and not self.described("backend_tls"):
                yield "", "", self.schema["definitions"]["backend_tls"]
        if "properties" in node:
            yield "", "", node
        items = node.get("items", {})
        if "if" in items:
            yield "[]", "", items["else"]
            yield "[]", " of mode `console`", items["then"]
        elif "properties" in items:
            yield "[]", "", items
        for value in node.get("patternProperties", {}).values():
            if isinstance(value, dict) and "properties" in value:
                yield ".NAME", "", value

    def described(self, name):
        return any(section.node is self.schema["definitions"][name] for section in self.sections)

    def link(self, node):
        """Where the keys of what stands at a node are."""
        choices = [node, *node.get("anyOf", []), *node.get("patternProperties", {}).values(), node.get("items", {})]
        targets = [choice for choice in choices if isinstance(choice, dict)]
        targets += [targets[-1]["else"]] if "else" in targets[-1] else []
        names = [target["$ref"].rsplit("/", 1)[1] for target in targets if "$ref" in target]
        targets += [self.schema["definitions"][name] for name in names]
        for section in self.sections:
            if any(section.node is target for target in targets):
                return f"#{section.anchor()}"
        return None

    def row(self, section, key, node):
        kind, target = node["title"], self.link(node)
        if "enum" in node:
            kind = ", ".join(f'`"{word}"`' for word in node["enum"] if word is not None)
        elif target:
            kind = f"[{kind}]({target})"
        default = next((choice["default"] for choice in [node, *node.get("anyOf", [])] if "default" in choice), None)
        default = "" if default is None else f"`{json.dumps(default)}`"
        if key in section.node.get("required", []):
            default = "required"
        return f"| `{key}` | {kind} | {default} | {node['description']} |\n"

    def text(self):
        parts = [HEAD]
        for section in self.sections:
            parts.append(f"\n## {section.heading}\n\n{section.text}{chr(10) if section.text else ''}")
            parts.append("| key | what | default | |\n| --- | --- | --- | --- |\n")
            for key, node in section.node["properties"].items():
                if node.get("type") != "null" or node["description"] == "Not in this version.":
                    parts.append(self.row(section, key, node))
        return "".join(parts)


def page():
    with open(SCHEMA, encoding="utf-8") as text:
        return Reference(json.load(text)).text()


def main():
    wanted = page()
    if sys.argv[1:] == ["--check"]:
        with open(PAGE, encoding="utf-8") as text:
            if text.read() != wanted:
                sys.exit("docs/configuration-reference.md is not what the schema says: run docs/generate_configuration.py")
        return
    if sys.argv[1:]:
        sys.exit(__doc__)
    with open(PAGE, "w", encoding="utf-8") as text:
        text.write(wanted)


if __name__ == "__main__":
    main()
