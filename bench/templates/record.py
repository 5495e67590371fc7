#!/usr/bin/env python3
"""Renders templates with the reference (transformers, hence jinja2) and writes what came out, for compare.ts.

    python record.py OUT.json FOLDER ...

Every FOLDER is a collection; its *.jinja files are rendered with every conversation of conversations.json, with and without the
generation prompt. Templates of others are not part of this project; fetch the collections that docs/templates.md names.
Needs: pip install transformers jinja2.
"""
import json
import pathlib
import sys
from datetime import datetime

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = pathlib.Path(__file__).resolve().parent
NOW = datetime(2026, 7, 5, 15, 4, 9)
TOKENS = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def render(template, conversation, opening):
    context = dict(TOKENS, messages=conversation["messages"], tools=conversation.get("tools"), documents=conversation.get("documents"),
                   add_generation_prompt=opening, **conversation.get("kwargs", {}))
    try:
        return dict(text=template.render(**context))
    except Exception as error:
        return dict(error=f"{type(error).__name__}: {error}")


def main():
    out, *folders = sys.argv[1:]
    conversations = (HERE / "conversations.json").read_text(encoding="utf-8")
    record = []
    for folder in map(pathlib.Path, folders):
        for file in sorted(folder.glob("**/*.jinja")):
            source = file.read_bytes().decode("utf-8")
            entry = dict(collection=folder.name, file=str(file.relative_to(folder)), source=source)
            record.append(entry)
            try:
                template = _compile_jinja_template(source)
            except Exception as error:
                entry["error"] = f"{type(error).__name__}: {error}"
                continue
            template.globals["strftime_now"] = NOW.strftime
            entry["renderings"] = [dict(conversation=c["name"], prompt=opening, **render(template, c, opening))
                                   for c in json.loads(conversations) for opening in (False, True)]
    made_with = dict(jinja2=jinja2.__version__, transformers=transformers.__version__, python=sys.version.split()[0])
    with open(out, "w", encoding="utf-8") as f:
        json.dump(dict(made_with=made_with, tokens=TOKENS, now=NOW.isoformat(), templates=record), f, ensure_ascii=True)


if __name__ == "__main__":
    main()
