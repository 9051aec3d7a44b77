"""The gate's findings for people and programs: a Markdown table, JUnit XML, and JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from xml.etree import ElementTree

from harness.results.gate.timing import Pace, Speed
from harness.results.gate.verdicts import Colour, Finding, Verdict

_COLUMNS = ("", "model", "setting", "task", "differs in", "samples", "first sample", "step", "what")
_TIMED = ("", "setting", "CPU time, times", "allowed", "rounds")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the gate has found; `blocks` says whether a slowdown is red, `notes` what a reader must know besides."""

    verdicts: Sequence[Verdict]
    speeds: Sequence[Speed] = ()
    blocks: bool = False
    notes: Sequence[str] = ()

    @property
    def slower(self) -> list[Speed]:
        """Settings that take more CPU time than they may."""
        return [one for one in self.speeds if one.pace is Pace.SLOWER]

    @property
    def red(self) -> bool:
        """Whether the gate is shut."""
        return any(one.red for one in self.verdicts) or (self.blocks and bool(self.slower))


def markdown(report: Report) -> str:
    """Return a summary, and a table of what differs."""
    red = sum(one.red for one in report.verdicts)
    green = sum(not one.findings for one in report.verdicts)
    shown = [(one, each) for one in report.verdicts for each in one.findings]
    lines = [
        f"### decbench gate: {'red' if report.red else 'green'}",
        "",
        f"{len(report.verdicts)} settings: {green} as in the baseline, {red} red, "
        f"{len(report.verdicts) - green - red} that differ without blame.",
    ]
    if shown:
        lines += ["", _row(_COLUMNS), "|---" * len(_COLUMNS) + "|", *(_row(_cells(*one)) for one in shown)]
    return "\n".join([*lines, *_timed(report), *(f"\n{note}" for note in report.notes)]) + "\n"


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in cells) + " |"


def _cells(verdict: Verdict, one: Finding) -> tuple[object, ...]:
    setting, colour = verdict.setting, f"**{one.colour.value}**" if one.colour is Colour.RED else one.colour.value
    told = (setting.model, f"`{setting.setting}`", setting.task, one.check)
    return (colour, *told, one.samples or None, one.sample, one.step, " ".join(one.detail.split()))


def _timed(report: Report) -> list[str]:
    if not report.speeds:
        return []
    notable = [one for one in report.speeds if one.pace is not Pace.ALIKE]
    effect = "blocks" if report.blocks else "advises"
    lines = [f"\nCPU time against the base, which {effect}: {len(report.speeds) - len(notable)} of "
             f"{len(report.speeds)} alike."]  # fmt: skip
    if notable:
        cells = ((one.pace.value, f"`{one.setting}`", f"{one.ratio:.3f}", f"{1 + one.allowed:.3f}", one.rounds)
                 for one in sorted(notable, key=lambda one: -one.ratio))  # fmt: skip
        lines += ["", _row(_TIMED), "|---" * len(_TIMED) + "|", *map(_row, cells)]
    return lines


def plain(report: Report) -> dict[str, object]:
    """Return all of it as JSON-able values."""
    return {
        "verdict": "red" if report.red else "green",
        "settings": [
            {
                **{name: getattr(one.setting, name) for name in ("setting_id", "model", "method", "setting", "task")},
                "samples": len(one.setting.answers),
                "verdict": "red" if one.red else "green",
                "findings": [asdict(each) | {"colour": each.colour.value} for each in one.findings],
            }
            for one in report.verdicts
        ],
        "time": [
            asdict(one) | {"allowed": 1 + one.allowed, "pace": one.pace.value, "blocks": report.blocks}
            for one in report.speeds
        ],
        "notes": list(report.notes),
    }


def junit(report: Report) -> str:
    """Return a test case per setting, and one per timed setting: red ones fail, what is not to blame is skipped."""
    suite = ElementTree.Element("testsuite", name="decbench gate")
    for verdict in report.verdicts:
        case = _case(suite, f"{verdict.setting.model}.{verdict.setting.method}", verdict.setting.label)
        _tell(case, verdict.red, [f"{one.colour.value}: {_line(one)}" for one in verdict.findings])
    for speed in report.speeds:
        told = f"{speed.pace.value}: {speed.ratio:.3f} times the base's CPU time, {1 + speed.allowed:.3f} allowed"
        case = _case(suite, "time", speed.setting)
        _tell(case, report.blocks and speed.pace is Pace.SLOWER, [told] if speed.pace is not Pace.ALIKE else [])
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("*/failure"))))
    suite.set("skipped", str(len(suite.findall("*/skipped"))))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, owner: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=owner, name=name)


def _tell(case: ElementTree.Element, red: bool, lines: Sequence[str]) -> None:
    if lines:
        told = ElementTree.SubElement(case, "failure" if red else "skipped", message=_printable(lines[0]))
        told.text = _printable("\n".join(lines))


def _printable(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return "".join(one if one in "\t\n\r" or one >= " " else repr(one)[1:-1] for one in text)


def _line(one: Finding) -> str:
    where = f"sample {one.sample}" + (f", step {one.step}" if one.step is not None else "")
    return f"{one.check}: {one.detail}" + (f" ({one.samples} samples, first: {where})" if one.sample else "")
