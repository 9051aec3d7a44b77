"""The sentences of a published evaluation, read from the user's own checkout of its code; nothing there is executed.

Python files are parsed and only literals of them are evaluated; task files of lm-evaluation-harness are YAML whose
`!function` tags stay text. What a file does beyond filling its templates (joining, chat turns) is the form of a
protocol and stands in our styles.
"""

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from harness.errors import ConfigError, DataError
from tasks.asking import Fields, Style, Worked

KEY = "protocol.wording"
Names = Mapping[str, str]
"""The names of fields in a file, and ours for them."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """A style with published sentences, the worked examples that are spelled out with them, and the files it is from.

    `files` maps a part of the wording to a path inside the checkout.
    """

    style: Style
    files: Mapping[str, str]
    worked: tuple[Worked, ...] = ()

    @property
    def digest(self) -> str:
        """Return 12 hex digits that name the sentences, wherever they were read."""
        content = json.dumps([asdict(self.style), self.worked], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


Reader = Callable[[Path, Style], Wording]
"""From a checkout and our style of the same form: the published wording; DataError naming the file."""


def load(folder: str, template: str, readers: Mapping[str, Reader], style: Style, fields: Fields) -> Wording:
    """Return the wording of one template; raise ConfigError for the folder, DataError for a file in it."""
    if template not in readers:
        known = ", ".join(readers) or "no template of this task"
        raise ConfigError(f"{KEY}={folder}: task.template={template} is not published elsewhere; it serves {known}")
    if not Path(folder).is_dir():
        raise ConfigError(f"{KEY}={folder}: no such folder; give your checkout of the evaluation code")
    wording = readers[template](Path(folder), replace(style, reconstructed=False))
    for problem in fields.problems(wording.style):
        raise DataError(f"{folder}/{next(iter(wording.files.values()))}: {problem}; check out the published version")
    return wording


def opencompass(subject: str, *names: str, fields: Names) -> Reader:
    """Return a reader of `configs/datasets/SUBJECT/NAME`: rounds of a prompt template, the first of `names` there."""

    def read(folder: Path, style: Style) -> Wording:
        file = _find(folder, [f"{subject}/{name}" for name in names])
        rounds, file = _rounds(file)
        place = max((i for i, (role, _) in enumerate(rounds) if role == "HUMAN"), default=-1)
        shown, closed = rounds[:place], rounds[place + 1 :]
        if place < 0 or [role for role, _ in shown] != ["HUMAN", "BOT"] * (place // 2) or len(closed) > 1:
            raise DataError(f"{file}: its rounds must be HUMAN and BOT in turn; check out the published version")
        said = [text for _, text in shown]
        made = replace(
            style,
            question=_from_braces(rounds[place][1], fields, file),
            closed=_from_braces(closed[0][1], fields, file) if closed else "",
        )
        name = _inside(folder, file)
        return Wording(
            style=made,
            worked=tuple(zip(said[::2], said[1::2], strict=True)),
            files={"question": name} | ({"examples": name} if said else {}),
        )

    return read


def d1(name: str, *, fields: Names, plain: str | None = None) -> Reader:
    """Return a reader of `eval/NAME`: system prompt, then the question (an f-string of __getitem__, or field `plain`).

    What the answer begins with is what `create_prompt`, there or in gsm8k.py beside it, adds to the chat.
    """

    def read(folder: Path, style: Style) -> Wording:
        file = _find(folder, [f"eval/{name}"])
        tree = _parse(file)
        asked = next((one for one in _assigned(tree, "question") if isinstance(one, ast.JoinedStr)), None)
        if asked is None and plain is None:
            raise DataError(f"{file}: no f-string `question` in it; check out the published version")
        question = f"{{{plain}}}" if asked is None else _from_f_string(asked, fields, file)
        base = file.with_name("gsm8k.py")
        added = next((found for one in (file, base) if one.is_file() for found in _added_to_chat(_parse(one))), None)
        prefix = style.prefix if added is None else _escaped(added)
        made = replace(style, question=f"{_escaped(_system_prompt(tree, file))}\n\n{question}", prefix=prefix)
        return Wording(style=made, files={"question": _inside(folder, file)})

    return read


def dparallel(variable: str, *, before: str = "", fields: Names) -> Reader:
    """Return a reader of `eval_llada.py`: the text of one of its variables, behind `before`."""

    def read(folder: Path, style: Style) -> Wording:
        file = _find(folder, ["eval_llada.py"])
        found = (_literal(one, {}) for one in _assigned(_parse(file), variable))
        text = next((one for one in found if isinstance(one, str)), None)
        if text is None:
            raise DataError(f"{file}: no text `{variable}` in it; check out the published version")
        question = before + _from_jinja(text, fields, file)
        return Wording(style=replace(style, question=question), files={"question": _inside(folder, file)})

    return read


def lm_eval(subject: str, task: str, *, fields: Names) -> Reader:
    """Return a reader of the file in `tasks/SUBJECT` that defines `task` for lm-evaluation-harness.

    Worked answers are those of the data, so their template stays ours.
    """

    def read(folder: Path, style: Style) -> Wording:
        files = [*folder.rglob(f"{subject}/*.yaml"), *folder.glob("*.yaml")]
        defining = [f for f in files if re.search(rf"^task:\s*['\"]?{task}['\"]?\s*$", _text(f), re.MULTILINE)]
        file = _only(defining, folder, f"{subject}/*.yaml with `task: {task}`")
        config = _task_file(file)
        question = config.get("doc_to_text")
        if not isinstance(question, str):
            raise DataError(f"{file}: doc_to_text is no template that can be read without running code")
        made = replace(
            style,
            question=_from_jinja(question, fields, file),
            prefix=_from_jinja(str(config.get("gen_prefix") or ""), fields, file),
            between=str(config.get("target_delimiter", " ")),
            joint=str(config.get("fewshot_delimiter", "\n\n")),
        )
        return Wording(style=made, files={"question": _inside(folder, file)})

    return read


def _find(folder: Path, names: Sequence[str]) -> Path:
    """Return the file of the first of `names` that is anywhere below a folder, or beside its top."""
    for name in names:
        beside = folder / Path(name).name
        found = [*folder.rglob(name), *([beside] if beside.is_file() else [])]
        if found:
            return _only(found, folder, name)
    return _only([], folder, " or ".join(names))


def _only(found: Sequence[Path], folder: Path, what: str) -> Path:
    """Return the one file that was found, of equal copies the outermost."""
    if not found:
        raise DataError(f"{KEY}={folder}: no {what} in it; `decbench doctor` says which checkout has it")
    first, *others = sorted(set(found), key=lambda file: (len(file.parts), str(file)))
    for other in others:
        if _text(other) != _text(first):
            raise DataError(f"{KEY}={folder}: {first} and {other} differ; give the folder of one of them")
    return first


def _inside(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); check it out again") from None


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(_text(file))
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{file}: not Python ({error}); check it out again") from None


def _constants(tree: ast.Module) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = _literal(node.value, known)
    return known


def _literal(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """Return the value of texts, numbers, lists, dictionaries and sums of texts; None for what would have to run."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(one, known) for one in node.elts]
    if isinstance(node, ast.Dict):
        return {_literal(k, known): _literal(v, known) for k, v in zip(node.keys, node.values, strict=True) if k}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _literal(keyword.value, known) for keyword in node.keywords if keyword.arg}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _literal(node.left, known), _literal(node.right, known)
        return left + right if isinstance(left, str) and isinstance(right, str) else None
    return None


def _rounds(file: Path) -> tuple[list[tuple[str, str]], Path]:
    """Return the rounds of a config as (role, text), and the file they are in: it may import them from beside it."""
    tree = _parse(file)
    configs = [value for name, value in _constants(tree).items() if name.endswith("infer_cfg")]
    if not configs:
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
        beside = [file.with_name(f"{node.module}.py") for node in imported if node.module]
        if not beside or beside[0] == file:
            raise DataError(f"{file}: no *_infer_cfg in it; check out the published version")
        return _rounds(beside[0])
    try:
        template = configs[0]["prompt_template"]["template"]
        if isinstance(template, str):
            return [("HUMAN", template)], file
        given = [(one["role"], one["prompt"]) for one in [*template.get("begin", []), *template["round"]]]
    except (KeyError, TypeError, AttributeError):
        given = []
    rounds = [(role, text) for role, text in given if isinstance(text, str)]
    if not rounds or len(rounds) < len(given):
        raise DataError(f"{file}: prompt_template holds no rounds of literal texts; check out the published version")
    return rounds, file


def _system_prompt(tree: ast.Module, file: Path) -> str:
    """Return the text that a data set's class takes for its system prompt, or the only one that is called so."""
    known = _constants(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            named = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            defaults = {one.arg: _literal(value, known) for one, value in zip(named, node.args.defaults, strict=True)}
            if isinstance(defaults.get("system_prompt"), str):
                return defaults["system_prompt"]
    found = [text for name, text in known.items() if name.endswith("SYSTEM_PROMPT") and isinstance(text, str)]
    if len(found) != 1:
        raise DataError(f"{file}: must have one literal *SYSTEM_PROMPT, not {len(found)}; check it out again")
    return found[0]


def _assigned(tree: ast.Module, name: str) -> Iterator[ast.expr]:
    """Yield what is assigned to a name, wherever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            yield node.value


def _added_to_chat(tree: ast.Module) -> Iterator[str]:
    makers = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "create_prompt"]
    for node in (inner for maker in makers for inner in ast.walk(maker)):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.BinOp):
            added = node.value.right
            if isinstance(added, ast.Constant) and isinstance(added.value, str):
                yield added.value


class _Loader(yaml.SafeLoader):
    """Reads every tag as the text behind it: `!function` names code, which is not run."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def _task_file(file: Path) -> dict[str, Any]:
    """Return a task file with those that it includes under it."""
    try:
        config = yaml.load(_text(file), _Loader)
    except yaml.YAMLError as error:
        raise DataError(f"{file}: not YAML ({' '.join(str(error).split())[:120]}); check it out again") from None
    if not isinstance(config, dict):
        raise DataError(f"{file}: not a task; check it out again")
    included = config.pop("include", None)
    return config if included is None else _task_file(file.parent / included) | config


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _from_braces(text: str, fields: Names, file: Path) -> str:
    r"""Translate a text in which {name} is a field, and every other brace a brace; \boxed{name} is none."""
    parts, done = [], 0
    for match in re.finditer(r"(\\[A-Za-z]+)?\{([A-Za-z_]\w*)\}", text):
        if match[1]:
            continue
        parts += [_escaped(text[done : match.start()]), _renamed(match[2], fields, file)]
        done = match.end()
    return "".join([*parts, _escaped(text[done:])])


def _from_jinja(text: str, fields: Names, file: Path) -> str:
    tests = r"\n".join(rf"\{{\{{\s*test_list\[{i}\]\s*\}}\}}" for i in range(3))
    parts, done = [], 0
    for match in re.finditer(rf"({tests})|\{{\{{\s*(.*?)\s*\}}\}}", text):
        parts.append(_escaped(text[done : match.start()]))
        parts.append(_renamed("test_list" if match[1] else match[2], fields, file))
        done = match.end()
    if "{%" in text:
        raise DataError(f"{file}: a template with statements ({{% %}}) cannot be read; check out the published version")
    return "".join([*parts, _escaped(text[done:])])


def _from_f_string(node: ast.JoinedStr, fields: Names, file: Path) -> str:
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(_escaped(str(part.value)))
        elif isinstance(part, ast.FormattedValue):
            parts.append(_renamed(ast.unparse(part.value), fields, file))
    return "".join(parts)


def _renamed(name: str, fields: Names, file: Path) -> str:
    if name not in fields:
        raise DataError(f"{file}: no field {{{name}}}; its templates may name {', '.join(fields)}")
    return f"{{{fields[name]}}}"
